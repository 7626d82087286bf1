"""What a STUN server sees of a port, on scripted answers and clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import stun
from flowstream.proto.ice_agent import asker_of
from flowstream.proto.reflexive import MAX_SENDS, PAUSE_NS, REFRESH_NS, Reflexive
from flowstream.proto.stun import Class, Message

SECOND = 1_000_000_000
SEEN = ("203.0.113.5", 8080)


def asking(now_ns: int = 0) -> Reflexive:
    return Reflexive(draw=random.Random(1).randbytes, now_ns=now_ns)


def answer(request: bytes | None, seen: tuple[str, int] = SEEN, *, kind: Class = Class.SUCCESS) -> bytes:
    assert request is not None
    key = Message.parse(request).transaction_id
    attributes = ((stun.XOR_MAPPED_ADDRESS, stun.pack_xor_address(seen, key)),)
    if kind is Class.ERROR:
        attributes = ((stun.ERROR_CODE, stun.pack_error(400, "Bad Request")),)
    return Message(stun.BINDING, kind, key, attributes).to_bytes()


def test_the_server_tells_the_address_and_is_asked_again_before_the_nat_forgets() -> None:
    ours = asking()
    request = ours.handle_deadline(now_ns=0)
    assert ours.handle_datagram(answer(request), now_ns=SECOND)
    assert asker_of(answer(request)) == ours.tag
    assert ours.mapped == SEEN
    assert ours.deadline_ns == SECOND + REFRESH_NS
    assert ours.handle_deadline(now_ns=2 * SECOND) is None
    again = ours.handle_deadline(now_ns=ours.deadline_ns)
    assert again is not None
    assert again != request
    assert not ours.handle_datagram(answer(again), now_ns=17 * SECOND), "it is where it was"
    moved = ours.handle_deadline(now_ns=ours.deadline_ns)
    assert ours.handle_datagram(answer(moved, ("203.0.113.5", 9)), now_ns=40 * SECOND)
    assert ours.mapped == ("203.0.113.5", 9)


def test_a_silent_server_is_given_up_for_a_minute() -> None:
    ours = asking()
    sent = []
    while not ours.is_silent:
        sent.append((ours.deadline_ns, ours.handle_deadline(now_ns=ours.deadline_ns)))
    assert [at / SECOND for at, _ in sent] == [0, 0.5, 1.5, 3.5, 7.5]
    assert len({data for _, data in sent if data}) == 1
    assert len(sent) == MAX_SENDS + 1
    assert ours.deadline_ns == round(7.5 * SECOND) + PAUSE_NS
    request = ours.handle_deadline(now_ns=ours.deadline_ns)
    assert not ours.is_silent, "it has another chance"
    assert ours.handle_datagram(answer(request), now_ns=ours.deadline_ns)


def test_a_server_that_falls_silent_takes_the_address_with_it() -> None:
    ours = asking()
    ours.handle_datagram(answer(ours.handle_deadline(now_ns=0)), now_ns=0)
    while not ours.is_silent:
        ours.handle_deadline(now_ns=ours.deadline_ns)
    assert ours.mapped is None


def test_an_error_counts_as_silence() -> None:
    ours = asking()
    assert ours.handle_datagram(answer(ours.handle_deadline(now_ns=0), kind=Class.ERROR), now_ns=1)
    assert ours.is_silent


def test_what_answers_nothing_that_was_asked_is_passed_over() -> None:
    ours = asking()
    request = ours.handle_deadline(now_ns=0)
    other = asking()
    foreign = Reflexive(draw=random.Random(2).randbytes, now_ns=0).handle_deadline(now_ns=0)
    assert not ours.handle_datagram(answer(foreign), now_ns=0)
    assert not ours.handle_datagram(request or b"", now_ns=0)
    assert not other.handle_datagram(answer(request), now_ns=0), "it has asked nothing yet"
    assert ours.mapped is None


@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 3))
def test_any_datagram_is_survived(more: bytes, at: int, cut: int) -> None:
    ours = asking()
    data = answer(ours.handle_deadline(now_ns=0))
    ours.handle_datagram(data[:at] + more + data[at + cut :], now_ns=1)
    assert ours.mapped is None or isinstance(ours.mapped[1], int)
