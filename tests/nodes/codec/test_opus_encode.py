"""opus-encode: what a decoder hears, when, whatever the sound was made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from flowstream import AudioFrame, EncodedPacket
from flowstream_nodes.codec.opus_encode import OpusEncode, OpusEncodeConfig

MS = 1_000_000


class Encoding:
    """Drives one node with tones; keeps its packets."""

    def __init__(self, **config: Any) -> None:
        self.node = OpusEncode(OpusEncodeConfig.model_validate(config))
        self.node.ctx = SimpleNamespace()
        self.packets: list[EncodedPacket] = []

    def tone(
        self,
        time_ns: int,
        duration_ns: int,
        *,
        rate: int = 48_000,
        channels: int = 2,
        format: str = "fltp",
        block: int = 441,
        hz: float = 440.0,
        capture_ns: int | None = None,
    ) -> None:
        total = duration_ns * rate // 1_000_000_000
        start = time_ns * rate // 1_000_000_000
        for first in range(0, total, block):
            count = min(block, total - first)
            phase = 2 * np.pi * hz * (start + first + np.arange(count)) / rate
            planar = np.tile((0.5 * np.sin(phase)).astype(np.float32), (channels, 1))
            layout = {1: "mono", 2: "stereo", 6: "5.1(side)"}[channels]
            offset_ns = first * 1_000_000_000 // rate
            frame = AudioFrame.from_array(
                planar,
                rate=rate,
                layout=layout,
                time_ns=time_ns + offset_ns,
                capture_ns=None if capture_ns is None else capture_ns + offset_ns,
            )
            self.give(frame if format == "fltp" else frame.writable(format))

    def give(self, frame: AudioFrame) -> None:
        self.packets += [emit.payload for emit in self.node.process(frame)]

    def finish(self) -> list[EncodedPacket]:
        self.packets += [emit.payload for emit in self.node.finish()]
        return self.packets

    @property
    def times_ms(self) -> list[float]:
        return [packet.time_ns / MS for packet in self.packets]


def decoded(packets: list[EncodedPacket]) -> np.ndarray[Any, Any]:
    """(channels, samples) as they sound, from the first packet's time on."""
    context = av.CodecContext.create("libopus", "r")
    assert isinstance(context, av.AudioCodecContext)
    frames = [frame for packet in packets for frame in context.decode(packet.to_av())]
    resampler = av.AudioResampler(format="fltp", layout=frames[0].layout, rate=48_000)
    return np.concatenate([piece.to_ndarray() for frame in frames for piece in resampler.resample(frame)], axis=1)


@pytest.mark.parametrize(
    ("rate", "channels", "format"),
    [(48_000, 2, "fltp"), (44_100, 2, "s16"), (16_000, 1, "s16p"), (48_000, 1, "flt"), (48_000, 6, "fltp")],
)
def test_any_sound_comes_out_as_the_tone_that_went_in(rate: int, channels: int, format: str) -> None:
    encoding = Encoding()
    encoding.tone(0, 500 * MS, rate=rate, channels=channels, format=format)
    packets = encoding.finish()
    sound = decoded(packets)
    assert packets[0].caps.layout == ("mono" if channels == 1 else "stereo")
    settled = sound[0, 4_800:19_200]
    spectrum = np.abs(np.fft.rfft(settled * np.hanning(len(settled))))
    assert np.argmax(spectrum) * 48_000 / len(settled) == pytest.approx(440, abs=4)


def test_packets_are_20_ms_and_lie_where_their_sound_is_heard() -> None:
    encoding = Encoding()
    encoding.tone(1_000 * MS, 30 * MS, hz=0, capture_ns=77 * MS)
    burst = AudioFrame.from_array(
        np.full((2, 480), 0.9, np.float32), rate=48_000, time_ns=1_030 * MS, capture_ns=107 * MS
    )
    encoding.give(burst)
    encoding.tone(1_040 * MS, 60 * MS, hz=0, capture_ns=117 * MS)
    packets = encoding.finish()
    assert encoding.times_ms == [993.5 + 20 * i for i in range(len(packets))]
    assert {packet.duration_ns for packet in packets} == {20 * MS}
    assert packets[0].capture_ns == 77 * MS
    assert packets[2].capture_ns == pytest.approx(117 * MS, abs=MS)
    loud = np.flatnonzero(np.abs(decoded(packets)[0]) > 0.3)
    assert packets[0].time_ns / MS + loud[0] / 48 == pytest.approx(1_030, abs=2)


