"""What strangers may send: forged, replayed, malformed and half-finished. Who watches loses nothing by it.

The real sessions on the virtual clock; datagrams come in at the mux as from the network, from any address.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowstream import Caller, DoorClosed
from flowstream.proto.ice import MAX_PAIRS, Pair
from flowstream.proto.rtcp import Nack, PictureLossIndication, ReceiverEstimate, TransportFeedback, pack_compound
from flowstream.testing import VirtualClock, run_virtual
from flowstream_nodes.webrtc import _session
from flowstream_nodes.webrtc._session import MAX_PENDING_DTLS, SETUP_S
from tests.nodes.webrtc.links import SERVER, VirtualStage, Watcher, open_virtual_stage
from tests.nodes.webrtc.player import LoopbackViewer

CORPUS = Path(__file__).parent / "corpus"
STRANGER = ("203.0.113.7", 6000)
LINK = {"rate": "6M", "delay": "25ms", "queue_time": "300ms"}

WIDE = {"rate": "40M", "delay": "20ms", "queue_time": "300ms"}

Attack = Callable[[VirtualStage, Watcher], Awaitable[None]]


def attack(main: Attack, *, seconds: float = 7, has_sound: bool = False) -> tuple[VirtualStage, Watcher]:
    """Somebody watches, from the fourth second on under attack. It must see every picture, in time, and stay."""

    async def call(clock: VirtualClock) -> tuple[VirtualStage, Watcher]:
        async with open_virtual_stage(clock, has_sound=has_sound) as stage:
            stage.most = 2_000
            watcher = stage.watcher({"delay": "25ms"})
            await watcher.join(audio=has_sound)
            stage.network.change(watcher.down, **LINK)
            await stage.until(4)
            await main(stage, watcher)
            until = max(seconds, (clock.now_ns() - stage.begun_ns) / 1e9 + 2)
            await stage.until(until)
            story = stage.story(watcher, since=1, until=until)
            assert watcher.session.connected
            assert watcher.session.ice.selected == Pair(SERVER, watcher.address)
            assert story.freezes == 0
            assert story.share >= 0.99
            assert story.delay_p95_ms <= 60
            assert watcher.receiver.asked_again == 0
            assert watcher.receiver.keyframes_asked == 0
            return stage, watcher

    return run_virtual(call)


def come_in(stage: VirtualStage, data: bytes, remote: tuple[str, int]) -> None:
    """A datagram from an address, whoever sent it; the socket gives none that is empty."""
    if data:
        stage.network.mux.arrive(data, Pair(SERVER, remote))


# --- forged and replayed ----------------------------------------------------------------------------------------------


def test_packets_seen_on_the_way_and_sent_again_do_nothing() -> None:
    """An onlooker repeats all that a viewer has sent: checks, handshake, feedback; from its own address and, forged,
    from the viewer's."""
    sent: list[bytes] = []
    keyframes: list[int] = []

    async def replay(stage: VirtualStage, watcher: Watcher) -> None:
        send = watcher.send

        def note(data: bytes) -> None:
            sent.append(data)
            send(data)

        watcher.send = note  # type: ignore[method-assign]
        watcher.send(watcher.request())
        await stage.until(5)
        stage_keyframes, damaged = stage.encoders.keyframes, watcher.session.damaged_datagrams
        round_trip_ns = watcher.session.round_trip_ns
        seen = list(sent)
        assert sum(data[0] >= 128 for data in seen) > 15
        for data in [*seen, *seen]:
            come_in(stage, data, STRANGER)
            come_in(stage, data, watcher.address)
        assert watcher.session.ice.selected.remote == watcher.address
        assert STRANGER not in {pair.remote for pair in watcher.session.ice.pairs}
        assert watcher.session.round_trip_ns == round_trip_ns
        assert watcher.session.damaged_datagrams - damaged == 2 * sum(data[0] >= 128 for data in seen)
        await stage.until(6)
        keyframes.append(stage.encoders.keyframes - stage_keyframes)

    attack(replay)
    assert keyframes == [0]


def test_a_check_that_was_seen_does_not_move_the_media_to_who_saw_it() -> None:
    """A connectivity check is the viewer's wherever it comes from the first time, as after a new NAT binding; the same
    one again, from elsewhere, is not."""

    async def steal(stage: VirtualStage, watcher: Watcher) -> None:
        check = watcher.request()
        come_in(stage, check, watcher.address)
        come_in(stage, check, STRANGER)
        assert watcher.session.ice.selected.remote == watcher.address
        for _ in range(_session.MOST_CHECKS - 2):
            come_in(stage, watcher.request(), watcher.address)
        come_in(stage, check, STRANGER)
        assert watcher.session.ice.selected.remote == watcher.address
        assert len(watcher.session._checks) <= _session.MOST_CHECKS

    attack(steal)


