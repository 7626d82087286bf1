"""ICE candidates: where an end can be reached, and in which order that is tried (RFC 8445 section 5.1, RFC 8839)."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flowstream.proto.ice import Address

Kind = Literal["host", "srflx", "prflx", "relay"]
"""An address of the machine; what a STUN server, or the peer, saw of it behind its NAT; one that a TURN server lent."""

PREFERENCES: Final[dict[Kind, int]] = {"host": 126, "prflx": 110, "srflx": 100, "relay": 0}
"""Type preferences, as RFC 8445 section 5.1.2.2 recommends them."""

MAX_PRIORITY: Final = 2**32 - 1

_MOST_LOCAL: Final = 65_535
_WORDS: Final = 8  # foundation, component, transport, priority, address, port, "typ" and the type


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of an end, on UDP, for the one component that there is.

    ``related`` is what it stands for: of a server-reflexive one the address behind the NAT, of a relayed one what the
    relay saw.
    """

    kind: Kind
    address: Address
    priority: int
    related: Address | None = None

    def line(self, foundation: int) -> str:
        """The attribute line (RFC 8839 section 5.1)."""
        host, port = self.address
        related = "" if self.related is None else f" raddr {self.related[0]} rport {self.related[1]}"
        return f"a=candidate:{foundation} 1 udp {self.priority} {host} {port} typ {self.kind}{related}"


def priority_of(kind: Kind, rank: int) -> int:
    """The priority of a candidate, ``rank`` 0 being the best of its kind (RFC 8445 section 5.1.2.1)."""
    return PREFERENCES[kind] << 24 | (_MOST_LOCAL - min(rank, _MOST_LOCAL)) << 8 | 255


def host_candidates(addresses: Iterable[Address]) -> list[Candidate]:
    """Host candidates, the preferred ones first."""
    return [Candidate("host", address, priority_of("host", rank)) for rank, address in enumerate(addresses)]


def candidate_lines(candidates: Sequence[Candidate]) -> list[str]:
    """The attribute lines of all candidates that there are."""
    return [*(each.line(number) for number, each in enumerate(candidates, 1)), "a=end-of-candidates"]


def is_candidate(value: str) -> bool:
    """Whether what follows ``a=candidate:`` has the form of one, of whatever transport and type."""
    words = value.split()
    return len(words) >= _WORDS and words[6] == "typ"


def read_candidates(values: Iterable[str], *, most: int) -> tuple[Candidate, ...]:
    """The candidates that can be used of what followed ``a=candidate:``, at most ``most``.

    Left out are TCP, other components, and names in the place of addresses: browsers hide addresses behind names of
    mDNS, which nobody beyond their network can look up.
    """
    found: dict[Address, Candidate] = {}
    for value in values:
        candidate = _read(value.split()) if is_candidate(value) else None
        if candidate is not None and len(found) < most:
            found.setdefault(candidate.address, candidate)
    return tuple(found.values())


def can_reach(local: str, remote: str) -> bool:
    """Whether a datagram from one IP address to another can make sense: of one family, to one host, loopback to
    itself."""
    here, there = _parse(local), _parse(remote)
    if here is None or there is None or here.version != there.version:
        return False
    if there.is_unspecified or there.is_multicast or there == ipaddress.IPv4Address(0xFFFFFFFF):
        return False
    return here.is_loopback == there.is_loopback and here.is_link_local == there.is_link_local


def can_relay(relay: str, remote: str) -> bool:
    """As `can_reach`, from an address of a relay: one on the internet reaches nobody's private network."""
    here, there = _parse(relay), _parse(remote)
    return can_reach(relay, remote) and not (here is not None and here.is_global and there and not there.is_global)


def _read(words: Sequence[str]) -> Candidate | None:
    _, component, transport, priority, host, port, _, kind = words[:_WORDS]
    address = _parse(host)
    numbers = (component, priority, port)
    if address is None or not all(each.isascii() and each.isdecimal() and len(each) <= 10 for each in numbers):
        return None
    if transport.lower() != "udp" or component != "1" or kind not in PREFERENCES:
        return None
    if not 1 <= int(port) <= 65_535 or not 1 <= int(priority) <= MAX_PRIORITY:
        return None
    return Candidate(kind, (str(address), int(port)), int(priority))


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id is not None or address.ipv4_mapped is not None):
        return None  # a zone means something on one machine only
    return address
