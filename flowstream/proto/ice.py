"""ICE (RFC 8445): answering connectivity checks, and the lite agent, which does nothing else.

The lite agent (section 2.5) learns the pair that the peer nominates, and notices when the peer's consent to receive has
run out (RFC 7675). The full one, which sends checks itself, is in `flowstream.proto.ice_agent`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from flowstream.proto import stun

Address = tuple[str, int]
"""IP address in text form, and port."""


class Pair(NamedTuple):
    """A path between the two ends: our address, and the peer's as it arrives here."""

    local: Address
    remote: Address


CONSENT_NS: Final = 30_000_000_000
"""Consent lasts this long after the last authenticated check (RFC 7675 section 5.1)."""

MAX_PAIRS: Final = 16
"""Pairs of one peer that are known at a time; the one unused for longest is forgotten first."""

UNDERSTOOD: Final = frozenset(
    {stun.USERNAME, stun.PRIORITY, stun.USE_CANDIDATE, stun.MESSAGE_INTEGRITY, stun.XOR_MAPPED_ADDRESS}
)


@dataclass(frozen=True, slots=True)
class Reply:
    """Send ``data`` back on ``pair``, the one that the check came in on."""

    data: bytes
    pair: Pair


@dataclass(frozen=True, slots=True)
class Verified:
    """Whoever sends on ``pair`` has proved to know our password: what comes in there belongs to this peer."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Forgotten:
    """``pair`` is no longer this peer's."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Selected:
    """The peer nominated ``pair``: media goes there from now on."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Retired:
    """Nobody is answered under ``ufrag`` any more: later credentials have taken its place."""

    ufrag: str


@dataclass(frozen=True, slots=True)
class Expired:
    """No authenticated check for `CONSENT_NS`: stop sending to this peer."""


@dataclass(frozen=True, slots=True)
class Check:
    """Send ``data``, a check of our own, on ``pair``; what answers it has the same `IceAgent.tag`."""

    data: bytes
    pair: Pair


Outcome = Reply | Verified | Forgotten | Selected | Retired | Expired | Check


@dataclass(frozen=True, slots=True)
class Credentials:
    """What both ends know of each other: the username fragments, and the passwords as keys.

    Ours have 4 or more, and 22 or more, of ICE's characters, from a secure random source. ``peer_key`` may be empty
    for a lite agent, which asks nothing.
    """

    ufrag: str
    key: bytes
    peer_ufrag: str
    peer_key: bytes = b""

    @property
    def username(self) -> bytes:
        """What a check of the peer names."""
        return f"{self.ufrag}:{self.peer_ufrag}".encode()

    @property
    def peer_username(self) -> bytes:
        """What a check of ours names."""
        return f"{self.peer_ufrag}:{self.ufrag}".encode()


class Responder:
    """What every agent does: answer the peer's checks, and know which pairs the peer has proved to be at.

    New credentials (RFC 8445 section 9) take the place of those before once a pair is selected under them; until then
    both hold, and media goes on on the pair that is selected.

    Limits: one component (RTP and RTCP share it), UDP.
    """

    def __init__(self, credentials: Credentials, *, now_ns: int, consent_ns: int) -> None:
        self.selected: Pair | None = None
        self._newest = credentials
        self._before: Credentials | None = None
        self._consent_ns = consent_ns
        self._heard_ns = now_ns
        self._expired = False
        self._pairs: dict[Pair, None] = {}

    @property
    def ufrag(self) -> str:
        """Our newest username fragment."""
        return self._newest.ufrag

    @property
    def ufrags(self) -> tuple[str, ...]:
        """Every username fragment of ours under which checks are answered, newest first."""
        return tuple(known.ufrag for known in (self._newest, self._before) if known is not None)

    @property
    def is_settled(self) -> bool:
        """Whether a pair is selected under the newest credentials, so that nothing is to be done but keep consent."""
        return self.selected is not None and self._before is None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every pair that has been verified and is not forgotten."""
        return tuple(self._pairs)

    def _restart(self, credentials: Credentials) -> list[Outcome]:
        """Take new ones; `Retired` names those that nothing was ever selected under, if there were such."""
        newest, self._newest = self._newest, credentials
        if self._before is None and self.selected is not None:
            self._before = newest
            return []
        return [Retired(newest.ufrag)]

    def _admit(self, message: stun.Message, pair: Pair) -> Credentials | Reply:
        """Under which credentials a request comes; the error that RFC 8489 section 9.1.3 names if under none."""
        username = message.get(stun.USERNAME)
        known = next((each for each in (self._newest, self._before) if each and each.username == username), None)
        if username is None or message.integrity is None:
            return self._refuse(message, pair, 400, "Bad Request")
        if known is None or not message.verify(known.key):
            return self._refuse(message, pair, 401, "Unauthorized")
        unknown = [number for number, _ in message.attributes if number < 0x8000 and number not in UNDERSTOOD]
        if unknown:
            numbers = b"".join(number.to_bytes(2, "big") for number in unknown)
            extra = ((stun.UNKNOWN_ATTRIBUTES, numbers),)
            return self._refuse(message, pair, 420, "Unknown Attribute", extra, key=known.key)
        return known

    def _answer(self, request: stun.Message, pair: Pair, known: Credentials) -> list[Outcome]:
        """A success, and what is known now."""
        mapped = stun.pack_xor_address(pair.remote, request.transaction_id)
        response = stun.Message(
            request.method, stun.Class.SUCCESS, request.transaction_id, ((stun.XOR_MAPPED_ADDRESS, mapped),)
        )
        return [Reply(response.to_bytes(known.key), pair), *self._remember(pair)]

    def _select(self, pair: Pair, known: Credentials) -> list[Outcome]:
        """Media goes by this pair from now on; credentials before these have had their time."""
        outcomes: list[Outcome] = []
        if known is self._newest and self._before is not None:
            outcomes.append(Retired(self._before.ufrag))
            self._before = None
        if self.selected != pair:
            self.selected = pair
            outcomes.append(Selected(pair))
        return outcomes

    def _remember(self, pair: Pair) -> list[Outcome]:
        outcomes: list[Outcome] = []
        if pair in self._pairs:
            del self._pairs[pair]
        else:
            outcomes.append(Verified(pair))
        self._pairs[pair] = None
        if len(self._pairs) > MAX_PAIRS:
            oldest = next(known for known in self._pairs if known != self.selected)
            del self._pairs[oldest]
            outcomes.append(Forgotten(oldest))
        return outcomes

    def _refuse(
        self,
        request: stun.Message,
        pair: Pair,
        code: int,
        reason: str,
        extra: tuple[tuple[int, bytes], ...] = (),
        *,
        key: bytes | None = None,
    ) -> Reply:
        """Errors 400 and 401 have no ``key`` and carry no MESSAGE-INTEGRITY: the requester did not prove it."""
        attributes = ((stun.ERROR_CODE, stun.pack_error(code, reason)), *extra)
        response = stun.Message(request.method, stun.Class.ERROR, request.transaction_id, attributes)
        return Reply(response.to_bytes(key), pair)


