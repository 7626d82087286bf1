"""Viewers on real sockets, without a browser: what they get, what they may ask for, and how they end."""

from __future__ import annotations

import gc
import re
import socket
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from flowstream import Caller, DoorClosed, EncodedPacket
from flowstream.proto.h264 import packetize, split_annex_b
from flowstream.proto.ice import Pair
from flowstream.proto.rtcp import (
    Bye,
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    pack_compound,
    to_ntp,
)
from flowstream.proto.rtp import RtpPacket, Unwrapper
from flowstream.proto.sdpfrag import Fragment
from flowstream_nodes.webrtc import _mux, _rungs, _session, _stream
from flowstream_nodes.webrtc._rungs import MAX_PAYLOAD
from flowstream_nodes.webrtc._viewers import Feeder

pytestmark = pytest.mark.anyio

MakeViewer = Callable[[], Any]
TWCC = bytes.fromhex("afcd000600000001000000020001000300010000200304010201" "0002")  # fmt: skip


CALLER = Caller("127.0.0.1")


async def join(stage: Any, viewer: Any, **options: Any) -> Any:
    """Connects a player; gives its session."""
    admitted = stage.viewers.admit(viewer.offer(**options), CALLER)
    with anyio.fail_after(10):
        await viewer.connect(admitted.answer)
        session = stage.viewers.sessions[admitted.session_id]
        while not session.connected:
            await anyio.lowlevel.checkpoint()
    return session


async def send_pictures(stage: Any, viewer: Any, count: int) -> list[EncodedPacket]:
    """Sends some pictures, each a frame apart and each when the one before has arrived at a player."""
    sent = []
    for _ in range(count):
        stage.clock.skip(1 / 30)
        packet = stage.send_picture()
        await arrive(viewer, partial(has_arrived, viewer, payloads_of(packet)[-1]))
        sent.append(packet)
    return sent


def has_arrived(viewer: Any, payload: bytes) -> bool:
    """Whether the last packet of a player's picture carries a payload."""
    return any(packet.payload == payload for packet in video_of(viewer)[-1:])


def has_goodbye(viewer: Any) -> bool:
    return any(isinstance(packet, Bye) for packet in viewer.rtcp)