def test_forged_packets_do_nothing() -> None:
    """Checks by a wrong password, feedback under no key, media of its own, and the goodbye of a handshake that is over,
    as if from the viewer."""

    async def forge(stage: VirtualStage, watcher: Watcher) -> None:
        ssrc = watcher.ssrcs[0]
        feedback = pack_compound(
            [
                Nack(1, ssrc, tuple(range(100))),
                PictureLossIndication(1, ssrc),
                ReceiverEstimate(1, 10_000, (ssrc,)),
            ]
        )
        forged = [
            watcher.request(password="0" * 32),
            feedback,
            feedback + bytes(14),
            bytes((0x80, 96)) + bytes(60),
            bytes.fromhex("15fefd000000000000000100020100"),  # close_notify, in the clear
            bytes.fromhex("15fefd0001000000000f0100020228"),  # handshake_failure
            bytes.fromhex("16fefd0000000000000000000c010000000000000000000000"),  # an empty ClientHello
        ]
        keyframes = stage.encoders.keyframes
        for _ in range(200):
            for data in forged:
                come_in(stage, data, watcher.address)
                come_in(stage, data, STRANGER)
        await stage.until(5)
        assert stage.encoders.keyframes == keyframes
        assert watcher.session.ice.pairs == (Pair(SERVER, watcher.address),)

    attack(forge)


@pytest.mark.parametrize("fails", [False, True])
def test_a_viewer_who_says_that_nothing_arrived_ends_no_more_than_its_session(fails: bool) -> None:
    """It says so when what it tells is put off; ``fails``: whatever comes of that is an error of ours."""

    async def call(clock: VirtualClock) -> None:
        async with open_virtual_stage(clock) as stage:
            hostile, other = stage.watcher(WIDE), stage.watcher(WIDE)
            await hostile.join()
            await stage.until(5)
            session = hostile.session
            with anyio.fail_after(3):
                while not session.sender.is_calm:
                    await clock.sleep_until_ns(clock.now_ns() + 1_000_000)
            hostile._tell = lambda now_ns: None  # type: ignore[method-assign]
            await clock.sleep_until_ns(clock.now_ns() + 400_000_000)
            assert session.sender.is_calm, "what it says now is put off"
            if fails:
                session.sender.handle_feedback = lambda *args, **options: 1 // 0
            base = (session.sender.estimator.packets.next_number - 40) & 0xFFFF
            hostile.send_rtcp(TransportFeedback(1, hostile.ssrcs[0], base, 100, 0, (None,) * 40))
            await clock.sleep_until_ns(clock.now_ns() + 500_000_000)
            assert (session.closed_because is not None) == fails
            await other.join()
            begun = (clock.now_ns() - stage.begun_ns) / 1e9
            await stage.until(begun + 4)
            assert stage.story(other, since=begun + 1, until=begun + 4).pictures > 80

    run_virtual(call)


def test_checks_from_everywhere_are_bounded() -> None:
    """Somebody who knows the password, as a page in the viewer's browser does, checks from a thousand addresses."""

    async def check(stage: VirtualStage, watcher: Watcher) -> None:
        for number in range(1_000):
            come_in(stage, watcher.request(nominate=False), (f"203.0.113.{number % 250}", 1_000 + number))
        assert len(watcher.session.ice.pairs) <= MAX_PAIRS
        assert len(stage.network.mux._peers) <= MAX_PAIRS

    attack(check)


# --- malformed --------------------------------------------------------------------------------------------------------


