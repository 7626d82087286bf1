"""Who watches an output: the registry that a node holds, so that its viewers outlive it, and what becomes of each.

A node holds one under the key `VIEWERS`; the run finds it by the node's id, also after a reload. Nothing of a stream
goes through here: the registry says what each viewer may be shown, and the node's sessions keep to it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from flowstream.node.context import Holding
from flowstream.proto.admission import Approval, JoinLimit, Knock, Room, decide
from flowstream.proto.hosts import network_of
from flowstream.runtime.audience import (
    Caller,
    DoorClosed,
    Grant,
    Limited,
    LinkStats,
    Shown,
    Sitting,
    TokenError,
    TokenRevoked,
    Tokens,
    View,
    Viewer,
    ViewerError,
    ViewerState,
    tidy_name,
)
from flowstream.runtime.events import (
    Event,
    ViewerChanged,
    ViewerJoined,
    ViewerLeft,
    ViewerWaiting,
    ViewPaused,
    ViewResumed,
)
from flowstream.runtime.limits import sentence

VIEWERS = "viewers"
"""The key under which a node holds a `ViewerRegistry`."""

SUSPECT_NS = 600 * 1_000_000_000
"""For how long newcomers of a network wait for the owner after somebody of it was sent away."""

MOST_GONE = 256
"""How many viewers are remembered who are not there; the ones gone for longest are forgotten."""

MOST_SUSPECTS = 256

MOST_PRIORITY = 100
"""How far a viewer's priority may be from that of others."""

RATE_NS = 1_000_000_000
"""Over how long a viewer's bitrate is measured."""

LIMITED_NS = 3_000_000_000
"""How long a viewer gets less than the best before that is told, and more before that is."""

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""What ids are made of: nothing that is read for something else."""


@dataclass(slots=True, eq=False)
class _Record:
    id: str
    pass_id: str
    address: str
    joined_ns: int
    name: str | None = None
    is_verified: bool = False
    is_approved: bool = False
    is_barred: bool = False
    is_paused: bool = False
    is_connected: bool = False
    is_admitted: bool = False
    video: bool = True
    audio: bool = True
    cap_bps: int | None = None
    priority: int = 0
    invitation: str | None = None
    until_ns: int | None = None
    sitting: Sitting | None = None
    stats: LinkStats = field(default_factory=LinkStats)
    bitrate_bps: float | None = None
    measured_ns: int = 0
    shortage: tuple[str, str | None] | None = None  # by what it is limited, and to which rung
    shortage_ns: int = 0
    told_shortage: tuple[str, str | None] | None = None

    @property
    def state(self) -> ViewerState:
        if self.sitting is None:
            return "rejected" if self.is_barred else "gone"
        if not self.is_connected:
            return "connecting"
        if not self.is_admitted:
            return "waiting"
        return "paused" if self.is_paused else "watching"


class Ticket:
    """What somebody was told at the door, on the way to a seat."""

    def __init__(self, caller: Caller, knock: Knock, grant: Grant | None, record: _Record | None) -> None:
        self.caller = caller
        self.knock = knock
        self.grant = grant
        self.record = record


class Seat:
    """A viewer's place while it has a session."""

    def __init__(self, registry: ViewerRegistry, record: _Record) -> None:
        self._registry = registry
        self._record = record
        self._sitting: Sitting | None = None

    @property
    def viewer(self) -> str:
        """The viewer's id."""
        return self._record.id

    @property
    def is_admitted(self) -> bool:
        """Whether it may watch; else it waits."""
        return self._record.is_admitted

    @property
    def shown(self) -> Shown:
        """What it may be shown right now."""
        return self._registry._shown(self._record)

    def sit(self, sitting: Sitting) -> None:
        """Its session is there."""
        self._record.sitting = self._sitting = sitting
        sitting.show(self.shown)

    def connected(self) -> None:
        """Its session is connected."""
        if self._record.sitting is self._sitting:
            self._registry._connected(self._record)

    def leave(self, reason: str) -> None:
        """Its session has ended."""
        if self._record.sitting is self._sitting:
            self._registry._left(self._record, reason)

    def call(self, name: str) -> None:
        """The viewer says what it is called; a name that it was given stays."""
        record = self._record
        if not record.is_verified and (tidy := tidy_name(name)) != record.name:
            record.name = tidy
            self._registry._tell_change(record, "named", tidy or "")

    def told(self) -> dict[str, str | bool | None]:
        """What the viewer itself may know, as JSON values, with a pass for when it comes back."""
        record, shown = self._record, self.shown
        state = "paused" if record.is_admitted and shown.picture == "black" and record.video else record.state
        return {
            "viewer": record.id,
            "name": record.name,
            "state": state,
            "video": record.video,
            "audio": record.audio,
            "pass": self._registry._pass_for(record),
        }


