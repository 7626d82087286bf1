"""The lite ICE agent on scripted datagrams and clock."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import stun
from flowstream.proto.ice import (
    CONSENT_NS,
    MAX_PAIRS,
    Credentials,
    Expired,
    Forgotten,
    IceLite,
    Pair,
    Reply,
    Retired,
    Selected,
    Verified,
    local_ufrag,
)
from flowstream.proto.stun import Class, Message

HERE = ("198.51.100.1", 8080)
HOME = Pair(HERE, ("192.0.2.7", 40_000))
AWAY = Pair(("2001:db8::1", 8080), ("2001:db8::7", 50_000))
PASSWORD = "a password of ours 22+"
TRANSACTION = bytes(range(12))


def agent(now_ns: int = 0) -> IceLite:
    return IceLite(Credentials("ours", PASSWORD.encode(), "peer"), now_ns=now_ns)


def check(
    *extra: tuple[int, bytes],
    username: bytes | None = b"ours:peer",
    key: bytes | None = PASSWORD.encode(),
    nominate: bool = False,
    kind: Class = Class.REQUEST,
) -> bytes:
    attributes = list(extra)
    if username is not None:
        attributes.insert(0, (stun.USERNAME, username))
    if nominate:
        attributes.append((stun.USE_CANDIDATE, b""))
    attributes += [(stun.PRIORITY, b"\x6e\0\x01\xff"), (stun.ICE_CONTROLLING, bytes(8))]
    return Message(stun.BINDING, kind, TRANSACTION, tuple(attributes)).to_bytes(key)


def error_of(outcomes: list[object]) -> int:
    (reply,) = outcomes
    assert isinstance(reply, Reply)
    value = Message.parse(reply.data).get(stun.ERROR_CODE)
    assert value is not None
    return stun.unpack_error(value)


def test_a_check_is_answered_and_proves_the_pair() -> None:
    ice = agent()
    outcomes = ice.handle_datagram(check(), AWAY, now_ns=1)
    reply, verified = outcomes
    assert isinstance(reply, Reply)
    assert reply.pair == AWAY
    assert verified == Verified(AWAY)
    answer = Message.parse(reply.data)
    assert answer.kind is Class.SUCCESS
    assert answer.transaction_id == TRANSACTION
    assert answer.verify(PASSWORD.encode())
    assert answer.has_fingerprint
    mapped = answer.get(stun.XOR_MAPPED_ADDRESS)
    assert mapped is not None
    assert stun.unpack_xor_address(mapped, TRANSACTION) == AWAY.remote
    assert ice.selected is None


def test_one_peer_address_seen_by_two_of_ours_is_two_pairs() -> None:
    ice = agent()
    other = Pair(("127.0.0.1", 8080), HOME.remote)
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    assert Selected(other) in ice.handle_datagram(check(nominate=True), other, now_ns=2)
    assert ice.pairs == (HOME, other)


def test_the_last_nomination_wins() -> None:
    ice = agent()
    assert Selected(HOME) in ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    assert not any(isinstance(o, Selected) for o in ice.handle_datagram(check(nominate=True), HOME, now_ns=2))
    assert Selected(AWAY) in ice.handle_datagram(check(nominate=True), AWAY, now_ns=3)
    assert ice.selected == AWAY
    assert not any(isinstance(o, Selected) for o in ice.handle_datagram(check(), HOME, now_ns=4))
    assert ice.selected == AWAY


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (check(username=None), 400),
        (check(key=None), 400),
        (check(key=b"guessed"), 401),
        (check(username=b"ours:other"), 401),
        (check(username=b"other:peer"), 401),
        (check((0x7FFE, b"what")), 420),
        (check((stun.ICE_CONTROLLED, bytes(8))), 487),
    ],
)
def test_a_wrong_check_gets_the_error_that_names_it_and_changes_nothing(data: bytes, code: int) -> None:
    ice = agent()
    assert error_of(list(ice.handle_datagram(data, HOME, now_ns=5))) == code
    assert ice.pairs == ()
    assert ice.deadline_ns == CONSENT_NS


def test_an_unknown_attribute_is_listed_in_the_error() -> None:
    (reply,) = agent().handle_datagram(check((0x7FFE, b"what")), HOME, now_ns=0)
    assert isinstance(reply, Reply)
    assert Message.parse(reply.data).get(stun.UNKNOWN_ATTRIBUTES) == b"\x7f\xfe"


def test_a_request_is_told_from_an_indication_by_its_class() -> None:
    assert agent().handle_datagram(check(kind=Class.INDICATION), HOME, now_ns=0) == []
    assert agent().handle_datagram(check(kind=Class.SUCCESS), HOME, now_ns=0) == []


def restart(ice: IceLite, ufrag: str = "anew") -> list[object]:
    return list(ice.restart(Credentials(ufrag, PASSWORD[::-1].encode(), "later")))


def later(ufrag: str = "anew", *, nominate: bool = False) -> bytes:
    return check(username=f"{ufrag}:later".encode(), key=PASSWORD[::-1].encode(), nominate=nominate)


def test_a_restart_keeps_the_path_until_the_peer_nominates_one_under_the_new_credentials() -> None:
    ice = agent()
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    assert restart(ice) == []
    assert ice.selected == HOME
    assert ice.ufrags == ("anew", "ours")
    (before,) = ice.handle_datagram(check(), HOME, now_ns=2)  # consent on the old path goes on
    assert isinstance(before, Reply)
    reply, verified = ice.handle_datagram(later(), AWAY, now_ns=3)
    assert isinstance(reply, Reply)
    assert Message.parse(reply.data).verify(PASSWORD[::-1].encode())
    assert verified == Verified(AWAY)
    assert ice.selected == HOME
    assert ice.handle_datagram(later(nominate=True), AWAY, now_ns=4)[1:] == [Retired("ours"), Selected(AWAY)]
    assert ice.ufrags == ("anew",)
    assert error_of(list(ice.handle_datagram(check(), HOME, now_ns=5))) == 401


def test_a_restart_may_end_on_the_path_that_there_was() -> None:
    ice = agent()
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    restart(ice)
    assert ice.handle_datagram(later(nominate=True), HOME, now_ns=2)[1:] == [Retired("ours")]
    assert ice.selected == HOME


def test_of_several_restarts_the_credentials_in_use_and_the_newest_count() -> None:
    ice = agent()
    assert restart(ice, "soon") == [Retired("ours")]  # nothing had been nominated under those
    ice.handle_datagram(later("soon", nominate=True), HOME, now_ns=1)
    assert restart(ice, "then") == []
    assert restart(ice, "last") == [Retired("then")]
    assert ice.ufrags == ("last", "soon")
    assert error_of(list(ice.handle_datagram(later("then"), HOME, now_ns=2))) == 401
    assert len(ice.handle_datagram(later("soon"), HOME, now_ns=3)) == 1


def test_the_username_of_one_time_with_the_password_of_another_is_refused() -> None:
    ice = agent()
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    restart(ice)
    mixed = check(username=b"anew:later"), check(username=b"ours:later"), check(key=PASSWORD[::-1].encode())
    for datagram in mixed:
        assert error_of(list(ice.handle_datagram(datagram, HOME, now_ns=2))) == 401


def test_consent_lasts_thirty_seconds_after_the_last_check_and_ends_once() -> None:
    ice = agent(now_ns=7)
    assert ice.deadline_ns == 7 + CONSENT_NS
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1_000)
    assert ice.deadline_ns == 1_000 + CONSENT_NS
    assert ice.handle_deadline(now_ns=999 + CONSENT_NS) == []
    assert ice.handle_deadline(now_ns=1_000 + CONSENT_NS) == [Expired()]
    assert ice.deadline_ns is None
    assert ice.handle_deadline(now_ns=2 * CONSENT_NS) == []
    assert ice.handle_datagram(check(), HOME, now_ns=2 * CONSENT_NS) == []


def test_a_forged_check_does_not_prolong_consent() -> None:
    ice = agent()
    ice.handle_datagram(check(key=b"guessed"), HOME, now_ns=CONSENT_NS - 1)
    assert ice.handle_deadline(now_ns=CONSENT_NS) == [Expired()]


def test_pairs_are_bounded_and_the_selected_one_stays() -> None:
    ice = agent()
    ice.handle_datagram(check(nominate=True), HOME, now_ns=0)
    forgotten: list[object] = []
    for port in range(1, MAX_PAIRS + 5):
        outcomes = ice.handle_datagram(check(), Pair(HERE, ("192.0.2.8", port)), now_ns=port)
        forgotten += [outcome for outcome in outcomes if isinstance(outcome, Forgotten)]
    assert len(ice.pairs) == MAX_PAIRS
    assert HOME in ice.pairs
    assert forgotten == [Forgotten(Pair(HERE, ("192.0.2.8", port))) for port in range(1, 6)]


@pytest.mark.parametrize(
    ("data", "ufrag"),
    [
        (check(), "ours"),
        (check(username=None), None),
        (check(username=b"no colon"), None),
        (check(username=b"\xff:peer"), None),
        (check(kind=Class.SUCCESS), None),
        (b"\x16\xfe\xfd", None),
    ],
)
def test_the_session_of_a_shared_port_is_found_by_its_ufrag(data: bytes, ufrag: str | None) -> None:
    assert local_ufrag(data) == ufrag


@given(st.lists(st.binary(max_size=120) | st.binary(max_size=100).map(lambda tail: check()[:20] + tail), max_size=5))
def test_no_datagram_upsets_it(datagrams: list[bytes]) -> None:
    ice = agent()
    for data in datagrams:
        outcomes = ice.handle_datagram(data, HOME, now_ns=1)
        assert all(isinstance(outcome, Reply) for outcome in outcomes)
        local_ufrag(data)
    assert ice.selected is None


@given(
    username=st.none() | st.binary(max_size=30),
    before=st.lists(st.tuples(st.sampled_from([0x0024, 0x8022, 0x802A]), st.binary(max_size=9)), max_size=3),
    kind=st.sampled_from(list(Class)),
    is_protected=st.booleans(),
    cut=st.integers(0, 40) | st.just(0),
)
def test_who_is_asked_for_is_found_without_reading_the_rest(
    username: bytes | None, before: list[tuple[int, bytes]], kind: Class, is_protected: bool, cut: int
) -> None:
    attributes = [*before, *([] if username is None else [(stun.USERNAME, username)])]
    message = stun.Message(stun.BINDING, kind, bytes(12), tuple(attributes))
    data = message.to_bytes(b"key" if is_protected else None)
    found = local_ufrag(data[: len(data) - cut])
    name, colon, _ = (username or b"").partition(b":")
    is_named = kind is Class.REQUEST and colon and name.isascii()
    expected = name.decode() if is_named else None
    assert found == expected if not cut else found in (None, expected)


def test_a_name_behind_what_vouches_for_the_message_is_nobodys() -> None:
    data = check(username=None)
    assert local_ufrag(data + struct.pack("!HH8s", stun.USERNAME, 6, b"ours:x")) is None
    assert local_ufrag(data[:20] + struct.pack("!HH8s", stun.USERNAME, 6, b"ours:x")) == "ours"


def test_the_way_is_settled_when_a_pair_is_selected_under_the_newest_credentials() -> None:
    ice = agent()
    assert not ice.is_settled
    ice.handle_datagram(check(nominate=True), HOME, now_ns=1)
    assert ice.is_settled
    ice.restart(Credentials("anew", PASSWORD.encode(), "later"))
    assert not ice.is_settled
    ice.handle_datagram(check(username=b"anew:later", nominate=True), AWAY, now_ns=2)
    assert ice.is_settled
