"""How a local port looks from outside a NAT: what a STUN server sees of it (RFC 8489), and keeps seeing."""

from collections.abc import Callable
from typing import Final

from flowstream.proto import stun
from flowstream.proto.ice import Address
from flowstream.proto.ice_agent import TAG_SIZE

REFRESH_NS: Final = 15_000_000_000
"""Between requests: a NAT may forget what was silent for longer (RFC 8445 section 11)."""

RETRY_NS: Final = 500_000_000
"""Before a request is sent again, doubled each time (RFC 8489 section 6.2.1)."""

MAX_SENDS: Final = 4
"""Times that one request is sent: the server is silent when 7.5 s have gone by."""

PAUSE_NS: Final = 60_000_000_000
"""Before a silent server is asked again."""


class Reflexive:
    """Asks one server from one local port, as long as it is there.

    ``mapped`` is what the server sees of the port, None while that is not known; ``is_silent`` from when it did not
    answer, or refused, until it is asked again.
    """

    def __init__(self, *, draw: Callable[[int], bytes], now_ns: int) -> None:
        """``draw`` gives so many bytes from a secure random source."""
        self.mapped: Address | None = None
        self.is_silent: bool = False
        self.tag: bytes = draw(TAG_SIZE)
        self._draw = draw
        self._request: stun.Message | None = None
        self._sends = 0
        self._due_ns = now_ns

    @property
    def deadline_ns(self) -> int:
        """When `handle_deadline` has something to say."""
        return self._due_ns

    def handle_deadline(self, *, now_ns: int) -> bytes | None:
        """The request that is to be sent now, if any."""
        if now_ns < self._due_ns:
            return None
        if self._request is None:
            key = self.tag + self._draw(12 - TAG_SIZE)
            self._request = stun.Message(stun.BINDING, stun.Class.REQUEST, key)
            self._sends = 0
            self.is_silent = False
        elif self._sends >= MAX_SENDS:
            self._fail(now_ns)
            return None
        self._due_ns = now_ns + (RETRY_NS << self._sends)
        self._sends += 1
        return self._request.to_bytes()

    def handle_datagram(self, data: bytes, *, now_ns: int) -> bool:
        """Take what the server sent; whether that changed what is known. What answers no request is passed over."""
        try:
            message = stun.Message.parse(data)
            if self._request is None or message.transaction_id != self._request.transaction_id:
                return False
            value = message.get(stun.XOR_MAPPED_ADDRESS)
            if message.kind is not stun.Class.SUCCESS or value is None:
                if message.kind is stun.Class.ERROR:
                    self._fail(now_ns)
                    return True
                return False
            mapped = stun.unpack_xor_address(value, message.transaction_id)
        except stun.StunError:
            return False
        before = (self.mapped, self.is_silent)
        self.mapped, self.is_silent = mapped, False
        self._request = None
        self._due_ns = now_ns + REFRESH_NS
        return before != (self.mapped, self.is_silent)

    def _fail(self, now_ns: int) -> None:
        self.mapped, self.is_silent = None, True
        self._request = None
        self._due_ns = now_ns + PAUSE_NS
