"""Throw payloads away, and count them."""

from __future__ import annotations

from flowstream import AudioFrame, EncodedPacket, Input, Record, Sink, VideoFrame

REPORT_NS = 1_000_000_000


class Discard(Sink, type="discard"):
    """Takes anything and keeps nothing; status shows how much came.

    For an output that has to run although nobody wants it, and for measuring what is before it.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      nowhere: {type: discard, from: pattern}
    ```
    """

    anything = Input(
        VideoFrame, AudioFrame, EncodedPacket, Record, follows={"size", "extradata"}, doc="Any payload."
    )  # fmt: skip

    _count = 0
    _bytes = 0
    _reported_ns: int | None = None

    def consume(self, payload: VideoFrame | AudioFrame | EncodedPacket | Record[object]) -> None:
        """Counts it."""
        self._count += 1
        self._bytes += payload.size_bytes
        now_ns = self.ctx.now_ns()
        if self._reported_ns is None or now_ns - self._reported_ns >= REPORT_NS:
            self._reported_ns = now_ns
            self._report()

    def finish(self) -> None:
        """Says the last count."""
        self._report()

    def _report(self) -> None:
        self.ctx.report(payloads=self._count, bytes=self._bytes)
