"""Bursts of many viewers leave together, whole, in order, and nobody's failure is another one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from flowstream.proto.ice import Pair
from flowstream.proto.rtp import HeaderWriter, RtpPacket
from flowstream_nodes.webrtc._layout import AccessUnit, Even, Layout
from flowstream_nodes.webrtc._outbox import SLOTS, Outbox
from flowstream_nodes.webrtc._protection import LONGEST, Protection, ProtectionError
from tests.nodes.webrtc.test_sender import PROFILES, halves

HEADERS = HeaderWriter(payload_type=96, ssrc=5, transport_number_extension=3)


@dataclass
class Scene:
    """What happens, one after the other: who is told that a burst leaves or fails, and what is sent where."""

    events: list[tuple[str, int]] = field(default_factory=list)
    sent: dict[int, list[bytes]] = field(default_factory=dict)

    def send_evens(self, data: memoryview, runs: Sequence[Even], pair: Pair) -> None:
        self.events.append(("sent", pair.remote[1]))
        self.sent.setdefault(pair.remote[1], []).extend(
            bytes(data[at : min(at + run.size, run.stop)])
            for run in runs
            for at in range(run.start, run.stop, run.size)
        )


class Viewer:
    def __init__(self, scene: Scene, number: int, profile: int = PROFILES[0]) -> None:
        self.scene, self.number = scene, number
        outgoing, self.incoming = halves(profile)
        self.protection = Protection(outgoing)
        self.next = 0
        self.trailer = 16 if profile == PROFILES[0] else 10

    def put(self, outbox: Outbox, payloads: list[bytes], *, is_damaged: bool = False) -> None:
        layout = AccessUnit(payloads, "h264").layout(0, len(payloads), HEADERS.size, self.trailer, 28)
        burst = outbox.room(layout)
        HEADERS.write_run(
            burst, layout.offsets, sequence_number=self.next, timestamp=9, marks_last=True, transport_number=self.next
        )
        self.next += len(payloads)
        if is_damaged:
            burst[14:16] = b"\xff\xff"  # an extension longer than the packet, which libsrtp refuses
        outbox.put(self, self.protection, layout, burst, Pair(("10.0.0.1", 1), ("10.0.0.2", self.number)), 3)

    def leaves(self, layout: Layout, probe: int) -> None:
        assert probe == 3
        self.scene.events.append(("leaves", self.number))

    def fails(self, error: ProtectionError) -> None:
        assert str(error).startswith("libsrtp says ")
        self.scene.events.append(("fails", self.number))

    def read(self) -> list[RtpPacket]:
        return [RtpPacket.parse(self.incoming.unprotect(each)) for each in self.scene.sent.get(self.number, [])]


@pytest.mark.parametrize("profile", PROFILES)
def test_bursts_leave_together_each_stamped_when_it_does(profile: int) -> None:
    scene = Scene()
    outbox, viewers = Outbox(scene), [Viewer(scene, number, profile) for number in range(3)]
    pictures = {viewer: [bytes((viewer.number,)) * size for size in (900, 900, 7)] for viewer in viewers}
    with outbox.gathering():
        with outbox.gathering():
            for viewer in viewers:
                viewer.put(outbox, pictures[viewer])
        assert not scene.events
    assert scene.events == [(what, number) for number in range(3) for what in ("leaves", "sent")]
    for viewer in viewers:
        packets = viewer.read()
        assert [packet.payload for packet in packets] == pictures[viewer]
        assert [packet.sequence_number for packet in packets] == [0, 1, 2]
        assert [packet.marker for packet in packets] == [False, False, True]
    viewers[0].put(outbox, [b"at once"])
    assert scene.events[-2:] == [("leaves", 0), ("sent", 0)]
    assert viewers[0].scene.sent[0]


def test_more_than_there_is_room_for_leave_in_turns() -> None:
    scene = Scene()
    outbox, viewers = Outbox(scene), [Viewer(scene, number) for number in range(2 * SLOTS + 3)]
    with outbox.gathering():
        for viewer in viewers:
            viewer.put(outbox, [b"%d" % viewer.number] * (viewer.number % 5 + 1))
            assert len(outbox._bursts) <= SLOTS
        assert ("sent", SLOTS - 1) in scene.events
    for viewer in viewers:
        assert [packet.payload for packet in viewer.read()] == [b"%d" % viewer.number] * (viewer.number % 5 + 1)


def test_what_cannot_be_protected_is_told_to_its_sender_alone() -> None:
    scene = Scene()
    outbox, viewers = Outbox(scene), [Viewer(scene, number) for number in range(4)]
    with outbox.gathering():
        for viewer in viewers:
            viewer.put(outbox, [b"one", b"two"], is_damaged=viewer.number in (1, 3))
    assert [number for what, number in scene.events if what == "fails"] == [1, 3]
    assert [number for what, number in scene.events if what == "sent"] == [0, 2]
    assert [packet.payload for viewer in viewers for packet in viewer.read()] == [b"one", b"two"] * 2


def test_what_waits_leaves_also_when_the_block_fails() -> None:
    scene = Scene()
    outbox = Outbox(scene)

    def fail() -> None:
        with outbox.gathering():
            Viewer(scene, 0).put(outbox, [b"x"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ("sent", 0) in scene.events
    Viewer(scene, 1).put(outbox, [b"x"])
    assert ("sent", 1) in scene.events


def test_a_packet_that_is_too_long_is_refused_before_it_takes_room() -> None:
    scene = Scene()
    outbox = Outbox(scene)
    viewer = Viewer(scene, 0)
    with pytest.raises(ProtectionError, match=f"a packet of {LONGEST + 1} bytes is too long"):
        viewer.put(outbox, [bytes(LONGEST + 1 - HEADERS.size)])
    viewer.put(outbox, [bytes(LONGEST - HEADERS.size)])
    assert [len(packet.payload) for packet in viewer.read()] == [LONGEST - HEADERS.size]
