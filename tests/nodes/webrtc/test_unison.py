"""Viewers who are served together get exactly what they would get one by one, and are accounted for in the same way."""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest

from flowstream import EncodedPacket
from flowstream.proto.allocator import Choice
from flowstream.proto.congestion.sent import SPAN
from flowstream.proto.ice import Pair
from flowstream.proto.rtcp import Nack, PictureLossIndication, ReceiverEstimate, SenderReport
from flowstream.proto.rtp import HeaderWriter, RtpPacket
from flowstream.proto.switching import Picture
from flowstream.testing import VirtualClock, run_virtual
from flowstream_nodes.webrtc import _unison
from flowstream_nodes.webrtc._layout import AccessUnit
from flowstream_nodes.webrtc._rungs import Rungs
from flowstream_nodes.webrtc._stream import Line
from flowstream_nodes.webrtc._unison import Unison, _Lines
from flowstream_nodes.webrtc._viewers import Feeder
from tests.nodes.webrtc import links
from tests.nodes.webrtc.links import SERVER, SOUND_BYTES, VirtualStage, Watcher, open_virtual_stage
from tests.nodes.webrtc.receiver import Receiver

WIDE = {"rate": "40M", "delay": "20ms", "queue_time": "300ms"}

BEGIN_S = 5.003  # not at the same time as a picture
"""So long it takes until all links are known to carry more than enough."""

DELAY = "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\n"

SOUND = bytes(SOUND_BYTES)

Act = Callable[["Scene"], Awaitable[None]]

NUMBERS = {"mid": 1, "number": 6}


class Noting(Receiver):
    """Notes what arrives."""

    def __init__(self, ssrc: int) -> None:
        super().__init__(ssrc)
        self.packets: list[tuple[object, ...]] = []
        self._video = ssrc
        self._firsts: dict[int, tuple[int, int]] = {}

    def take(self, packet: RtpPacket, now_ns: int) -> None:
        number, timestamp = self._firsts.setdefault(packet.ssrc, (packet.sequence_number, packet.timestamp))
        payload, again = packet.payload, None
        if packet.ssrc != self._video and payload != SOUND:  # sent again, or nothing (RFC 4588 section 4)
            video = self._firsts.get(self._video, (0, 0))
            timestamp = video[1]
            again, payload = (int.from_bytes(payload[:2], "big") - video[0]) & 0xFFFF if payload else None, payload[2:]
        self.packets.append(
            (
                now_ns,
                list(self._firsts).index(packet.ssrc),
                (packet.sequence_number - number) & 0xFFFF,
                (packet.timestamp - timestamp) & 0xFFFFFFFF,
                packet.marker,
                again,
                payload,
                packet.extensions,
            )
        )
        super().take(packet, now_ns)


@dataclass
class Heard:
    """What came of one viewer: its packets as they arrived, and what is known of it in the end."""

    packets: list[tuple[object, ...]]
    books: dict[str, object]


@dataclass
class Scene:
    """A stage with viewers; what is done to them is drawn by ``chance``."""

    stage: VirtualStage
    chance: random.Random
    watchers: list[Watcher] = field(default_factory=list)
    others: Collection[int] = ()
    """Which of them have shorter headers."""

    async def join(self, *, audio: bool) -> Watcher:
        watcher = self.stage.watcher(WIDE, seed=len(self.watchers))
        if len(self.watchers) in self.others:
            offer = watcher.offer
            watcher.offer = lambda **how: offer(**how).replace(DELAY, "")  # type: ignore[method-assign]
        await watcher.join(audio=audio)
        self.watchers.append(watcher)
        return watcher

    def seat(self, watcher: Watcher) -> Any:
        return self.stage.viewers.seat(watcher.session.id)

    @property
    def somebody(self) -> Watcher:
        return self.chance.choice([each for each in self.watchers if each.session.connected])