class ViewerRegistry:
    """Who watches one output.

    A node holds it, ``ctx.hold(VIEWERS, ViewerRegistry.open)``, and asks it about everybody who comes: ``knock``, then
    ``seat``. The run, or whoever else owns it, lets in, sends away, pauses and bounds.
    """

    def __init__(self, now_ns: Callable[[], int], wallclock_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._wallclock_ns = wallclock_ns
        self._records: dict[str, _Record] = {}
        self._limit = JoinLimit()
        self._suspects: dict[str, int] = {}
        self._is_paused = False
        self._approval: Callable[[], Approval] = lambda: "none"
        self._most: Callable[[], int] = lambda: 0
        self._node: Callable[[], str] = lambda: ""
        self._names: set[str] = set()
        self._tell: Callable[[Event], object] = lambda event: None
        self._tokens: Tokens | None = None
        self._on_change: Callable[[], object] = lambda: None

    @staticmethod
    @asynccontextmanager
    async def open(holding: Holding) -> AsyncIterator[ViewerRegistry]:
        """One for a node to hold."""
        yield ViewerRegistry(holding.now_ns, holding.wallclock_ns)

    # --- the run's side ---------------------------------------------------------------------------------------------

    def attend(self, *, node: Callable[[], str], tell: Callable[[Event], object], tokens: Tokens | None = None) -> None:
        """There is somebody who hears what happens. ``node`` gives the node's id, also after it was renamed."""
        self._node, self._tell, self._tokens = node, tell, tokens
        self._names.add(node())

    @property
    def names(self) -> frozenset[str]:
        """What the node is and was called; a token for one of these is for it."""
        self._names.add(self._node())
        return frozenset(self._names)

    @property
    def view(self) -> View:
        """The output as its viewers find it."""
        return View(
            self._node(), self._approval(), self._most(), self.watching, self.waiting, is_paused=self._is_paused
        )

    @property
    def watching(self) -> int:
        """How many are connected and may watch."""
        return sum(1 for each in self._records.values() if each.is_connected and each.is_admitted)

    @property
    def waiting(self) -> int:
        """How many are connected and wait to be let in."""
        return sum(1 for each in self._records.values() if each.is_connected and not each.is_admitted)

    @property
    def viewers(self) -> tuple[Viewer, ...]:
        """Everybody who is there or was, in the order in which they first came."""
        return tuple(self._seen(each) for each in self._records.values())

    @property
    def limited(self) -> tuple[Limited, ...]:
        """Those for whom the uplink or their own links have been too narrow for a while."""
        found = []
        for each in self._records.values():
            limit = each.stats.limit
            if each.told_shortage is not None and each.told_shortage == each.shortage and limit is not None:
                called = each.name or each.id
                found.append(Limited(self._node(), called, each.stats.rung, limit, each.shortage_ns))
        return tuple(found)

    def approve(self, id: str) -> Viewer:
        """Lets somebody in who waits, or who was sent away. Raises ViewerError when there is no place."""
        record = self._record(id)
        if record.is_admitted and record.sitting is not None:
            raise ViewerError(f"{_said(record)} may watch already")
        if record.sitting is not None and self._taken() >= self._most():
            raise ViewerError(full(self._most()), hint="send somebody away, or set viewers.max higher")
        if record.is_barred and self._tokens is not None:
            self._tokens.restore(record.pass_id)
        record.is_barred, record.is_approved, record.until_ns = False, True, None
        self._tell_change(record, "approved")
        if record.sitting is not None:
            self._admit(record)
        return self._seen(record)

    def reject(self, id: str) -> Viewer:
        """Sends somebody away who waits. Raises ViewerError for somebody who watches: that one is kicked."""
        record = self._record(id)
        if record.is_admitted and record.sitting is not None:
            raise ViewerError(f"{_said(record)} watches already", hint=f"flowstream viewers kick {id}")
        return self._send_away(record, "rejected", "its owner did not let it in")

    def kick(self, id: str) -> Viewer:
        """Sends somebody away. It does not come back by itself; newcomers of its network wait for a while."""
        return self._send_away(self._record(id), "kicked", "its owner sent it away")

    def pause(self, id: str) -> Viewer:
        """Shows somebody a black picture in silence, until resumed."""
        return self._set_paused(id, True)

    def resume(self, id: str) -> Viewer:
        """Shows somebody the stream again."""
        return self._set_paused(id, False)

    def permit(self, id: str, *, video: bool | None = None, audio: bool | None = None) -> Viewer:
        """Says what somebody may be shown; None leaves it as it is."""
        record = self._record(id)
        record.video = record.video if video is None else video
        record.audio = record.audio if audio is None else audio
        self._show(record)
        may = [kind for kind, is_shown in (("picture", record.video), ("sound", record.audio)) if is_shown]
        self._tell_change(record, "permitted", " and ".join(may) or "nothing")
        return self._seen(record)

    def cap(self, id: str, rate_bps: int | None) -> Viewer:
        """Bounds what is sent to somebody, in bits per second; None takes the bound away."""
        record = self._record(id)
        record.cap_bps = rate_bps
        self._show(record)
        self._tell_change(record, "capped", "" if rate_bps is None else str(rate_bps))
        return self._seen(record)

    def prioritize(self, id: str, priority: int) -> Viewer:
        """Says who comes first where the uplink is short: a higher priority before a lower one. It is 0 at first.

        Raises ViewerError for one that is not from -`MOST_PRIORITY` to `MOST_PRIORITY`.
        """
        if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
            raise ViewerError(f"{priority} is no priority; it goes from -{MOST_PRIORITY} to {MOST_PRIORITY}")
        record = self._record(id)
        record.priority = priority
        self._show(record)
        self._tell_change(record, "prioritized", str(priority))
        return self._seen(record)

    def revoke(self, invitation: str) -> int:
        """Ends the sessions of those who came by an invitation; gives how many there were."""
        came = [each for each in self._records.values() if each.invitation == invitation and not each.is_barred]
        for record in came:
            self._bar(record)
            if record.sitting is not None:
                record.sitting.close("its invitation was taken back")
        return len(came)

    def pause_view(self) -> bool:
        """Everybody sees a black picture in silence from now on; whether that is new."""
        return self._pause_all(True)

    def resume_view(self) -> bool:
        """Everybody sees the stream again, who may; whether that is new."""
        return self._pause_all(False)

    # --- the node's side --------------------------------------------------------------------------------------------

    def follow(
        self, *, approval: Callable[[], Approval], most: Callable[[], int], on_change: Callable[[], object]
    ) -> None:
        """What the node's settings say, asked whenever it matters; ``on_change`` is called when a count has changed."""
        self._approval, self._most, self._on_change = approval, most, on_change

    def settings_changed(self) -> None:
        """Lets in who waits, where nobody has to any more."""
        for record in list(self._records.values()):
            if record.sitting is None or record.is_admitted or not self._may_enter(record):
                continue
            if self._taken() < self._most():
                self._admit(record)

    def knock(self, caller: Caller) -> Ticket:
        """Somebody comes. Raises DoorClosed when it need not go on: too often, sent away, or without a token."""
        wait_ns = self._limit.take(network_of(caller.address), now_ns=self._now_ns())
        if wait_ns:
            retry_s = max(1, -(-wait_ns // 1_000_000_000))
            raise DoorClosed("too-many", f"too many came from this network; try again in {retry_s} s", retry_s)
        grant, record = self._shown_by(caller)
        is_approved = record.is_approved if record is not None else grant is not None and grant.is_admitted
        knock = Knock(
            is_invited=grant is not None and grant.viewer is None,
            is_vouched_for=caller.vouched is not None,
            is_approved=is_approved,
            is_barred=record is not None and record.is_barred,
            is_suspect=not is_approved and self._is_suspect(caller.address),
        )
        ticket = Ticket(caller, knock, grant, record)
        verdict = decide(self._approval(), knock, Room(0, 1))
        if verdict in ("barred", "token"):
            raise self._closed(verdict)
        return ticket

    def seat(self, ticket: Ticket) -> Seat:
        """A place for somebody who has knocked, to watch or to wait. Raises DoorClosed when there is none."""
        caller, grant, record = ticket.caller, ticket.grant, ticket.record
        network = network_of(caller.address)
        there = [each for each in self._records.values() if each.sitting is not None]
        waiting = [each for each in there if not each.is_admitted]
        is_there = record is not None and record.sitting is not None
        # Its session before may not have noticed that it is gone, so that must not keep it out.
        taken = len(there) - len(waiting) - (1 if is_there and record is not None and record.is_admitted else 0)
        room = Room(taken, self._most(), len(waiting), sum(network_of(each.address) == network for each in waiting))
        verdict = decide(self._approval(), ticket.knock, room)
        if verdict not in ("admit", "wait"):
            raise self._closed(verdict)
        if record is None:
            record = self._make_record(caller, grant)
        elif is_there and self._taken() < self._most():
            record = self._sibling(record)  # a second window of the same browser
        elif record.sitting is not None:
            before = record.sitting
            record.sitting, record.is_connected = None, False
            before.close("it came back by another connection")
        record.address = caller.address
        record.is_admitted = verdict == "admit"
        record.is_approved = record.is_approved or record.is_admitted
        if grant is not None and grant.viewer is None:
            record.invitation, record.until_ns = grant.id, grant.ends_ns
        name = caller.vouched or (grant.name if grant is not None else None)
        if name or (not record.is_verified and caller.name):
            record.name, record.is_verified = tidy_name(name or caller.name or ""), bool(name)
        return Seat(self, record)

    def may_look(self, caller: Caller) -> bool:
        """Whether somebody may know what there is to see, before it comes in."""
        if self._approval() != "token" or caller.vouched is not None:
            return True
        try:
            return caller.token is not None and self._read(caller.token) is not None
        except TokenError:
            return False

    def tick(self) -> None:
        """Measures the links; to be called a few times a second."""
        now_ns, wallclock_ns = self._now_ns(), self._wallclock_ns()
        for record in list(self._records.values()):
            if record.sitting is not None and record.until_ns is not None and wallclock_ns >= record.until_ns:
                record.sitting.close("its token has ended")
            if record.sitting is None or now_ns - record.measured_ns < RATE_NS:
                continue
            stats = record.sitting.stats()
            if record.measured_ns:
                sent = stats.sent_bytes - record.stats.sent_bytes
                record.bitrate_bps = max(0, sent) * 8e9 / (now_ns - record.measured_ns)
            record.stats, record.measured_ns = stats, now_ns
            self._watch_shortage(record, now_ns)

    def _watch_shortage(self, record: _Record, now_ns: int) -> None:
        """Tells once that a viewer gets less than the best, because of what nobody has decided; and that it is over."""
        stats = record.stats
        is_short = stats.limit is not None and stats.limit.by in ("uplink", "link")
        shortage = (stats.limit.by, stats.rung) if stats.limit is not None and is_short else None
        if shortage != record.shortage:
            record.shortage, record.shortage_ns = shortage, now_ns
        elif shortage != record.told_shortage and now_ns - record.shortage_ns >= LIMITED_NS:
            record.told_shortage = shortage
            if stats.limit is not None and is_short:
                self._tell_change(record, "limited", sentence(record.name or record.id, stats.rung, stats.limit))
            else:
                self._tell_change(record, "unlimited", stats.rung or "")

    # --- behind it --------------------------------------------------------------------------------------------------

    def _taken(self) -> int:
        return sum(1 for each in self._records.values() if each.sitting is not None and each.is_admitted)

    def _record(self, id: str) -> _Record:
        record = self._records.get(id)
        if record is None:
            raise ViewerError(f"there is no viewer {id}")
        return record

    def _shown_by(self, caller: Caller) -> tuple[Grant | None, _Record | None]:
        """What somebody's token says, and who it is when it was here before. Raises DoorClosed."""
        if caller.token is None:
            return None, None
        try:
            grant = self._read(caller.token)
        except TokenRevoked:
            raise self._closed("barred") from None
        except TokenError as error:
            raise DoorClosed("token", str(error)) from None
        record = self._records.get(grant.viewer) if grant.viewer is not None else None
        return grant, record if record is not None and record.pass_id == grant.id else None

    def _make_record(self, caller: Caller, grant: Grant | None) -> _Record:
        if grant is None or grant.viewer is None or grant.viewer in self._records:
            record = _Record(self._new_id(), secrets.token_urlsafe(9), caller.address, self._wallclock_ns())
        else:  # it was here before a restart
            record = _Record(grant.viewer, grant.id, caller.address, self._wallclock_ns(), grant.name)
            record.invitation, record.until_ns = grant.invitation, grant.until_ns
        self._remember(record)
        return record

    def _sibling(self, of: _Record) -> _Record:
        """Somebody else with all that one was given."""
        made = replace(
            of, id=self._new_id(), pass_id=secrets.token_urlsafe(9), joined_ns=self._wallclock_ns(), sitting=None,
            is_connected=False, stats=LinkStats(), bitrate_bps=None, measured_ns=0, shortage=None, told_shortage=None,
        )  # fmt: skip
        self._remember(made)
        return made

    def _remember(self, record: _Record) -> None:
        self._records[record.id] = record
        gone = [each for each in self._records.values() if each.sitting is None and each is not record]
        for each in gone[: max(0, len(gone) - MOST_GONE)]:
            del self._records[each.id]

    def _new_id(self) -> str:
        while True:
            id = readable_id(4)
            if id not in self._records:
                return id

    def _read(self, token: str) -> Grant:
        if self._tokens is None:
            raise TokenError("no tokens are known here")
        grant = self._tokens.read(token)
        if grant.nodes is not None and not self.names & set(grant.nodes):
            raise TokenError("the token is for something else")
        return grant

    def _pass_for(self, record: _Record) -> str | None:
        if self._tokens is None:
            return None
        ends_ns = self._wallclock_ns() + PASS_NS
        if record.until_ns is not None:
            ends_ns = min(ends_ns, record.until_ns)
        grant = Grant(
            record.pass_id, ends_ns, (self._node(),), record.name, record.id, record.is_approved, record.invitation,
            record.until_ns,
        )  # fmt: skip
        return self._tokens.issue(grant)

    def _closed(self, verdict: str) -> DoorClosed:
        match verdict:
            case "barred":
                return DoorClosed("barred", "the owner has ended this for you")
            case "token":
                return DoorClosed("token", "this needs a link with a token")
            case "full":
                return DoorClosed("full", full(self._most()), RETRY_S)
        return DoorClosed("crowded", "too many wait to be let in already", RETRY_S)

    def _is_suspect(self, address: str) -> bool:
        until_ns = self._suspects.get(network_of(address))
        return until_ns is not None and self._now_ns() < until_ns

    def _may_enter(self, record: _Record) -> bool:
        return record.is_approved or (self._approval() == "none" and not self._is_suspect(record.address))

    def _shown(self, record: _Record) -> Shown:
        if not record.is_admitted or record.is_barred:
            return Shown("none", False)
        if self._is_paused or record.is_paused:
            return Shown("black", False)
        return Shown("live" if record.video else "black", record.audio, record.cap_bps, record.priority)

    def _show(self, record: _Record) -> None:
        if record.sitting is not None:
            record.sitting.show(self._shown(record))

    def _admit(self, record: _Record) -> None:
        record.is_admitted = record.is_approved = True
        self._show(record)
        if record.is_connected:
            self._tell(ViewerJoined(self._node(), record.id, record.name, record.address))
        self._on_change()

    def _connected(self, record: _Record) -> None:
        record.is_connected, record.measured_ns, record.bitrate_bps = True, 0, None
        event = ViewerJoined if record.is_admitted else ViewerWaiting
        self._tell(event(self._node(), record.id, record.name, record.address))
        self._on_change()

    def _left(self, record: _Record, reason: str) -> None:
        was_connected = record.is_connected
        record.sitting, record.is_connected, record.bitrate_bps = None, False, None
        record.stats, record.measured_ns = LinkStats(), 0
        record.shortage = record.told_shortage = None
        if not was_connected and not record.is_barred and not record.is_approved:
            self._records.pop(record.id, None)  # it never came
        else:
            self._records[record.id] = self._records.pop(record.id)  # the last to be forgotten
        if was_connected:
            self._tell(ViewerLeft(self._node(), record.id, record.name, record.address, reason))
        self._on_change()

    def _send_away(self, record: _Record, what: str, reason: str) -> Viewer:
        if not record.is_barred:
            self._bar(record)
            self._suspects.pop(network_of(record.address), None)
            self._suspects[network_of(record.address)] = self._now_ns() + SUSPECT_NS
            while len(self._suspects) > MOST_SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
            self._tell_change(record, what)
        if record.sitting is not None:
            record.sitting.close(reason)
        return self._seen(record)

    def _bar(self, record: _Record) -> None:
        record.is_barred, record.is_approved = True, False
        self._show(record)
        if self._tokens is not None:
            self._tokens.revoke(record.pass_id)

    def _set_paused(self, id: str, is_paused: bool) -> Viewer:
        record = self._record(id)
        if record.is_paused != is_paused:
            record.is_paused = is_paused
            self._show(record)
            self._tell_change(record, "paused" if is_paused else "resumed")
        return self._seen(record)

    def _pause_all(self, is_paused: bool) -> bool:
        if self._is_paused == is_paused:
            return False
        self._is_paused = is_paused
        for record in self._records.values():
            self._show(record)
        self._tell((ViewPaused if is_paused else ViewResumed)(self._node()))
        self._on_change()
        return True

    def _tell_change(self, record: _Record, what: str, detail: str = "") -> None:
        self._tell(ViewerChanged(self._node(), record.id, record.name, record.address, what, detail))
        self._on_change()

    def _seen(self, record: _Record) -> Viewer:
        return Viewer(
            node=self._node(),
            id=record.id,
            name=record.name,
            is_verified=record.is_verified,
            address=record.address,
            state=record.state,
            joined_ns=record.joined_ns,
            video=record.video,
            audio=record.audio,
            cap_bps=record.cap_bps,
            quality=record.stats.quality,
            loss=record.stats.loss,
            rtt_ms=record.stats.rtt_ms,
            bitrate_bps=record.bitrate_bps,
            rung=record.stats.rung,
            priority=record.priority,
            limit=record.stats.limit,
        )


PASS_NS = 12 * 3600 * 1_000_000_000
"""How long a viewer that is gone may come back as itself."""

RETRY_S = 5
"""When somebody who found no place may try again."""


def readable_id(length: int) -> str:
    """An id by chance that people can read, say and type, also on a command line."""
    return "".join(secrets.choice(LETTERS) for _ in range(length))


def full(most: int) -> str:
    """The sentence for when there is no place."""
    return "the only place is taken" if most == 1 else f"all {most} places are taken"


def _said(record: _Record) -> str:
    return f"{record.id} ({record.name})" if record.name else record.id
