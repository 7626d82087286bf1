"""The media section of data channels in offers and answers (RFC 8841)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

PROTOCOLS: Final = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
FORMAT: Final = "webrtc-datachannel"

PORT: Final = 5000
"""SCTP's port, at both ends; it tells nothing apart where DTLS carries one association."""

LONGEST_MESSAGE: Final = 4096
"""Bytes of the longest message that a viewer may send."""

ASSUMED_MESSAGE: Final = 65_536
"""Bytes of the longest message to somebody who does not say (RFC 8841 section 6.1)."""


@dataclass(frozen=True, slots=True)
class DataSection:
    """What an offer says of data channels: its SCTP port, and the longest message it takes in bytes, 0 for any."""

    port: int
    longest_message: int


def find_data(protocol: str, tokens: Sequence[str], said: Callable[[str], str | None]) -> DataSection | None:
    """What a section of an offer says of data channels; None for one of another kind, or one that makes no sense.

    ``said`` gives its attributes by name. Data channels are an extra: what is wrong with them costs nobody the picture.
    """
    if protocol not in PROTOCOLS or FORMAT not in tokens:
        return None
    port = _number(said("sctp-port") or "", 65_535)
    longest = _number(said("max-message-size") or str(ASSUMED_MESSAGE), 2**53)
    if not port or longest is None:
        return None
    return DataSection(port, longest)


def data_attributes() -> list[str]:
    """The attributes of the section in the answer, beside those of the transport."""
    return [f"a=sctp-port:{PORT}", f"a=max-message-size:{LONGEST_MESSAGE}"]


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 16) or int(text) > most:
        return None
    return int(text)
