"""Caps: sets of formats, as data. A field is any (None), one value, or a tuple of choices in order of preference.

Names are FFmpeg's: ``yuv420p``, ``bgr24``, ``fltp``, ``h264``, ``opus``, ``stereo``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

T = TypeVar("T")

VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg")
AUDIO_CODECS = ("opus", "aac", "mp3", "flac", "pcm_s16le")


class CapsConflict(ValueError):  # noqa: N818 - the field's word for it
    """Raised when two caps cannot meet: ``field`` is the first that conflicts, with what each side has."""

    def __init__(self, field: str, offered: Any, accepted: Any) -> None:
        super().__init__(f"{field}: offered {spoken(offered)}, accepted {spoken(accepted)}")
        self.field = field
        self.offered = offered
        self.accepted = accepted


def spoken(value: Any) -> str:
    """The value of a field as people read it: ``bgr24 or gray``."""
    if isinstance(value, tuple):
        return " or ".join(str(v) for v in value)
    return "any" if value is None else str(value)


def _choices(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True, slots=True)
class Caps:
    """Common algebra of all caps."""

    def intersect(self, accepted: Self) -> Self:
        """What both sides can do, in this side's order of preference.

        Raises CapsConflict naming the first field on which they cannot meet.
        """
        met: dict[str, Any] = {}
        for f in fields(self):
            ours, theirs = getattr(self, f.name), getattr(accepted, f.name)
            if ours is None or theirs is None:
                met[f.name] = theirs if ours is None else ours
                continue
            common = tuple(v for v in _choices(ours) if v in _choices(theirs))
            if not common:
                raise CapsConflict(f.name, ours, theirs)
            met[f.name] = common[0] if len(common) == 1 else common
        return replace(self, **met)

    @property
    def is_fixed(self) -> bool:
        """Whether no field leaves a choice open."""
        return all(not isinstance(getattr(self, f.name), tuple) for f in fields(self))

    def __str__(self) -> str:
        said = [f"{f.name} {spoken(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name) is not None]
        return ", ".join(said) or "any"


@dataclass(frozen=True, slots=True)
class VideoCaps(Caps):
    """Raw pictures. ``width`` and ``height`` in pixels.

    ``matrix`` is the YUV matrix under FFmpeg's name (``smpte170m`` is BT.601, ``bt709``); ``full_range`` tells luma
    0..255 from 16..235. None means unstated: RGB, or BT.601 limited for YUV. ``fps`` is what a port declares, in frames
    per second; the caps of a frame leave it open.
    """

    format: str | tuple[str, ...] | None = None
    width: int | tuple[int, ...] | None = None
    height: int | tuple[int, ...] | None = None
    matrix: str | tuple[str, ...] | None = None
    full_range: bool | None = None
    fps: float | tuple[float, ...] | None = None

    @property
    def size(self) -> str:
        """``1280x720``, or ``any size``."""
        return f"{self.width}x{self.height}" if self.width and self.height else "any size"


@dataclass(frozen=True, slots=True)
class AudioCaps(Caps):
    """Raw sound. ``rate`` in samples per second, ``layout`` under FFmpeg's name (``mono``, ``stereo``)."""

    format: str | tuple[str, ...] | None = None
    rate: int | tuple[int, ...] | None = None
    layout: str | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class EncodedCaps(Caps):
    """Encoded media. ``extradata`` is FFmpeg's (for h264 the parameter sets, Annex B).

    Encoded h264 and hevc travel as Annex B with parameter sets before every keyframe.
    """

    codec: str | tuple[str, ...] | None = None
    width: int | tuple[int, ...] | None = None
    height: int | tuple[int, ...] | None = None
    rate: int | tuple[int, ...] | None = None
    layout: str | tuple[str, ...] | None = None
    profile: str | tuple[str, ...] | None = None
    extradata: bytes | None = None

    @property
    def is_video(self) -> bool:
        """Whether every codec this can be is a picture codec."""
        return self.codec is not None and all(c in VIDEO_CODECS for c in _choices(self.codec))

    @property
    def is_audio(self) -> bool:
        """Whether every codec this can be is a sound codec."""
        return self.codec is not None and all(c in AUDIO_CODECS for c in _choices(self.codec))

    def __str__(self) -> str:
        said = [
            f"{f.name} {spoken(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) is not None and f.name != "extradata"
        ]
        return ", ".join(said) or "any"