def damaged(chance: random.Random, data: bytes) -> bytes:
    """The same with a few bytes changed, cut or put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        position = chance.randrange(len(found) + 1)
        match chance.randrange(4):
            case 0:
                del found[position:]
            case 1:
                found[position:position] = chance.randbytes(chance.randint(1, 8))
            case _ if position < len(found):
                found[position] = chance.randrange(256)
    return bytes(found)


def corpus(kind: str) -> list[bytes]:
    """What was kept: a datagram in each line, in hexadecimal, comments apart."""
    lines = (CORPUS / f"{kind}.hex").read_text().splitlines()
    return [bytes.fromhex(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


@pytest.mark.parametrize("kind", ["dtls", "rtcp", "stun"])
def test_malformed_datagrams_of_a_viewer_do_no_harm(kind: str) -> None:
    """Records and fragments of DTLS, feedback that is protected well, and STUN: what was kept, and each damaged fifty
    times; as if from the viewer, who watches on."""

    async def send(stage: VirtualStage, watcher: Watcher) -> None:
        chance = random.Random(kind)
        for data in corpus(kind):
            for number in range(51):
                made = damaged(chance, data) if number else data
                if kind == "rtcp":
                    if len(made) < 8:
                        continue
                    head = bytes((0x80 | made[0] & 0x3F, 200 + made[1] % 8)) + made[2:]
                    made = watcher.dtls._tx_srtp.protect_rtcp(head)
                come_in(stage, made, watcher.address)
            await anyio.sleep(0.001)

    attack(send)


@settings(max_examples=1, deadline=None, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_malformed_datagrams_of_any_kind_do_no_harm(seed: int) -> None:
    """The same with other damage each time; `tools/long fuzz` goes on with it."""

    async def send(stage: VirtualStage, watcher: Watcher) -> None:
        chance = random.Random(seed)
        for kind in ("dtls", "rtcp", "stun"):
            for data in corpus(kind):
                for _ in range(10):
                    made = damaged(chance, data)
                    if kind == "rtcp" and len(made) >= 8:
                        made = watcher.dtls._tx_srtp.protect_rtcp(bytes((0x80 | made[0] & 0x3F,)) + made[1:])
                    come_in(stage, made, watcher.address)
                await anyio.sleep(0.001)

    attack(send)


# --- half open --------------------------------------------------------------------------------------------------------


def test_a_thousand_sessions_that_never_connect_are_bounded_and_end() -> None:
    """A thousand offers from a thousand networks, and not one check: they take no more places than there are, some
    memory for a quarter of a minute, and nothing of who watches."""

    async def flood(stage: VirtualStage, watcher: Watcher) -> None:
        offer = LoopbackViewer().offer(numbers=True)
        stage.viewers.admit(offer, Caller("198.18.255.1"))  # what the first one imports is not counted
        objects = len(gc.get_objects())
        tracemalloc.start()
        for number in range(20):
            stage.viewers.admit(offer, Caller(f"198.18.250.{number}"))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held / 20 < 60_000
        for number in range(1_000):
            stage.viewers.admit(offer, Caller(f"198.18.{number // 250}.{number % 250}"))
            if number % 25 == 0:
                await anyio.sleep(0.01)
        assert len(stage.viewers.sessions) == 1_022
        await stage.until(4 + SETUP_S + 2)
        assert list(stage.viewers.sessions.values()) == [watcher.session]
        assert len(stage.network.mux._sessions) == 1
        assert len(stage.viewers._seated) == 1
        gc.collect()
        assert len(gc.get_objects()) - objects < 10_000, "nothing is left of them but what the registry tells of"

    attack(flood)


def test_no_more_come_in_than_may_and_one_network_not_by_the_dozen() -> None:
    async def flood(stage: VirtualStage, watcher: Watcher) -> None:
        stage.most = 50
        refused: dict[str, int] = {}
        offer = LoopbackViewer().offer(numbers=True)
        for number in range(1_000):
            # Half of them of one network, half of many.
            address = "198.18.0.1" if number % 2 else f"198.18.{number // 250}.{number % 250}"
            try:
                stage.viewers.admit(offer, Caller(address))
            except DoorClosed as error:
                refused[error.kind] = refused.get(error.kind, 0) + 1
        assert len(stage.viewers.sessions) <= 50
        assert refused["too-many"] >= 450
        assert refused["too-many"] + refused["full"] >= 950

    attack(flood)


def test_handshakes_that_are_begun_and_never_ended_are_bounded_and_end() -> None:
    """Fifty sessions check their path, begin a handshake, send its first message a hundred times, and stop: what waits
    is bounded, what is answered is not much more than what came, and they are gone after a quarter of a minute."""

    async def flood(stage: VirtualStage, watcher: Watcher) -> None:
        hello = corpus("dtls")[0]
        other = LoopbackViewer()
        offer = other.offer(numbers=True)
        door = stage.network.mux._ports[SERVER[0]].socket
        send, answered = door.sendto, [0]

        def note(data: bytes | memoryview, remote: tuple[str, int]) -> int:
            answered[0] += len(data) * remote[0].startswith("198.18")
            return int(send(data, remote))

        door.sendto = note  # type: ignore[method-assign]
        came = 0
        for number in range(50):
            address = (f"198.18.0.{number}", 5_000)
            admitted = stage.viewers.admit(offer, Caller(f"198.18.{number}.1"))
            session = stage.viewers.sessions[admitted.session_id]
            other.peer_ufrag, other.peer_password = session.ice.ufrag, session.password
            come_in(stage, other.request(), address)
            await anyio.sleep(0.001)
            for _ in range(100):
                come_in(stage, hello, address)
                came += len(hello)
            assert session._path._pending.qsize() <= MAX_PENDING_DTLS
            await anyio.sleep(0.001)
        assert answered[0] <= 3 * came
        await stage.until(4 + SETUP_S + 3)
        assert list(stage.viewers.sessions.values()) == [watcher.session]
        assert len(stage.network.mux._peers) == 1

    attack(flood)


def test_handshake_messages_from_nowhere_are_not_even_looked_at() -> None:
    async def flood(stage: VirtualStage, watcher: Watcher) -> None:
        handled: list[bytes] = []
        handle = watcher.session.handle_datagram
        watcher.session.handle_datagram = lambda data, pair: (handled.append(data), handle(data, pair))
        for data in corpus("dtls"):
            for port in range(1_000, 1_100):
                come_in(stage, data, ("203.0.113.9", port))
        assert not handled
        watcher.session.handle_datagram = handle

    attack(flood)
