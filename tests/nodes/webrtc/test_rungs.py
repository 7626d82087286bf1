"""Several renditions: encoded once each, and every viewer on the one that its link and the uplink carry."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest

from flowstream import Caller, EncodedPacket
from flowstream.proto.allocator import RISE
from flowstream.proto.congestion.probing import WORTH
from flowstream.proto.h264 import packetize, split_annex_b
from flowstream.proto.rtcp import ReceiverEstimate
from flowstream.testing import udp_link
from flowstream_nodes.webrtc._rungs import MAX_PAYLOAD, OF_SHARE, Rungs

pytestmark = pytest.mark.anyio

MakeViewer = Callable[[], Any]
NAMES = {0: "high", 1: "middle", 2: "low"}
RATES_BPS = (1_500_000, 600_000, 200_000)
FPS = 30


def picture(index: int, *, is_keyframe: bool, caps: Any) -> bytes:
    """An access unit of a rung's size: nobody here decodes it."""
    size = RATES_BPS[index] // 8 // FPS
    head = b"\0\0\1\x67\x42\xe0\x1f\0\0\1\x65" if is_keyframe else b"\0\0\1\x41"
    return head + bytes([index + 1]) * size


def test_whoever_finds_out_what_a_share_carries_finds_enough_to_rise() -> None:
    assert OF_SHARE / WORTH > RISE


class Ladder:
    """Three encoders, which give a keyframe when they are asked for one."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self.asked = [0, 0, 0]
        self._wanted = [True, True, True]
        self.caps = stage.picture[0].caps
        stage.feeder.rungs = lambda: NAMES
        stage.feeder.ask_keyframe = self._ask

    def _ask(self, index: int) -> None:
        self.asked[index] += 1
        self._wanted[index] = True

    def send(self) -> None:
        """A picture of each."""
        time_ns = self._stage.media_ns()
        for index in NAMES:
            is_keyframe, self._wanted[index] = self._wanted[index], False
            data = picture(index, is_keyframe=is_keyframe, caps=self.caps)
            packet = EncodedPacket(self.caps, data, time_ns=time_ns, keyframe=is_keyframe)
            self._stage.viewers.send_video(packet, self._stage.feeder, index)

    async def play(self) -> None:
        """Pictures in real time until cancelled."""
        began = anyio.current_time()
        for count in itertools.count():
            await anyio.sleep_until(began + count / FPS)
            self.send()


@pytest.fixture
async def stage(stage_of: Callable[..., Any]) -> AsyncIterator[Any]:
    async with stage_of() as stage:
        stage.most = 20
        yield stage


async def join(stage: Any, viewer: Any, answer: Callable[[str], str] = lambda text: text) -> Any:
    """Connects a player that tells of every packet; gives its session."""
    admitted = stage.viewers.admit(viewer.offer(numbers=True, audio=False), Caller("127.0.0.1"))
    with anyio.fail_after(10):
        await viewer.connect(answer(admitted.answer))
        session = stage.viewers.sessions[admitted.session_id]
        while not session.connected:
            await anyio.lowlevel.checkpoint()
    return session


def rungs_of(viewer: Any) -> list[str]:
    """The rung of each picture that came, in order."""
    ends = [packet for packet in viewer.rtp if packet.payload_type == 96 and packet.marker]
    return [NAMES[packet.payload[-1] - 1] for packet in ends]


async def keep_telling(viewers: list[Any]) -> None:
    while True:
        await anyio.sleep(0.05)
        for viewer in viewers:
            if viewer.socket.fileno() >= 0:
                with suppress(ConnectionRefusedError):  # the link to it has just been closed
                    viewer.tell()


async def until(viewer: Any, condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits while packets come in at a viewer."""
    with anyio.fail_after(seconds):
        await viewer.until(condition)


async def test_a_viewer_rises_with_its_link_and_nothing_jumps(stage: Any, make_viewer: MakeViewer) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    stage.tasks.start_soon(ladder.play)
    await join(stage, viewer)
    stage.tasks.start_soon(keep_telling, [viewer])
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["high"])
    seen = [rung for rung, _ in itertools.groupby(rungs_of(viewer))]
    assert seen in (["low", "high"], ["low", "middle", "high"])
    video = [packet for packet in viewer.rtp if packet.payload_type == 96]
    assert all((b.sequence_number - a.sequence_number) & 0xFFFF == 1 for a, b in pairwise(video))
    times = [packet.timestamp for packet in video if packet.marker]
    assert all(0 < (b - a) & 0xFFFFFFFF < 90_000 for a, b in pairwise(times))
    assert len({packet.ssrc for packet in video}) == 1
    (report,) = stage.viewers.reports()
    assert report.rung == "high"
    assert stage.viewers.rungs_text == "high 1"
    assert sum(ladder.asked) <= 4, "one keyframe for the beginning and for each change"


