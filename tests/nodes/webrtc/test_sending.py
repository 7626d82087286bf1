"""What a viewer is sent, and when: numbers, feedback, the pace, and what is given up when the link carries less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import anyio
import pytest

from flowstream import Caller, EncodedPacket
from flowstream.proto.congestion.pacer import BURST_NS, OPENING_BPS, Padding
from flowstream.proto.rtcp import Nack, ReceiverEstimate, to_ntp
from flowstream.proto.rtp import RtpPacket
from flowstream_nodes.webrtc._rungs import MAX_PAYLOAD

pytestmark = pytest.mark.anyio

MakeViewer = Callable[[], Any]
NUMBERS, CAPTURE_TIME = 6, 7


async def join(stage: Any, viewer: Any, **options: Any) -> Any:
    """Connects a player; gives its session."""
    admitted = stage.viewers.admit(viewer.offer(**options), Caller("127.0.0.1"))
    with anyio.fail_after(10):
        await viewer.connect(admitted.answer)
        session = stage.viewers.sessions[admitted.session_id]
        while not session.connected:
            await anyio.lowlevel.checkpoint()
    return session


async def arrive(viewer: Any, condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        await viewer.until(condition)


def numbers_of(packets: list[RtpPacket]) -> list[int]:
    return [int.from_bytes(dict(packet.extensions)[NUMBERS], "big") for packet in packets]


def pictures_of(viewer: Any) -> int:
    return sum(packet.marker for packet in viewer.rtp if packet.payload_type == 96)


async def test_one_counter_numbers_all_that_goes_to_a_viewer(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer, numbers=True)
        assert viewer.answer.count("transport-cc") == 2
        assert "goog-remb" not in viewer.answer
        stage.send_picture()
        stage.viewers.send_audio(EncodedPacket(stage.picture[0].caps, b"opus", time_ns=0), stage.feeder)
        await arrive(viewer, lambda: pictures_of(viewer) == 1)
        first = next(packet for packet in viewer.rtp if packet.payload_type == 96)
        viewer.send_rtcp(Nack(1, viewer.ssrcs[0], (first.sequence_number,)))
        await arrive(viewer, lambda: viewer.rtp[-1].payload_type == 97)
        assert {packet.payload_type for packet in viewer.rtp} == {96, 97, 111}
        assert sorted(numbers_of(viewer.rtp)) == list(range(len(viewer.rtp)))


@pytest.mark.parametrize(("offered", "asked"), [({"rtx": False}, "goog-remb"), ({}, "transport-cc")])
async def test_what_is_sent_twice_under_one_number_says_nothing_of_the_moment(
    stage_of: Any, make_viewer: MakeViewer, offered: dict[str, bool], asked: str
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer, numbers=True, **offered)
        assert f"a=rtcp-fb:96 {asked}" in viewer.answer
        stage.viewers.send_video(replace(stage.picture[0], capture_ns=stage.clock.now_ns()), stage.feeder)
        await arrive(viewer, lambda: pictures_of(viewer) == 1)
        of_the_moment = {NUMBERS, CAPTURE_TIME} & {number for packet in viewer.rtp for number, _ in packet.extensions}
        assert of_the_moment == (set() if asked == "goog-remb" else {NUMBERS, CAPTURE_TIME})


async def test_about_once_a_second_a_picture_says_when_it_was_taken(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer, numbers=True)
        taken: list[int] = []
        for _ in range(40):
            stage.clock.skip(1 / 30)
            taken.append(to_ntp(stage.clock.wallclock_ns() - 50_000_000))
            packet = stage.picture[stage.position]
            stage.position += 1
            stage.viewers.send_video(
                replace(packet, time_ns=stage.media_ns(), capture_ns=stage.clock.now_ns() - 50_000_000), stage.feeder
            )
            await arrive(viewer, lambda: pictures_of(viewer) == len(taken))
        told = [packet for packet in viewer.rtp if CAPTURE_TIME in dict(packet.extensions)]
        times = [int.from_bytes(dict(packet.extensions)[CAPTURE_TIME], "big") for packet in told]
        assert len(times) >= 2
        assert told[0] == viewer.rtp[0]
        assert all(min(abs(time - each) for each in taken) / 2**32 < 0.005 for time in times)
        assert all(0.9 < (later - time) / 2**32 < 1.5 for time, later in pairwise(times))


async def test_feedback_becomes_an_estimate_above_what_is_sent(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer, numbers=True)
        assert stage.viewers.reports()[0].bandwidth_bps is None
        stage.tasks.start_soon(stage.play)
        with anyio.fail_after(20):
            while (stage.viewers.reports()[0].bandwidth_bps or 0) < 4_000_000:
                await anyio.sleep(0.05)
                viewer.tell()
        (report,) = stage.viewers.reports()
        assert report.queue_delay_ms < 50
        assert session.sender.estimate().bound in ("nothing", "most", "sender")
        padding = [packet for packet in viewer.rtp if packet.payload_type == 97]
        assert padding, "probes are filled with what was sent before"
        video = [packet for packet in viewer.rtp if packet.payload_type == 96]
        assert all((b.sequence_number - a.sequence_number) & 0xFFFF == 1 for a, b in pairwise(video))


@pytest.mark.parametrize("may_repeat", [True, False])
async def test_a_probe_is_padded_with_no_more_than_it_takes(
    stage_of: Any, make_viewer: MakeViewer, may_repeat: bool
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer, numbers=True)
        stage.send_picture()
        await arrive(viewer, lambda: pictures_of(viewer) == 1)
        sizes: list[int] = []
        add = session.sender.estimator.packets.add

        def note(on_the_wire: Sequence[int], **more: Any) -> int:
            sizes.extend(on_the_wire)
            return int(add(on_the_wire, **more))

        session.sender.estimator.packets.add = note
        session.sender.may_repeat = may_repeat
        session.sender._pad(Padding(1280, 1), stage.clock.now_ns())
        assert 0.9 * 1280 <= sum(sizes) <= 1.1 * 1280
        sizes.clear()
        session.sender._pad(Padding(100, 1), stage.clock.now_ns())
        assert len(sizes) == 1, "less than a packet of nothing cannot be sent"


async def test_remb_is_the_estimate_where_nothing_better_comes(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer, rtx=False, numbers=True)
        viewer.send_rtcp(ReceiverEstimate(1, 1_500_000, (viewer.ssrcs[0],)))
        with anyio.fail_after(10):
            while session.sender.estimate() is None:
                await anyio.lowlevel.checkpoint()
        assert stage.viewers.reports()[0].bandwidth_bps == pytest.approx(1_500_000, rel=0.001)


async def test_a_large_picture_is_spread_over_time(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer, numbers=True)
        large = replace(stage.picture[0], data=b"\0\0\1\x65" + bytes(range(1, 256)) * 400)
        stage.viewers.send_video(large, stage.feeder)
        sent_at_once = session.streams["video"].packets_sent
        assert 0 < sent_at_once * MAX_PAYLOAD * 8 / OPENING_BPS <= 1.2 * BURST_NS / 1e9, "no more than 5 ms at once"
        began = stage.clock.now_ns()
        await arrive(viewer, lambda: pictures_of(viewer) == 1)
        # 102,000 bytes, half of them quickly because it is the beginning, the others at three times 600 kbit/s.
        assert 0.2 < (stage.clock.now_ns() - began) / 1e9 < 2


async def test_what_the_link_does_not_carry_is_given_up_as_whole_pictures(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer, rtx=False, numbers=True)
        viewer.send_rtcp(ReceiverEstimate(1, 50_000, (viewer.ssrcs[0],)))
        with anyio.fail_after(10):
            while session.sender.estimate() is None:
                await anyio.lowlevel.checkpoint()
        large = b"\0\0\1\x65" + bytes(range(1, 256)) * 20
        small = b"\0\0\1\x41" + bytes(range(1, 256)) * 20
        for index in range(60):
            stage.clock.skip(0.05)
            data = small if index else large
            packet = replace(stage.picture[0], data=data, keyframe=not index, time_ns=stage.media_ns())
            stage.viewers.send_video(packet, stage.feeder)
        assert session.sender.dropped_pictures > 10
        assert session.awaits_keyframe
        before = len(stage.requests)
        stage.clock.skip(5)
        with anyio.fail_after(10):
            while len(stage.requests) == before:
                await anyio.lowlevel.checkpoint()
        count = pictures_of(viewer)
        stage.viewers.send_video(
            replace(stage.picture[0], data=small, keyframe=False, time_ns=stage.media_ns()), stage.feeder
        )
        stage.viewers.send_video(replace(stage.picture[0], time_ns=stage.media_ns()), stage.feeder)
        await arrive(viewer, lambda: pictures_of(viewer) > count)
        video = [packet for packet in viewer.rtp if packet.payload_type == 96]
        assert all((b.sequence_number - a.sequence_number) & 0xFFFF == 1 for a, b in pairwise(video))
        assert video[-1].payload.endswith(stage.picture[0].data[-20:])