def books_of(watcher: Watcher) -> dict[str, object]:
    """All that is kept of a viewer, but what was drawn for it."""
    session, now_ns = watcher.session, watcher._stage.clock.now_ns()
    session.sender.settle()
    sender, estimator = session.sender, session.sender.estimator
    return {
        "streams": [
            (kind, each.packets_sent, each.octets_sent, each.packets_resent, history_of(each, now_ns))
            for kind, each in sorted(session.streams.items())
        ],
        "estimate": estimator.estimate(),
        "sent": (estimator.packets._next, estimator.packets._bytes, estimator.packets.in_flight_bytes),
        "runs": estimator.packets._runs[:],
        "pacer": (sender._pacer._free_ns, sender._pacer.bps, sender._pacer.waiting_bytes),
        "switch": vars(session.switch),
        "shown": session._shown,
        "closed": session.closed_because,
        "reports": [(each.packet_count, each.octet_count) for each in watcher.rtcp if isinstance(each, SenderReport)],
    }


def history_of(stream: Any, now_ns: int) -> object:
    history = stream._history
    if history is None:
        return None
    history._expire(now_ns)  # else old ones are put away when there are many
    firsts = history._firsts[history._start :]
    runs = history._runs[history._start :]
    return [(first - firsts[0], run) for first, run in zip(firsts, runs, strict=True)], history._credit


def play(
    act: Act,
    *,
    seed: int,
    count: int = 6,
    has_sound: bool = True,
    seconds: float = 6,
    others: Collection[int] = (),
) -> tuple[list[Heard], int]:
    """What all viewers got, and how many access units went out to many at once."""
    sung = [0]
    send = Unison.send

    def send_and_count(self: Unison, *args: Any, **options: Any) -> bool:
        has_sent = send(self, *args, **options)
        sung[0] += has_sent
        return has_sent

    async def main(clock: VirtualClock) -> list[Heard]:
        async with open_virtual_stage(
            clock, rates_bps=(900_000, 300_000), has_sound=has_sound, begins_in_ns=1_234_567
        ) as stage:
            scene = Scene(stage, random.Random(seed), others=others)
            for index in range(count):
                await scene.join(audio=has_sound and index != 1)
            await stage.until(BEGIN_S)
            await act(scene)
            await stage.until(BEGIN_S + seconds)
            return [Heard(watcher.receiver.packets, books_of(watcher)) for watcher in scene.watchers]  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unison, "send", send_and_count)
        patch.setattr(links, "Receiver", Noting)
        # Of few viewers it is not believed soon that their common uplink carries more than enough.
        patch.setattr(Rungs, "_follow_uplink", lambda *_: None)
        drawn = random.Random(seed)  # the order of names decides where nothing else does
        patch.setattr(secrets, "token_bytes", lambda count=32: drawn.randbytes(count))
        patch.setattr(secrets, "token_hex", lambda count=32: drawn.randbytes(count).hex())
        patch.setattr(secrets, "token_urlsafe", lambda count=32: drawn.randbytes(count).hex())
        patch.setattr(secrets, "randbits", drawn.getrandbits)
        patch.setattr(secrets, "randbelow", drawn.randrange)
        return run_virtual(main), sung[0]


def same_as_apart(act: Act, *, seed: int, **options: Any) -> int:
    """Plays it with and without serving anybody together; gives how many access units went out to many at once."""
    together, sung = play(act, seed=seed, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_unison, "MANY", 1 << 30)
        apart, none_sung = play(act, seed=seed, **options)
    assert none_sung == 0
    assert len(together) == len(apart)
    for left, right in zip(together, apart, strict=True):
        assert left.packets == right.packets
        assert left.books == right.books
    return sung


async def nothing(scene: Scene) -> None:
    pass


@pytest.mark.parametrize("has_sound", [False, True])
def test_together_everybody_gets_what_it_would_get_alone(has_sound: bool) -> None:
    sung = same_as_apart(nothing, seed=0, has_sound=has_sound)
    assert sung > 0.9 * 6 * (30 + 50 * has_sound)  # of all that was sent


def test_who_has_other_headers_is_served_with_those_who_have_the_same() -> None:
    sung = same_as_apart(nothing, seed=0, count=9, has_sound=False, others={0, 3, 4, 7})
    assert sung > 0.9 * 2 * 6 * 30, "there are two groups"


