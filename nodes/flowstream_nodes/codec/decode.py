"""Decode packets for live use."""

from __future__ import annotations

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
    Input,
    KeyframeRequest,
    Need,
    Output,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)
from flowstream_nodes.codec._decoders import ACCELERATIONS, hardware_decoder, software_decoder, sound_decoder

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame as AvVideoFrame
    from av.video.reformatter import VideoReformatter

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

    hardware: Literal["auto", "off"] = field(
        default="auto",
        description="auto decodes in hardware where that opens, and goes on without it when it fails; off never does.",
    )
    damaged: Literal["conceal", "freeze"] = live(
        default="conceal",
        description="What comes after a broken or lost packet, until the keyframe that is then asked for: pictures "
        "whose holes are filled from those before (conceal), or none (freeze).",
    )

    @model_validator(mode="after")
    def _bounds(self) -> DecodeConfig:
        if isinstance(self.threads, int) and not 1 <= self.threads <= 16:
            raise ValueError(f"threads is {self.threads}; it goes from 1 to 16, or is auto")
        return self


class Decode(Transform[DecodeConfig], type="decode"):
    """Decode video or sound without delay.

    What arrives decides: pictures come out of ``video``, sound out of ``audio``. After a packet that does not decode,
    or only in part, a keyframe is asked for; until it comes, holes are concealed or nothing comes, as ``damaged`` says.
    Such packets are counted. Another codec, size or parameter set is followed. Pictures of more than 35 million pixels
    are taken for damage.

    Hardware decodes where it opens (CUDA, VideoToolbox, Direct3D 11, QSV), else the processor, with a picture's slices
    in threads. No hardware decoder was ever run by this project, and PyAV's wheels for Linux have no VAAPI.

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
        self._accelerations = ACCELERATIONS if self.config.hardware == "auto" else []
        self._in_hardware = ""
        self._reformatter: VideoReformatter | None = None
        self._inside: dict[int, EncodedPacket] = {}  # by media time, oldest first
        self._needs_keyframe = True
        self._is_damaged = False
        self._has_refused = False  # whether the decoder at work took a packet not at all
        self._has_shown = False  # whether the decoder at work gave a picture, which others may build on
        self._fruitless = 0  # video packets in a row that gave no picture
        self._asked_ns: int | None = None
        self._broken = 0

    def process(self, packet: EncodedPacket) -> Iterator[Emit[Any]]:
        """One packet in, what it shows or sounds out."""
        if packet.caps is not self._caps:
            yield from self._change_caps(packet.caps)
        if packet.is_video:
            if packet.keyframe:
                if self._has_refused:  # some decoders do not get over it, FFmpeg's of VP9 for one
                    self._begin_anew(packet.caps)
                self._needs_keyframe = self._is_damaged = False
            elif self._needs_keyframe or (self._is_damaged and self.config.damaged == "freeze"):
                self._ask_keyframe(packet)
                return
            elif self._is_damaged:
                self._ask_keyframe(packet)
        yield from self._decoded(packet)

    def finish(self) -> Iterator[Emit[Any]]:
        """What is still inside."""
        if self._context is not None:
            yield from self._decoded(None)

    def close(self) -> None:
        """Gives the decoder back."""
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
        self._begin_anew(caps)

    def _begin_anew(self, caps: EncodedCaps) -> None:
        self._context = self._opened(caps)
        self._needs_keyframe, self._is_damaged = True, False
        self._has_shown, self._has_refused, self._fruitless = False, False, 0
        self._inside.clear()

    def _opened(self, caps: EncodedCaps) -> VideoCodecContext | AudioCodecContext:
        self._in_hardware = ""
        if not caps.is_video:
            return sound_decoder(caps)
        codec = str(caps.codec)
        for acceleration in self._accelerations:
            if acceleration.absent:
                continue
            try:
                context = hardware_decoder(codec, acceleration)
            except ValueError as error:
                self.ctx.log.info("%s; the processor decodes", error)
                continue
            self._in_hardware = acceleration.name
            self.ctx.report(decoder=acceleration.name)
            return context
        threads = self.config.threads
        return software_decoder(codec, threads=None if threads == "auto" else threads)

    def _decoded(self, packet: EncodedPacket | None) -> Iterator[Emit[Any]]:
        import av

        assert self._context is not None
        if packet is not None:
            self._inside[packet.time_ns] = packet
            if len(self._inside) > _MOST_INSIDE:
                del self._inside[next(iter(self._inside))]
        try:
            frames: list[Any] = self._context.decode(packet.to_av() if packet is not None else None)
        except (av.FFmpegError, OSError) as error:
            if self._in_hardware and packet is not None:
                yield from self._without_hardware(packet, error)
            else:
                self._has_refused = True
                self._note_broken(packet)
            return
        self._has_shown = self._has_shown or bool(frames)
        for frame in frames:
            source = self._inside.pop(frame.pts, None) if frame.pts is not None else packet
            if source is not None:
                yield self._emit(frame, source)
        if packet is not None and packet.is_video:
            self._fruitless = 0 if frames else self._fruitless + 1
            if self._fruitless >= _PATIENCE_PACKETS or any(frame.is_corrupt for frame in frames):
                self._note_broken(packet)

    def _emit(self, frame: Any, source: EncodedPacket) -> Emit[Any]:
        from av.video.frame import VideoFrame as AvVideoFrame

        if not isinstance(frame, AvVideoFrame):
            return self.audio(AudioFrame.from_av(frame, time_ns=source.time_ns, capture_ns=source.capture_ns))
        if self._in_hardware and frame.format.name == "nv12":
            frame = self._planar(frame)
        made = VideoFrame.from_av(
            frame, time_ns=source.time_ns, capture_ns=source.capture_ns, duration_ns=source.duration_ns
        )
        return self.video(made)

    def _planar(self, frame: AvVideoFrame) -> AvVideoFrame:
        """As ``yuv420p``, which the plan was told: hardware gives it with its chroma interleaved."""
        from av.video.reformatter import VideoReformatter

        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        return self._reformatter.reformat(frame, format="yuv420p")

    def _without_hardware(self, packet: EncodedPacket, error: Exception) -> Iterator[Emit[Any]]:
        """Goes on by the processor, with this packet when it is a keyframe."""
        assert self._caps is not None
        self.ctx.log.warning("decoding by %s failed (%s); the processor goes on", self._in_hardware, error)
        self.ctx.report(decoder=None)
        self._accelerations = []
        self._begin_anew(self._caps)
        self._needs_keyframe = not packet.keyframe
        if packet.keyframe:
            yield from self._decoded(packet)
        else:
            self._ask_keyframe(packet)

    def _note_broken(self, packet: EncodedPacket | None) -> None:
        self._broken += 1
        self._fruitless = 0
        self.ctx.report(broken=self._broken)
        if packet is not None and packet.is_video:
            self._is_damaged, self._needs_keyframe = True, not self._has_shown
            self._ask_keyframe(packet)

    def _ask_keyframe(self, packet: EncodedPacket) -> None:
        if self._asked_ns is None or not 0 <= packet.time_ns - self._asked_ns < _ASK_AT_MOST_EVERY_NS:
            self._asked_ns = packet.time_ns
            self.ctx.request(self.packets, KeyframeRequest("pictures cannot be decoded"))
