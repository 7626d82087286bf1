"""What ``hw-encode`` measures of itself."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from flowstream import NS_PER_S, EncoderStats, Size

if TYPE_CHECKING:
    import numpy as np
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame

_LAMBDA_PER_QP = 118  # FF_QP2LAMBDA of FFmpeg's libavutil/avutil.h
_KEPT = 1000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def qp_of(packet: Packet[Any]) -> float | None:
    """The quantiser that the encoder says a picture was coded with; None where it does not say."""
    if not packet.has_sidedata("quality_stats"):
        return None
    data = bytes(packet.get_sidedata("quality_stats"))
    return int.from_bytes(data[:4], "little") / _LAMBDA_PER_QP


def thread_ids() -> frozenset[int]:
    """The threads of this process, by the kernel's numbers; none where it does not tell (only Linux does)."""
    if sys.platform != "linux":
        return frozenset()
    return frozenset(int(name) for name in os.listdir("/proc/self/task"))


class ProcessorTime:
    """Processor time of the calling thread and of an encoder's own threads, in seconds.

    The kernel tells of the others on Linux only; elsewhere what an encoder's threads take is not seen.
    """

    def __init__(self) -> None:
        self._threads: frozenset[int] = frozenset()
        self._gone_s = 0.0

    def follow(self, threads: frozenset[int]) -> None:
        """The encoder has these threads from now on."""
        self._gone_s += self._others_s()
        self._threads = threads
        self._gone_s -= self._others_s()

    def now_s(self) -> float:
        """So much so far."""
        return time.thread_time() + self._gone_s + self._others_s()

    def _others_s(self) -> float:
        spent = 0.0
        for number in self._threads:
            try:
                with open(f"/proc/self/task/{number}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            spent += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # utime and stime, proc(5)
        return spent


class Ssim:
    """Decodes what an encoder gave and compares a picture with its original now and then (structural similarity)."""

    def __init__(self, codec: str) -> None:
        from flowstream_nodes.codec._decoders import software_decoder

        self._decoder: Any = software_decoder(codec)
        self._original: np.ndarray[Any, Any] | None = None
        self.value: float | None = None

    def original(self, picture: AvVideoFrame) -> None:
        """The next picture that is decoded is to be compared with this one."""
        self._original = luma_of(picture).copy()

    def decode(self, packet: Packet[Any]) -> None:
        """Goes along with the encoder; every packet is needed."""
        import av

        try:
            frames = self._decoder.decode(av.Packet(bytes(packet)))
        except av.FFmpegError:
            return
        if frames and self._original is not None:
            decoded, original = luma_of(frames[-1]), self._original
            self._original = None
            if decoded.shape == original.shape:
                self.value = ssim(original, decoded)


def luma_of(picture: AvVideoFrame) -> np.ndarray[Any, Any]:
    """The brightness of a planar picture, as a view."""
    import numpy as np

    plane = picture.planes[0]
    rows: np.ndarray[Any, Any] = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * picture.height]
    return rows.reshape(picture.height, plane.line_size)[:, : picture.width]


def ssim(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Structural similarity of two pictures of one size, 0 to 1 (Wang et al. 2004), over windows of 8x8 pixels.

    Windows lie four pixels apart, as those of FFmpeg's filter do.
    """
    import numpy as np

    def sums(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        height, width = values.shape[0] // 4 * 4, values.shape[1] // 4 * 4
        blocks = values[:height, :width].reshape(height // 4, 4, width // 4, 4).sum(axis=(1, 3), dtype=np.float64)
        total: np.ndarray[Any, Any] = blocks[:-1, :-1] + blocks[1:, :-1] + blocks[:-1, 1:] + blocks[1:, 1:]
        return total / 64

    if min(one.shape) < 8:
        return 1.0 if np.array_equal(one, other) else 0.0
    x, y = one.astype(np.float32), other.astype(np.float32)
    mean_x, mean_y = sums(x), sums(y)
    var_x, var_y = sums(x * x) - mean_x**2, sums(y * y) - mean_y**2
    both = sums(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ratio = ((2 * mean_x * mean_y + c1) * (2 * both + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(ratio.mean())


class Measuring:
    """Adds up what one encoder does, for a record of it every so often.

    Times of encoding are by the clock that the caller reads, so that virtual time costs nothing.
    """

    def __init__(self) -> None:
        self.processor = ProcessorTime()
        self._clear(None)

    def _clear(self, start_ns: int | None) -> None:
        self._start_ns = start_ns
        self._processor_s = self.processor.now_s() if start_ns is not None else 0.0
        self._took_ns: list[int] = []
        self._frames = self._bytes = 0
        self._qp: list[float] = []
        self._last_ns = start_ns
        self._budget_ns: int | None = None

    def begin(self, time_ns: int) -> None:
        """Before the first picture, at its media time."""
        if self._start_ns is None:
            self._clear(time_ns)

    def came(self, time_ns: int, duration_ns: int | None) -> None:
        """A picture arrived that is to be encoded. It has as long as it stands, or until the next one may come."""
        step = duration_ns or (time_ns - self._last_ns if self._last_ns is not None else 0)
        if step > 0 and (self._budget_ns is None or step < self._budget_ns):
            self._budget_ns = step
        self._last_ns = time_ns

    def encoded(self, packet: Packet[Any], size_bytes: int) -> None:
        """A packet came out."""
        self._frames += 1
        self._bytes += size_bytes
        if (qp := qp_of(packet)) is not None and len(self._qp) < _KEPT:
            self._qp.append(qp)

    def took(self, took_ns: int) -> None:
        """A picture was done with after ``took_ns``."""
        if len(self._took_ns) < _KEPT:
            self._took_ns.append(took_ns)

    def is_due(self, time_ns: int, every_ns: int) -> bool:
        """Whether a record is to be made before the picture at ``time_ns``: of thirty pictures, not of thirty-one."""
        return self._start_ns is not None and (time_ns - self._start_ns) * 100 >= every_ns * 99

    def close(self, time_ns: int, *, encoder: str, size: Size, ssim: float | None) -> EncoderStats | None:
        """What was measured since the record before; None when nothing was encoded. The next interval begins."""
        start_ns, frames = self._start_ns, self._frames
        if start_ns is None or not frames or time_ns <= start_ns:
            return None
        lasted_s = (time_ns - start_ns) / NS_PER_S
        took = sorted(self._took_ns) or [0]
        p95_ns = took[max(0, -(-len(took) * 95 // 100) - 1)]
        budget_ns = self._budget_ns or (time_ns - start_ns) // frames
        stats = EncoderStats(
            encoder=encoder,
            frames=frames,
            encode_ms_mean=round(sum(took) / len(took) / 1e6, 3),
            encode_ms_p95=round(p95_ns / 1e6, 3),
            frame_budget_ms=round(budget_ns / 1e6, 3),
            overload=p95_ns > budget_ns,
            bitrate=round(self._bytes * 8 / lasted_s),
            size=size,
            fps=round(frames / lasted_s, 3),
            cpu_share=round(max(0.0, self.processor.now_s() - self._processor_s) / lasted_s, 4),
            qp_mean=round(sum(self._qp) / len(self._qp), 2) if self._qp else None,
            ssim=None if ssim is None else round(ssim, 4),
        )
        self._clear(time_ns)
        return stats
