"""Encode sound for live use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from flowstream import (
    NS_PER_S,
    AudioCaps,
    AudioFrame,
    Bitrate,
    Caps,
    Config,
    Emit,
    EncodedCaps,
    EncodedPacket,
    Input,
    Need,
    Output,
    Transform,
    format_bitrate,
    live,
    time_of,
)

if TYPE_CHECKING:
    import numpy as np
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.resampler import AudioResampler

RATE_HZ = 48_000
PACKET_SAMPLES = 960
_PACKET_NS = PACKET_SAMPLES * NS_PER_S // RATE_HZ
# Sound that is this far from where it is expected has a gap before it; less is the jitter of a device's clock.
_TOLERANCE_NS = 30_000_000
_LEAST_BPS, _MOST_BPS = 6_000, 510_000


class OpusEncodeConfig(Config):
    """Config of ``opus-encode``."""

    bitrate: Bitrate = live(
        default=96_000, description="Rate in bits per second, 6k to 510k. A change is heard as a gap of 7 ms at most."
    )

    @model_validator(mode="after")
    def _bounds(self) -> OpusEncodeConfig:
        if not _LEAST_BPS <= self.bitrate <= _MOST_BPS:
            raise ValueError(f"bitrate is {format_bitrate(self.bitrate)}; Opus takes 6k to 510k")
        return self


class OpusEncode(Transform[OpusEncodeConfig], type="opus-encode"):
    """Encode sound to Opus: packets of 20 ms at 48 kHz, mono as mono and everything else as stereo.

    Takes any sample format, rate and layout, which may change while running. A gap in the sound stays a gap in the
    packets' times. Times are those at which a decoder's output sounds, so the coder's own delay of 6.5 ms is taken
    off: the first packet lies that much before the first sample.

    ```yaml
    flowstream: 1
    nodes:
      tone: {type: tone, duration: 2s}
      encode: {type: opus-encode, from: tone, bitrate: 64k}
      out: {type: discard, from: encode}
    ```
    """

    thread = True
    needs = (Need("av"), Need("numpy"))

    audio = Input(AudioFrame, follows={"format", "rate", "layout"}, doc="Sound of any raw format, rate and layout.")
    packets = Output(EncodedPacket, caps=EncodedCaps(codec="opus", rate=RATE_HZ), main=True, doc="Packets of 20 ms.")

    def __init__(self, config: OpusEncodeConfig | None = None) -> None:
        super().__init__(config)
        self._caps_in: AudioCaps | None = None
        self._resampler: AudioResampler | None = None
        self._encoder: AudioCodecContext | None = None
        self._caps = EncodedCaps(codec="opus")
        self._channels = 0
        self._delay_ns = 0
        self._waiting: deque[np.ndarray[Any, Any]] = deque()  # (samples, channels), less than a packet in all
        self._waiting_samples = 0
        self._base_ns: int | None = None  # media time of sample 0 since the last gap
        self._samples = 0  # coded since then
        self._given = 0  # to the encoder, for its own count
        self._capture: tuple[int, int] | None = None  # (media time, now) of one sample, of the newest frame

    @classmethod
    def negotiate(cls, config: OpusEncodeConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """Opus at 48 kHz, and the layout where that of the sound is known."""
        audio = incoming.get("audio")
        layout = _layout_for(audio.layout) if isinstance(audio, AudioCaps) and isinstance(audio.layout, str) else None
        return {"packets": EncodedCaps(codec="opus", rate=RATE_HZ, layout=layout)}

    def reconfigured(self, old: OpusEncodeConfig, /) -> None:
        if self._encoder is not None:
            self._open_encoder()

    def process(self, frame: AudioFrame) -> Iterator[Emit[EncodedPacket]]:
        if frame.caps != self._caps_in:
            yield from self._change_caps(frame.caps)
        skip = 0
        if self._base_ns is None:
            self._base_ns = frame.time_ns
        else:
            ahead_ns = frame.time_ns - self._end_ns
            if ahead_ns > _TOLERANCE_NS:
                yield from self._pad()
                self._base_ns, self._samples = frame.time_ns, 0
            elif ahead_ns < -_TOLERANCE_NS:
                skip = -ahead_ns * RATE_HZ // NS_PER_S
        if frame.capture_ns is not None:
            self._capture = (frame.time_ns, frame.capture_ns)
        for samples in self._resampled(frame):
            dropped, skip = min(skip, len(samples)), max(0, skip - len(samples))
            yield from self._add(samples[dropped:])

    def finish(self) -> Iterator[Emit[EncodedPacket]]:
        yield from self._drain_resampler()
        yield from self._pad()
        if self._encoder is not None and self._delay_ns:  # the last samples are still in the coder
            import numpy as np

            yield from self._encode(np.zeros((PACKET_SAMPLES, self._channels), np.float32))

    def close(self) -> None:
        self._encoder = self._resampler = None

    @property
    def _end_ns(self) -> int:
        """Where the next sample belongs."""
        assert self._base_ns is not None
        return self._base_ns + time_of(self._samples + self._waiting_samples, 1, RATE_HZ)

    def _change_caps(self, caps: AudioCaps) -> Iterator[Emit[EncodedPacket]]:
        yield from self._drain_resampler()
        layout = _layout_for(caps.layout)
        if self._caps_in is None or layout != self._caps.layout:
            yield from self._pad()
            self._open_encoder(layout)
        self._caps_in = caps
        if caps.rate != RATE_HZ or caps.layout != layout:
            from av.audio.resampler import AudioResampler

            self._resampler = AudioResampler(format="flt", layout=layout, rate=RATE_HZ)

    def _open_encoder(self, layout: str | None = None) -> None:
        import av

        layout = layout or str(self._caps.layout)
        context: AudioCodecContext = av.CodecContext.create("libopus", "w")
        context.sample_rate = RATE_HZ
        context.layout = layout
        context.format = "flt"
        context.bit_rate = self.config.bitrate
        context.time_base = Fraction(1, RATE_HZ)
        context.options = {"application": "audio", "frame_duration": "20"}
        context.open()
        extradata = bytes(context.extradata or b"")
        # OpusHead (RFC 7845 section 5.1): the pre-skip is the coder's delay in samples.
        self._delay_ns = int.from_bytes(extradata[10:12], "little") * NS_PER_S // RATE_HZ
        self._encoder, self._channels, self._given = context, 1 if layout == "mono" else 2, 0
        caps = EncodedCaps(codec="opus", rate=RATE_HZ, layout=layout, extradata=extradata)
        self._caps = self._caps if caps == self._caps else caps

    def _resampled(self, frame: AudioFrame | None) -> Iterator[np.ndarray[Any, Any]]:
        if self._resampler is None:
            if frame is not None:
                yield frame.array("flt")
            return
        for piece in self._resampler.resample(frame.to_av() if frame is not None else None):
            yield piece.to_ndarray().reshape(-1, self._channels)

    def _drain_resampler(self) -> Iterator[Emit[EncodedPacket]]:
        for samples in self._resampled(None):
            yield from self._add(samples)
        self._resampler = None

    def _add(self, samples: np.ndarray[Any, Any]) -> Iterator[Emit[EncodedPacket]]:
        import numpy as np

        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        if self._waiting_samples < PACKET_SAMPLES:
            return
        block = np.concatenate(self._waiting) if len(self._waiting) > 1 else samples
        end = len(block) - len(block) % PACKET_SAMPLES
        self._waiting.clear()
        self._waiting_samples = len(block) - end
        if self._waiting_samples:
            self._waiting.append(block[end:])
        for start in range(0, end, PACKET_SAMPLES):
            yield from self._encode(block[start : start + PACKET_SAMPLES])

    def _pad(self) -> Iterator[Emit[EncodedPacket]]:
        """Encodes what waits for a whole packet, with silence after it."""
        if self._waiting_samples:
            import numpy as np

            yield from self._add(np.zeros((PACKET_SAMPLES - self._waiting_samples, self._channels), np.float32))

    def _encode(self, samples: np.ndarray[Any, Any]) -> Iterator[Emit[EncodedPacket]]:
        from av.audio.frame import AudioFrame as AvAudioFrame

        assert self._encoder is not None
        assert self._base_ns is not None
        start_ns = self._base_ns + time_of(self._samples, 1, RATE_HZ)
        frame = AvAudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=str(self._caps.layout))
        frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), self._given
        self._samples += PACKET_SAMPLES
        self._given += PACKET_SAMPLES
        capture_ns = None
        if self._capture is not None:
            media_ns, now_ns = self._capture
            capture_ns = now_ns + start_ns - media_ns
        for packet in self._encoder.encode(frame):
            yield self.packets(
                EncodedPacket(
                    caps=self._caps,
                    data=bytes(packet),
                    time_ns=start_ns - self._delay_ns,
                    duration_ns=_PACKET_NS,
                    capture_ns=capture_ns,
                )
            )


def _layout_for(layout: object) -> str:
    """What sound of this layout is coded as."""
    return "mono" if layout == "mono" else "stereo"
