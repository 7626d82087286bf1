"""What a machine can do, as packs tell it: an encoder that opens, a camera that is there, a permission that is missing.

A pack names functions that tell it: ``CAPABILITIES = ("acme.machine:capabilities",)`` in its module. Each takes whether
to look afresh instead of at what is kept from before, and gives capabilities; `flowstream doctor` shows them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["works", "absent", "broken"]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a graph may need, and whether this machine has it.

    ``topic`` is the heading it stands under, ``kind`` what sort of thing it is (a codec, a device). ``absent`` is what
    is not there and need not be, ``broken`` what ought to work and does not. ``detail`` says what was found or why not,
    ``advice`` what to do about it.
    """

    topic: str
    name: str
    state: State
    kind: str = ""
    detail: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