def test_no_more_is_owed_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    owed: list[int] = []

    async def act(scene: Scene) -> None:
        send = scene.stage.viewers.send_video

        def send_and_look(packet: EncodedPacket, feeder: Feeder, index: int = 0) -> None:
            send(packet, feeder, index)
            owed.extend(len(unison._owed.departures) for unison in scene.stage.viewers._chorus._unisons)

        scene.stage.viewers.send_video = send_and_look  # type: ignore[method-assign]

    monkeypatch.setattr(_unison, "MOST_OWED", 2)
    assert same_as_apart(act, seed=0, seconds=1) > 5
    assert max(owed) == 2


def test_each_is_told_when_its_own_packets_left_also_when_another_is_gone() -> None:
    async def act(scene: Scene) -> None:
        unison: Unison = scene.watchers[0].session.sender.unison
        unison.put_down()
        ticks = count(1_000_000_000)
        unison._now_ns = lambda: next(ticks)
        unit, picture = AccessUnit((b"packet",), "h264"), Picture(unison.rung, unison.next_number, 1 << 20)
        assert unison.send("video", unit, picture, ticks=1 << 20, now_ns=scene.stage.clock.now_ns())
        senders: list[Any] = [viewer.sender for viewer in unison._viewers]
        senders[1].go_alone()
        unison.put_down()
        for place, sender in enumerate(senders):
            packets = sender.estimator.packets
            assert packets._runs[(packets._next - 1) % SPAN][1] == 1_000_000_000 + place

    play(act, seed=0, has_sound=False, seconds=0.001)


def test_a_picture_of_another_codec_is_not_for_those_who_got_the_last_ones() -> None:
    async def act(scene: Scene) -> None:
        session = scene.watchers[0].session
        unison: Unison = session.sender.unison
        now_ns = scene.stage.clock.now_ns()
        picture = Picture(unison.rung, unison.next_number, 1 << 20)
        assert not unison.send("video", AccessUnit((b"packet",), "vp8"), picture, ticks=1 << 20, now_ns=now_ns)
        how = {"size": 1000, "after_ticks": 1 << 30}
        assert session.voice(unison.rung, unison.next_number, codec="h264", **how) is None, "something is owed"
        unison.put_down()
        assert session.voice(unison.rung, unison.next_number, codec="h264", **how) is not None
        assert session.voice(unison.rung, unison.next_number, codec="vp8", **how) is None
        assert session.voice(unison.rung, unison.next_number, codec="h264", size=10**6, after_ticks=1 << 30) is None

    play(act, seed=0, has_sound=False, seconds=0.1)


def test_all_keep_to_the_rate_of_the_slowest() -> None:
    async def act(scene: Scene) -> None:
        sender = scene.watchers[0].session.sender
        unison: Unison = sender.unison
        before_bps = unison._pacer.bps
        sender.handle_feedback(ReceiverEstimate(1, 4_900_000), now_ns=scene.stage.clock.now_ns())
        assert sender.unison is unison
        assert sender._pacer.bps == unison._pacer.bps < before_bps
        sender._pacer.bps = before_bps
        unison.keep()
        assert unison._pacer.bps == before_bps
        sender._pacer.bps = 100_000  # the last picture would not fit a burst any more
        unison.keep()
        assert sender.unison is None
        assert unison._pacer.bps == before_bps
        sender.look_anew(now_ns=scene.stage.clock.now_ns())
        assert not sender._pacer.is_calm, "nothing is known of the new path"

    play(act, seed=0, has_sound=False, seconds=0.1)


def test_who_is_told_of_captures_first_decides_when_all_are() -> None:
    writer = HeaderWriter(payload_type=96, ssrc=5)
    lines = [_Lines([Line("video", "h264", writer, 0, 0, until_ns)]) for until_ns in (5, 3, 9)]
    lines[0].extend(lines[1])
    lines[0].extend(lines[2])
    assert lines[0].until_ns == 3


@pytest.mark.parametrize("kind", ["only keyframes", "too large"])
def test_what_is_not_worth_it_is_left_alone_for_a_while(kind: str) -> None:
    """Groups would be made at every look, and end with the next picture."""
    made = [0]
    begin = Unison.__init__

    def begin_and_count(self: Unison, *args: Any, **options: Any) -> None:
        made[0] += 1
        begin(self, *args, **options)

    async def act(scene: Scene) -> None:
        send = scene.stage.viewers.send_video

        def send_other(packet: EncodedPacket, feeder: Feeder, index: int = 0) -> None:
            data = packet.data if kind == "only keyframes" else b"\0\0\1\x41" + bytes(2000) + packet.data
            is_keyframe = kind == "only keyframes"
            send(EncodedPacket(packet.caps, data, time_ns=packet.time_ns, keyframe=is_keyframe), feeder, index)

        scene.stage.viewers.send_video = send_other  # type: ignore[method-assign]
        made[0] = 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unison, "__init__", begin_and_count)
        play(act, seed=0, has_sound=False, seconds=6)
    assert made[0] <= 10, "three in vain at first, then one each second"


