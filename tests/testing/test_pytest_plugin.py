"""The pytest plugin for node authors: fixtures, markers, and quiet where nobody asked for it."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["flowstream.testing.pytest_plugin"]'


def run(pytester: pytest.Pytester, text: str, **outcomes: int) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(text)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(**outcomes)
    return result


def test_harness_is_open_and_is_closed_after_the_test(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        import threading
        from flowstream.testing import make_frame
        from flowstream_nodes.video.throttle import Throttle

        made = []

        def test_one(harness):
            throttle = harness(Throttle, {"max_fps": 10.0}, threads=True)
            made.append(throttle)
            assert len(throttle.push(make_frame())) == 1

        def test_it_is_closed():
            assert made[0].loop.is_closed()
        """,
        passed=2,
    )


def test_leaks_count_where_they_are_asked_for(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest, socket
        kept = []

        def test_nobody_asked():
            kept.append(socket.socket())

        @pytest.mark.no_leaks
        def test_asked():
            kept.append(socket.socket())

        def test_tidies_up():
            for each in kept:
                each.close()
        """,
        passed=3,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_asked*", "the test leaves open: open socket:*"])


def test_an_hour_in_virtual_time(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import anyio, pytest

        @pytest.fixture
        def hours():
            return 2

        @pytest.mark.virtual
        async def test_an_hour(virtual_clock, hours):
            begin_ns = virtual_clock.now_ns()
            await anyio.sleep(3600 * hours)
            assert virtual_clock.now_ns() - begin_ns == 3600 * hours * 10**9

        @pytest.mark.virtual
        async def test_without_the_clock():
            await anyio.sleep(3600)

        @pytest.mark.virtual
        def test_is_not_async():
            pass
        """,
        passed=2,
        failed=1,
    )
    result.stdout.fnmatch_lines(["a test marked virtual is an async function"])


def test_an_hour_in_virtual_time_on_trio(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import anyio, pytest, trio

        pytestmark = pytest.mark.virtual(backend="trio")

        async def test_an_hour(virtual_clock):
            begin_ns, begin = virtual_clock.now_ns(), trio.current_time()
            await trio.sleep(3600)
            assert virtual_clock.now_ns() - begin_ns == 3600 * 10**9
            assert trio.current_time() - begin == 3600

        async def test_without_the_clock():
            await anyio.sleep(3600)

        @pytest.mark.virtual(backend="curio")
        async def test_on_another():
            pass
        """,
        passed=2,
        failed=1,
    )
    result.stdout.fnmatch_lines(["there is no event loop 'curio', only asyncio and trio"])


def test_loading_it_loads_neither_media_libraries_nor_the_kit() -> None:
    code = (
        "import sys, flowstream.testing.pytest_plugin;"
        "heavy = ('numpy', 'av', 'anyio', 'pydantic', 'flowstream.testing.harness');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_kit_knows_its_names() -> None:
    import flowstream.testing

    for name in flowstream.testing.__all__:
        assert getattr(flowstream.testing, name) is not None
    with pytest.raises(AttributeError, match=r"'flowstream\.testing' has no attribute 'Harnes'"):
        _ = flowstream.testing.Harnes  # type: ignore[attr-defined]