def test_all_packets_share_one_caps_object_with_an_opus_head() -> None:
    encoding = Encoding(bitrate="64k")
    encoding.tone(0, 200 * MS)
    packets = encoding.finish()
    assert len({id(packet.caps) for packet in packets}) == 1
    assert packets[0].caps.extradata is not None
    assert packets[0].caps.extradata.startswith(b"OpusHead")
    assert (packets[0].caps.codec, packets[0].caps.rate) == ("opus", 48_000)


def test_a_gap_stays_a_gap_and_jitter_does_not_become_one() -> None:
    encoding = Encoding()
    encoding.tone(0, 40 * MS, block=480)
    encoding.tone(45 * MS, 40 * MS, block=480)  # 5 ms of jitter
    encoding.tone(500 * MS, 40 * MS, block=480)
    encoding.finish()
    assert encoding.times_ms == [-6.5, 13.5, 33.5, 53.5, 493.5, 513.5, 533.5]


def test_sound_from_the_past_is_not_played_twice() -> None:
    encoding = Encoding()
    encoding.tone(0, 100 * MS, block=960)
    encoding.tone(40 * MS, 100 * MS, block=4800)
    encoding.finish()
    assert encoding.times_ms == [-6.5 + 20 * i for i in range(8)]


def test_a_change_of_layout_is_a_change_of_caps() -> None:
    encoding = Encoding()
    encoding.tone(0, 50 * MS, channels=1)
    encoding.tone(50 * MS, 50 * MS, channels=2)
    packets = encoding.finish()
    assert [p.caps.layout for p in packets] == 3 * ["mono"] + (len(packets) - 3) * ["stereo"]
    assert encoding.times_ms == sorted(set(encoding.times_ms))


def test_a_change_of_rate_or_format_is_not_heard() -> None:
    encoding = Encoding()
    encoding.tone(0, 100 * MS, rate=44_100, block=441)
    encoding.tone(100 * MS, 100 * MS, rate=48_000, block=480, format="s16")
    packets = encoding.finish()
    assert len({id(packet.caps) for packet in packets}) == 1
    assert encoding.times_ms == [-6.5 + 20 * i for i in range(len(packets))]
    sound = decoded(packets)[0]
    assert np.abs(np.diff(sound[1_000:9_000])).max() < 0.05  # a 440 Hz tone at half scale moves 0.029 a sample


def test_the_bitrate_changes_while_running() -> None:
    rng = np.random.default_rng(3)
    encoding = Encoding(bitrate="128k")

    def noise(time_ns: int) -> None:
        for i in range(50):
            array = rng.normal(0, 0.2, (2, 960)).astype(np.float32)
            encoding.give(AudioFrame.from_array(array, rate=48_000, time_ns=time_ns + i * 20 * MS))

    noise(0)
    loud = sum(len(packet.data) for packet in encoding.packets)
    old, encoding.node.config = encoding.node.config, OpusEncodeConfig(bitrate=32_000)
    encoding.node.reconfigured(old)
    noise(1_000 * MS)
    assert loud * 8 == pytest.approx(128_000, rel=0.15)
    assert (sum(len(packet.data) for packet in encoding.packets) - loud) * 8 == pytest.approx(32_000, rel=0.15)
    assert len({id(packet.caps) for packet in encoding.packets}) == 1
    assert encoding.times_ms == [-6.5 + 20 * i for i in range(100)]


def test_a_rate_that_opus_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="bitrate is 1M; Opus takes 6k to 510k"):
        OpusEncodeConfig.model_validate({"bitrate": "1M"})