SETTLES: dict[str, Callable[[Watcher, int], object]] = {
    "a look at its link": lambda watcher, now_ns: watcher.session.sender.estimate(),
    "a receiver report": lambda watcher, now_ns: watcher.session.sender.handle_report(
        loss=0.0, round_trip_ns=None, now_ns=now_ns
    ),
    "feedback": lambda watcher, now_ns: watcher.session.sender.handle_feedback(
        ReceiverEstimate(1, 10_000_000), now_ns=now_ns
    ),
    "its clock": lambda watcher, now_ns: watcher.session.sender.tick(
        stream_bps=600_000, least_bps=200_000, now_ns=now_ns
    ),
    "what it was sent": lambda watcher, now_ns: watcher.session.sent_bytes,
    "what it is shown": lambda watcher, now_ns: watcher.session.captured,
    "what was put off": lambda watcher, now_ns: watcher.session._catch_up(),
}

PARTS: dict[str, Callable[[Watcher, int], object]] = {
    "its end": lambda watcher, now_ns: watcher.session.close("that was all"),
    "the end of its packets": lambda watcher, now_ns: watcher.session.sender.close(),
    "silence": lambda watcher, now_ns: watcher.session.withhold(frozenset({"audio"})),
    "another rung": lambda watcher, now_ns: watcher.session.aim(Choice("1", "best", None)),
    "another path": lambda watcher, now_ns: watcher.session.sender.go_by(
        Pair(SERVER, ("192.0.2.99", 9)), now_ns=now_ns
    ),
    "a look anew": lambda watcher, now_ns: watcher.session.sender.look_anew(now_ns=now_ns),
    "nothing that waits": lambda watcher, now_ns: watcher.session.sender.clear(),
    "what it misses": lambda watcher, now_ns: watcher.session.sender.resend(
        watcher.session.streams["video"], [0], round_trip_ns=0, now_ns=now_ns
    ),
    "another beginning": lambda watcher, now_ns: watcher.session.sender._begin_anew(now_ns),
    "something of its own": lambda watcher, now_ns: watcher.session.sender.send(
        "audio", AccessUnit((SOUND,), "opus"), ticks=1 << 30, now_ns=now_ns
    ),
    "a number": lambda watcher, now_ns: watcher.session.sender._next_number(),
    "a link that carries less": lambda watcher, now_ns: watcher.session.sender.handle_feedback(
        ReceiverEstimate(1, 300_000), now_ns=now_ns
    ),
}


@pytest.mark.parametrize("what", [*SETTLES, *PARTS])
def test_who_is_looked_at_has_its_books_in_order_and_who_is_sent_something_else_is_alone(what: str) -> None:
    async def act(scene: Scene) -> None:
        clock, watcher = scene.stage.clock, scene.watchers[0]
        sender, stream = watcher.session.sender, watcher.session.streams["video"]
        unison: Unison = sender.unison
        sent, put_down, count = unison._owed.tallies["video"].packets, stream.packets_sent, len(unison)
        asked: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            for name in ("passed", "passes"):
                ask = getattr(sender._pacer, name)
                patch.setattr(
                    sender._pacer,
                    name,
                    lambda *args, ask=ask, name=name, **how: asked.append(name) or ask(*args, **how),
                )
            (SETTLES | PARTS)[what](watcher, clock.now_ns())
        assert asked[0] == "passed", "or what has left does not count towards what may follow"
        assert stream.packets_sent == put_down + sent
        assert (sender.unison is None, len(unison)) == ((False, count) if what in SETTLES else (True, count - 1))

    play(act, seed=0, seconds=0.1)