async def arrive(viewer: Any, condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        await viewer.until(condition)


def payloads_of(packet: EncodedPacket) -> list[bytes]:
    return packetize(split_annex_b(packet.data), max_size=MAX_PAYLOAD)


def video_of(viewer: Any) -> list[RtpPacket]:
    return [packet for packet in viewer.rtp if packet.ssrc == viewer.ssrcs[0]]


async def test_a_viewer_gets_the_very_bytes_from_a_keyframe_on(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        stage.position = 3  # in the middle of a group of pictures
        viewer = make_viewer()
        await join(stage, viewer)
        assert len(stage.requests) == 1
        stage.position = 3  # an encoder that takes its time: pictures before the keyframe are not for this viewer
        while not stage.picture[stage.position].keyframe:
            stage.clock.skip(1 / 30)
            stage.send_picture()
        sent = await send_pictures(stage, viewer, 20)
        assert sent[0].keyframe
        packets = video_of(viewer)
        assert [packet.payload for packet in packets] == [each for packet in sent for each in payloads_of(packet)]
        numbers = [packet.sequence_number for packet in packets]
        assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
        assert sum(packet.marker for packet in packets) == len(sent)
        assert {packet.payload_type for packet in packets} == {96}
        assert {packet.extensions for packet in packets} == {((3, b"0"), (5, _stream.PLAYOUT_DELAY))}
        unwrapper = Unwrapper(32)
        times = sorted({unwrapper.unwrap(packet.timestamp) for packet in packets})
        assert len(times) == len(sent)
        assert times[-1] - times[0] == pytest.approx((sent[-1].time_ns - sent[0].time_ns) * 90 / 10**6, abs=1)
        assert len(stage.requests) == 1


async def test_sound_is_one_payload_a_packet_and_needs_no_keyframe(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer)
        sound = [EncodedPacket(stage.picture[0].caps, b"opus%d" % n, time_ns=20_000_000 * n) for n in range(5)]
        for packet in sound:
            stage.viewers.send_audio(packet, stage.feeder)
        await arrive(viewer, lambda: len(viewer.rtp) == 5)
        assert [packet.payload for packet in viewer.rtp] == [packet.data for packet in sound]
        assert {packet.payload_type for packet in viewer.rtp} == {111}
        assert not any(packet.marker for packet in viewer.rtp)
        assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in zip(viewer.rtp, viewer.rtp[1:], strict=False)} == {
            960
        }


async def test_a_second_viewer_joins_with_one_request_and_disturbs_nobody(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of() as stage:
        first, second = make_viewer(), make_viewer()
        await join(stage, first)
        await send_pictures(stage, first, 5)
        stage.clock.skip(1)
        await join(stage, second)
        assert len(stage.requests) == 2
        sent = await send_pictures(stage, second, 10)
        assert sent[0].keyframe
        await arrive(first, lambda: video_of(first)[-1].payload == video_of(second)[-1].payload)
        assert [p.payload for p in video_of(first)][-len(video_of(second)) :] == [p.payload for p in video_of(second)]
        numbers = [packet.sequence_number for packet in video_of(first)]
        assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
        assert stage.viewers.connected == 2


async def test_the_handshake_does_not_wait_for_the_nomination(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        nominate, viewer.check = viewer.check, partial(viewer.check, nominate=False)
        session = await join(stage, viewer)
        assert session.ice.selected is None
        began_with = session.sender.pair
        await send_pictures(stage, viewer, 2)
        nominate()
        with anyio.fail_after(10):
            while session.ice.selected is None:
                await anyio.lowlevel.checkpoint()
        assert session.ice.selected == session.sender.pair == began_with
        await send_pictures(stage, viewer, 2)
        assert len({packet.ssrc for packet in video_of(viewer)}) == 1


async def test_media_waits_for_the_viewers_keys_but_no_longer(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "SETTLES_S", 3600)
    async with stage_of() as stage:
        viewer = make_viewer()
        admitted = stage.viewers.admit(viewer.offer(), CALLER)
        session = stage.viewers.sessions[admitted.session_id]
        with anyio.fail_after(10):
            await viewer.connect(admitted.answer)
            while session._protection is None:
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            assert not session.connected
            await viewer.dtls._send_data(b"whatever it is, its keys are there")
            while not session.connected:
                await anyio.lowlevel.checkpoint()
        await send_pictures(stage, viewer, 2)


async def test_who_comes_sees_what_was_just_made_before_anything_new_is(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rungs, "RECENT_NS", 60_000_000_000)
    async with stage_of() as stage:
        first = make_viewer()
        await join(stage, first)
        assert stage.requests
        await send_pictures(stage, first, 4)
        asked = len(stage.requests)
        second = make_viewer()
        await join(stage, second)
        payloads = [packet.payload for packet in video_of(first)]
        await arrive(second, lambda: [packet.payload for packet in video_of(second)] == payloads)
        assert [rung.requests.deadline_ns for rung in stage.viewers.rungs] == [None], "no keyframe is still to be asked"
        assert len(stage.requests) == asked
        await send_pictures(stage, second, 2)
        assert sorted({packet.timestamp for packet in video_of(second)}) == list(
            dict.fromkeys(packet.timestamp for packet in video_of(second))
        )
        third, asked = make_viewer(), len(stage.requests)
        monkeypatch.setattr(_rungs, "RECENT_NS", 0)
        stage.clock.skip(1)
        await join(stage, third)
        assert len(stage.requests) > asked, "that was long ago"
        assert video_of(third) == []


async def test_keyframe_requests_of_several_viewers_are_one(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewers = [make_viewer(), make_viewer()]
        for viewer in viewers:
            await join(stage, viewer)
        sent = await send_pictures(stage, viewers[0], 3)
        assert sent[0].keyframe
        stage.clock.skip(1)
        before = len(stage.requests)
        for viewer in viewers:
            ssrc = viewer.ssrcs[0]
            viewer.send_rtcp(PictureLossIndication(1, ssrc), FullIntraRequest(1, ((ssrc, 7),)))
            # Feedback that we do not use, padded as Chromium does, spoils nothing of its compound.
            viewer.send_rtcp(PictureLossIndication(1, ssrc), before=ReceiverReport(1).to_bytes() + TWCC)
        with anyio.fail_after(10):
            while len(stage.requests) == before:
                await anyio.lowlevel.checkpoint()
        for viewer in viewers:  # an answered check proves that what was sent before it has been read
            viewer.checked.clear()
            viewer.check()
            await viewer.checked.wait()
        assert len(stage.requests) == before + 1
        assert stage.send_picture().keyframe


@pytest.mark.parametrize("rtx", [True, False], ids=["rtx", "plain"])
async def test_lost_packets_are_sent_again_once_a_round_trip(stage_of: Any, make_viewer: MakeViewer, rtx: bool) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        lost: list[RtpPacket] = []

        def lose(packet: RtpPacket) -> bool:
            if packet.payload_type == 96 and len(lost) < 3:
                lost.append(packet)
                return True
            return False

        session = await join(stage, viewer, rtx=rtx)
        viewer.lose = lose
        sent = []
        for _ in range(4):
            stage.clock.skip(1 / 30)
            sent += payloads_of(stage.send_picture())
        await arrive(viewer, lambda: len(lost) == 3 and len(viewer.rtp) == len(sent) - 3)
        count = len(viewer.rtp)
        numbers = tuple(packet.sequence_number for packet in lost)
        nack = Nack(1, viewer.ssrcs[0], numbers)
        viewer.send_rtcp(nack, nack)  # repeated in haste: not answered again
        await arrive(viewer, lambda: len(viewer.rtp) >= count + 3)
        viewer.checked.clear()
        viewer.check()
        await viewer.checked.wait()
        again = viewer.rtp[count:]
        if rtx:
            assert {packet.payload_type for packet in again} == {97}
            assert {packet.ssrc for packet in again} == {viewer.ssrcs[1]}
            wrapped = [number.to_bytes(2, "big") + payload for number, payload in zip(numbers, sent, strict=False)]
            assert [packet.payload for packet in again] == wrapped
        else:
            assert again == [replace(packet, payload=payload) for packet, payload in zip(lost, sent, strict=False)]
        assert session.streams["video"].packets_resent == 3


async def test_sender_reports_tie_picture_and_sound_to_one_clock(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer)
        stage.clock.skip(5)
        at_ns = stage.media_ns()
        stage.viewers.send_video(replace(stage.picture[0], time_ns=at_ns), stage.feeder)
        stage.viewers.send_audio(EncodedPacket(stage.picture[0].caps, b"opus", time_ns=at_ns), stage.feeder)
        await arrive(viewer, lambda: sum(isinstance(each, SenderReport) for each in viewer.rtcp) >= 2)
        reports = {each.ssrc: each for each in viewer.rtcp if isinstance(each, SenderReport)}
        assert len(reports) == 2
        said = []
        for packet in viewer.rtp:
            report = reports[packet.ssrc]
            rate = 48_000 if packet.payload_type == 111 else 90_000
            behind = ((report.rtp_timestamp - packet.timestamp) & 0xFFFFFFFF) / rate
            said.append(report.ntp_time / 2**32 - behind)
        # Both say the same wallclock time for the same media time, and it is the time at which it was sent.
        assert max(said) - min(said) < 0.001
        assert said[0] - 2_208_988_800 == pytest.approx(stage.clock.wallclock_ns() / 1e9, abs=2)
        descriptions = [each for each in viewer.rtcp if isinstance(each, SourceDescription)]
        assert len({name for each in descriptions for _, name in each.cnames}) == 1
        assert reports[viewer.ssrcs[0]].packet_count == len(video_of(viewer))


async def test_receiver_reports_give_loss_and_round_trip(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        await send_pictures(stage, viewer, 2)
        await arrive(viewer, lambda: any(isinstance(each, SenderReport) for each in viewer.rtcp))
        report = next(each for each in viewer.rtcp if isinstance(each, SenderReport))
        block = ReportBlock(viewer.ssrcs[0], 25, 3, 9, 0, (report.ntp_time >> 16) & 0xFFFFFFFF, 0)
        stage.clock.skip(0.05)
        viewer.send_rtcp(ReceiverReport(1, (block, replace(block, ssrc=12345))))
        with anyio.fail_after(10):
            while session.streams["video"].last_report is None:
                await anyio.lowlevel.checkpoint()
        assert session.streams["video"].last_report == block
        assert session.round_trip_ns > 49_000_000
        (told,) = stage.viewers.reports()
        assert told.loss == block.fraction_lost / 256
        assert told.rtt_ms == session.round_trip_ns / 1e6
        assert told.bandwidth_bps is None
        assert told.viewer != session.id, "the id is a key: whoever knows it can end the session"


async def test_a_loss_that_no_count_bears_out_is_none(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        await send_pictures(stage, viewer, 2)
        for lost, fraction, believed in ((0, 249, 0), (3, 25, 25), (3, 200, 0), (9, 200, 200)):
            block = ReportBlock(viewer.ssrcs[0], fraction, lost, 9, 0, 0, 0)
            session._handle_report(block, session._clock.now_ns())
            assert session.streams["video"].last_report == replace(block, fraction_lost=believed)


async def test_a_report_counts_when_it_came_but_for_the_sender_time_does_not_go_back(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        told: list[tuple[int, int]] = []
        monkeypatch.setattr(
            session.sender, "handle_report", lambda *, loss, round_trip_ns, now_ns: told.append((round_trip_ns, now_ns))
        )
        wallclock_ns, now_ns = session._clock.wallclock_ns(), session._clock.now_ns()
        session._looked_ns = 0  # at no tick since
        sent = to_ntp(wallclock_ns - 300_000_000) >> 16 & 0xFFFFFFFF
        for waited_ns in (100_000_000, 200_000_000):
            report = ReceiverReport(1, (ReportBlock(viewer.ssrcs[0], 0, 0, 9, 0, sent, 0),))
            data = viewer.dtls._tx_srtp.protect_rtcp(pack_compound([report]))
            session.handle_reports(data, session.sender.pair, waited_ns=waited_ns)
        passed_ns = session._clock.now_ns() - now_ns
        (first_trip_ns, first_ns), (_, second_ns) = told
        assert 0 <= first_ns - (now_ns - 100_000_000) <= passed_ns
        assert 199_000_000 <= first_trip_ns <= 200_000_000 + passed_ns, "it took no longer for having waited here"
        assert second_ns == first_ns, "it came before the other one, but was heard after it"


async def test_what_fails_at_a_report_ends_that_session_only(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage_of() as stage:
        bad, good = make_viewer(), make_viewer()
        sessions = [await join(stage, viewer) for viewer in (bad, good)]
        monkeypatch.setattr(sessions[0].sender, "handle_report", lambda **given: 1 // 0)
        for viewer in (bad, good):
            viewer.send_rtcp(ReceiverReport(1, (ReportBlock(viewer.ssrcs[0], 0, 0, 9, 0, 0, 0),)))
        with anyio.fail_after(10):
            while sessions[1].streams["video"].last_report is None:
                await anyio.lowlevel.checkpoint()
        assert sessions[0].closed_because == "failed: integer division or modulo by zero"
        assert sessions[1].closed_because is None
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all comes in on one socket")
@pytest.mark.parametrize("is_calm", [True, False])
async def test_reports_wait_for_the_next_tick_while_all_viewers_are_calm(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch, is_calm: bool
) -> None:
    monkeypatch.setattr(_session.ViewerSession, "reports_can_wait", property(lambda session: is_calm))
    ticks: list[int] = []
    heard: list[int] = []
    async with stage_of() as stage:
        viewer, mux = make_viewer(), stage.viewers._mux
        session = await join(stage, viewer)
        await send_pictures(stage, viewer, 2)
        take, handle = mux.take_reports, session.handle_reports

        def tick() -> int:
            ticks.append(len(heard))
            taken = take()
            ticks.append(len(heard))
            return taken

        def hear(data: bytes, pair: Any, *, waited_ns: int) -> None:
            heard.append(waited_ns)
            handle(data, pair, waited_ns=waited_ns)

        monkeypatch.setattr(mux, "take_reports", tick)
        monkeypatch.setattr(session, "handle_reports", hear)
        with anyio.fail_after(10):
            while mux._is_held != is_calm:
                await anyio.lowlevel.checkpoint()
            for count in range(1, 8):
                viewer.send_rtcp(ReceiverReport(1, (ReportBlock(viewer.ssrcs[0], 0, 0, 9, 0, 0, 0),)))
                while len(heard) < count:
                    await anyio.lowlevel.checkpoint()
        in_ticks = sum(after - before for before, after in zip(ticks[::2], ticks[1::2], strict=True))
        # A tick that was due just then may have been quicker than the loop.
        assert in_ticks == len(heard) if is_calm else in_ticks < len(heard) // 2


async def test_a_player_that_tells_nothing_of_packets_keeps_no_report_from_waiting(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of() as stage:
        for numbers in (False, True):
            session = await join(stage, make_viewer(), numbers=numbers)
            assert not session.sender.is_calm
            assert session.reports_can_wait == (not numbers)


async def test_a_new_node_feeds_the_same_viewer_and_nothing_jumps(
    stage_of: Any, make_viewer: MakeViewer, pictures: Any
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        await send_pictures(stage, viewer, 4)
        before = len(video_of(viewer))
        asked: list[int] = []
        newer = Feeder(lambda: frozenset({"video"}), lambda: 10, lambda index: asked.append(1), lambda: None)
        other_size = pictures((320, 180), 1)
        assert other_size[0].keyframe
        with stage.viewers.feeding(newer, media_ns=stage.media_ns()):
            stage.clock.skip(1 / 30)
            stage.viewers.send_video(replace(other_size[0], time_ns=stage.media_ns()), newer)
            stage.send_picture()  # the old node's tail comes too late
            # A timeline that repeats itself does not repeat a timestamp: two pictures would become one.
            stage.viewers.send_video(replace(other_size[1], time_ns=stage.media_ns() - 10**9), newer)
            expected = payloads_of(other_size[0]) + payloads_of(other_size[1])
            await arrive(viewer, lambda: len(video_of(viewer)) >= before + len(expected))
            packets = video_of(viewer)
            assert [packet.payload for packet in packets[before:]] == expected
            numbers = [packet.sequence_number for packet in packets]
            assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
            unwrapper = Unwrapper(32)
            times = [unwrapper.unwrap(packet.timestamp) for packet in packets]
            assert times == sorted(times)
            assert len(set(times)) == 6
            stage.clock.skip(1)
            viewer.send_rtcp(PictureLossIndication(1, viewer.ssrcs[0]))
            with anyio.fail_after(10):
                while not asked:
                    await anyio.lowlevel.checkpoint()
        assert session.connected
        stage.send_picture()
        await arrive(viewer, lambda: len(video_of(viewer)) > before + len(expected))


async def gone(stage: Any) -> None:
    with anyio.fail_after(10):
        while stage.viewers.sessions:
            await anyio.lowlevel.checkpoint()


async def test_a_viewer_that_closes_is_let_go_at_once(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        await viewer.leave()
        await gone(stage)
        assert session.closed_because == "the viewer left"


async def test_what_the_kernel_has_no_room_for_is_counted_and_told(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullSocket:
        def sendto(self, data: bytes, address: Any) -> int:
            raise BlockingIOError

        def sendmsg(self, buffers: Any, controls: Any, flags: int, address: Any) -> int:
            raise BlockingIOError

    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        told = anyio.Event()
        monkeypatch.setattr(stage.feeder, "on_change", told.set)
        port = stage.viewers._mux._ports["127.0.0.1"]
        with monkeypatch.context() as patch:
            patch.setattr(port, "socket", FullSocket())
            stage.send_picture()
            with anyio.fail_after(10):
                await told.wait()
        assert stage.viewers.unsent_packets > 0
        # The viewer asks for what it misses.
        first = video_of(viewer)
        assert first == []
        await send_pictures(stage, viewer, 1)
        number = video_of(viewer)[0].sequence_number
        viewer.send_rtcp(Nack(1, viewer.ssrcs[0], ((number - 1) & 0xFFFF,)))
        await arrive(viewer, lambda: any(packet.payload_type == 97 for packet in viewer.rtp))
        assert session.connected


async def test_nothing_is_left_of_viewers_that_came_and_went(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        sessions = []
        for _ in range(3):
            stage.clock.skip(1)
            viewer = make_viewer()
            sessions.append(weakref.ref(await join(stage, viewer)))
            await send_pictures(stage, viewer, 2)
            await viewer.leave()
            await gone(stage)
        gc.collect()
        assert [session() for session in sessions] == [None, None, None]


async def test_a_silent_viewer_is_let_go_when_its_consent_ends(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        stage.clock.skip(29)
        viewer.checked.clear()
        viewer.check()
        await viewer.checked.wait()
        stage.clock.skip(29)
        await send_pictures(stage, viewer, 1)
        assert session.connected
        stage.clock.skip(1.1)
        await gone(stage)
        assert session.closed_because == "it was silent for 30 s"


async def test_after_a_restart_of_ice_the_same_stream_goes_on_elsewhere(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        await send_pictures(stage, viewer, 3)
        here, before = session.ice.selected, session.ice.ufrag
        answer = stage.viewers.restart(session, Fragment("anew", "x" * 22, 0))
        await send_pictures(stage, viewer, 3)  # nobody has nominated another path yet
        assert session.ice.selected == here
        viewer.restart(answer, "anew")
        with anyio.fail_after(10):
            await viewer.checked.wait()
        await send_pictures(stage, viewer, 3)
        assert session.ice.selected != here
        assert session.ice.ufrags == (session.ice.ufrag,)
        assert before not in stage.viewers._mux._sessions
        numbers = [packet.sequence_number for packet in video_of(viewer)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        stage.viewers.dismiss(session.id)
        await gone(stage)
        assert not stage.viewers._mux._sessions
        assert not stage.viewers._mux._peers


async def test_whoever_is_dismissed_hears_goodbye(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        assert stage.viewers.dismiss(session.id)
        assert not stage.viewers.dismiss("somebody else")
        await gone(stage)
        assert session.closed_because == "it said goodbye"
        await arrive(viewer, partial(has_goodbye, viewer))
        (bye,) = [each for each in viewer.rtcp if isinstance(each, Bye)]
        assert set(bye.ssrcs) == {viewer.ssrcs[0], viewer.ssrcs[2]}
        await arrive(viewer, lambda: viewer.dtls.state == "closed")


async def test_the_end_of_the_server_is_told_to_everybody(stage_of: Any, make_viewer: MakeViewer) -> None:
    viewers = [make_viewer(), make_viewer()]
    async with stage_of() as stage:
        for viewer in viewers:
            await join(stage, viewer)
    for viewer in viewers:
        await arrive(viewer, partial(has_goodbye, viewer))


async def test_an_offer_that_nobody_follows_up_is_given_up(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "SETUP_S", 0.05)
    async with stage_of() as stage:
        admitted = stage.viewers.admit(make_viewer().offer(), CALLER)
        session = stage.viewers.sessions[admitted.session_id]
        await gone(stage)
        assert session.closed_because == "not connected within 0 s: no ICE check came in"


async def test_an_offer_can_be_taken_back_before_it_connects(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        admitted = stage.viewers.admit(make_viewer().offer(), CALLER)
        stage.viewers.dismiss(admitted.session_id)
        await gone(stage)


async def test_a_viewer_with_another_certificate_than_it_offered_is_refused(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        admitted = stage.viewers.admit(
            re.sub(r"(?<=sha-256 )..", lambda byte: f"{int(byte[0], 16) ^ 1:02X}", viewer.offer()), CALLER
        )
        session = stage.viewers.sessions[admitted.session_id]
        with anyio.fail_after(10):
            await viewer.connect(admitted.answer)
        await gone(stage)
        assert session.closed_because == "its DTLS handshake failed"


async def test_a_check_with_a_guessed_password_connects_nobody(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        admitted = stage.viewers.admit(viewer.offer(), CALLER)
        session = stage.viewers.sessions[admitted.session_id]
        forged = re.sub(r"a=ice-pwd:\S+", f"a=ice-pwd:{'x' * 24}", admitted.answer)
        with anyio.move_on_after(0.3) as waited:
            await viewer.connect(forged)
        assert waited.cancelled_caught
        assert session.ice.selected is None
        assert not viewer.checked.is_set()


async def test_there_are_no_more_viewers_than_may_be(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        stage.most = 1
        await join(stage, make_viewer())
        with pytest.raises(DoorClosed, match="the only place is taken"):
            stage.viewers.admit(make_viewer().offer(), CALLER)
        stage.most = 2
        stage.viewers.admit(make_viewer().offer(), CALLER)
        with pytest.raises(DoorClosed, match="all 2 places are taken"):
            stage.viewers.admit(make_viewer().offer(), CALLER)


async def test_noise_on_the_port_disturbs_nobody(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        session = await join(stage, viewer)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for first in range(0, 256, 5):
                noise = bytes((first, 0xC9)) + b"\x00\x10\x21\x12\xa4\x42" + bytes(40)
                stranger.sendto(noise, viewer.remote)
                viewer.socket.send(noise)  # and from a viewer's own address
            stranger.sendto(b"", viewer.remote)
        viewer.socket.send(b"\x80\xc9" + bytes(1500))
        await send_pictures(stage, viewer, 5)
        assert session.connected
        assert session.damaged_datagrams > 0


async def test_a_wildcard_host_is_reached_by_every_address_of_the_machine(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of(host="::") as stage:
        viewer = make_viewer()
        answer = stage.viewers.admit(viewer.offer(), CALLER).answer
        hosts = list(dict.fromkeys(re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) \d+ typ host", answer)))
        assert "127.0.0.1" in hosts
        assert "::1" in hosts
        assert hosts.index("127.0.0.1") >= len(hosts) - 2  # what others can reach comes first
        assert not any(host.startswith("fe80") for host in hosts)
        with anyio.fail_after(10):
            await viewer.connect(answer, prefer="::1")
        await arrive(viewer, lambda: viewer.dtls.state == "connected")


async def test_a_loopback_host_is_reached_by_every_address_but_only_from_this_machine(
    stage_of: Any, make_viewer: MakeViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["192.0.2.7", "127.0.0.1", "::1"]
    async with stage_of() as stage:
        mux = stage.viewers._mux
        viewer = make_viewer()
        session = await join(stage, viewer)
        monkeypatch.setattr(_mux, "_own_addresses", lambda host: own)
        assert mux._addresses() == ["127.0.0.1", "192.0.2.7"]
        taken: list[bytes] = []
        monkeypatch.setattr(session, "handle_datagram", lambda data, _: taken.append(data))
        for source in ("192.0.2.8", "192.0.2.7", "127.0.0.1"):
            mux._dispatch(viewer.request(), Pair(("192.0.2.7", 1), (source, 1)))
        assert len(taken) == 2


async def test_a_host_name_is_looked_up_and_loopback_is_a_candidate(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of(host="localhost") as stage:
        answer = stage.viewers.admit(make_viewer().offer(), CALLER).answer
        assert re.search(r"a=candidate:\S+ 1 udp \d+ 127.0.0.1 \d+ typ host", answer)


async def test_the_port_of_the_server_is_used_where_it_is_free(stage_of: Any, make_viewer: MakeViewer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with stage_of(port=port) as stage:
            answer = stage.viewers.admit(make_viewer().offer(), CALLER).answer
            (media_port,) = re.findall(r"a=candidate:1 1 udp \d+ 127.0.0.1 (\d+) typ host", answer)[:1]
            assert int(media_port) != port
    async with stage_of(port=port) as stage:
        answer = stage.viewers.admit(make_viewer().offer(), CALLER).answer
        assert re.findall(r"a=candidate:1 1 udp \d+ 127.0.0.1 (\d+) typ host", answer)[0] == str(port)
