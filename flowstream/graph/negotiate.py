"""Whether what an output gives and what an input takes can meet, as far as their declarations tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowstream.media.caps import Caps, EncodedCaps
from flowstream.node.ports import Input, Output


@dataclass(frozen=True, slots=True)
class Carried:
    """What travels on an edge: one of these payload classes, with caps where they are declared."""

    payloads: tuple[type[Any], ...]
    caps: Caps | None = None

    def narrowed(self, declared: Carried) -> Carried:
        """What goes out of an output that is ``like`` the input where this comes in.

        A node may change size and format of raw media that it passes on, so only the codec is certain to stay.
        """
        payloads = tuple(p for p in self.payloads if issubclass(p, declared.payloads)) or declared.payloads
        caps = declared.caps or (self.caps if isinstance(self.caps, EncodedCaps) else None)
        return Carried(payloads, caps)


def carried_by(output: Output[Any]) -> Carried:
    """What an output declares."""
    return Carried(output.payloads, output.caps)


def meet(carried: Carried | None, port: Input[Any]) -> Carried | None:
    """What of that can come in; None when none of its payloads can.

    Raises CapsConflict when the payload fits and the formats cannot.
    """
    if carried is None:
        return None
    payloads = tuple(p for p in carried.payloads if port.takes(p))
    if not payloads:
        return None
    caps = carried.caps or port.caps
    if carried.caps is not None and port.caps is not None and type(carried.caps) is type(port.caps):
        caps = carried.caps.intersect(port.caps)
    return Carried(payloads, caps)
