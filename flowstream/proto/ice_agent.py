"""The full ICE agent (RFC 8445): it sends checks itself, which opens the way through NATs in between.

One component on UDP, in the controlled role or the controlling one. Left out of RFC 8445, for want of a second
component or stream that they would serve: frozen pairs, and checks of a pair for what another one found out.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from flowstream.proto import stun
from flowstream.proto.candidates import Candidate, Kind, can_reach, can_relay, priority_of
from flowstream.proto.ice import (
    CONSENT_NS,
    Address,
    Check,
    Credentials,
    Expired,
    Outcome,
    Pair,
    Reply,
    Responder,
)

TAG_SIZE: Final = 6
"""Bytes of a transaction id that say who asks; the rest is drawn for each check."""

PACE_NS: Final = 50_000_000
"""Between two checks that begin, Ta of RFC 8445 section 14.2."""

RETRY_NS: Final = 500_000_000
"""Before a check is sent again, doubled each time (RFC 8445 section 14.3)."""

MAX_SENDS: Final = 5
"""Times that one check is sent: it has failed 15.5 s after the first."""

CONSENT_INTERVAL_NS: Final = 5_000_000_000
"""Between checks of the selected pair, give or take a fifth (RFC 7675 section 5.1)."""

PATIENCE_NS: Final = 500_000_000
"""How long the controlling agent waits for better pairs once one is valid."""

MAX_CHECKS: Final = 64
"""Pairs of the check list; those of the lowest priority are left out."""

MAX_REMOTES: Final = 32
"""Candidates of the peer that are kept."""

MAX_TRANSACTIONS: Final = 128
"""Checks of ours that may be unanswered at a time; the oldest is given up first."""

_TIE_BREAKER_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Path:
    """A way out of this machine: the local end of pairs, and the IP address that others see or would answer to."""

    base: Address
    host: str
    kind: Kind = "host"
    rank: int = 0


class _State(Enum):
    """Of a pair (RFC 8445 section 6.1.2.6)."""

    WAITING = "waiting"
    RUNNING = "in progress"
    VALID = "succeeded"
    FAILED = "failed"


@dataclass(slots=True)
class _Checked:
    """A pair of the check list; ``is_nominated`` once the controlling end has said so."""

    pair: Pair
    path: Path
    remote_priority: int
    state: _State = _State.WAITING
    is_nominated: bool = False
    sent_ns: int = 0


@dataclass(slots=True)
class _Transaction:
    """A check of ours that is under way."""

    data: bytes
    pair: Pair
    credentials: Credentials
    is_controlling: bool
    nominates: bool
    is_consent: bool
    due_ns: int
    sends: int = 1


class IceAgent(Responder):
    """One peer's ICE session, seen from a full agent.

    Every method that may have something to send gives it as outcomes; `handle_deadline` wants to be called at
    `deadline_ns`, and not seldom: checks that begin are `PACE_NS` apart.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        paths: Iterable[Path],
        remotes: Iterable[Candidate],
        draw: Callable[[int], bytes],
        now_ns: int,
        is_controlling: bool = False,
        consent_ns: int = CONSENT_NS,
    ) -> None:
        """``draw`` gives so many bytes from a secure random source.

        ``is_controlling`` is for the end that offered, or whose peer is lite (RFC 8445 section 6.1.1).
        """
        super().__init__(credentials, now_ns=now_ns, consent_ns=consent_ns)
        self.is_controlling: bool = is_controlling
        self.tag: bytes = draw(TAG_SIZE)
        self._draw = draw
        self._tie_breaker = draw(_TIE_BREAKER_SIZE)
        self._paths: dict[Address, Path] = {}
        self._remotes: dict[Address, Candidate] = {}
        self._checks: dict[Pair, _Checked] = {}
        self._triggered: deque[Pair] = deque()
        self._transactions: dict[bytes, _Transaction] = {}
        self._next_check_ns = now_ns
        self._next_consent_ns = now_ns
        self._first_valid_ns: int | None = None
        self._is_concluded = False  # whether a pair is selected under the newest credentials
        self._selected_under = credentials
        self.add_paths(paths)
        self.add_remotes(remotes)

    @property
    def is_settled(self) -> bool:
        """As its base."""
        return self._is_concluded

    @property
    def deadline_ns(self) -> int | None:
        """When `handle_deadline` has something to say; None once consent has expired."""
        if self._expired:
            return None
        due = [transaction.due_ns for transaction in self._transactions.values()]
        if self._next_pair() is not None:
            due.append(self._next_check_ns)
        if self.selected is not None:
            due.append(self._next_consent_ns)
        if self._favourite() is not None and self._first_valid_ns is not None:
            due.append(self._first_valid_ns + PATIENCE_NS)
        return min([*due, self._heard_ns + self._consent_ns])

    def add_paths(self, paths: Iterable[Path]) -> None:
        """Further ways out, such as a relay that was slow to answer: their checks are done like all others."""
        for path in paths:
            if path.base not in self._paths:
                self._paths[path.base] = path
                for remote in self._remotes.values():
                    self._pair_up(path, remote)

    def add_remotes(self, remotes: Iterable[Candidate]) -> None:
        """Candidates that the peer tells of, with its offer or later (RFC 8838)."""
        for remote in remotes:
            if remote.address not in self._remotes and len(self._remotes) < MAX_REMOTES:
                self._remotes[remote.address] = remote
                for path in self._paths.values():
                    self._pair_up(path, remote)

    def restart(self, credentials: Credentials, remotes: Iterable[Candidate], *, now_ns: int) -> list[Outcome]:
        """Begin anew with other credentials; media goes on on the pair that is selected until another one is."""
        outcomes = self._restart(credentials)
        self._checks.clear()
        self._remotes.clear()
        self._triggered.clear()
        self._transactions = {key: each for key, each in self._transactions.items() if each.is_consent}
        self._first_valid_ns = None
        self._is_concluded = False
        self.add_remotes(remotes)
        return [*outcomes, *self._go_on(now_ns)]

    def handle_deadline(self, *, now_ns: int) -> list[Outcome]:
        """Checks that are due, again or for the first time; `Expired`, once, when consent has run out.

        So it has when no pair was selected for that long after the last answer: the peer may talk, and never choose.
        """
        if self._expired:
            return []
        if now_ns >= self._heard_ns + self._consent_ns:
            self._expired = True
            return [Expired()]
        outcomes: list[Outcome] = []
        for key, transaction in list(self._transactions.items()):
            if now_ns >= transaction.due_ns:
                outcomes += self._send_again(key, transaction, now_ns)
        if self.selected is not None and now_ns >= self._next_consent_ns:
            outcomes.append(self._renew_consent(self.selected, now_ns))
        return outcomes + self._go_on(now_ns)

    def handle_datagram(self, data: bytes, pair: Pair, *, now_ns: int) -> list[Outcome]:
        """Take one STUN datagram that arrived on ``pair``.

        What is damaged, answers nothing that was asked, or proves no password, has no outcome.
        """
        try:
            message = stun.Message.parse(data)
        except stun.StunError:
            return []
        if message.method != stun.BINDING or self._expired:
            return []
        if message.kind is stun.Class.REQUEST:
            outcomes = self._handle_request(message, pair, now_ns)
        elif message.kind is stun.Class.INDICATION:
            return []
        else:
            outcomes = self._handle_response(message, pair, now_ns)
        return outcomes + self._go_on(now_ns)

    def _handle_request(self, message: stun.Message, pair: Pair, now_ns: int) -> list[Outcome]:
        known = self._admit(message, pair)
        if isinstance(known, Reply):
            return [known]
        rival = message.get(stun.ICE_CONTROLLING if self.is_controlling else stun.ICE_CONTROLLED)
        if rival is not None:  # RFC 8445 section 7.3.1.1: the greater number controls
            if len(rival) != _TIE_BREAKER_SIZE:
                return [self._refuse(message, pair, 400, "Bad Request")]
            if (self._tie_breaker >= rival) == self.is_controlling:
                return [self._refuse(message, pair, 487, "Role Conflict", key=known.key)]
            self.is_controlling = not self.is_controlling
        outcomes = self._answer(message, pair, known)
        if known is not self._newest:
            return outcomes  # its consent on the pair that it leaves
        checked = self._checks.get(pair) or self._learn(pair, message)
        if checked is None:
            return outcomes
        if stun.USE_CANDIDATE in message and not self.is_controlling:
            checked.is_nominated = True
            if checked.state is _State.VALID and not self._goes_by(pair):
                return outcomes + self._conclude(pair, now_ns)
        if checked.state is not _State.VALID:
            self._trigger(checked, now_ns)
        return outcomes

    def _handle_response(self, message: stun.Message, pair: Pair, now_ns: int) -> list[Outcome]:
        transaction = self._transactions.get(message.transaction_id)
        if transaction is None or not message.verify(transaction.credentials.peer_key):
            return []
        del self._transactions[message.transaction_id]
        checked = self._checks.get(transaction.pair)
        is_current = transaction.credentials is self._newest
        if message.kind is stun.Class.ERROR:
            code = _code_of(message)
            if code == 487 and self.is_controlling == transaction.is_controlling:
                self.is_controlling = not self.is_controlling
                self._tie_breaker = self._draw(_TIE_BREAKER_SIZE)
            if checked is not None and is_current and checked.state is not _State.VALID:
                if code == 487:
                    self._trigger(checked, now_ns, at_once=True)
                else:
                    checked.state = _State.FAILED
            return []
        if pair != transaction.pair:  # RFC 8445 section 7.2.5.2.1: it must come back the way it went
            if checked is not None and is_current and checked.state is not _State.VALID:
                checked.state = _State.FAILED
            return []
        outcomes = self._remember(pair)
        if self.selected is None or (pair == self.selected and transaction.credentials is self._selected_under):
            self._heard_ns = now_ns
        if checked is None or not is_current:
            return outcomes
        checked.state = _State.VALID
        if self._first_valid_ns is None:
            self._first_valid_ns = now_ns
        is_chosen = transaction.nominates if self.is_controlling else checked.is_nominated
        if is_chosen and not self._goes_by(pair):
            outcomes += self._conclude(pair, now_ns)
        return outcomes

    def _goes_by(self, pair: Pair) -> bool:
        return self._is_concluded and pair == self.selected

    def _conclude(self, pair: Pair, now_ns: int) -> list[Outcome]:
        """Media goes by this pair; no other one is tried of ours (RFC 8445 section 8.1.2)."""
        self._heard_ns = now_ns
        self._next_consent_ns = now_ns + self._consent_interval_ns()
        self._is_concluded = True
        self._selected_under = self._newest
        self._triggered.clear()
        self._transactions = {
            key: each
            for key, each in self._transactions.items()
            if each.is_consent and each.credentials is self._newest
        }
        for checked in self._checks.values():
            if checked.state in (_State.WAITING, _State.RUNNING):
                checked.state = _State.FAILED  # until a check of the peer brings it back
        return self._select(pair, self._newest)

    def _go_on(self, now_ns: int) -> list[Outcome]:
        """The next check, if it is time for one."""
        self._nominate(now_ns)
        if now_ns < self._next_check_ns:
            return []
        checked = self._next_pair()
        if checked is None:
            return []
        if self._triggered and self._triggered[0] == checked.pair:
            self._triggered.popleft()
        self._next_check_ns = now_ns + PACE_NS
        if checked.state is not _State.VALID:
            checked.state = _State.RUNNING
        checked.sent_ns = now_ns
        nominates = self.is_controlling and checked.is_nominated
        return [self._ask(checked.pair, self._newest, now_ns, nominates=nominates)]

    def _next_pair(self) -> _Checked | None:
        while self._triggered:
            if (checked := self._checks.get(self._triggered[0])) is not None:
                return checked
            self._triggered.popleft()
        if self._is_concluded:
            return None
        waiting = [each for each in self._checks.values() if each.state is _State.WAITING]
        return max(waiting, key=self._priority, default=None)

    def _nominate(self, now_ns: int) -> None:
        """Settle for the best pair, in the controlling role (RFC 8445 section 8.1.1)."""
        best = self._favourite()
        if best is None or self._first_valid_ns is None:
            return
        hopeful = (_State.WAITING, _State.RUNNING)
        is_settled = not any(
            each.state in hopeful and self._priority(each) > self._priority(best) for each in self._checks.values()
        )
        if is_settled or now_ns >= self._first_valid_ns + PATIENCE_NS:
            best.is_nominated = True
            self._triggered.appendleft(best.pair)

    def _favourite(self) -> _Checked | None:
        """The pair to nominate, once none can be hoped for that is better; None while that is not ours to do."""
        if not self.is_controlling or self._is_concluded:
            return None
        valid = [each for each in self._checks.values() if each.state is _State.VALID]
        if any(each.is_nominated for each in valid):
            return None
        return max(valid, key=self._priority, default=None)

    def _ask(
        self, pair: Pair, known: Credentials, now_ns: int, *, nominates: bool = False, is_consent: bool = False
    ) -> Check:
        path = self._paths.get(pair.local)
        reflexive = priority_of("prflx", 0 if path is None else path.rank)
        attributes = [
            (stun.USERNAME, known.peer_username),
            (stun.PRIORITY, struct.pack("!I", reflexive)),
            (stun.ICE_CONTROLLING if self.is_controlling else stun.ICE_CONTROLLED, self._tie_breaker),
        ]
        if nominates:
            attributes.append((stun.USE_CANDIDATE, b""))
        key = self.tag + self._draw(12 - TAG_SIZE)
        data = stun.Message(stun.BINDING, stun.Class.REQUEST, key, tuple(attributes)).to_bytes(known.peer_key)
        if len(self._transactions) >= MAX_TRANSACTIONS:
            del self._transactions[next(iter(self._transactions))]
        self._transactions[key] = _Transaction(
            data, pair, known, self.is_controlling, nominates, is_consent, now_ns + self._retry_ns()
        )
        return Check(data, pair)

    def _send_again(self, key: bytes, transaction: _Transaction, now_ns: int) -> list[Outcome]:
        """Once more, or never; consent is asked for with a new check each time (RFC 7675 section 5.1)."""
        checked = self._checks.get(transaction.pair)
        if transaction.is_consent:
            if transaction.sends >= MAX_SENDS:
                del self._transactions[key]
            transaction.sends += 1  # an answer still counts
            transaction.due_ns = now_ns + (RETRY_NS << transaction.sends)
            return []
        if transaction.sends >= MAX_SENDS or checked is None:
            del self._transactions[key]
            is_last = not any(each.pair == transaction.pair for each in self._transactions.values())
            if checked is not None and is_last and (checked.state is _State.RUNNING or transaction.nominates):
                checked.state, checked.is_nominated = _State.FAILED, False
            return []
        transaction.due_ns = now_ns + (self._retry_ns() << transaction.sends)
        transaction.sends += 1
        return [Check(transaction.data, transaction.pair)]

    def _renew_consent(self, pair: Pair, now_ns: int) -> Check:
        self._next_consent_ns = now_ns + self._consent_interval_ns()
        return self._ask(pair, self._selected_under, now_ns, is_consent=True)

    def _consent_interval_ns(self) -> int:
        return CONSENT_INTERVAL_NS * (800 + self._draw(1)[0] * 400 // 255) // 1000

    def _retry_ns(self) -> int:
        busy = sum(each.state in (_State.WAITING, _State.RUNNING) for each in self._checks.values())
        return max(RETRY_NS, PACE_NS * (1 if self._is_concluded else busy))

    def _trigger(self, checked: _Checked, now_ns: int, *, at_once: bool = False) -> None:
        """Check a pair next, because the peer did (RFC 8445 section 7.3.1.4), unless that was only just done."""
        is_fresh = checked.state is _State.RUNNING and now_ns < checked.sent_ns + RETRY_NS // 2
        if is_fresh and not at_once:
            return
        if checked.pair not in self._triggered:
            self._triggered.append(checked.pair)

    def _learn(self, pair: Pair, message: stun.Message) -> _Checked | None:
        """A pair that nobody told of: the peer's address is peer-reflexive (RFC 8445 section 7.3.1.3)."""
        path = self._paths.get(pair.local)
        if path is None:
            path = self._paths[pair.local] = Path(pair.local, pair.local[0], "host", len(self._paths))
        given = message.get(stun.PRIORITY)
        priority = struct.unpack("!I", given)[0] if given is not None and len(given) == 4 else 1
        return self._put(_Checked(pair, path, priority), is_proven=True)

    def _pair_up(self, path: Path, remote: Candidate) -> None:
        pair = Pair(path.base, remote.address)
        makes_sense = can_relay if path.kind == "relay" else can_reach
        if pair not in self._checks and makes_sense(path.host, remote.address[0]):
            self._put(_Checked(pair, path, remote.priority))

    def _put(self, checked: _Checked, *, is_proven: bool = False) -> _Checked | None:
        """Into the check list, in the place of the least promising pair if it is full."""
        if len(self._checks) >= MAX_CHECKS:
            idle = [each for each in self._checks.values() if each.pair != self.selected]
            worst = min(idle, key=lambda each: (each.state is _State.VALID, self._priority(each)))
            if not is_proven and (worst.state is _State.VALID or self._priority(checked) <= self._priority(worst)):
                return None
            del self._checks[worst.pair]
        self._checks[checked.pair] = checked
        return checked

    def _priority(self, checked: _Checked) -> int:
        """Of a pair (RFC 8445 section 6.1.2.3)."""
        ours, theirs = priority_of(checked.path.kind, checked.path.rank), checked.remote_priority
        mine, other = (ours, theirs) if self.is_controlling else (theirs, ours)
        return (min(ours, theirs) << 32) + 2 * max(ours, theirs) + (mine > other)


def asker_of(data: bytes) -> bytes | None:
    """The tag in a datagram that is a STUN response: who asked what it answers; None if it is no response."""
    if not stun.looks_like_stun(data) or not data[0] & 1:
        return None
    return data[8 : 8 + TAG_SIZE]


def _code_of(message: stun.Message) -> int | None:
    value = message.get(stun.ERROR_CODE)
    try:
        return None if value is None else stun.unpack_error(value)
    except stun.StunError:
        return None
