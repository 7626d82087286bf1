"""What peers tell each other of ICE after their offer and answer (application/trickle-ice-sdpfrag, RFC 8840 section 9).

WHEP sends such a fragment by PATCH: with further candidates, or with new credentials, which is an ICE restart
(draft-ietf-wish-whep, sections on Trickle ICE and ICE restarts).
"""

from dataclasses import dataclass
from typing import Final

from flowstream.proto.candidates import candidate_lines, is_candidate
from flowstream.proto.sdp import Agreement, SdpError, Transport, ice_line, is_ice_text

MAX_CANDIDATES: Final = 256
"""Most candidates of one fragment; a browser on many networks has some dozens."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a fragment says: the sender's credentials, empty where it has none, and what follows ``a=candidate:``."""

    ufrag: str
    password: str
    candidates: tuple[str, ...] = ()


def parse_fragment(text: str) -> Fragment:
    """Read a fragment.

    Lines may end in LF alone.

    Raises:
        SdpError: naming the line.
    """
    found: dict[str, str] = {"ice-ufrag": "", "ice-pwd": ""}
    candidates: list[str] = []
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if len(line) < 3 or line[1] != "=" or line[0] not in "am" or not line.isprintable():
            raise SdpError(f"line {number}: {line[:40]!r} is not of the form a=... or m=...")
        name, _, value = line[2:].partition(":")
        if line[0] == "m":
            continue
        if name in found:
            least = 4 if name == "ice-ufrag" else 22
            if not is_ice_text(value, least):
                raise SdpError(f"line {number}: a={name} is not {least} to 256 letters, digits, + or /")
            if found[name] not in ("", value):
                raise SdpError(f"line {number}: a second a={name} that differs; the sections share one transport")
            found[name] = value
        elif name == "candidate" and value.strip():  # an empty one says that there are no more
            candidates.append(value)
            if not is_candidate(value):
                raise SdpError(f"line {number}: {line[:60]!r} is no candidate (RFC 8839 section 5.1)")
            if len(candidates) > MAX_CANDIDATES:
                raise SdpError(f"line {number}: more than {MAX_CANDIDATES} candidates")
    return Fragment(found["ice-ufrag"], found["ice-pwd"], tuple(candidates))


def write_fragment(agreement: Agreement, transport: Transport) -> str:
    """Our new credentials and candidates after a restart, lines ended by CRLF.

    As one transport carries all, only the section that the others are bundled with is named.
    """
    index, first = next(iter(agreement.tracks.items()))
    section = agreement.offer.media[index]
    lines = [
        ice_line(transport),
        f"a=group:BUNDLE {' '.join(agreement.mids)}",
        f"m={section.kind} 9 {section.protocol} {first.choices[0].format.payload_type}",
        f"a=mid:{first.mid}",
        f"a=ice-ufrag:{transport.ufrag}",
        f"a=ice-pwd:{transport.password}",
        *candidate_lines(transport.candidates),
    ]
    return "\r\n".join(lines) + "\r\n"
