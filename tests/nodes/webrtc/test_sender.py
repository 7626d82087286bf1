"""What leaves for one viewer, and when, on a virtual clock: protected as it would be on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest
from pylibsrtp import Policy, Session

from flowstream.proto.congestion.sent import TICK_NS
from flowstream.proto.ice import Pair
from flowstream.proto.rtcp import TransportFeedback
from flowstream.proto.rtp import RtpPacket
from flowstream.proto.sdp import Stream, agree, parse_offer
from flowstream.testing import VirtualClock, run_virtual
from flowstream_nodes.webrtc._layout import AccessUnit, Even
from flowstream_nodes.webrtc._outbox import Outbox
from flowstream_nodes.webrtc._protection import Protection, ProtectionError, Unprotection
from flowstream_nodes.webrtc._sender import Sender
from flowstream_nodes.webrtc._stream import RtpStream
from flowstream_nodes.webrtc._wakeups import Wakeups
from tests.nodes.webrtc.player import LoopbackViewer

PAIR = Pair(("127.0.0.1", 1), ("127.0.0.1", 2))
PROFILES = [Policy.SRTP_PROFILE_AEAD_AES_256_GCM, Policy.SRTP_PROFILE_AES128_CM_SHA1_80]


def halves(profile: int) -> tuple[Session, Session]:
    """Who protects, and who undoes it."""
    key = bytes(range(60))
    policies = (
        Policy(key, ssrc_type=kind, srtp_profile=profile)
        for kind in (Policy.SSRC_ANY_OUTBOUND, Policy.SSRC_ANY_INBOUND)
    )
    outgoing, incoming = policies
    outgoing.allow_repeat_tx = True
    return Session(outgoing), Session(incoming)


class Link:
    """Takes the place of the sockets."""

    def __init__(self, incoming: Session, now_ns: Callable[[], int]) -> None:
        self.bursts: list[tuple[int, list[RtpPacket]]] = []
        self._incoming = incoming
        self._now_ns = now_ns

    @property
    def packets(self) -> list[RtpPacket]:
        return [packet for _, burst in self.bursts for packet in burst]

    def send_run(self, data: memoryview, sizes: Sequence[int], pair: Pair) -> None:
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        self._take([bytes(data[end - size : end]) for end, size in zip(ends, sizes, strict=True)])

    def send_evens(self, data: memoryview, runs: Sequence[Even], pair: Pair) -> None:
        assert runs[-1].stop == len(data)
        self._take(
            [
                bytes(data[at : min(at + run.size, run.stop)])
                for run in runs
                for at in range(run.start, run.stop, run.size)
            ]
        )

    def _take(self, datagrams: list[bytes]) -> None:
        self.bursts.append((self._now_ns(), [RtpPacket.parse(self._incoming.unprotect(each)) for each in datagrams]))


def play(
    scene: Callable[[Sender, Link, VirtualClock], Awaitable[None]], *, profile: int = PROFILES[0], bps: int = 3_000_000
) -> Link:
    """A viewer who takes video with transport-wide numbers and RTX."""

    async def run(clock: VirtualClock) -> Link:
        outgoing, incoming = halves(profile)
        agreement = agree(parse_offer(LoopbackViewer().offer(numbers=True, audio=False)), needed=frozenset({"video"}))
        stream = RtpStream(agreement.tracks[0], Stream(7, 8))
        link, wakeups = Link(incoming, clock.now_ns), Wakeups(clock.now_ns)
        sender = Sender(
            {"video": stream},
            mux=link,  # type: ignore[arg-type]
            outbox=Outbox(link),
            wakeups=wakeups,
            start_bps=bps,
            now_ns=clock.now_ns(),
            on_break=lambda: None,
            on_failure=lambda error: pytest.fail(str(error)),
        )
        sender.go_by(PAIR, now_ns=clock.now_ns())
        sender.open(Protection(outgoing))
        await scene(sender, link, clock)
        wakeups.close()
        return link

    return run_virtual(run)


def send(sender: Sender, payloads: list[bytes], clock: VirtualClock, *, ticks: int, **options: Any) -> None:
    sender.send("video", AccessUnit(payloads, "h264", **options), ticks=ticks, now_ns=clock.now_ns())


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_laid_out_for_all_arrives_as_it_was_packetised(profile: int) -> None:
    pictures = [[bytes((index, part)) * (100 + index) for part in range(1, 4)] + [b"end"] for index in range(9)]

    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        for index, payloads in enumerate(pictures):
            captured_ns = clock.now_ns() if index in (0, 4) else None
            send(sender, payloads, clock, ticks=index * 3000, is_keyframe=not index, captured_ns=captured_ns)
            await anyio.sleep(0.3)
        sender.resend(
            sender._streams["video"], [packet.sequence_number for packet in link.packets[-2:]],
            round_trip_ns=0, now_ns=clock.now_ns(),
        )  # fmt: skip
        await anyio.sleep(0.1)

    link = play(scene, profile=profile)
    media = [packet for packet in link.packets if packet.ssrc == 7]
    assert [packet.payload for packet in media] == [payload for payloads in pictures for payload in payloads]
    first = media[0]
    for index, packet in enumerate(media):
        assert packet.sequence_number == (first.sequence_number + index) & 0xFFFF
        assert packet.timestamp == (first.timestamp + index // 4 * 3000) & 0xFFFFFFFF
        assert packet.marker == (index % 4 == 3)
        assert dict(packet.extensions).keys() == {3, 5, 6} | ({7} if index in (0, 16) else set())
    numbers = [int.from_bytes(dict(packet.extensions)[6], "big") for packet in link.packets]
    assert numbers == list(range(len(numbers)))
    again = [packet.payload[2:] for packet in link.packets if packet.ssrc == 8]
    assert again == [packet.payload for packet in media[-2:]]


def test_a_packet_is_stamped_when_it_leaves_and_not_when_its_picture_came() -> None:
    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        began_ns = clock.now_ns()
        send(sender, [b"x"], clock, ticks=0, is_keyframe=True)
        await anyio.sleep(0.5)
        came_ns = clock.now_ns()
        await anyio.sleep(0.012)  # others' turns
        sender.send("video", AccessUnit([b"y"], "h264"), ticks=3000, now_ns=came_ns)
        assert [run[1] for run in sender.estimator.packets._runs[:2]] == [began_ns, clock.now_ns()]

    assert len(play(scene).packets) == 2


def test_a_rate_that_wavers_leaves_the_highest_of_use_as_it_is() -> None:
    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        found = []
        for stream_bps in (2_000_000, 2_200_000, 1_900_000, 3_000_000, 2_900_000, 100_000):
            sender.tick(stream_bps=stream_bps, least_bps=stream_bps, now_ns=clock.now_ns())
            found.append(sender.estimator.most_bps)
        assert found == [10**7, 10**7, 10**7, 15_000_000, 15_000_000, 5_000_000]

    play(scene)


def test_half_of_what_is_of_use_is_enough() -> None:
    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        found = []
        for stream_bps in (0, 500_000, 2_000_000):
            sender.tick(stream_bps=stream_bps, least_bps=stream_bps, now_ns=clock.now_ns())
            found.append(sender.estimator.enough_bps)
        assert found == [2_500_000, 2_500_000, 5_000_000]

    play(scene)


@pytest.mark.parametrize("profile", PROFILES)
def test_rtcp_is_taken_once_and_whole(profile: int) -> None:
    outgoing, incoming = halves(profile)
    unprotection = Unprotection(incoming)
    plain = bytes((0x80, 201, 0, 1)) + b"ssrc"
    data = outgoing.protect_rtcp(plain)
    for damaged in (b"", data[:-1], data[:9], data + bytes(1), bytes(2000), data[:-5] + b"\0" + data[-4:]):
        with pytest.raises(ProtectionError):
            unprotection.unprotect_rtcp(damaged)
    assert unprotection.unprotect_rtcp(data) == plain
    with pytest.raises(ProtectionError):  # a replay
        unprotection.unprotect_rtcp(data)


def test_what_is_sent_to_one_viewer_while_others_are_served_keeps_its_numbers_and_its_order() -> None:
    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        send(sender, [bytes(1100)] * 45, clock, ticks=0, is_keyframe=True)  # what a viewer is begun with is paced
        await anyio.sleep(0.5)
        before = len(link.packets)
        with sender._outbox.gathering():
            send(sender, [b"a", b"b"], clock, ticks=3000)
            assert len(link.packets) == before
            send(sender, [b"c"], clock, ticks=6000)
            send(sender, [b"d"], clock, ticks=9000, captured_ns=clock.now_ns())
            send(sender, [b"e"], clock, ticks=12000)
            sender.resend(
                sender._streams["video"], [link.packets[0].sequence_number], round_trip_ns=0, now_ns=clock.now_ns()
            )

    packets = play(scene).packets
    media = [packet for packet in packets if packet.ssrc == 7]
    assert [packet.payload for packet in media[45:]] == [b"a", b"b", b"c", b"d", b"e"]
    for counter in (
        [packet.sequence_number for packet in media],
        [int.from_bytes(dict(packet.extensions)[6], "big") for packet in packets],
    ):
        assert counter == list(range(counter[0], counter[0] + len(counter)))


def tell(sender: Sender, clock: VirtualClock, count: int) -> None:
    """Feedback: the ``count`` packets that were sent last have arrived."""
    first = (sender.estimator.packets.next_number - count) & 0xFFFF
    reference, rest = divmod(clock.now_ns() // TICK_NS, 256)
    packet = TransportFeedback(1, 7, first, reference & 0x7FFFFF, 0, (rest, *[0] * (count - 1)))
    sender.handle_feedback(packet, now_ns=clock.now_ns())


def test_a_link_that_carries_more_than_enough_is_calm_also_while_the_rest_of_a_burst_waits() -> None:
    async def scene(sender: Sender, link: Link, clock: VirtualClock) -> None:
        send(sender, [bytes(1100)] * 45, clock, ticks=0, is_keyframe=True)
        await anyio.sleep(0.3)
        tell(sender, clock, 45)
        found = [sender.is_calm]  # nothing is known of what comes yet: any rate may be too much
        sender.estimator.enough_bps = 1_000_000
        sender.estimator.poll(now_ns=clock.now_ns())
        found.append(sender.is_calm)
        send(sender, [bytes(1100)] * 12, clock, ticks=3000)
        assert not sender._pacer.is_empty
        found.append(sender.is_calm)
        send(sender, [bytes(1100)] * 90, clock, ticks=6000)
        found.append(sender.is_calm)
        assert found == [False, True, True, False]
        await anyio.sleep(0.3)

    play(scene)


def test_what_cannot_be_protected_ends_its_viewers_sending_and_is_told() -> None:
    async def run(clock: VirtualClock) -> None:
        outgoing, incoming = halves(PROFILES[0])
        agreement = agree(parse_offer(LoopbackViewer().offer(numbers=True, audio=False)), needed=frozenset({"video"}))
        link, wakeups, told = Link(incoming, clock.now_ns), Wakeups(clock.now_ns), list[str]()
        sender = Sender(
            {"video": RtpStream(agreement.tracks[0], Stream(7, 8))},
            mux=link,  # type: ignore[arg-type]
            outbox=Outbox(link),
            wakeups=wakeups,
            start_bps=3_000_000,
            now_ns=clock.now_ns(),
            on_break=lambda: None,
            on_failure=lambda error: told.append(str(error)),
        )
        protection = Protection(outgoing)
        sender.go_by(PAIR, now_ns=clock.now_ns())
        sender.open(protection)
        send(sender, [b"key"], clock, ticks=0, is_keyframe=True)
        await anyio.sleep(0.1)
        protection.call = lambda context, place, length: 7
        send(sender, [b"next"], clock, ticks=3000)
        assert told == ["libsrtp says 7"]
        send(sender, [b"after"], clock, ticks=6000, is_keyframe=True)
        await anyio.sleep(0.1)
        assert (len(link.packets), told) == (1, ["libsrtp says 7"])
        wakeups.close()

    run_virtual(run)
