"""Whether what an output gives and what an input takes can meet, and which converters bring them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.node.ports import Input, Output

Kind = Literal["decode", "convert", "frame-rate", "resample"]
"""What a converter does; also the type id of the node that does it."""

Cost = Literal["low", "medium", "high"]

COSTS: Mapping[Kind, Cost] = {"decode": "high", "convert": "medium", "frame-rate": "low", "resample": "low"}
"""How much processor time a converter takes, for pictures of one size: decoding most, resampling sound least."""


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

    def known(self, caps: Caps | None) -> Carried:
        """The same with what is known of the caps beside what was declared; the former counts where they differ."""
        if caps is None:
            return self
        try:
            met = self.caps.intersect(caps) if type(self.caps) is type(caps) else caps
        except CapsConflict:
            met = caps
        return replace(self, caps=met)


@dataclass(frozen=True, slots=True)
class Step:
    """One converter: a node of type ``kind`` with these settings. ``does`` says it to people, ``gives`` is its output.

    It is ``certain`` when both sides are known to differ; otherwise it passes on what fits.
    """

    kind: Kind
    does: str
    gives: Carried
    settings: Mapping[str, Any] = field(default_factory=dict)
    certain: bool = True

    @property
    def cost(self) -> Cost:
        """How much processor time it takes."""
        return COSTS[self.kind]


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


def conversion(carried: Carried | None, port: Input[Any]) -> tuple[Step, ...] | None:
    """The converters that make what is carried fit an input: none where it fits; None where nothing makes it fit.

    What is not known before the start gets converters that pass on what fits.
    """
    if carried is None or len(carried.payloads) != 1:
        return () if carried is None or any(port.takes(each) for each in carried.payloads) else None
    payload = carried.payloads[0]
    if port.takes(payload):
        return _same_payload(carried, port)
    if issubclass(payload, EncodedPacket):
        return _decoded(carried, port)
    return None


def _same_payload(carried: Carried, port: Input[Any]) -> tuple[Step, ...] | None:
    if isinstance(port.caps, VideoCaps) and issubclass(carried.payloads[0], VideoFrame):
        offered = carried.caps if isinstance(carried.caps, VideoCaps) else VideoCaps()
        return _pictures(carried, offered, port.caps)
    if isinstance(port.caps, AudioCaps) and issubclass(carried.payloads[0], AudioFrame):
        offered_sound = carried.caps if isinstance(carried.caps, AudioCaps) else AudioCaps()
        return _sound(carried, offered_sound, port.caps)
    try:
        meet(carried, port)
    except CapsConflict:
        return None
    return ()


def _decoded(carried: Carried, port: Input[Any]) -> tuple[Step, ...] | None:
    coded = carried.caps if isinstance(carried.caps, EncodedCaps) else EncodedCaps()
    takes = [payload for payload in (VideoFrame, AudioFrame) if port.takes(payload)]
    if coded.codec is not None:
        takes = [payload for payload in takes if (coded.is_video if payload is VideoFrame else coded.is_audio)]
    if len(takes) != 1:
        return None
    raw: Caps
    if takes[0] is VideoFrame:
        raw = VideoCaps(width=coded.width, height=coded.height)
    else:
        raw = AudioCaps(rate=coded.rate, layout=coded.layout)
    gives = Carried((takes[0],), raw)
    codec = coded.codec if isinstance(coded.codec, str) else ""
    rest = _same_payload(gives, port)
    return None if rest is None else (Step("decode", f"decode {codec}".strip(), gives), *rest)


def _pictures(carried: Carried, offered: VideoCaps, accepted: VideoCaps) -> tuple[Step, ...] | None:
    if any(_differs(offered, accepted, name) == "surely" for name in ("matrix", "full_range")):
        return None
    steps: list[Step] = []
    caps = offered
    settings: dict[str, Any] = {}
    said: list[str] = []
    certain = False
    if (differs := _differs(offered, accepted, "format")) is not None:
        settings["format"] = list(accepted.format) if isinstance(accepted.format, tuple) else accepted.format
        said.append(f"pixel format {_first(accepted.format)}")
        certain |= differs == "surely"
        caps = replace(caps, format=accepted.format, matrix=None, full_range=None)
    sides = [_differs(offered, accepted, name) for name in ("width", "height")]
    if any(sides):
        if accepted.width is None or accepted.height is None:
            return None  # one side alone does not say what becomes of the picture
        width, height = _first(accepted.width), _first(accepted.height)
        settings["size"] = f"{width}x{height}"
        said.append(f"size {width}x{height}")
        certain |= "surely" in sides
        caps = replace(caps, width=width, height=height)
    if settings:
        steps.append(Step("convert", ", ".join(said), replace(carried, caps=caps), settings, certain))
    if (differs := _differs(offered, accepted, "fps")) is not None:
        fps = _first(accepted.fps)
        caps = replace(caps, fps=fps)
        certain = differs == "surely"
        steps.append(Step("frame-rate", f"{fps:g} fps", replace(carried, caps=caps), {"fps": fps}, certain))
    return tuple(steps)


def _sound(carried: Carried, offered: AudioCaps, accepted: AudioCaps) -> tuple[Step, ...]:
    settings: dict[str, Any] = {}
    said: list[str] = []
    certain = False
    caps = offered
    for name, unit in (("rate", " Hz"), ("layout", ""), ("format", "")):
        differs = _differs(offered, accepted, name)
        if differs is None:
            continue
        value = getattr(accepted, name)
        settings[name] = list(value) if isinstance(value, tuple) else value
        said.append(f"{_first(value)}{unit}")
        certain |= differs == "surely"
        caps = replace(caps, **{name: value})
    if not settings:
        return ()
    return (Step("resample", " ".join(said), replace(carried, caps=caps), settings, certain),)


def _differs(offered: Caps, accepted: Caps, name: str) -> Literal["surely", "maybe"] | None:
    """Whether a field of what is offered lies outside of what is accepted."""
    ours, theirs = getattr(offered, name), getattr(accepted, name)
    if theirs is None:
        return None
    if ours is None:
        return "maybe"
    allowed = theirs if isinstance(theirs, tuple) else (theirs,)
    given = ours if isinstance(ours, tuple) else (ours,)
    inside = [each in allowed for each in given]
    return None if all(inside) else "maybe" if any(inside) else "surely"


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