def test_when_pictures_were_captured_is_told_to_all_at_once_and_as_often() -> None:
    """Each second, as those have it who are served alone."""
    taken: list[int] = []

    async def act(scene: Scene) -> None:
        clock, viewers, send = scene.stage.clock, scene.stage.viewers, scene.stage.viewers.send_video

        def send_captured(packet: EncodedPacket, feeder: Feeder, index: int = 0) -> None:
            taken.append(clock.now_ns())
            packet = EncodedPacket(
                packet.caps, packet.data, time_ns=packet.time_ns, keyframe=packet.keyframe, capture_ns=clock.now_ns()
            )
            send(packet, feeder, index)

        viewers.send_video = send_captured  # type: ignore[method-assign]

    heard, sung = play(act, seed=0, has_sound=False, seconds=8)
    assert sung > 0.85 * len(taken) / 2, "of two rungs one is sent"
    for each in heard:
        times = [at_ns for at_ns, *_, extensions in each.packets if 7 in dict(extensions)]  # type: ignore[call-overload]
        assert len(times) >= 7
        assert min(later - earlier for earlier, later in pairwise(times[1:])) > 0.95e9
        assert max(later - earlier for earlier, later in pairwise(times)) < 1.05e9
    numbers = [[number for _, stream, number, *_ in each.packets if stream == 0] for each in heard]
    assert all(each == list(range(len(each))) for each in numbers)


def test_whose_packets_cannot_be_protected_is_let_go_and_the_others_notice_nothing() -> None:
    async def act(scene: Scene) -> None:
        unison: Unison = scene.watchers[2].session.sender.unison
        lines = unison._lines["video"]
        lines.blanks = lines.blanks.copy()
        place = [viewer.sender for viewer in unison._viewers].index(scene.watchers[2].session.sender)
        lines.blanks[place, 0, 14:16] = 0xFF  # an extension longer than the packet

    heard, _ = play(act, seed=0, has_sound=False, seconds=1)
    assert heard[2].books["closed"] == "its packets cannot be protected: libsrtp says 2"
    assert {each.books["closed"] for each in heard if each is not heard[2]} == {None}
    for each in heard:
        numbers = [number for _, stream, number, *_ in each.packets if stream == 0]
        assert numbers == list(range(len(numbers)))
        late = [at_ns for at_ns, *_ in each.packets if at_ns > 1e9 * (BEGIN_S + 1.2)]
        assert bool(late) == (each is not heard[2])


def test_who_fails_when_its_books_are_kept_is_let_go_and_the_others_have_theirs() -> None:
    async def act(scene: Scene) -> None:
        scene.watchers[2].session.switch.passed = None  # any fault of ours

    heard, _ = play(act, seed=0, has_sound=False, seconds=1)
    assert heard[2].books["closed"] == "failed: 'NoneType' object is not callable"
    for each in (each for each in heard if each is not heard[2]):
        numbers = [number for _, stream, number, *_ in each.packets if stream == 0]
        assert numbers == list(range(len(numbers)))
        assert each.books["closed"] is None


def test_nothing_leaves_any_more_to_whom_it_is_not_known_what_has_left() -> None:
    async def act(scene: Scene) -> None:
        sender = scene.watchers[2].session.sender
        assert sender.unison.owes
        sender.estimator.sent = None  # any fault of ours
        unit = AccessUnit((b"more",), "h264")
        assert not sender.send("video", unit, ticks=1 << 20, now_ns=scene.stage.clock.now_ns())
        assert scene.watchers[2].session.closed_because == "failed: 'NoneType' object is not callable"

    play(act, seed=0, has_sound=False, seconds=0.1)


def test_what_may_have_left_keeps_its_numbers_when_sending_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(scene: Scene) -> None:
        unison: Unison = scene.watchers[0].session.sender.unison
        outbox, way = unison._outbox, unison._outbox._way
        stream, places = scene.watchers[0].session.streams["video"], iter(range(99))
        unison.put_down()
        before = stream.packets_sent

        class Broken:
            def send_evens(self, *args: Any) -> object:
                if next(places) == 3:
                    raise MemoryError
                return way.send_evens(*args)

        outbox._way = Broken()
        unit = AccessUnit((b"first", b"later"), "h264")
        picture = Picture(unison.rung, unison.next_number, 1 << 20)
        with pytest.raises(MemoryError):
            unison.send("video", unit, picture, ticks=1 << 20, now_ns=scene.stage.clock.now_ns())
        outbox._way = way
        unison.put_down()
        assert {viewer.sender.unison for viewer in unison._viewers} == {unison}  # type: ignore[comparison-overlap]
        assert stream.packets_sent == before + 2

    play(act, seed=0, has_sound=False, seconds=0.02)


