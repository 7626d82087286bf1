"""Bursts of many viewers leave together, whole, in order, and nobody's failure is another one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream.proto.ice import Pair
from flowstream.proto.rtp import HeaderWriter, RtpPacket
from flowstream_nodes.webrtc._layout import AccessUnit, Even, Heading, Layout
from flowstream_nodes.webrtc._outbox import SLOTS, Outbox
from flowstream_nodes.webrtc._protection import LONGEST, Protection, ProtectionError
from tests.nodes.webrtc.test_sender import PROFILES, halves

HEADERS = HeaderWriter(payload_type=96, ssrc=5, transport_number_extension=3)


WRITERS = [
    HEADERS,
    HeaderWriter(payload_type=97, ssrc=6, transport_number_extension=3),  # as long
    HeaderWriter(payload_type=98, ssrc=7, extensions=((1, b"0"),), transport_number_extension=3),
    HeaderWriter(payload_type=98, ssrc=7, extensions=((1, b"0123456"),)),  # as long as the last, without a number
    HeaderWriter(payload_type=99, ssrc=8),
]


class Damaged(HeaderWriter):
    """Writes of an extension that is longer than the packet, which libsrtp refuses."""

    def write_run(self, buffer: bytearray | memoryview, offsets: Sequence[int], **told: Any) -> None:
        super().write_run(buffer, offsets, **told)
        buffer[14:16] = b"\xff\xff"


DAMAGED = Damaged(payload_type=96, ssrc=5, transport_number_extension=3)
DAMAGED.blank = DAMAGED.blank[:14] + b"\xff\xff" + DAMAGED.blank[16:]


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

    def put(
        self,
        outbox: Outbox,
        payloads: list[bytes],
        *,
        unit: AccessUnit | None = None,
        writer: HeaderWriter = HEADERS,
        marks_last: bool = True,
    ) -> None:
        """Payloads, or those of a unit that others have too."""
        unit = AccessUnit(payloads, "h264") if unit is None else unit
        layout = unit.layout(0, len(payloads), writer.size, self.trailer, 28)
        heading = Heading(writer, self.next & 0xFFFF, 9 + self.number, marks_last)
        number = (self.next + 7) & 0xFFFF
        self.next += len(payloads)
        pair = Pair(("10.0.0.1", 1), ("10.0.0.2", self.number))
        outbox.put(self, self.protection, layout, heading, number, pair, 3)

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


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_cannot_be_protected_is_told_to_its_sender_alone(is_shared: bool) -> None:
    scene = Scene()
    outbox, viewers = Outbox(scene), [Viewer(scene, number) for number in range(4)]
    unit = AccessUnit([b"one", b"two"], "h264") if is_shared else None
    with outbox.gathering():
        for viewer in viewers:
            viewer.put(outbox, [b"one", b"two"], unit=unit, writer=DAMAGED if viewer.number in (1, 3) else HEADERS)
    assert [number for what, number in scene.events if what == "fails"] == [1, 3]
    assert [number for what, number in scene.events if what == "sent"] == [0, 2]
    assert [packet.payload for viewer in viewers for packet in viewer.read()] == [b"one", b"two"] * 2


SIZES = st.one_of(
    st.tuples(st.integers(1, 1200), st.integers(0, 20), st.integers(1, 1200)).map(
        lambda drawn: [drawn[0]] * drawn[1] + [min(drawn[0], drawn[2])]
    ),
    st.lists(st.integers(1, 900), min_size=1, max_size=8),
)
"""As they are cut for the kernel, and others."""


@settings(deadline=None, max_examples=60)
@given(
    SIZES,
    st.lists(
        st.tuples(st.sampled_from(WRITERS), st.booleans(), st.integers(0, 0xFFFF)), min_size=1, max_size=SLOTS + 2
    ),
    st.booleans(),
)
def test_whoever_gets_the_same_gets_it_with_headers_of_its_own(
    sizes: list[int], watching: list[tuple[HeaderWriter, bool, int]], is_shared: bool
) -> None:
    """However many there are, whose headers are as long or longer, and wherever numbers begin anew."""
    scene, payloads = Scene(), [bytes((index,)) * size for index, size in enumerate(sizes)]
    outbox, unit = Outbox(scene), AccessUnit(payloads, "h264")
    viewers = [Viewer(scene, number) for number in range(len(watching))]
    with outbox.gathering():
        for viewer, (writer, marks_last, first) in zip(viewers, watching, strict=True):
            viewer.next = first
            viewer.put(outbox, payloads, unit=unit if is_shared else None, writer=writer, marks_last=marks_last)
    for viewer, (writer, marks_last, first) in zip(viewers, watching, strict=True):
        told = {"timestamp": 9 + viewer.number, "marks_last": marks_last, "transport_number": (first + 7) & 0xFFFF}
        headers = writer.pack_run(len(payloads), sequence_number=first, **told)
        expected = [header + payload for header, payload in zip(headers, payloads, strict=True)]
        assert [viewer.incoming.unprotect(each) for each in scene.sent[viewer.number]] == expected


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