async def test_each_change_begins_with_a_keyframe(stage: Any, make_viewer: MakeViewer) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    session = await join(stage, viewer)
    for rung in (2, 0, 1):
        stage.viewers.rungs._allocator.decide([], [], now_ns=stage.clock.now_ns())
        session.switch.want(str(rung))
        before = len(viewer.rtp)
        ladder._wanted = [False, False, False]
        stage.clock.skip(1 / FPS)
        ladder.send()
        await anyio.lowlevel.checkpoint()
        ladder._wanted[rung] = True
        stage.clock.skip(1 / FPS)
        ladder.send()
        expected = packetize(split_annex_b(picture(rung, is_keyframe=True, caps=ladder.caps)), max_size=MAX_PAYLOAD)
        await until(viewer, lambda: [each.payload for each in viewer.rtp[-len(expected) :]] == expected)  # noqa: B023
        assert {each.payload[-1] for each in viewer.rtp[before : -len(expected)]} <= {1, 2, 3} - {rung + 1}
    assert session.switch.switches == 2


@pytest.mark.alone
async def test_ten_viewers_on_three_rungs_each_on_what_its_link_carries(stage: Any, make_viewer: MakeViewer) -> None:
    ladder = Ladder(stage)
    stage.tasks.start_soon(ladder.play)
    links = {"high": 4_000_000, "middle": 1_000_000, "low": 400_000}
    wanted = ["high"] * 4 + ["middle"] * 3 + ["low"] * 3
    viewers = [make_viewer() for _ in wanted]
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(behind(stage, viewer, {"rate": links[rung], "delay": "20ms"}))
            for viewer, rung in zip(viewers, wanted, strict=True)
        ]
        stage.tasks.start_soon(keep_telling, viewers)

        def carried() -> list[str]:
            """The highest rung within each estimate; one that wavers is not followed at once."""
            estimates = [session.sender.bandwidth_bps for session in sessions]
            return [NAMES[min(i for i in NAMES if i == 2 or RATES_BPS[i] * 1.06 <= bps)] for bps in estimates]

        await until(
            viewers[0],
            lambda: [report.rung for report in stage.viewers.reports()] == wanted == carried(),
            seconds=40,
        )
        assert stage.viewers.rungs_text == "high 4, middle 3, low 3"


@asynccontextmanager
async def behind(stage: Any, viewer: Any, conditions: dict[str, Any], *, seed: int = 0) -> AsyncIterator[Any]:
    """A viewer that is connected over a link; gives its session."""
    host, port = stage.viewers._mux.candidates()[0]
    async with udp_link((host, port), {"delay": conditions.get("delay", 0)}, conditions, seed=seed) as link:
        yield await join(
            stage, viewer, lambda text: text.replace(f"{host} {port} typ host", "{} {} typ host".format(*link.address))
        )


async def test_the_uplink_bounds_the_sum_and_nobody_starves(stage: Any, make_viewer: MakeViewer) -> None:
    ladder = Ladder(stage)
    stage.tasks.start_soon(ladder.play)
    stage.feeder.uplink_bps = lambda: 3_000_000
    viewers = [make_viewer() for _ in range(5)]
    for viewer in viewers:
        await join(stage, viewer)
    stage.tasks.start_soon(keep_telling, viewers)
    viewer = viewers[0]
    await until(viewer, lambda: stage.viewers.limited_by is not None)
    await until(viewer, lambda: len([each for each in stage.viewers.reports() if each.rung == "middle"]) >= 2)
    assert all(report.rung is not None for report in stage.viewers.reports())
    rates = {name: RATES_BPS[index] for index, name in NAMES.items()}
    assert sum(rates[report.rung] for report in stage.viewers.reports()) <= 3_000_000
    assert stage.viewers.limited_by.startswith("the uplink of 3M has no more for ")
    session = next(each for each in stage.viewers.sessions.values() if each.choice.reason == "uplink")
    assert stage.viewers.quality(session)["why"].endswith("the uplink of 3 Mbit/s has no more for this viewer")


async def test_a_viewer_chooses_and_is_told_what_it_gets(stage: Any, make_viewer: MakeViewer) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    stage.tasks.start_soon(ladder.play)
    session = await join(stage, viewer)
    stage.tasks.start_soon(keep_telling, [viewer])
    path = f"{stage.url}/whep/{session.id}/quality"
    async with httpx.AsyncClient() as http:
        await until(viewer, lambda: rungs_of(viewer)[-1:] == ["high"])
        told = (await http.get(path)).json()
        assert (told["chosen"], told["rung"], told["why"]) == ("auto", "high", "high is sent: it is the best there is")
        assert [each["name"] for each in told["rungs"]] == ["high", "middle", "low"]
        assert told["rungs"][0]["size"] == "640x360"
        assert told["rungs"][0]["bitrate"] == pytest.approx(RATES_BPS[0] * 1.06, rel=0.15)
        text = {"Content-Type": "text/plain"}
        told = (await http.post(path, content="middle", headers=text)).json()
        assert (told["chosen"], told["why"]) == ("middle", "middle is sent: the viewer has chosen it")
        await until(viewer, lambda: rungs_of(viewer)[-1:] == ["middle"])
        wrong = await http.post(path, content="huge", headers=text)
        assert (wrong.status_code, wrong.text) == (422, "There is no quality 'huge', but auto, high, middle, low.\n")
        assert (await http.get(f"{stage.url}/whep/nobody/quality")).status_code == 404
        await http.post(path, content="auto", headers=text)
        await until(viewer, lambda: rungs_of(viewer)[-1:] == ["high"])


