"""The full ICE agent against another one, through NATs and relays that are models, on a clock that is one too."""

from __future__ import annotations

import heapq
import itertools
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import stun
from flowstream.proto.candidates import Candidate, priority_of
from flowstream.proto.ice import (
    CONSENT_NS,
    Address,
    Check,
    Credentials,
    Expired,
    IceLite,
    Outcome,
    Pair,
    Reply,
    Retired,
    Selected,
    Verified,
)
from flowstream.proto.ice_agent import MAX_CHECKS, MAX_REMOTES, PACE_NS, IceAgent, Path, asker_of
from flowstream.proto.stun import Class, Message

SECOND = 1_000_000_000
DELAY_NS = 20_000_000

SERVER = ("192.168.1.2", 8080)
CLIENT = ("10.0.0.7", 40_000)
SERVER_NAT, CLIENT_NAT = "203.0.113.1", "198.51.100.1"
RELAY = ("192.0.2.9", 50_000)
RELAY_BASE = ("relay 192.0.2.9", 50_000)

OURS = Credentials("ours", b"a password of ours 22+", "peer", b"the password of the peer")
THEIRS = Credentials("peer", b"the password of the peer", "ours", b"a password of ours 22+")


@dataclass
class Nat:
    """Lets in only what answers (address- and port-dependent filtering, RFC 4787).

    A symmetric one has another port for each destination; the other kind has one, and keeps the number.
    """

    outside: str
    is_symmetric: bool = False
    ports: dict[tuple[Address, Address | None], Address] = field(default_factory=dict)
    opened: set[tuple[Address, Address]] = field(default_factory=set)

    def out(self, source: Address, target: Address) -> Address:
        key = (source, target if self.is_symmetric else None)
        port = 20_000 + len(self.ports) if self.is_symmetric else source[1]
        seen = self.ports.setdefault(key, (self.outside, port))
        self.opened.add((seen, target))
        return seen

    def inside(self, source: Address, target: Address) -> Address | None:
        if (target, source) not in self.opened:
            return None
        return next(key[0] for key, seen in self.ports.items() if seen == target)


@dataclass(eq=False)
class End:
    """One end: its agent, the NAT in front of it, and what came of it."""

    address: Address
    nat: Nat | None = None
    relay: Address | None = None
    is_walled: bool = False
    """Nothing goes out but to the relay."""
    agent: IceAgent | IceLite = field(init=False)
    told: list[tuple[int, Outcome]] = field(default_factory=list)
    permitted: set[str] = field(default_factory=set)
    sent: list[int] = field(default_factory=list)

    def has(self, kind: type[Outcome]) -> bool:
        return any(isinstance(outcome, kind) for _, outcome in self.told)


