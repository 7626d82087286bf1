"""Virtual time on both kinds of event loop."""

import hashlib
import threading

import anyio
import anyio.to_thread
import pytest

from flowstream.testing.clock import Backend, VirtualClock, run_virtual

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_hour_takes_no_time_and_its_times_are_exact(backend: Backend) -> None:
    async def main(clock: VirtualClock) -> list[int]:
        begin_ns, seen = clock.now_ns(), []

        async def wake(at_s: float) -> None:
            await clock.sleep_until_ns(begin_ns + round(at_s * 1e9))
            seen.append(clock.now_ns() - begin_ns)

        async with anyio.create_task_group() as tasks:
            for at_s in (3600, 0.04, 1800, 0.04):
                tasks.start_soon(wake, at_s)
        assert clock.wallclock_ns() - clock.now_ns() == VirtualClock().wallclock_ns() - VirtualClock().now_ns()
        return seen

    assert run_virtual(main, backend=backend) == [40_000_000, 40_000_000, 1800 * 10**9, 3600 * 10**9]


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_stands_still_while_a_worker_is_at_work(backend: Backend) -> None:
    """Else the time limit of a call would be over before a thread had begun with it."""

    async def main(clock: VirtualClock) -> None:
        at_work, begin_ns = threading.Event(), clock.now_ns()

        def work() -> None:
            at_work.set()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)

        clock.hold()
        clock.hold()
        with anyio.fail_after(1):
            await anyio.to_thread.run_sync(work)
            clock.release()
            assert clock.is_held
            await anyio.to_thread.run_sync(work)
            clock.release()
        assert at_work.is_set()
        assert clock.now_ns() == begin_ns
        await anyio.sleep(5)
        assert clock.now_ns() - begin_ns == 5 * 10**9

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_deadline_that_is_over_is_over(backend: Backend) -> None:
    async def main(clock: VirtualClock) -> None:
        with anyio.move_on_after(60) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert clock.now_ns() == 61 * 10**9

    run_virtual(main, backend=backend)


def test_there_are_two_kinds() -> None:
    async def main(clock: VirtualClock) -> None:
        pass

    with pytest.raises(ValueError, match="there is no event loop 'curio', only asyncio and trio"):
        run_virtual(main, backend="curio")  # type: ignore[arg-type]
