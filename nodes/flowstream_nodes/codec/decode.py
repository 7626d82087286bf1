"""Decode packets for live use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from flowstream import (
    NS_PER_S,
    AudioCaps,
    AudioFrame,
    Caps,
    Config,
    Emit,
    EncodedCaps,
    EncodedPacket,
    FlowstreamError,
    Input,
    KeyframeRequest,
    Need,
    Output,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
)

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.video.codeccontext import VideoCodecContext

# FFmpeg's decoders where the one of the codec's own name is not the right one: its `av1` needs hardware.
_DECODERS = {"av1": "libdav1d", "opus": "libopus"}
_ASK_AT_MOST_EVERY_NS = NS_PER_S // 2
# Packets without a picture after which something is wrong; streams with reordered pictures begin with a few.
_PATIENCE_PACKETS = 20
_MOST_INSIDE = 64
# H.264 profiles whose pictures have 8 bits and 4:2:0 colour (ITU-T H.264 annex A.2).
_PLAIN_PROFILES = ("baseline", "main", "high")


class DecodeConfig(Config):
    """Config of ``decode``."""

    threads: Literal["auto"] | int = field(
        default="auto",
        unit="slices",
        description="Slices of a picture that are decoded at once, 1 to 16; auto is one for each CPU, up to 4.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> DecodeConfig:
        if isinstance(self.threads, int) and not 1 <= self.threads <= 16:
            raise ValueError(f"threads is {self.threads}; it goes from 1 to 16, or is auto")
        return self


class Decode(Transform[DecodeConfig], type="decode"):
    """Decode video or sound without delay.

    What arrives decides: pictures come out of ``video``, sound out of ``audio``. After a packet that does not decode, a
    keyframe is asked for and pictures go on with it; such packets are counted. Another codec, size or parameter set is
    followed.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 30, duration: 2s}
      encode: {type: hw-encode, from: pattern, bitrate: 1M}
      again: {type: decode, from: encode}
      out: {type: discard, from: again.video}
    ```
    """

    thread = True
    needs = (Need("av"),)

    packets = Input(EncodedPacket, follows={"codec", "extradata", "size"}, doc="Encoded pictures, or encoded sound.")
    video = Output(VideoFrame, main=True, doc="Decoded pictures.")
    audio = Output(AudioFrame, doc="Decoded sound.")

    @classmethod
    def negotiate(cls, config: DecodeConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What the packets say about what is in them; for ``video`` or ``audio``, whichever they are."""
        packets = incoming.get("packets")
        if not isinstance(packets, EncodedCaps):
            return {}
        if packets.is_video:
            plain = packets.codec == "vp8" or (packets.codec == "h264" and packets.profile in _PLAIN_PROFILES)
            format = "yuv420p" if plain else None
            return {"video": VideoCaps(format=format, width=packets.width, height=packets.height)}
        if packets.codec == "opus":
            return {"audio": AudioCaps(rate=48_000, layout=packets.layout)}
        return {"audio": AudioCaps(rate=packets.rate, layout=packets.layout)} if packets.is_audio else {}

    def __init__(self, config: DecodeConfig | None = None) -> None:
        super().__init__(config)
        self._caps: EncodedCaps | None = None
        self._context: VideoCodecContext | AudioCodecContext | None = None
        self._inside: dict[int, EncodedPacket] = {}  # by media time, oldest first
        self._needs_keyframe = True
        self._fruitless = 0  # video packets in a row that gave no picture
        self._asked_ns: int | None = None
        self._broken = 0

    def process(self, packet: EncodedPacket) -> Iterator[Emit[Any]]:
        if packet.caps is not self._caps:
            yield from self._change_caps(packet.caps)
        if packet.is_video and self._needs_keyframe:
            if not packet.keyframe:
                self._ask_keyframe(packet)
                return
            self._needs_keyframe = False
        yield from self._decoded(packet)

    def finish(self) -> Iterator[Emit[Any]]:
        if self._context is not None:
            yield from self._decoded(None)

    def close(self) -> None:
        self._context = None

    def _change_caps(self, caps: EncodedCaps) -> Iterator[Emit[Any]]:
        """Opens another decoder where the one at work cannot follow: sizes and parameter sets of video come in band."""
        before, self._caps = self._caps, caps
        follows = (
            before is not None
            and before.codec == caps.codec
            and (caps.is_video or (before.extradata, before.layout) == (caps.extradata, caps.layout))
        )
        if follows and self._context is not None:
            return
        if self._context is not None:
            yield from self._decoded(None)
        self._context = self._opened(caps)
        self._needs_keyframe = True
        self._inside.clear()

    def _opened(self, caps: EncodedCaps) -> VideoCodecContext | AudioCodecContext:
        import av

        codec = str(caps.codec)
        try:
            context: Any = av.CodecContext.create(_DECODERS.get(codec, codec), "r")
        except (ValueError, av.FFmpegError) as error:
            raise FlowstreamError(f"there is no decoder for {codec}") from error
        if caps.is_video:
            context.thread_type = "SLICE"  # threads by frame would hold pictures back
            threads = self.config.threads
            context.thread_count = min(4, os.cpu_count() or 1) if threads == "auto" else threads
        elif caps.extradata:
            context.extradata = caps.extradata
            context.layout = str(caps.layout or "stereo")
        opened: VideoCodecContext | AudioCodecContext = context
        return opened

    def _decoded(self, packet: EncodedPacket | None) -> Iterator[Emit[Any]]:
        import av
        from av.video.frame import VideoFrame as AvVideoFrame

        assert self._context is not None
        if packet is not None:
            self._inside[packet.time_ns] = packet
            if len(self._inside) > _MOST_INSIDE:
                del self._inside[next(iter(self._inside))]
        try:
            frames: list[Any] = self._context.decode(packet.to_av() if packet is not None else None)
        except av.FFmpegError:
            self._note_broken(packet)
            return
        for frame in frames:
            source = self._inside.pop(frame.pts, None) if frame.pts is not None else packet
            if source is None:
                continue
            if isinstance(frame, AvVideoFrame):
                yield self.video(
                    VideoFrame.from_av(
                        frame,
                        time_ns=source.time_ns,
                        capture_ns=source.capture_ns,
                        duration_ns=source.duration_ns,
                    )
                )
            else:
                yield self.audio(AudioFrame.from_av(frame, time_ns=source.time_ns, capture_ns=source.capture_ns))
        if packet is not None and packet.is_video:
            self._fruitless = 0 if frames else self._fruitless + 1
            if self._fruitless >= _PATIENCE_PACKETS:
                self._note_broken(packet)

    def _note_broken(self, packet: EncodedPacket | None) -> None:
        self._broken += 1
        self._fruitless = 0
        self.ctx.report(broken=self._broken)
        if packet is not None and packet.is_video:
            self._needs_keyframe = True
            self._ask_keyframe(packet)

    def _ask_keyframe(self, packet: EncodedPacket) -> None:
        if self._asked_ns is None or not 0 <= packet.time_ns - self._asked_ns < _ASK_AT_MOST_EVERY_NS:
            self._asked_ns = packet.time_ns
            self.ctx.request(self.packets, KeyframeRequest("pictures cannot be decoded"))
