"""Encode pictures for live use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowstream import (
    NS_PER_S,
    Caps,
    Emit,
    EncodedCaps,
    EncodedPacket,
    EncoderStats,
    Input,
    KeyframeRequest,
    Need,
    NegotiationError,
    Output,
    Record,
    Target,
    Targets,
    Transform,
    VideoCaps,
    VideoFrame,
    format_bitrate,
)
from flowstream.proto.h264 import split_annex_b
from flowstream_nodes.codec._choice import Choice
from flowstream_nodes.codec._encode_config import LEAST_BPS, HwEncodeConfig
from flowstream_nodes.codec._ffmpeg import threads_for
from flowstream_nodes.codec._measuring import Measuring, Ssim, thread_ids
from flowstream_nodes.codec._pictures import PictureKind, Pictures, fitted, kind_of
from flowstream_nodes.codec._quality import KEYFRAME_NS, ContentSense, Preset
from flowstream_nodes.codec.encoders import (
    LAYER_PATTERNS,
    Candidate,
    Content,
    EncoderSettings,
    OpenEncoder,
)

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame

_LEVEL_AT = 7  # after a start code of four bytes, the unit's type, the profile and its constraints
# Types of the units that hold parameter sets (ITU-T H.264 table 7-1, H.265 table 7-1).
_PARAMETER_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}
_REOPEN_AT_MOST_EVERY_NS = 2 * NS_PER_S
_REOPEN_LOWER_AFTER_NS = NS_PER_S // 2
_NAL_IDR = 5


@dataclass(slots=True)
class _Opened:
    """An encoder at work, and what it was opened for."""

    encoder: OpenEncoder
    candidate: Candidate
    settings: EncoderSettings
    at_ns: int
    ssim: Ssim | None = None
    position: int = 0  # in the pattern of temporal layers


class HwEncode(Transform[HwEncodeConfig], type="hw-encode"):
    """Encode pictures to H.264, or H.265, VP8, VP9 or AV1, without delay and at a bitrate that changes while it runs.

    Takes any raw format; yuv420p and nv12 are encoded from where they lie, and RGB is converted by libyuv where that is
    installed (Debian: libyuv0), else by OpenCV at half its speed. A picture of odd width or height loses its last
    column or row. Size and format may change while running: the next picture is then a keyframe. Requests for a
    keyframe are answered here, many by one, and not passed on. A picture that is not later than the one before is left
    out and counted. One picture waits at most: who cannot keep up loses pictures before they are encoded.

    Targets steer bitrate, frame rate and size: the entry under this node's id counts, until a reload changes one of
    them. A target can also pause it: then it encodes nothing, and goes on with a keyframe. H.264 by libx264 changes its
    rate in place, up to `max`. The others take a new encoder for it, which begins with a keyframe; so do another size,
    speed or content.

    `encoder: auto` takes hardware where a test of it passed (NVENC, QSV, AMF, VideoToolbox, Media Foundation, V4L2) and
    goes on with the next encoder, with a keyframe, when one fails; `flowstream doctor` shows which there are and why
    not. Hardware that has not answered for 4 s is left, too, and so is libsvtav1, which hangs now and then on a busy
    machine: it is opened anew. No hardware encoder was ever run by this project, and PyAV's wheels for Linux have no
    VAAPI.

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

    video = Input(VideoFrame, follows={"format", "size"}, items=1, doc="Pictures of any raw format.")
    targets = Input(Record[Targets], feedback=True, doc="Rates and sizes to aim at, by the id of the encoder.")
    packets = Output(
        EncodedPacket,
        caps=EncodedCaps(codec=("h264", "hevc", "vp8", "vp9", "av1")),
        main=True,
        doc="Access units; of h264 and hevc Annex B, with parameter sets before every keyframe.",
    )
    stats = Output(Record[EncoderStats], doc="What it measures of itself, every `stats_interval`: EncoderStats.")

    def __init__(self, config: HwEncodeConfig | None = None) -> None:
        super().__init__(config)
        self._ceiling_bps = self.config.ceiling_bps
        self._aim = self.config.aim
        self._steers = True
        self._opened: _Opened | None = None
        self._caps = EncodedCaps(codec=self.config.codec)
        self._keyframe_wanted = False
        self._is_paused = False
        self._must_reopen = False
        self._last_ns: int | None = None
        self._encoded_ns: int | None = None
        self._due_ns: int | None = None
        self._left_out = 0
        self._is_overloaded = False

    def open(self) -> None:
        """Finds out which encoders there are; the first picture opens one."""
        self._pictures = Pictures()
        self._sense = ContentSense()
        self._measuring = Measuring()
        config = self.config
        self._choice = Choice(self.ctx, encoder=config.encoder, codec=config.codec, layers=config.temporal_layers)

    @classmethod
    def updates_in_place(cls, opened: HwEncodeConfig, new: HwEncodeConfig, /) -> bool | str:
        """True, or why a change of live fields needs a new encoder."""
        before_bps, after_bps = opened.bitrate, new.bitrate
        if after_bps > opened.ceiling_bps:
            return _above(after_bps, opened.ceiling_bps)
        if new.codec != "h264" and after_bps != before_bps:
            return _fixed(new.codec)
        return True

    def accepts(self, config: HwEncodeConfig, /) -> None:
        """Refuses a rate that the open encoder cannot reach."""
        bitrate_bps = config.bitrate
        if bitrate_bps > self._ceiling_bps:
            raise ValueError(_above(bitrate_bps, self._ceiling_bps))
        if config.codec != "h264" and bitrate_bps != self.config.bitrate:
            raise ValueError(_fixed(config.codec))

    @classmethod
    def negotiate(cls, config: HwEncodeConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """Codec and profile, and the size where that of the pictures is known."""
        video = incoming.get("video")
        width = height = None
        if isinstance(video, VideoCaps) and isinstance(video.width, int) and isinstance(video.height, int):
            width, height = fitted(video.width, video.height, config.aim.size)
        profile = config.profile if config.codec == "h264" else None
        return {"packets": EncodedCaps(codec=config.codec, width=width, height=height, profile=profile)}

    def reconfigured(self, old: HwEncodeConfig, /) -> None:
        """Takes what changed; what the open encoder cannot change waits for the next picture, a keyframe."""
        if self.config.aim != old.aim:
            self._steer(self.config.aim)
        if (self.config.content, self.config.intra_refresh) != (old.content, old.intra_refresh):
            self._must_reopen = True
        if self.config.ssim != old.ssim and self._opened is not None:
            self._opened.ssim = Ssim(self.config.codec) if self.config.ssim else None

    @targets.handler
    def on_targets(self, targets: Record[Targets]) -> None:
        """Takes what stands under this node's id, within what it was opened for.

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
            self._steer(self._targeted(target))
            self.ctx.report(
                bitrate_bps=None if self._is_paused else self._aim.bitrate_bps,
                paused="by its target" if self._is_paused else None,
            )

    def _targeted(self, target: Target) -> Preset:
        own = self.config.aim
        fps = target.fps if target.fps is not None else own.fps
        return Preset(
            size=target.size if target.size is not None else own.size,
            fps=fps if own.fps is None or fps is None else min(fps, own.fps),
            bitrate_bps=min(max(target.bitrate_bps, LEAST_BPS), self._ceiling_bps),
            speed=self._aim.speed,
        )

    def _steer(self, aim: Preset) -> None:
        before, self._aim = self._aim, aim
        if aim.speed != before.speed:
            self._must_reopen = True
        if self._opened is not None:
            try:
                self._steers = self._opened.encoder.set_bitrate(aim.bitrate_bps)
            except ValueError as error:
                self.ctx.log.warning("%s; another one is opened", error)
                self._must_reopen = True

    def requested(self, port: str, signal: KeyframeRequest, /) -> None:
        """The next picture is a keyframe, however many ask."""
        self._keyframe_wanted = True

    def process(self, frame: VideoFrame) -> Iterator[Emit[Any]]:
        """One picture in, its packet out, and a record now and then."""
        if self._last_ns is not None and frame.time_ns <= self._last_ns:
            self._left_out += 1
            self.ctx.report(left_out=self._left_out)
            return
        self._last_ns = frame.time_ns
        if self.config.content == "auto":
            self._sense.look(frame)
        if self._is_paused:
            self._keyframe_wanted = True
            return
        if not self._is_its_turn(frame.time_ns):
            return
        begun_ns = self.ctx.now_ns()
        self._measuring.begin(frame.time_ns)
        record = self._record(frame.time_ns)
        self._measuring.came(frame.time_ns, self._stands_ns(frame))
        is_due = self._is_keyframe_due(frame.time_ns)
        keyframe = self._keyframe_wanted or is_due
        opened, packets = self._ready(frame, keyframe=keyframe)
        yield from self._emits(opened, packets)
        picture = self._pictures.prepare(frame, opened.settings.kind)
        keyframe = self._keyframe_wanted or is_due
        if opened.ssim is not None and record is not None:
            opened.ssim.original(picture)
        opened, packets = self._encoded(opened, picture, frame, keyframe=keyframe)
        if keyframe:
            self._keyframe_wanted = False
        emits = list(self._emits(opened, packets))
        self._measuring.took(self.ctx.now_ns() - begun_ns)
        yield from emits
        if record is not None:
            yield self.stats(record)

    def finish(self) -> Iterator[Emit[Any]]:
        """What is still inside."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            yield from self._emits(opened, self._choice.rest_of(opened.encoder))

    def close(self) -> None:
        """Gives the encoder back."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self._choice.rest_of(opened.encoder)  # SVT-AV1 complains on the terminal of one that was not flushed

    # --- what is encoded when -------------------------------------------------------------------------------------

    def _is_keyframe_due(self, time_ns: int) -> bool:
        """At multiples of the interval, so that encoders which began at different times have theirs together."""
        before_ns, self._encoded_ns = self._encoded_ns, time_ns
        return before_ns is None or time_ns // self._interval_ns != before_ns // self._interval_ns

    def _is_its_turn(self, time_ns: int) -> bool:
        """Thins pictures out to the wanted rate, in media time; keeps the beat while they come on time."""
        fps = self._aim.fps
        if fps is None:
            self._due_ns = None
            return True
        period_ns = round(NS_PER_S / fps)
        due_ns = self._due_ns if self._due_ns is not None else time_ns
        # A picture that comes a little early is the one that was meant: clocks jitter.
        if time_ns < due_ns - period_ns // 8:
            return False
        self._due_ns = (due_ns if time_ns - due_ns < period_ns else time_ns) + period_ns
        return True

    def _stands_ns(self, frame: VideoFrame) -> int | None:
        fps = self._aim.fps
        if fps is None or frame.duration_ns is None:
            return frame.duration_ns
        return max(frame.duration_ns, round(NS_PER_S / fps))

    @property
    def _content(self) -> Content:
        content = self.config.content
        return (self._sense.content or "camera") if content == "auto" else content

    @property
    def _interval_ns(self) -> int:
        if self.config.keyframe_interval != "auto":
            return self.config.keyframe_interval
        opened = self._opened
        return 1 << 62 if opened is not None and opened.settings.intra_refresh else KEYFRAME_NS[self._content]

    # --- encoders ---------------------------------------------------------------------------------------------------

    def _ready(self, frame: VideoFrame, *, keyframe: bool) -> tuple[_Opened, list[tuple[Packet[Any], VideoFrame]]]:
        """The encoder for a frame, and what the one before it still had inside."""
        opened = self._opened
        formats = opened.candidate.formats if opened is not None else self._choice.first.formats
        kind = kind_of(frame, formats, self._aim.size)
        if opened is not None and kind == opened.settings.kind and not self._is_outgrown(opened, frame, keyframe):
            return opened, []
        self._opened = None
        rest = self._choice.rest_of(opened.encoder) if opened is not None else []
        return self._open_next(frame, opened), rest

    def _is_outgrown(self, opened: _Opened, frame: VideoFrame, keyframe: bool) -> bool:
        if self._must_reopen or (keyframe and opened.settings.content != self._content):
            return True
        age_ns = frame.time_ns - opened.at_ns
        if not self._steers:
            wanted, has = self._aim.bitrate_bps, opened.settings.bitrate_bps
            patience_ns = _REOPEN_LOWER_AFTER_NS if wanted < has else _REOPEN_AT_MOST_EVERY_NS
            return abs(wanted - has) * 10 > has and age_ns >= patience_ns
        return opened.encoder.is_outgrown and age_ns >= _REOPEN_AT_MOST_EVERY_NS

    def _open_next(self, frame: VideoFrame, before: _Opened | None) -> _Opened:
        """Opens the first encoder that opens for this frame. Raises FlowstreamError when none does."""
        self._measuring.processor.follow(frozenset())
        while True:
            candidate = self._choice.first
            settings = self._settings(frame, candidate, before)
            threads = thread_ids()
            encoder = self._choice.open(settings)
            if encoder is None:
                continue
            self._measuring.processor.follow(thread_ids() - threads)
            ssim = Ssim(self.config.codec) if self.config.ssim else None
            opened = _Opened(encoder, candidate, settings, frame.time_ns, ssim)
            self._opened, self._keyframe_wanted, self._must_reopen, self._steers = opened, True, False, True
            self.ctx.report(encoder=candidate.name, size=str(settings.kind.size))
            return opened

    def _settings(self, frame: VideoFrame, candidate: Candidate, before: _Opened | None) -> EncoderSettings:
        kind = kind_of(frame, candidate.formats, self._aim.size)
        interval_ns = self._stands_ns(frame)
        if before is not None and before.encoder.interval_ns:
            interval_ns = before.encoder.interval_ns
        threads = self.config.threads
        return EncoderSettings(
            kind=kind,
            bitrate_bps=self._aim.bitrate_bps,
            ceiling_bps=self._ceiling_bps,
            interval_ns=interval_ns,
            nominal_ns=before.encoder.nominal_ns if before is not None else None,
            level_idc=self._level_idc() if before is not None and kind == before.settings.kind else None,
            profile=self.config.profile,
            speed=self._aim.speed,
            content=self._content,
            intra_refresh=self.config.intra_refresh and candidate.name == "libx264",
            threads=threads_for(kind.size) if threads == "auto" else threads,
            layers=self.config.temporal_layers,
        )

    def _encoded(
        self, opened: _Opened, picture: AvVideoFrame, frame: VideoFrame, *, keyframe: bool
    ) -> tuple[_Opened, list[tuple[Packet[Any], VideoFrame]]]:
        """Encodes a frame, by the next encoder when this one fails: the frame is then a keyframe, and none is lost."""
        while True:
            try:
                return opened, opened.encoder.encode(picture, frame, time_ns=frame.time_ns, keyframe=keyframe)
            except ValueError as error:
                self._opened = None
                self._choice.let_go(opened.encoder)
                self._choice.failed(opened.candidate, error)
                self._pictures = Pictures()  # what hangs still has hold of the last one
                opened = self._open_next(frame, opened)
                picture, keyframe = self._pictures.prepare(frame, opened.settings.kind), True
                self._keyframe_wanted = False

    def _level_idc(self) -> int | None:
        """The level that the stream states so far (sequence parameter set, ITU-T H.264 section 7.3.2.1.1)."""
        return self._caps.extradata[_LEVEL_AT] if self._caps.extradata and self._caps.codec == "h264" else None

    # --- what comes out ---------------------------------------------------------------------------------------------

    def _emits(self, opened: _Opened, packets: list[tuple[Packet[Any], VideoFrame]]) -> Iterator[Emit[EncodedPacket]]:
        for packet, frame in packets:
            data = bytes(packet)
            keyframe = packet.is_keyframe
            if keyframe and opened.settings.intra_refresh:  # where a refresh begins counts as one for FFmpeg
                keyframe = any(_unit_type(unit, "h264") == _NAL_IDR for unit in split_annex_b(data))
            if keyframe:
                self._caps = self._caps_of(data, opened.settings.kind)
                opened.position = 0
            layer = None
            if opened.settings.layers > 1:
                pattern = LAYER_PATTERNS[opened.settings.layers]
                layer = pattern[opened.position % len(pattern)]
                opened.position += 1
            self._measuring.encoded(packet, len(data))
            if opened.ssim is not None:
                opened.ssim.decode(packet)
            yield self.packets(
                EncodedPacket(
                    caps=self._caps,
                    data=data,
                    time_ns=frame.time_ns,
                    keyframe=keyframe,
                    duration_ns=self._stands_ns(frame),
                    capture_ns=frame.capture_ns,
                    temporal_layer=layer,
                )
            )

    def _caps_of(self, keyframe: bytes, kind: PictureKind) -> EncodedCaps:
        """The caps of what follows a keyframe: the same object for as long as its parameter sets are the same."""
        codec, extradata = self.config.codec, None
        if types := _PARAMETER_SETS.get(codec):
            sets = [unit for unit in split_annex_b(keyframe) if _unit_type(unit, codec) in types]
            extradata = b"".join(b"\x00\x00\x00\x01" + unit for unit in sets)
        caps = EncodedCaps(
            codec=codec,
            width=kind.size.width,
            height=kind.size.height,
            profile=self.config.profile if codec == "h264" else None,
            extradata=extradata,
        )
        return self._caps if caps == self._caps else caps

    def _record(self, time_ns: int) -> Record[EncoderStats] | None:
        """What was measured, when it is time for a record."""
        opened = self._opened
        if opened is None or not self._measuring.is_due(time_ns, self.config.stats_interval):
            return None
        stats = self._measuring.close(
            time_ns,
            encoder=self.ctx.name,
            size=opened.settings.kind.size,
            ssim=opened.ssim.value if opened.ssim is not None else None,
        )
        if stats is None:
            return None
        self.ctx.report(encode_ms=stats.encode_ms_mean, qp=stats.qp_mean)
        if stats.overload and not self._is_overloaded:
            self.ctx.log.info(
                "encoding takes up to %.0f ms for a picture, and they come every %.0f ms: some are dropped before it; "
                "a smaller size, a lower fps or a faster speed helps", stats.encode_ms_p95, stats.frame_budget_ms,
            )  # fmt: skip
        self._is_overloaded = stats.overload
        content = self._sense.content if self.config.content == "auto" else self.config.content
        return Record(replace(stats, content=content), time_ns)


def _unit_type(unit: bytes, codec: str) -> int:
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def _above(bitrate_bps: int, ceiling_bps: int) -> str:
    return (
        f"bitrate {format_bitrate(bitrate_bps)} is above the {format_bitrate(ceiling_bps)} that the encoder was opened "
        f"for; a larger max makes room"
    )


def _fixed(codec: str) -> str:
    return f"an encoder of {codec} takes no other bitrate while it is open; the new one begins with a keyframe"