async def test_who_is_capped_gets_a_lower_rung(stage: Any, make_viewer: MakeViewer) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    stage.tasks.start_soon(ladder.play)
    session = await join(stage, viewer)
    stage.tasks.start_soon(keep_telling, [viewer])
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["high"])
    seat = stage.viewers.seat(session.id)
    stage.viewers.registry.cap(seat.viewer, 900_000)
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["middle"])
    assert stage.viewers.quality(session)["why"] == "middle is sent: the viewer's cap allows no more"


async def test_a_link_too_narrow_for_all_pauses_the_picture_until_it_is_wider(
    stage: Any, make_viewer: MakeViewer
) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    stage.tasks.start_soon(ladder.play)
    admitted = stage.viewers.admit(viewer.offer(numbers=True, rtx=False), Caller("127.0.0.1"))
    with anyio.fail_after(10):
        await viewer.connect(admitted.answer)
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["low"])

    async def tell(bps: int) -> None:
        while True:
            viewer.send_rtcp(ReceiverEstimate(1, bps, (viewer.ssrcs[0],)))
            await anyio.sleep(0.1)

    session = stage.viewers.sessions[admitted.session_id]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell, 100_000)
        await until(viewer, lambda: session.choice.rung is None)
        assert stage.viewers.quality(session)["why"] == "no picture is sent: the viewer's link carries no more"
        tasks.cancel_scope.cancel()
    count = len(rungs_of(viewer))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell, 5_000_000)
        await until(viewer, lambda: rungs_of(viewer)[count:][-1:] == ["high"])
        tasks.cancel_scope.cancel()


def test_rungs_are_in_the_order_in_which_they_are_named_whichever_comes_first() -> None:
    rungs = Rungs()
    for index in (2, 0):
        rungs.at(index)
    rungs.follow(NAMES)
    assert [rung.name for rung in rungs] == ["high", "middle", "low"]


async def test_a_rung_that_is_gone_is_left(stage: Any, make_viewer: MakeViewer) -> None:
    ladder, viewer = Ladder(stage), make_viewer()
    stage.tasks.start_soon(ladder.play)
    await join(stage, viewer)
    stage.tasks.start_soon(keep_telling, [viewer])
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["high"])
    names = {1: "middle", 2: "low"}
    stage.feeder.rungs = lambda: names
    send_video = stage.viewers.send_video
    stage.viewers.send_video = lambda packet, feeder, index: index in names and send_video(packet, feeder, index)
    await until(viewer, lambda: rungs_of(viewer)[-1:] == ["middle"])
    assert [rung.name for rung in stage.viewers.rungs] == ["middle", "low"]


@pytest.mark.alone
async def test_ten_viewers_share_an_uplink_without_a_queue_and_nobody_starves(
    stage: Any, make_viewer: MakeViewer
) -> None:
    ladder = Ladder(stage)
    stage.tasks.start_soon(ladder.play)
    stage.feeder.uplink_bps = lambda: 12_000_000
    host, port = stage.viewers._mux.candidates()[0]
    viewers = [make_viewer() for _ in range(10)]
    async with udp_link((host, port), {"delay": "10ms"}, {"rate": "12M", "delay": "10ms"}) as link:
        there = "{} {} typ host".format(*link.address)
        for viewer in viewers:
            await join(stage, viewer, lambda text: text.replace(f"{host} {port} typ host", there))
        stage.tasks.start_soon(keep_telling, viewers)
        await until(
            viewers[0],
            lambda: sum(report.rung in ("high", "middle") for report in stage.viewers.reports()) == 10,
            seconds=40,
        )
        seen = [len(rungs_of(viewer)) for viewer in viewers]
        waits_ms: list[float] = []
        looked_ns = ends_ns = stage.clock.now_ns()
        ends_ns += 5_000_000_000

        def look() -> bool:
            nonlocal looked_ns
            now_ns = stage.clock.now_ns()
            if now_ns - looked_ns > 20_000_000:
                looked_ns = now_ns
                waits_ms.extend(report.queue_delay_ms for report in stage.viewers.reports())
            return bool(now_ns > ends_ns)

        await until(viewers[0], look)
        assert sorted(waits_ms)[int(0.95 * len(waits_ms))] <= 100
        assert all(len(rungs_of(viewer)) - count > 100 for viewer, count in zip(viewers, seen, strict=True))
        rates = {name: RATES_BPS[index] for index, name in NAMES.items()}
        assert sum(rates[report.rung] for report in stage.viewers.reports()) <= 12_000_000
