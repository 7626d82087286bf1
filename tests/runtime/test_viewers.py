"""The registry of viewers: what it remembers, what it forgets, and that it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowstream.proto.admission import MOST_WAITING, Approval
from flowstream.runtime.audience import (
    Caller,
    DoorClosed,
    Grant,
    Limit,
    Limited,
    LinkStats,
    Shown,
    TokenError,
    TokenRevoked,
    ViewerError,
    tidy_name,
)
from flowstream.runtime.events import ViewerChanged, ViewerJoined, ViewerLeft, ViewerWaiting
from flowstream.runtime.viewers import MOST_GONE, PASS_NS, SUSPECT_NS, Seat, ViewerRegistry


@dataclass
class Clock:
    at_ns: int = 10**18

    def now_ns(self) -> int:
        return self.at_ns


@dataclass
class Memory:
    """Tokens that are what they say."""

    clock: Clock
    made: dict[str, Grant] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def issue(self, grant: Grant) -> str:
        token = f"token {len(self.made)}"
        self.made[token] = grant
        return token

    def read(self, text: str) -> Grant:
        grant = self.made.get(text)
        if grant is None:
            raise TokenError("this is no token")
        if {grant.id, grant.invitation} & self.revoked:
            raise TokenRevoked("taken back")
        if self.clock.at_ns >= grant.ends_ns:
            raise TokenError("the token has ended")
        return grant

    def revoke(self, id: str) -> None:
        self.revoked.add(id)

    def restore(self, id: str) -> None:
        self.revoked.discard(id)


@dataclass
class Session:
    """A session that keeps to what it is told."""

    seat: Seat
    shown: Shown | None = None
    sent_bytes: int = 0
    reason: str | None = None
    rung: str | None = None
    limit: Limit | None = None

    def show(self, shown: Shown) -> None:
        self.shown = shown

    def close(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self.seat.leave(reason)

    def stats(self) -> LinkStats:
        return LinkStats(self.sent_bytes, 0.25, 40.0, None, self.rung, self.limit)


class Hall:
    """A registry with settings and a clock that a test changes."""

    def __init__(self, approval: Approval = "none", most: int = 10) -> None:
        self.clock = Clock()
        self.registry = ViewerRegistry(self.clock.now_ns, self.clock.now_ns)
        self.approval: Approval = approval
        self.most = most
        self.name = "out"
        self.events: list[Any] = []
        self.tokens = Memory(self.clock)
        self.changes = 0
        self.attend()
        self.registry.follow(approval=lambda: self.approval, most=lambda: self.most, on_change=self._changed)

    def attend(self) -> None:
        self.registry.attend(node=lambda: self.name, tell=self.events.append, tokens=self.tokens)

    def _changed(self) -> None:
        self.changes += 1

    def come(self, address: str = "192.0.2.1", token: str | None = None, **more: Any) -> Session:
        """Somebody comes and is connected."""
        seat = self.registry.seat(self.registry.knock(Caller(address, token, **more)))
        session = Session(seat)
        seat.sit(session)
        seat.connected()
        return session

    def invitation(self, **given: Any) -> str:
        return self.tokens.issue(Grant(given.pop("id", "inv"), self.clock.at_ns + 100 * 10**9, **given))

    def pass_of(self, session: Session) -> str:
        return str(session.seat.told()["pass"])


LIVE, BLACK, NOTHING = Shown("live", True), Shown("black", False), Shown("none", False)


def test_everybody_who_comes_is_known_and_told_of() -> None:
    hall = Hall()
    session = hall.come(name="Ann")
    (viewer,) = hall.registry.viewers
    assert (viewer.node, viewer.id, viewer.name, viewer.is_verified) == ("out", session.seat.viewer, "Ann", False)
    assert (viewer.address, viewer.state, viewer.joined_ns) == ("192.0.2.1", "watching", hall.clock.at_ns)
    assert session.shown == LIVE
    session.close("it said goodbye")
    assert hall.events == [
        ViewerJoined("out", viewer.id, "Ann", "192.0.2.1"),
        ViewerLeft("out", viewer.id, "Ann", "192.0.2.1", "it said goodbye"),
    ]
    assert hall.registry.viewers[0].state == "gone"
    assert hall.changes == 2


def test_links_are_measured() -> None:
    hall = Hall()
    session = hall.come()
    hall.registry.tick()
    session.sent_bytes = 125_000
    hall.clock.at_ns += 10**9
    hall.registry.tick()
    (viewer,) = hall.registry.viewers
    assert (viewer.bitrate_bps, viewer.loss, viewer.rtt_ms, viewer.rung) == (1e6, 0.25, 40.0, None)


def test_who_gets_less_than_the_best_is_told_of_when_it_lasts_and_when_it_is_over() -> None:
    hall = Hall()
    session = hall.come(name="Ann")
    uplink = Limit("uplink", 20_000_000, 7, "high", 2_500_000)

    def after(seconds: int, rung: str, limit: Limit | None) -> list[tuple[str, str]]:
        session.rung, session.limit = rung, limit
        hall.events.clear()
        for _ in range(seconds):
            hall.clock.at_ns += 10**9
            hall.registry.tick()
        return [(event.what, event.detail) for event in hall.events]

    said = "viewer Ann is on low: the uplink of 20M is shared by 7 viewers"
    assert after(3, "low", uplink) == []
    assert hall.registry.limited == (), "it may be over soon"
    assert after(5, "low", uplink) == [("limited", said)]
    began_ns = hall.clock.at_ns - 7 * 10**9
    assert hall.registry.limited == (Limited("out", "Ann", "low", uplink, began_ns),)
    assert hall.registry.viewers[0].limit == uplink
    assert after(1, "high", None) == []
    assert hall.registry.limited == ()
    assert after(9, "high", None) == [("unlimited", "high")]
    link = Limit("link", 480_000, 7, "high", 2_875_000)
    assert after(9, "low", link) == [("limited", "viewer Ann is on low: its link carries 480k, and high needs 2.88M")]
    session.close("it said goodbye")
    assert hall.registry.limited == ()


def test_what_somebody_decided_or_nobody_knows_is_no_news() -> None:
    hall = Hall()
    session = hall.come()
    hall.events.clear()
    for limit in (Limit("cap", 600_000), Limit("choice"), Limit("unknown"), Limit("settling"), Limit("paused")):
        session.limit = limit
        for _ in range(10):
            hall.clock.at_ns += 10**9
            hall.registry.tick()
    assert (hall.events, hall.registry.limited) == ([], ())


def test_a_priority_is_within_bounds_and_stays_with_a_viewer() -> None:
    hall = Hall()
    session = hall.come()
    id = session.seat.viewer
    assert hall.registry.prioritize(id, 3).priority == 3
    assert session.shown == Shown("live", True, priority=3)
    with pytest.raises(ViewerError, match="101 is no priority; it goes from -100 to 100"):
        hall.registry.prioritize(id, 101)
    token = hall.pass_of(session)
    session.close("lost")
    assert hall.come(token=token).shown == Shown("live", True, priority=3)


def test_a_decision_changes_what_is_shown_at_once() -> None:
    hall = Hall("manual")
    session = hall.come()
    id = session.seat.viewer
    assert session.shown == NOTHING
    hall.registry.approve(id)
    assert session.shown == LIVE
    hall.registry.pause(id)
    assert session.shown == BLACK
    hall.registry.pause_view()
    hall.registry.resume(id)
    assert session.shown == BLACK
    hall.registry.resume_view()
    assert session.shown == LIVE
    hall.registry.permit(id, audio=False)
    assert session.shown == Shown("live", False)
    hall.registry.permit(id, video=False, audio=True)
    assert session.shown == Shown("black", True)
    hall.registry.permit(id, video=True)
    hall.registry.cap(id, 600_000)
    assert session.shown == Shown("live", True, 600_000)
    hall.registry.kick(id)
    assert session.shown == NOTHING
    assert [event.what for event in hall.events if isinstance(event, ViewerChanged)] == [
        "approved", "paused", "resumed", "permitted", "permitted", "permitted", "capped", "kicked",
    ]  # fmt: skip


def test_the_same_decision_twice_is_told_once() -> None:
    hall = Hall()
    id = hall.come().seat.viewer
    hall.registry.pause(id)
    hall.registry.pause(id)
    assert hall.registry.pause_view()
    assert not hall.registry.pause_view()
    assert len(hall.events) == 3


def test_what_makes_no_sense_is_said() -> None:
    hall = Hall("manual", most=1)
    first, second = hall.come(), hall.come("192.0.2.2", name="Bob")
    with pytest.raises(ViewerError, match="there is no viewer nobody"):
        hall.registry.approve("nobody")
    hall.registry.approve(first.seat.viewer)
    with pytest.raises(ViewerError, match=f"{first.seat.viewer} may watch already"):
        hall.registry.approve(first.seat.viewer)
    with pytest.raises(ViewerError, match="watches already") as refused:
        hall.registry.reject(first.seat.viewer)
    assert refused.value.hint == f"flowstream viewers kick {first.seat.viewer}"
    with pytest.raises(ViewerError, match="the only place is taken"):
        hall.registry.approve(second.seat.viewer)


# --- coming back ----------------------------------------------------------------------------------------------------


def test_with_its_pass_a_viewer_comes_back_as_itself() -> None:
    hall = Hall("manual")
    session = hall.come()
    hall.registry.approve(session.seat.viewer)
    hall.registry.cap(session.seat.viewer, 10_000)
    token = hall.pass_of(session)
    session.close("lost")
    again = hall.come("198.51.100.9", token)
    assert again.seat.viewer == session.seat.viewer
    assert again.shown == Shown("live", True, 10_000)
    assert hall.registry.viewers[0].address == "198.51.100.9"


def test_who_waited_goes_on_waiting() -> None:
    hall = Hall("manual")
    session = hall.come()
    token = hall.pass_of(session)
    session.close("lost")
    hall.approval = "none"
    hall.registry._suspects["192.0.2.1"] = hall.clock.at_ns + 1
    again = hall.come(token=token)
    assert again.seat.viewer == session.seat.viewer
    assert again.shown == NOTHING


def test_a_second_window_is_somebody_else_with_the_same_rights() -> None:
    hall = Hall("manual")
    first = hall.come()
    hall.registry.approve(first.seat.viewer)
    hall.registry.pause(first.seat.viewer)
    second = hall.come(token=hall.pass_of(first))
    assert second.seat.viewer != first.seat.viewer
    assert (first.reason, second.shown) == (None, BLACK)


def test_in_a_full_house_it_takes_the_place_of_its_former_session() -> None:
    hall = Hall(most=1)
    first = hall.come()
    second = hall.come(token=hall.pass_of(first))
    assert first.reason == "it came back by another connection"
    assert second.seat.viewer == first.seat.viewer
    assert (second.shown, hall.registry.watching) == (LIVE, 1)


def test_after_a_restart_a_pass_still_counts_and_a_barred_one_does_not() -> None:
    before, after = Hall("manual"), Hall("manual")
    session, other = before.come(name="Ann"), before.come("192.0.2.2")
    before.registry.approve(session.seat.viewer)
    before.registry.approve(other.seat.viewer)
    kept, lost = before.pass_of(session), before.pass_of(other)
    before.registry.kick(other.seat.viewer)
    after.tokens = before.tokens
    after.attend()
    again = after.come("192.0.2.1", kept)
    assert (again.seat.viewer, again.shown) == (session.seat.viewer, LIVE)
    assert after.registry.viewers[0].name == "Ann"
    with pytest.raises(DoorClosed, match="the owner has ended this"):
        after.come("192.0.2.2", lost)


def test_a_pass_ends_and_that_of_an_invitation_with_it() -> None:
    hall = Hall("manual")
    session = hall.come()
    hall.registry.approve(session.seat.viewer)
    token = hall.pass_of(session)
    session.close("lost")
    hall.clock.at_ns += PASS_NS
    with pytest.raises(DoorClosed, match="the token has ended"):
        hall.come(token=token)
    invited = hall.come(token=hall.invitation())
    token = hall.pass_of(invited)
    hall.clock.at_ns += 100 * 10**9
    hall.registry.tick()
    assert invited.reason == "its token has ended"
    with pytest.raises(DoorClosed, match="the token has ended"):
        hall.come(token=token)


def test_a_token_is_for_its_nodes_by_every_name_they_had() -> None:
    hall = Hall("token")
    token = hall.invitation(nodes=("out",))
    other = hall.invitation(nodes=("elsewhere",))
    hall.name = "renamed"
    assert hall.come(token=token).shown == LIVE
    assert hall.events[0].node == "renamed"
    with pytest.raises(DoorClosed, match="for something else"):
        hall.come(token=other)


def test_without_anybody_who_knows_tokens_there_are_none() -> None:
    registry = ViewerRegistry(lambda: 1, lambda: 1)
    registry.follow(approval=lambda: "token", most=lambda: 1, on_change=lambda: None)
    for token in (None, "x"):
        with pytest.raises(DoorClosed) as refused:
            registry.knock(Caller("192.0.2.1", token))
        assert refused.value.kind == "token"
    assert not registry.may_look(Caller("192.0.2.1", "x"))


# --- sent away ------------------------------------------------------------------------------------------------------


def test_newcomers_of_a_network_wait_for_a_while_after_somebody_was_sent_away() -> None:
    hall = Hall()
    hall.registry.kick(hall.come("2001:db8::1").seat.viewer)
    assert hall.come("2001:db8::2").shown == NOTHING
    assert hall.come("2001:db8:0:1::2").shown == LIVE
    hall.clock.at_ns += SUSPECT_NS
    assert hall.come("2001:db8::3").shown == LIVE


def test_who_was_sent_away_can_be_let_in_again() -> None:
    hall = Hall()
    session = hall.come()
    token = hall.pass_of(session)
    hall.registry.kick(session.seat.viewer)
    assert session.reason == "its owner sent it away"
    with pytest.raises(DoorClosed) as refused:
        hall.come(token=token)
    assert refused.value.kind == "barred"
    assert hall.registry.viewers[0].state == "rejected"
    hall.registry.approve(session.seat.viewer)
    assert hall.come(token=token).shown == LIVE


def test_an_invitation_that_is_taken_back_ends_those_who_came_by_it_alone() -> None:
    hall = Hall("manual")
    came, other = hall.come(token=hall.invitation()), hall.come(token=hall.invitation(id="other"))
    hall.tokens.revoke("inv")
    assert hall.registry.revoke("inv") == 1
    assert (came.reason, other.reason) == ("its invitation was taken back", None)
    assert hall.registry.revoke("inv") == 0


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_those_who_are_gone_are_forgotten_at_last_and_those_who_never_came_at_once() -> None:
    hall = Hall()
    for index in range(MOST_GONE + 50):
        hall.come(f"192.0.{index % 200}.{index // 200}").close("gone")
    assert len(hall.registry.viewers) <= MOST_GONE + 1
    seat = hall.registry.seat(hall.registry.knock(Caller("198.51.100.1")))
    session = Session(seat)
    seat.sit(session)
    count = len(hall.registry.viewers)
    hall.events.clear()
    session.close("not connected")
    assert (len(hall.registry.viewers), hall.events) == (count, [])


def test_a_program_vouches_by_name() -> None:
    hall = Hall("token")
    session = hall.come(vouched="Ann", name="Somebody")
    assert (hall.registry.viewers[0].name, hall.registry.viewers[0].is_verified) == ("Ann", True)
    session.seat.call("Bob")
    assert hall.registry.viewers[0].name == "Ann"
    assert hall.come(vouched="").shown == LIVE


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  Ann  B ", "Ann B"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u202eb\n", "a b"),
        ("", None),
        ("\n", None),
        ("x" * 500, "x" * 40),
    ],
)
def test_names_are_fit_to_be_shown(said: str, kept: str | None) -> None:
    assert tidy_name(said) == kept


class Visits(RuleBasedStateMachine):
    """Whatever happens in whatever order, nobody is shown what it may not see, and nothing grows."""

    def __init__(self) -> None:
        super().__init__()
        self.hall = Hall(most=3)
        self.sessions: list[Session] = []
        self.passes: list[str] = []
        self.tokens = [self.hall.invitation(id=f"i{index}") for index in range(3)]

    ids = st.integers(0, 30)

    def _some(self, index: int) -> str | None:
        known = self.hall.registry.viewers
        return known[index % len(known)].id if known else None

    @rule(address=st.integers(0, 3), which=st.integers(0, 8), approval=st.sampled_from(["none", "token", "manual"]))
    def come(self, address: int, which: int, approval: Approval) -> None:
        self.hall.approval = approval
        known = [None, *self.tokens, *self.passes[-5:]]
        try:
            session = self.hall.come(f"192.0.2.{address}", known[which % len(known)])
        except DoorClosed:
            return
        self.sessions.append(session)
        self.passes.append(self.hall.pass_of(session))

    @rule(index=ids)
    def leave(self, index: int) -> None:
        if self.sessions:
            self.sessions.pop(index % len(self.sessions)).close("left")

    @rule(index=ids, verb=st.sampled_from(["approve", "reject", "kick", "pause", "resume"]))
    def decide(self, index: int, verb: str) -> None:
        id = self._some(index)
        if id is not None:
            try:
                getattr(self.hall.registry, verb)(id)
            except ViewerError:
                pass

    @rule(index=ids, is_paused=st.booleans())
    def pause(self, index: int, is_paused: bool) -> None:
        (self.hall.registry.pause_view if is_paused else self.hall.registry.resume_view)()

    @rule(index=st.integers(0, 2))
    def take_back(self, index: int) -> None:
        self.hall.tokens.revoke(f"i{index}")
        self.hall.registry.revoke(f"i{index}")

    @rule(most=st.integers(0, 4), seconds=st.integers(0, 200))
    def settle(self, most: int, seconds: int) -> None:
        self.hall.most = most
        self.hall.clock.at_ns += seconds * 10**9
        self.hall.registry.settings_changed()
        self.hall.registry.tick()

    @invariant()
    def holds(self) -> None:
        registry = self.hall.registry
        self.sessions = [session for session in self.sessions if session.reason is None]
        seen = {viewer.id: viewer for viewer in registry.viewers}
        assert len({session.seat.viewer for session in self.sessions}) == len(self.sessions)
        for session in self.sessions:
            viewer = seen[session.seat.viewer]
            assert viewer.state in ("waiting", "watching", "paused")
            if viewer.state == "waiting":
                assert session.shown == NOTHING
            elif viewer.state == "paused" or registry.view.is_paused:
                assert session.shown == BLACK
            else:
                assert session.shown == LIVE
        assert registry.watching + registry.waiting == len(self.sessions)
        assert registry.waiting <= MOST_WAITING
        joined = sum(isinstance(event, ViewerJoined | ViewerWaiting) for event in self.hall.events)
        assert joined >= sum(isinstance(event, ViewerLeft) for event in self.hall.events)


Visits.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestVisits = Visits.TestCase
