"""STUN and TURN servers: their addresses (RFC 7064, RFC 7065), and what lets somebody in."""

import base64
import hmac
import re
from dataclasses import dataclass, replace
from typing import Final, Literal

LOGIN_S: Final = 24 * 3600
"""How long a user name that is made from a secret counts."""

_URL: Final = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?"
)

Transport = Literal["udp", "tcp", "tls"]


class ServerUrlError(ValueError):
    """The text is no address of a STUN or TURN server."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """One way to a server; ``lends`` when it is TURN."""

    text: str
    host: str
    port: int
    transport: Transport
    lends: bool

    @classmethod
    def parse(cls, text: str) -> "ServerUrl":
        """Read one.

        Raises:
            ServerUrlError: it is of another form.
        """
        found = _URL.fullmatch(text)
        port = int(found["port"]) if found is not None and found["port"] else None
        if found is None or port == 0 or (port or 1) > 65_535:
            raise ServerUrlError(f"{text!r} is no address of a STUN or TURN server")
        is_secure = found["scheme"].endswith("s")
        transport: Transport = "tcp" if found["transport"] == "tcp" else "udp"
        if is_secure:
            transport = "tls"
        host = found["host"].strip("[]")
        return cls(text, host, port or (5349 if is_secure else 3478), transport, found["scheme"].startswith("turn"))


@dataclass(frozen=True, slots=True)
class IceServer:
    """A server and what lets somebody in: a user name and its password, or the secret that they are made from."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None
    secret: str | None = None

    def login(self, name: str, *, wallclock_ns: int) -> "IceServer":
        """The same with a user name and a password that end after `LOGIN_S`, where there is a secret.

        They are those of draft-uberti-behave-turn-rest-00, which TURN servers check without knowing ``name``.
        """
        if self.secret is None:
            return self
        username = f"{wallclock_ns // 1_000_000_000 + LOGIN_S}:{name}"
        digest = hmac.digest(self.secret.encode(), username.encode(), "sha1")
        return replace(self, username=username, credential=base64.b64encode(digest).decode(), secret=None)