class IceLite(Responder):
    """One peer's ICE session, seen from a lite agent, which is always controlled and never sends checks."""

    tag: bytes | None = None  # it asks nothing

    def __init__(self, credentials: Credentials, *, now_ns: int, consent_ns: int = CONSENT_NS) -> None:
        super().__init__(credentials, now_ns=now_ns, consent_ns=consent_ns)

    @property
    def deadline_ns(self) -> int | None:
        """When `handle_deadline` has something to say (consent runs out); None once it has said so."""
        return None if self._expired else self._heard_ns + self._consent_ns

    def handle_deadline(self, *, now_ns: int) -> list[Outcome]:
        """`Expired`, once, when consent has run out by ``now_ns``."""
        if self._expired or now_ns - self._heard_ns < self._consent_ns:
            return []
        self._expired = True
        return [Expired()]

    def restart(self, credentials: Credentials) -> list[Outcome]:
        """Take new credentials; `Retired` names those that nothing was ever nominated under, if there were such."""
        return self._restart(credentials)

    def handle_datagram(self, data: bytes, pair: Pair, *, now_ns: int) -> list[Outcome]:
        """Take one STUN datagram that arrived on ``pair``.

        Whatever is no Binding request (damaged, other methods, responses) has no outcome; a request that fails a check
        is answered by the error that RFC 8489 section 9.1.3 and RFC 8445 section 7.3 name.
        """
        try:
            message = stun.Message.parse(data)
        except stun.StunError:
            return []
        if message.kind is not stun.Class.REQUEST or message.method != stun.BINDING or self._expired:
            return []
        known = self._admit(message, pair)
        if isinstance(known, Reply):
            return [known]
        if stun.ICE_CONTROLLED in message:
            return [self._refuse(message, pair, 487, "Role Conflict", key=known.key)]
        self._heard_ns = now_ns
        outcomes = self._answer(message, pair, known)
        if stun.USE_CANDIDATE in message:
            outcomes += self._select(pair, known)
        return outcomes


def local_ufrag(data: bytes) -> str | None:
    """The first half of USERNAME in a STUN request: which session of a shared port it is for; None if there is none.

    Nothing else of the request is looked at.
    """
    username = stun.peek(data, stun.USERNAME) if stun.is_request(data) else None
    if username is None:
        return None
    ufrag, separator, _ = username.partition(b":")
    if not separator or not ufrag.isascii():
        return None
    return ufrag.decode()