class Net:
    """Two ends, and what lies between them."""

    def __init__(self, left: End, right: End, *, loses: Callable[[], bool] = lambda: False) -> None:
        self.now_ns = 0
        self.ends = (left, right)
        self.loses = loses
        self.is_cut = False
        self._due: list[tuple[int, int, End, Pair, bytes]] = []
        self._order = itertools.count()

    def do(self, end: End, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            end.told.append((self.now_ns, outcome))
            if isinstance(outcome, Check):
                end.sent.append(self.now_ns)
            if isinstance(outcome, Check | Reply):
                self._send(end, outcome.pair, outcome.data)

    def run(self, seconds: float) -> None:
        until_ns = self.now_ns + round(seconds * SECOND)
        while True:
            deadlines = [end.agent.deadline_ns for end in self.ends]
            times = [each for each in deadlines if each is not None] + [each[0] for each in self._due[:1]]
            next_ns = max(min(times, default=until_ns), self.now_ns)
            if next_ns >= until_ns:
                self.now_ns = until_ns
                return
            self.now_ns = next_ns
            while self._due and self._due[0][0] <= self.now_ns:
                _, _, end, pair, data = heapq.heappop(self._due)
                self.do(end, end.agent.handle_datagram(data, pair, now_ns=self.now_ns))
            for end, deadline in zip(self.ends, deadlines, strict=True):
                if deadline is not None and deadline <= self.now_ns:
                    self.do(end, end.agent.handle_deadline(now_ns=self.now_ns))
                    again = end.agent.deadline_ns
                    assert again is None or again > self.now_ns, "it asks to be called and then does nothing"

    def _send(self, end: End, pair: Pair, data: bytes) -> None:
        if self.is_cut or self.loses():
            return
        local, remote = pair
        if local == RELAY_BASE:
            assert end.relay is not None
            end.permitted.add(remote[0])
            source = end.relay
        else:
            assert local == end.address, "it sends from an address that is not its own"
            if end.is_walled:
                return
            source = end.nat.out(end.address, remote) if end.nat else end.address
        (other,) = (each for each in self.ends if each is not end)
        arrives: Pair | None = None
        if remote == other.relay:
            arrives = Pair(RELAY_BASE, source) if source[0] in other.permitted else None
        elif other.nat is not None:
            inner = other.nat.inside(source, remote)
            arrives = Pair(inner, source) if inner == other.address else None
        elif remote == other.address:
            arrives = Pair(other.address, source)
        if arrives is not None:
            heapq.heappush(self._due, (self.now_ns + DELAY_NS, next(self._order), other, arrives, data))


def draws(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def candidates_of(end: End) -> list[Candidate]:
    """What an end tells of itself: its address, what a STUN server sees of it, its relay."""
    found = [Candidate("host", end.address, priority_of("host", 0))]
    if end.nat is not None:
        seen = end.nat.out(end.address, ("192.0.2.1", 3478))
        found.append(Candidate("srflx", seen, priority_of("srflx", 0), end.address))
    if end.relay is not None:
        found.append(Candidate("relay", end.relay, priority_of("relay", 0), end.address))
    return found


def paths_of(end: End) -> list[Path]:
    paths = [Path(end.address, end.address[0])]
    return paths if end.relay is None else [*paths, Path(RELAY_BASE, end.relay[0], "relay")]


def connect(
    server: End,
    client: End,
    *,
    roles: tuple[bool, bool] = (False, True),
    loses: Callable[[], bool] = lambda: False,
    told: tuple[bool, bool] = (True, True),
    seed: int = 1,
) -> Net:
    """A net with both agents on it, the server controlled as the end that answers."""
    net = Net(server, client, loses=loses)
    known = (candidates_of(client), candidates_of(server))
    for number, (end, credentials) in enumerate(((server, OURS), (client, THEIRS))):
        end.agent = IceAgent(
            credentials,
            paths=paths_of(end),
            remotes=known[number] if told[number] else (),
            draw=draws(seed + number),
            now_ns=0,
            is_controlling=roles[number],
        )
    return net


def assert_joined(net: Net) -> None:
    """Both go by the same way."""
    server, client = net.ends
    assert server.agent.selected is not None
    assert client.agent.selected is not None
    assert server.has(Verified)
    mark = len(server.told)
    answered: list[Pair] = []
    for end, credentials in zip(net.ends, (THEIRS, OURS), strict=True):
        pair = end.agent.selected
        assert pair is not None
        request = Message(stun.BINDING, Class.REQUEST, bytes(12), ((stun.USERNAME, credentials.username),))
        net._send(end, pair, request.to_bytes(credentials.key))
        (arrived,) = net._due
        net._due.clear()
        answered.append(arrived[3])
    assert answered == [client.agent.selected, server.agent.selected], "each end sends where the other one listens"
    assert len(server.told) == mark


def test_ends_that_reach_each_other_are_joined_by_the_first_check() -> None:
    net = connect(End(SERVER), End(CLIENT))
    net.run(0.5)
    assert_joined(net)
    selected_ns = next(at for at, outcome in net.ends[0].told if isinstance(outcome, Selected))
    assert selected_ns <= 200_000_000


def test_checks_from_behind_a_nat_open_it_for_a_peer_that_only_has_its_address() -> None:
    server = End(SERVER, Nat(SERVER_NAT))
    net = connect(server, End(CLIENT))
    net.run(2)
    assert_joined(net)
    assert server.agent.selected == Pair(SERVER, CLIENT)
    assert net.ends[1].agent.selected == Pair(CLIENT, (SERVER_NAT, 8080))


def test_two_nats_open_for_each_other() -> None:
    net = connect(End(SERVER, Nat(SERVER_NAT)), End(CLIENT, Nat(CLIENT_NAT)))
    net.run(2)
    assert_joined(net)
    assert net.ends[0].agent.selected == Pair(SERVER, (CLIENT_NAT, CLIENT[1]))


def test_a_symmetric_nat_is_passed_where_the_peer_has_an_address_of_its_own() -> None:
    net = connect(End(SERVER, Nat(SERVER_NAT, is_symmetric=True)), End(CLIENT))
    net.run(2)
    assert_joined(net)
    selected = net.ends[1].agent.selected
    assert selected is not None
    assert selected.remote[0] == SERVER_NAT
    assert selected.remote not in [each.address for each in candidates_of(End(SERVER, Nat(SERVER_NAT)))]


def test_two_symmetric_nats_are_passed_by_a_relay_alone() -> None:
    def ends(relay: Address | None) -> tuple[End, End]:
        return End(SERVER, Nat(SERVER_NAT, True), relay), End(CLIENT, Nat(CLIENT_NAT, True))

    net = connect(*ends(None))
    net.run(14)
    assert net.ends[0].agent.selected is None
    net = connect(*ends(RELAY))
    net.run(3)
    assert_joined(net)
    selected = net.ends[0].agent.selected
    assert selected is not None
    assert selected.local == RELAY_BASE
    assert net.ends[1].agent.selected is not None
    assert net.ends[1].agent.selected.remote == RELAY


def test_a_relay_is_not_taken_where_the_direct_way_goes() -> None:
    net = connect(End(SERVER, relay=RELAY), End(CLIENT))
    net.run(3)
    assert_joined(net)
    assert net.ends[0].agent.selected == Pair(SERVER, CLIENT)


def test_a_relay_that_was_slow_to_answer_is_checked_from_then_on() -> None:
    server, client = End(SERVER, Nat(SERVER_NAT), RELAY, is_walled=True), End(CLIENT)
    net = Net(server, client)
    server.agent = IceAgent(OURS, paths=paths_of(End(SERVER)), remotes=candidates_of(client), draw=draws(1), now_ns=0)
    told = candidates_of(End(SERVER, server.nat))
    client.agent = IceAgent(THEIRS, paths=paths_of(client), remotes=told, draw=draws(2), now_ns=0, is_controlling=True)
    net.run(3)
    assert server.agent.selected is None
    server.agent.add_paths(paths_of(server))
    net.run(2)
    assert_joined(net)


def test_a_peer_that_tells_nothing_is_found_by_its_checks() -> None:
    net = connect(End(SERVER), End(CLIENT, Nat(CLIENT_NAT)), told=(False, True))
    net.run(1)
    assert_joined(net)


def test_candidates_that_come_later_are_checked() -> None:
    server, client = End(SERVER, Nat(SERVER_NAT)), End(CLIENT)
    net = connect(server, client, told=(False, True))
    net.run(1)
    assert server.agent.selected is None
    assert isinstance(server.agent, IceAgent)
    server.agent.add_remotes(candidates_of(client))
    net.run(5)
    assert_joined(net)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("both_control", [True, False])
def test_of_two_with_the_same_role_one_takes_the_other(both_control: bool, seed: int) -> None:
    net = connect(End(SERVER), End(CLIENT), roles=(both_control, both_control), seed=seed * 2)
    net.run(3)
    assert_joined(net)
    assert [isinstance(end.agent, IceAgent) and end.agent.is_controlling for end in net.ends].count(True) == 1


def test_a_role_conflict_is_told_to_the_one_with_the_lesser_number() -> None:
    def answer(tie_breaker: bytes, attribute: int, *, is_controlling: bool) -> tuple[int | None, bool]:
        ours = IceAgent(
            OURS, paths=[], remotes=[], draw=lambda size: b"\x80" * size, now_ns=0, is_controlling=is_controlling
        )
        outcomes = ours.handle_datagram(request((attribute, tie_breaker)), Pair(SERVER, CLIENT), now_ns=0)
        reply = next(each for each in outcomes if isinstance(each, Reply))
        value = Message.parse(reply.data).get(stun.ERROR_CODE)
        return None if value is None else stun.unpack_error(value), ours.is_controlling

    less, more, same = b"\x7f" * 8, b"\x81" * 8, b"\x80" * 8
    assert answer(less, stun.ICE_CONTROLLING, is_controlling=True) == (487, True)
    assert answer(same, stun.ICE_CONTROLLING, is_controlling=True) == (487, True)
    assert answer(more, stun.ICE_CONTROLLING, is_controlling=True) == (None, False)
    assert answer(less, stun.ICE_CONTROLLED, is_controlling=False) == (None, True)
    assert answer(same, stun.ICE_CONTROLLED, is_controlling=False) == (None, True)
    assert answer(more, stun.ICE_CONTROLLED, is_controlling=False) == (487, False)
    assert answer(more, stun.ICE_CONTROLLED, is_controlling=True) == (None, True)
    assert answer(b"short", stun.ICE_CONTROLLING, is_controlling=True) == (400, True)


def test_a_lite_peer_is_checked_and_told_what_was_chosen() -> None:
    server, client = End(SERVER), End(CLIENT, Nat(CLIENT_NAT))
    net = Net(server, client)
    server.agent = IceLite(OURS, now_ns=0)
    client.agent = IceAgent(
        THEIRS, paths=paths_of(client), remotes=candidates_of(server), draw=draws(3), now_ns=0, is_controlling=True
    )
    net.run(3)
    assert_joined(net)


def test_consent_ends_30_s_after_the_last_answer() -> None:
    net = connect(End(SERVER), End(CLIENT))
    net.run(60)
    assert not net.ends[0].has(Expired), "answers keep it alive"
    checks = [at for at in net.ends[0].sent if at > 10 * SECOND]
    gaps = [later - before for before, later in itertools.pairwise(checks)]
    assert all(4 * SECOND <= gap <= 6 * SECOND for gap in gaps)
    assert len(set(gaps)) > 1
    heard_ns = checks[-1] + 2 * DELAY_NS
    net.is_cut = True
    net.run(40)
    (ended_ns,) = (at for at, outcome in net.ends[0].told if isinstance(outcome, Expired))
    assert ended_ns == pytest.approx(heard_ns + CONSENT_NS, abs=2 * DELAY_NS)
    assert net.ends[0].agent.deadline_ns is None
    assert net.ends[0].agent.handle_datagram(request(), Pair(SERVER, CLIENT), now_ns=net.now_ns) == []


def test_a_peer_that_talks_and_never_chooses_has_30_s() -> None:
    agent = lone()
    pair = Pair(SERVER, CLIENT)
    check = check_in(agent.handle_datagram(request(), pair, now_ns=0))
    agent.handle_datagram(reply_to(check), pair, now_ns=SECOND)
    for second in range(2, 31):
        agent.handle_datagram(request(), pair, now_ns=second * SECOND)
        assert agent.handle_deadline(now_ns=second * SECOND) == []
    assert agent.deadline_ns == SECOND + CONSENT_NS
    assert agent.handle_deadline(now_ns=SECOND + CONSENT_NS) == [Expired()]


def test_requests_of_the_peer_are_no_consent() -> None:
    net = connect(End(SERVER), End(CLIENT))
    net.run(1)
    server = net.ends[0]
    for second in range(2, 60):
        server.agent.handle_datagram(request(), Pair(SERVER, CLIENT), now_ns=second * SECOND)
        net.do(server, server.agent.handle_deadline(now_ns=second * SECOND))
        net._due.clear()
    assert server.has(Expired)


@pytest.mark.parametrize("moves", [False, True])
def test_a_restart_goes_on_on_the_old_pair_until_there_is_a_new_one(moves: bool) -> None:
    server, client = End(SERVER), End(CLIENT)
    net = connect(server, client)
    net.run(3)
    before = server.agent.selected
    if moves:
        client.address = ("10.9.9.9", 777)
    ours = Credentials("anew", OURS.key[::-1], "later", THEIRS.key[::-1])
    theirs = Credentials("later", THEIRS.key[::-1], "anew", OURS.key[::-1])
    assert isinstance(server.agent, IceAgent)
    net.do(server, server.agent.restart(ours, candidates_of(client), now_ns=net.now_ns))
    assert server.agent.selected == before
    assert server.agent.ufrags == ("anew", "ours")
    client.agent = IceAgent(
        theirs,
        paths=paths_of(client),
        remotes=candidates_of(server),
        draw=draws(9),
        now_ns=net.now_ns,
        is_controlling=True,
    )
    net.run(3)
    assert server.agent.selected == Pair(SERVER, client.address)
    assert server.agent.ufrags == ("anew",)
    assert server.has(Retired)
    net.run(60)
    assert not server.has(Expired)


def request(*extra: tuple[int, bytes], key: bytes = OURS.key, nominate: bool = False) -> bytes:
    """A check of the peer."""
    attributes = [(stun.USERNAME, OURS.username), (stun.PRIORITY, struct.pack("!I", 99)), *extra]
    if nominate:
        attributes.append((stun.USE_CANDIDATE, b""))
    return Message(stun.BINDING, Class.REQUEST, bytes(12), tuple(attributes)).to_bytes(key)


def lone(remotes: Iterable[Candidate] = (), **given: bool) -> IceAgent:
    """An agent whose peer the test plays."""
    return IceAgent(OURS, paths=[Path(SERVER, SERVER[0])], remotes=remotes, draw=draws(5), now_ns=0, **given)


def check_in(outcomes: Iterable[Outcome]) -> Check:
    (found,) = (each for each in outcomes if isinstance(each, Check))
    return found


def reply_to(
    check: Check, *, kind: Class = Class.SUCCESS, key: bytes = OURS.peer_key, extra: tuple[int, bytes] | None = None
) -> bytes:
    asked = Message.parse(check.data)
    mapped = stun.pack_xor_address(check.pair.local, asked.transaction_id)
    attribute = extra or (stun.XOR_MAPPED_ADDRESS, mapped)
    return Message(stun.BINDING, kind, asked.transaction_id, (attribute,)).to_bytes(key)


def test_a_check_says_who_asks_in_which_role_and_proves_the_peers_password() -> None:
    agent = lone([Candidate("host", CLIENT, 1)])
    check = check_in(agent.handle_deadline(now_ns=0))
    message = Message.parse(check.data)
    assert check.pair == Pair(SERVER, CLIENT)
    assert message.verify(OURS.peer_key)
    assert message.has_fingerprint
    assert message.get(stun.USERNAME) == b"peer:ours"
    assert message.get(stun.PRIORITY) == struct.pack("!I", priority_of("prflx", 0))
    assert stun.ICE_CONTROLLED in message
    assert stun.USE_CANDIDATE not in message
    assert asker_of(check.data) is None
    assert asker_of(reply_to(check)) == agent.tag


def test_an_answer_that_proves_nothing_is_none() -> None:
    agent = lone([Candidate("host", CLIENT, 1)])
    check = check_in(agent.handle_deadline(now_ns=0))
    forged = [reply_to(check, key=b"guessed"), reply_to(check, kind=Class.ERROR, key=b"guessed"), reply_to(check)[:-9]]
    for data in forged:
        assert agent.handle_datagram(data, check.pair, now_ns=1) == []
    assert agent.pairs == ()
    assert agent.handle_datagram(reply_to(check), check.pair, now_ns=2) == [Verified(check.pair)]
    assert agent.handle_datagram(reply_to(check), check.pair, now_ns=3) == [], "once is enough"


def test_an_answer_that_comes_another_way_than_the_check_went_fails_it() -> None:
    agent = lone([Candidate("host", CLIENT, 1)])
    check = check_in(agent.handle_deadline(now_ns=0))
    assert agent.handle_datagram(reply_to(check), Pair(SERVER, (CLIENT[0], 9)), now_ns=1) == []
    assert agent.pairs == ()
    later = [agent.handle_deadline(now_ns=at * SECOND) for at in range(1, 30)]
    assert not any(later)


def test_nothing_is_selected_before_our_own_check_was_answered() -> None:
    agent = lone()
    pair = Pair(SERVER, CLIENT)
    outcomes = agent.handle_datagram(request(nominate=True), pair, now_ns=0)
    check = check_in(outcomes)
    assert check.pair == pair
    assert agent.selected is None
    assert agent.handle_datagram(reply_to(check), pair, now_ns=1) == [Selected(pair)]
    assert agent.handle_datagram(request(nominate=True), pair, now_ns=2)[1:] == [], "it is there already"


def test_the_controlling_end_names_the_best_pair_once_better_ones_had_their_time() -> None:
    good, bad = Candidate("host", CLIENT, 1_000), Candidate("host", ("10.0.0.8", 1), 10)
    agent = lone([bad, good], is_controlling=True)
    first = check_in(agent.handle_deadline(now_ns=0))
    second = check_in(agent.handle_deadline(now_ns=PACE_NS))
    assert (first.pair.remote, second.pair.remote) == (good.address, bad.address)
    agent.handle_datagram(reply_to(second), second.pair, now_ns=PACE_NS + 1)
    early = agent.handle_deadline(now_ns=2 * PACE_NS)
    assert not any(isinstance(each, Check) for each in early)
    outcomes = [each for at in range(3, 30) for each in agent.handle_deadline(now_ns=at * PACE_NS)]
    nomination = next(each for each in outcomes if isinstance(each, Check) and each.pair == second.pair)
    assert stun.USE_CANDIDATE in Message.parse(nomination.data)
    done = agent.handle_datagram(reply_to(nomination), second.pair, now_ns=30 * PACE_NS)
    assert Selected(second.pair) in done


def test_a_failed_pair_comes_back_with_a_check_of_the_peer() -> None:
    agent = lone([Candidate("host", CLIENT, 1)])
    check = check_in(agent.handle_deadline(now_ns=0))
    refusal = (stun.ERROR_CODE, stun.pack_error(400, "Bad Request"))
    agent.handle_datagram(reply_to(check, kind=Class.ERROR, extra=refusal), check.pair, now_ns=1)
    assert agent.handle_deadline(now_ns=SECOND) == []
    again = check_in(agent.handle_datagram(request(), check.pair, now_ns=2 * SECOND))
    assert Verified(check.pair) in agent.handle_datagram(reply_to(again), check.pair, now_ns=3 * SECOND) or agent.pairs


def test_what_many_candidates_make_us_send_is_bounded_and_paced() -> None:
    remotes = [Candidate("host", (f"10.1.{number >> 8}.{number & 255}", 9), number + 1) for number in range(1_000)]
    agent = lone(remotes)
    assert len(agent._remotes) == MAX_REMOTES
    sent = [(at, each) for at in range(400) for each in agent.handle_deadline(now_ns=at * PACE_NS)]
    firsts: dict[bytes, int] = {}
    for at, each in sent:
        assert isinstance(each, Check)
        firsts.setdefault(each.data, at)
    assert len(firsts) == MAX_REMOTES
    assert sorted(firsts.values()) == sorted(set(firsts.values())), "one begins at a time"
    assert len(sent) <= 5 * MAX_REMOTES
    for port in range(1, 500):
        agent.handle_datagram(request(), Pair(SERVER, (CLIENT[0], port)), now_ns=400 * PACE_NS)
    assert len(agent._checks) == MAX_CHECKS


def test_only_addresses_of_one_family_and_reach_are_paired() -> None:
    hosts = ["2001:db8::7", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.1.1"]
    agent = lone([Candidate("host", (host, 9), 1) for host in hosts])
    assert agent.handle_deadline(now_ns=0) == []


@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    nats=st.tuples(*[st.sampled_from(["none", "cone", "symmetric"])] * 2),
    has_relay=st.booleans(),
    roles=st.tuples(st.booleans(), st.booleans()),
)
def test_two_ends_are_joined_wherever_there_is_a_way(
    seed: int, loss: float, nats: tuple[str, str], has_relay: bool, roles: tuple[bool, bool]
) -> None:
    def nat(kind: str, outside: str) -> Nat | None:
        return None if kind == "none" else Nat(outside, kind == "symmetric")

    chance = random.Random(seed)
    server = End(SERVER, nat(nats[0], SERVER_NAT), RELAY if has_relay else None)
    client = End(CLIENT, nat(nats[1], CLIENT_NAT))
    net = connect(server, client, roles=roles, loses=lambda: chance.random() < loss, seed=seed)
    net.run(14)
    if nats in (("symmetric", "symmetric"), ("cone", "symmetric"), ("symmetric", "cone")) and not has_relay:
        assert server.agent.selected is None
        return
    if loss < 0.3:
        assert_joined(net) if loss == 0 else None
        assert server.agent.selected is not None
    net.loses = lambda: False
    if server.agent.selected is not None and client.agent.selected is not None:
        net.run(10)
        assert not server.has(Expired)


@given(st.data())
def test_any_datagram_is_survived(data: st.DataObject) -> None:
    agent = lone([Candidate("host", CLIENT, 1)], is_controlling=data.draw(st.booleans()))
    check = check_in(agent.handle_deadline(now_ns=0))
    pairs = [check.pair, Pair(SERVER, ("2001:db8::7", 1)), Pair(RELAY_BASE, CLIENT)]
    known = [request(nominate=True), reply_to(check), reply_to(check, kind=Class.ERROR)]
    now_ns = 0
    for _ in range(data.draw(st.integers(1, 12))):
        now_ns += data.draw(st.integers(0, 3 * SECOND))
        body = data.draw(st.sampled_from(known) | st.binary(max_size=80).map(lambda tail: b"\1\1\0\0" + tail))
        cut = data.draw(st.integers(0, len(body)))
        mangled = body[:cut] + data.draw(st.binary(max_size=2)) + body[cut + data.draw(st.integers(0, 2)) :]
        for outcome in agent.handle_datagram(mangled, data.draw(st.sampled_from(pairs)), now_ns=now_ns):
            assert not isinstance(outcome, Reply | Check) or outcome.pair in pairs
        agent.handle_deadline(now_ns=now_ns)
        assert agent.deadline_ns is None or agent.deadline_ns > now_ns
