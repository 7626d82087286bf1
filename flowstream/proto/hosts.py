"""What the name or number of a host says about it."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_ADDRESS: Final = re.compile(
    r"\[(?P<v6>[^]]+)\](?::(?P<v6_port>[0-9]{1,5}))?|(?P<v4>[^:]+)(?::(?P<v4_port>[0-9]{1,5}))?"
)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def network_of(address: str) -> str:
    """Whose address it is, for limits: itself, or for IPv6 the /64 that one customer has (RFC 6177).

    An IPv4 address that is written as IPv6 is itself. What is no address is taken as it is.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"


def read_address(text: str) -> tuple[str, int]:
    """An IP address with or without a port: ``192.0.2.1``, ``192.0.2.1:80``, ``::1``, ``[::1]:80``; port 0 is none.

    Raises:
        ValueError: it is something else.
    """
    found = _ADDRESS.fullmatch(text)
    host, port = (found["v6"] or found["v4"], int(found["v6_port"] or found["v4_port"] or 0)) if found else (text, 0)
    try:
        if port > 65_535:
            raise ValueError
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise ValueError(
            f"{text!r} is no IP address, with or without a port; write it as 192.0.2.1:5000 or [2001:db8::1]:5000"
        ) from None
