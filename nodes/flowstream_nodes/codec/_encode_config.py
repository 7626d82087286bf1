"""The settings of ``hw-encode``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from flowstream import NS_PER_S, Bitrate, Config, Duration, PictureSize, field, format_bitrate, live
from flowstream_nodes.codec._quality import PRESETS, Preset
from flowstream_nodes.codec.encoders import Codec, Content, Speed, candidates_for

LEAST_BPS = 10_000
"""Below it, no picture is worth the name."""


class HwEncodeConfig(Config):
    """Config of ``hw-encode``."""

    codec: Codec = field(
        default="h264",
        description="What to encode to. webrtc-out and recorder take h264, which costs the least, too.",
    )
    encoder: str = field(
        default="auto",
        description="Which encoder: auto takes hardware that really opens on this machine, else one that runs on the "
        "processor, and the next one when it fails. Or FFmpeg's name for one, such as libx264; then no other.",
        examples=["auto"],
    )
    preset: Literal["off", "low", "medium", "high", "ultra"] = live(
        default="off",
        description="Size, frame rate, bitrate and speed in a word: "
        + "; ".join(f"{name} is {preset}" for name, preset in PRESETS.items())
        + ". Each of them is overridden by its own setting.",
    )
    bitrate: Bitrate = live(
        default=PRESETS["off"].bitrate_bps,
        description="Wanted rate, in bits per second, held within about half a second of a change. Left out, it is "
        "that of the preset.",
    )
    max: Literal["auto"] | Bitrate = field(
        default="auto",
        description="The highest rate that `bitrate` can be raised to without a new encoder, in bits per second; "
        "auto is twice the bitrate.",
    )
    size: Literal["auto", "source"] | PictureSize = live(
        default="auto",
        description="Width and height in pixels within which pictures are encoded: larger ones are made smaller in "
        "their shape, at a keyframe, and none is enlarged. auto is that of the preset, source leaves them as they are.",
    )
    fps: Literal["auto", "source"] | float = live(
        default="auto",
        unit="frames per second",
        description="The most frames per second that are encoded; what comes more often is left out. auto is that of "
        "the preset, source encodes what comes.",
    )
    speed: Literal["auto"] | Speed = live(
        default="auto",
        description="Speed against quality, under the names of libx264; other encoders take the step of theirs that "
        "comes next to it. auto is that of the preset.",
    )
    content: Literal["auto"] | Content = live(
        default="auto",
        description="What the pictures show, for the settings that suit it: motion and camera spread bits to where "
        "eyes look and have a keyframe every 2 s, text keeps edges and has one every 4 s. auto looks at the pictures "
        "and decides at a keyframe: of text most pixels stay exactly as they are.",
    )
    keyframe_interval: Literal["auto"] | Duration = live(
        default="auto",
        description="Longest time between keyframes: a recording can be entered at each, and a short interval costs "
        "quality. They come at multiples of it in media time, so that encoders of one picture have theirs together. "
        "Viewers who join ask for one of their own. auto goes by the content, 2 s or 4 s.",
    )
    intra_refresh: bool = live(
        default=False,
        description="Renew the picture column by column over 2 s instead of by large keyframes (libx264 only): an even "
        "rate on a narrow link. Keyframes then come when asked for and with an interval of your own.",
    )
    profile: Literal["baseline", "main", "high"] = field(
        default="baseline", description="H.264 profile; (constrained) baseline is what every browser decodes."
    )
    temporal_layers: int = field(
        default=1,
        ge=1,
        le=3,
        unit="layers",
        description="Layers of the frame rate (vp8 and vp9): pictures of a higher one can be left out on the way and "
        "the rest still decodes, at a half or a quarter of the rate.",
    )
    threads: Literal["auto"] | int = field(
        default="auto",
        unit="slices",
        description="Slices of a picture that are coded at once, 1 to 16; auto goes by the picture's size.",
    )
    stats_interval: Duration = live(
        default=NS_PER_S, ge=100_000_000, description="Time between two records of `stats`, in media time."
    )
    ssim: bool = live(
        default=False,
        description="Compare a picture of each record of `stats` with what viewers see of it (structural similarity). "
        "That takes a decoder along: about a third more processor time.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_preset(cls, given: Any) -> Any:
        """Puts in the preset's bitrate where none is given, so that it shows and compares like a written one."""
        if isinstance(given, dict) and "bitrate" not in given and (preset := PRESETS.get(str(given.get("preset")))):
            return {**given, "bitrate": preset.bitrate_bps}
        return given

    @model_validator(mode="after")
    def _bounds(self) -> HwEncodeConfig:
        bitrate = self.bitrate
        if bitrate < LEAST_BPS:
            least = format_bitrate(LEAST_BPS)
            raise ValueError(f"a bitrate of {format_bitrate(bitrate)} carries no picture; {least} is the least")
        if self.ceiling_bps < bitrate:
            raise ValueError(f"max ({format_bitrate(self.ceiling_bps)}) is below bitrate ({format_bitrate(bitrate)})")
        if isinstance(self.threads, int) and not 1 <= self.threads <= 16:
            raise ValueError(f"threads is {self.threads}; it goes from 1 to 16, or is auto")
        if isinstance(self.fps, float) and not 0 < self.fps <= 240:
            raise ValueError(f"fps is {self.fps:g}; it is above 0, to 240, or auto or source")
        if isinstance(self.keyframe_interval, int) and self.keyframe_interval < 100_000_000:
            raise ValueError("keyframe_interval is below 100ms, which leaves no bits for what is between keyframes")
        if self.profile != "baseline" and self.codec != "h264":
            raise ValueError(f"profile ({self.profile}) is for h264, and codec is {self.codec}; leave it out")
        if self.temporal_layers > 1 and self.codec not in ("vp8", "vp9"):
            raise ValueError(
                f"temporal_layers ({self.temporal_layers}) is for vp8 and vp9: encoders of {self.codec} make none; "
                "a second hw-encode at a lower fps does the same for viewers"
            )
        self._check_encoder()
        return self

    def _check_encoder(self) -> None:
        if self.encoder == "auto":
            return
        names = [each.name for each in candidates_for(self.codec, layers=self.temporal_layers)]
        if self.encoder not in names:
            raise ValueError(f"{self.encoder} is no encoder for {self.codec}; these are: auto, {', '.join(names)}")

    @property
    def aim(self) -> Preset:
        """Size, frame rate, bitrate and speed, of the preset or of the settings that override it."""
        preset = PRESETS[self.preset]
        return Preset(
            size=preset.size if self.size == "auto" else None if self.size == "source" else self.size,
            fps=preset.fps if self.fps == "auto" else None if self.fps == "source" else self.fps,
            bitrate_bps=self.bitrate,
            speed=preset.speed if self.speed == "auto" else self.speed,
        )

    @property
    def ceiling_bps(self) -> int:
        """The rate that the encoder is opened for, in bits per second."""
        return 2 * self.bitrate if self.max == "auto" else self.max
