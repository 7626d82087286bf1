"""H.264 by libx264, whose constant bit rate is steered while it is open.

libx264 follows a new bit rate in place only when it was opened with a VBV whose maximum rate equals the bit rate, and
never goes above that rate afterwards. So it is opened at the ceiling and lowered to the wanted rate before the first
picture. It counts bits per picture, not per second (spacing pictures by their timestamps would cost one picture of
delay), so the rate asked of it is scaled by the distance of the pictures that really come. What it then still misses
by, which after a change is up to a tenth for seconds, a trim makes up for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowstream import NS_PER_S
from flowstream_nodes.codec._ffmpeg import FfmpegEncoder
from flowstream_nodes.codec.encoders import VBV_S, EncoderSettings

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame


class RateTrim:
    """By how much more or less than wanted an encoder is to be asked for, so that what comes out is what is wanted.

    ``factor`` is learned, between 0.8 and 1.25, from what came out over about half a second, and only while that is
    near to what was wanted: pictures that need fewer bits than they may have teach nothing. For a while after the
    wanted rate went up, of which libx264 is careful, it is larger.
    """

    def __init__(self) -> None:
        self._learned = 1.0
        self._boost = 1.0
        self._settle_ns = _SETTLE_FIRST_NS
        self._bits = self._over_ns = 0.0

    @property
    def factor(self) -> float:
        """What to multiply the wanted rate by."""
        return self._learned * self._boost

    def restart(self, *, is_up: bool) -> None:
        """Another rate is wanted from here on."""
        self._boost = _BOOST if is_up else 1.0
        self._settle_ns = _SETTLE_UP_NS if is_up else _SETTLE_DOWN_NS
        self._bits = self._over_ns = 0.0

    def add(self, bits: int, *, over_ns: int, wanted_bps: int) -> None:
        """A picture took ``bits`` and came ``over_ns`` after the one before."""
        if self._settle_ns > 0:
            self._settle_ns -= over_ns
            return
        self._boost = 1.0
        kept = 1 - min(1.0, over_ns / _MEMORY_NS)
        self._bits = self._bits * kept + bits
        self._over_ns = self._over_ns * kept + over_ns
        if self._over_ns < _MEMORY_NS / 4:
            return
        reached = self._bits * NS_PER_S / (self._over_ns * wanted_bps)
        teaches = _TEACHES[0] <= reached <= _TEACHES[1]
        aim = min(_MOST, max(_LEAST, self._learned / reached)) if teaches else 1.0
        self._learned += (aim - self._learned) * min(1.0, over_ns / _LEARN_NS)


_MEMORY_NS = NS_PER_S // 2
_LEARN_NS = 2 * NS_PER_S
_SETTLE_FIRST_NS, _SETTLE_UP_NS, _SETTLE_DOWN_NS = NS_PER_S * 4 // 5, NS_PER_S * 4 // 5, NS_PER_S * 3 // 10
_BOOST = 1.15
_TEACHES = (0.6, 1.6)
_LEAST, _MOST = 0.8, 1.25


class X264Encoder(FfmpegEncoder):
    """One open libx264."""

    def __init__(self, name: str, settings: EncoderSettings, options: Mapping[str, str]) -> None:
        nominal_ns = settings.nominal_ns or settings.interval_ns or 0
        interval_ns = settings.interval_ns or 0
        # Pictures that are known to come more rarely than the stream states get a higher rate in its terms; the frame
        # rate that it states stays, and with it the parameter sets.
        scale = max(nominal_ns, interval_ns), nominal_ns or 1
        self._limit_bps = settings.ceiling_bps * scale[0] // scale[1] if nominal_ns else settings.ceiling_bps
        self._wanted_bps = settings.bitrate_bps
        self._trim = RateTrim()
        self._last_ns: int | None = None
        options = {**options, "maxrate": str(self._limit_bps), "bufsize": str(int(self._limit_bps * VBV_S))}
        super().__init__(name, settings, options, bitrate_bps=self._limit_bps)
        self._asked_bps = self._limit_bps
        self._ask()

    @property
    def is_outgrown(self) -> bool:
        """Whether pictures come so much rarer than when it was opened that it cannot reach the wanted rate."""
        interval_ns = self._rate.interval_ns or self._nominal_ns
        return self._wanted_bps * interval_ns * 4 > self._limit_bps * self._nominal_ns * 5

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        """Steers the rate, up to the ceiling; it holds within about half a second."""
        if bitrate_bps != self._wanted_bps:
            self._trim.restart(is_up=bitrate_bps > self._wanted_bps)
            self._wanted_bps = bitrate_bps
            self._ask()
        return True

    def _ask(self) -> None:
        interval_ns = self._rate.interval_ns or self._nominal_ns
        scaled_bps = self._wanted_bps * interval_ns / self._nominal_ns * self._trim.factor
        asked_bps = min(self._limit_bps, int(scaled_bps))
        if abs(asked_bps - self._asked_bps) * 64 > self._asked_bps:
            self._context.bit_rate = self._asked_bps = asked_bps

    def encode(
        self, picture: AvVideoFrame, tag: Any, /, *, time_ns: int, keyframe: bool
    ) -> list[tuple[Packet[Any], Any]]:
        """The packets that come of one picture, each with the tag that its picture came with."""
        over_ns = time_ns - self._last_ns if self._last_ns is not None else self._nominal_ns
        self._last_ns = time_ns
        self._ask()
        packets = super().encode(picture, tag, time_ns=time_ns, keyframe=keyframe)
        self._trim.add(
            sum(packet.size for packet, _ in packets) * 8, over_ns=min(over_ns, NS_PER_S), wanted_bps=self._wanted_bps
        )
        return packets
