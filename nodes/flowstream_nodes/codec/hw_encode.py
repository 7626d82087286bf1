"""Encode pictures for live use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from flowstream import (
    NS_PER_S,
    Bitrate,
    Caps,
    Config,
    Duration,
    Emit,
    EncodedCaps,
    EncodedPacket,
    Input,
    KeyframeRequest,
    Need,
    NegotiationError,
    Output,
    Record,
    Targets,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    format_bitrate,
    live,
)
from flowstream.proto.h264 import NAL_SPS, split_annex_b
from flowstream_nodes.codec._pictures import PictureKind, Pictures, kind_of
from flowstream_nodes.codec._x264 import X264Encoder, threads_for

if TYPE_CHECKING:
    from av.packet import Packet

_LEVEL_AT = 7  # after a start code of four bytes, the unit's type, the profile and its constraints
_NAL_PPS = 8
_REOPEN_AT_MOST_EVERY_NS = 2 * NS_PER_S
_LEAST_BPS = 10_000


class HwEncodeConfig(Config):
    """Config of ``hw-encode``."""

    codec: Literal["h264"] = field(default="h264", description="What to encode to.")
    bitrate: Bitrate = live(
        default=2_500_000, description="Wanted rate, in bits per second, held within about half a second of a change."
    )
    max: Literal["auto"] | Bitrate = field(
        default="auto",
        description="The highest rate that `bitrate` can be raised to without a new encoder, in bits per second; "
        "auto is twice the bitrate.",
    )
    keyframe_interval: Duration = live(
        default=2 * NS_PER_S,
        ge=100_000_000,
        description="Longest time between keyframes: a recording can be entered at each, and a short interval costs "
        "quality. They come at multiples of it in media time, so that encoders of one picture have theirs together. "
        "Viewers who join ask for one of their own.",
    )
    profile: Literal["baseline", "main", "high"] = field(
        default="baseline", description="H.264 profile; (constrained) baseline is what every browser decodes."
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = field(
        default="superfast", description="Speed against quality, as libx264 names it."
    )
    threads: Literal["auto"] | int = field(
        default="auto",
        unit="slices",
        description="Slices of a picture that are coded at once, 1 to 16; auto goes by the picture's size.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> HwEncodeConfig:
        if self.bitrate < _LEAST_BPS:
            least = format_bitrate(_LEAST_BPS)
            raise ValueError(f"a bitrate of {format_bitrate(self.bitrate)} carries no picture; {least} is the least")
        if self.ceiling_bps < self.bitrate:
            raise ValueError(
                f"max ({format_bitrate(self.ceiling_bps)}) is below bitrate ({format_bitrate(self.bitrate)})"
            )
        if isinstance(self.threads, int) and not 1 <= self.threads <= 16:
            raise ValueError(f"threads is {self.threads}; it goes from 1 to 16, or is auto")
        return self

    @property
    def ceiling_bps(self) -> int:
        """The rate that the encoder is opened for, in bits per second."""
        return 2 * self.bitrate if self.max == "auto" else self.max


class HwEncode(Transform[HwEncodeConfig], type="hw-encode"):
    """Encode pictures to H.264 without delay, at a bitrate that can be changed while running.

    Takes any raw format; yuv420p and nv12 are encoded from where they lie. A picture of odd width or height loses its
    last column or row. Size and format may change while running: the next picture is then a keyframe. Requests for a
    keyframe are answered here and not passed on. A picture that is not later than the one before is left out and
    counted. Targets steer the bitrate, in place and up to `max`: the entry under this node's id counts, until a reload
    changes `bitrate`. A target can also pause it: then it encodes nothing, and goes on with a keyframe.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 30, duration: 2s}
      encode: {type: hw-encode, from: pattern, bitrate: 1M, max: 4M}
      out: {type: discard, from: encode}
    ```
    """

    thread = True
    needs = (Need("av"),)

    video = Input(VideoFrame, follows={"format", "size"}, doc="Pictures of any raw format.")
    targets = Input(Record[Targets], feedback=True, doc="Bitrates to aim at, by the id of the encoder they are for.")
    packets = Output(
        EncodedPacket,
        caps=EncodedCaps(codec="h264"),
        main=True,
        doc="Access units, Annex B, with parameter sets before every keyframe.",
    )

    def __init__(self, config: HwEncodeConfig | None = None) -> None:
        super().__init__(config)
        self._ceiling_bps = self.config.ceiling_bps
        self._bitrate_bps = self.config.bitrate
        self._encoder: X264Encoder[VideoFrame] | None = None
        self._kind: PictureKind | None = None
        self._caps = EncodedCaps(codec="h264")
        self._keyframe_wanted = False
        self._is_paused = False
        self._opened_ns = 0
        self._last_ns: int | None = None
        self._left_out = 0

    def open(self) -> None:
        self._pictures = Pictures()

    @classmethod
    def updates_in_place(cls, opened: HwEncodeConfig, new: HwEncodeConfig, /) -> bool | str:
        """True, or why a change of live fields needs a new encoder."""
        return True if new.bitrate <= opened.ceiling_bps else _above(new.bitrate, opened.ceiling_bps)

    def accepts(self, config: HwEncodeConfig, /) -> None:
        if config.bitrate > self._ceiling_bps:
            raise ValueError(_above(config.bitrate, self._ceiling_bps))

    @classmethod
    def negotiate(cls, config: HwEncodeConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """Codec and profile, and the size where that of the pictures is known."""
        video = incoming.get("video")
        sides = (video.width, video.height) if isinstance(video, VideoCaps) else (None, None)
        width, height = (side & ~1 if isinstance(side, int) else None for side in sides)
        return {"packets": EncodedCaps(codec=config.codec, width=width, height=height, profile=config.profile)}

    def reconfigured(self, old: HwEncodeConfig, /) -> None:
        if self.config.bitrate != old.bitrate:
            self._aim_at(self.config.bitrate)

    @targets.handler
    def on_targets(self, targets: Record[Targets]) -> None:
        """Takes the bitrate under this node's id, within what it was opened for.

        Raises NegotiationError for a record of something else.
        """
        if not isinstance(targets.value, Targets):
            given = type(targets.value).__name__
            raise NegotiationError(
                f"{self.ctx.name}.targets takes records of Targets, but was given {given}",
                hint="connect it to the output of a node that makes targets",
            )
        target = targets.value.target_of(self.ctx.name)
        if target is not None:
            self._is_paused = target.paused
            self._aim_at(min(max(target.bitrate_bps, _LEAST_BPS), self._ceiling_bps))
            self.ctx.report(bitrate_bps=None if self._is_paused else self._bitrate_bps)

    def _aim_at(self, bitrate_bps: int) -> None:
        self._bitrate_bps = bitrate_bps
        if self._encoder is not None:
            self._encoder.set_bitrate(bitrate_bps)

    def requested(self, port: str, signal: KeyframeRequest, /) -> None:
        self._keyframe_wanted = True

    def process(self, frame: VideoFrame) -> Iterator[Emit[EncodedPacket]]:
        if self._last_ns is not None and frame.time_ns <= self._last_ns:
            self._left_out += 1
            self.ctx.report(left_out=self._left_out)
            return
        before_ns, self._last_ns = self._last_ns, frame.time_ns
        if self._is_paused:
            self._keyframe_wanted = True
            return
        kind = kind_of(frame, X264Encoder.formats)
        encoder = self._encoder
        if encoder is None or kind != self._kind or self._is_outgrown(encoder, frame.time_ns):
            if encoder is not None:
                yield from self._emits(encoder.flush())
            encoder = self._open_encoder(frame, kind, encoder)
        interval_ns = self.config.keyframe_interval
        is_due = before_ns is None or frame.time_ns // interval_ns != before_ns // interval_ns
        keyframe = self._keyframe_wanted or is_due
        picture = self._pictures.prepare(frame, kind)
        packets = encoder.encode(picture, frame, time_ns=frame.time_ns, keyframe=keyframe)
        if keyframe:
            self._keyframe_wanted = False
        yield from self._emits(packets)

    def finish(self) -> Iterator[Emit[EncodedPacket]]:
        if self._encoder is not None:
            yield from self._emits(self._encoder.flush())
            self._encoder = None

    def close(self) -> None:
        self._encoder = None

    def _is_outgrown(self, encoder: X264Encoder[VideoFrame], time_ns: int) -> bool:
        return encoder.is_outgrown and time_ns - self._opened_ns >= _REOPEN_AT_MOST_EVERY_NS

    def _open_encoder(
        self, frame: VideoFrame, kind: PictureKind, before: X264Encoder[VideoFrame] | None
    ) -> X264Encoder[VideoFrame]:
        interval_ns = before.interval_ns if before is not None and before.interval_ns else frame.duration_ns
        threads = self.config.threads
        self._encoder = X264Encoder(
            kind=kind,
            bitrate_bps=self._bitrate_bps,
            ceiling_bps=self._ceiling_bps,
            interval_ns=interval_ns,
            nominal_ns=before.nominal_ns if before is not None else None,
            level_idc=self._level_idc() if kind == self._kind else None,
            profile=self.config.profile,
            preset=self.config.preset,
            threads=threads_for(kind.size) if threads == "auto" else threads,
        )
        self._kind, self._opened_ns, self._keyframe_wanted = kind, frame.time_ns, True
        self.ctx.report(size=str(kind.size))
        return self._encoder

    def _level_idc(self) -> int | None:
        """The level that the stream states so far (sequence parameter set, ITU-T H.264 section 7.3.2.1.1)."""
        return self._caps.extradata[_LEVEL_AT] if self._caps.extradata else None

    def _emits(self, packets: list[tuple[Packet[Any], VideoFrame]]) -> Iterator[Emit[EncodedPacket]]:
        for packet, frame in packets:
            data = bytes(packet)
            if packet.is_keyframe:
                self._caps = self._caps_of(data)
            yield self.packets(
                EncodedPacket(
                    caps=self._caps,
                    data=data,
                    time_ns=frame.time_ns,
                    keyframe=packet.is_keyframe,
                    duration_ns=frame.duration_ns,
                    capture_ns=frame.capture_ns,
                )
            )

    def _caps_of(self, keyframe: bytes) -> EncodedCaps:
        """The caps of what follows a keyframe: the same object for as long as its parameter sets are the same."""
        sets = [unit for unit in split_annex_b(keyframe) if unit[0] & 0x1F in (NAL_SPS, _NAL_PPS)]
        extradata = b"".join(b"\x00\x00\x00\x01" + unit for unit in sets)
        assert self._kind is not None
        caps = EncodedCaps(
            codec="h264",
            width=self._kind.size.width,
            height=self._kind.size.height,
            profile=self.config.profile,
            extradata=extradata,
        )
        return self._caps if caps == self._caps else caps


def _above(bitrate_bps: int, ceiling_bps: int) -> str:
    return (
        f"bitrate {format_bitrate(bitrate_bps)} is above the {format_bitrate(ceiling_bps)} that the encoder was opened "
        f"for; a larger max makes room"
    )