def test_many_are_served_in_groups_and_who_comes_later_fills_them_up() -> None:
    async def act(scene: Scene) -> None:
        viewers = scene.stage.viewers
        sizes = [len(unison) for unison in viewers._chorus._unisons]
        assert len(sizes) == 2
        assert max(sizes) <= 4
        await scene.join(audio=False)
        await scene.stage.until(BEGIN_S + 4)
        after = [len(unison) for unison in viewers._chorus._unisons]
        assert (sum(sizes), max(after), sum(after)) == (7, 4, 8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_unison, "SLOTS", 4)
        patch.setattr(_unison, "MANY", 2)
        play(act, seed=0, count=7, has_sound=False, seconds=5)


def acts() -> list[Act]:
    """All that may come between two pictures."""

    async def moves(scene: Scene) -> None:
        watcher = scene.somebody
        watcher.move()
        watcher.send(watcher.request())

    async def narrows(scene: Scene) -> None:
        scene.stage.network.change(scene.somebody.down, rate=scene.chance.choice(["900k", "3M", "40M"]))

    async def loses(scene: Scene) -> None:
        scene.stage.network.change(scene.somebody.down, loss=scene.chance.choice(["0%", "3%", "10%"]))

    async def misses(scene: Scene) -> None:
        watcher = scene.somebody
        watcher.session.sender.settle()
        first = watcher.session.streams["video"]._sequence_number
        watcher.send_rtcp(Nack(1, watcher.ssrcs[0], tuple((first - back) & 0xFFFF for back in (1, 3, 400))))

    async def asks_for_a_keyframe(scene: Scene) -> None:
        watcher = scene.somebody
        watcher.send_rtcp(PictureLossIndication(1, watcher.ssrcs[0]))

    async def is_paused_or_goes_on(scene: Scene) -> None:
        seat = scene.seat(scene.somebody)
        registry = scene.stage.viewers.registry
        (registry.pause if scene.chance.random() < 0.5 else registry.resume)(seat.viewer)

    async def may_hear(scene: Scene) -> None:
        seat = scene.seat(scene.somebody)
        scene.stage.viewers.registry.permit(seat.viewer, audio=scene.chance.random() < 0.5)

    async def is_capped(scene: Scene) -> None:
        seat = scene.seat(scene.somebody)
        scene.stage.viewers.registry.cap(seat.viewer, scene.chance.choice([None, 200_000, 5_000_000]))

    async def chooses(scene: Scene) -> None:
        scene.stage.viewers.choose(scene.somebody.session, scene.chance.choice(["auto", "high", "middle"]))

    async def is_asked_about(scene: Scene) -> None:
        scene.stage.viewers.reports()
        scene.seat(scene.somebody)
        assert scene.stage.viewers.registry.viewers

    async def leaves(scene: Scene) -> None:
        scene.stage.viewers.dismiss(scene.somebody.session.id)

    async def comes(scene: Scene) -> None:
        if len(scene.watchers) < 9:
            await scene.join(audio=scene.chance.random() < 0.7)

    async def all_are_paused_or_go_on(scene: Scene) -> None:
        registry = scene.stage.viewers.registry
        (registry.pause_view if scene.chance.random() < 0.3 else registry.resume_view)()

    async def is_silent(scene: Scene) -> None:
        watcher = scene.somebody
        scene.stage.network.change(watcher.up, loss=scene.chance.choice(["0%", "100%"]))

    return list(locals().values())


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_in_between_is_the_same_together_and_alone(seed: int) -> None:
    async def act(scene: Scene) -> None:
        clock, known = scene.stage.clock, acts()
        for _ in range(25):
            await scene.chance.choice(known)(scene)
            await clock.sleep_until_ns(clock.now_ns() + scene.chance.randrange(1, 800) * 1_000_003)

    assert same_as_apart(act, seed=seed, count=7, seconds=12) > 50
