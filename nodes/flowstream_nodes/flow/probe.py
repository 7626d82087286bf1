"""Measure what passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowstream import (
    AudioFrame,
    Config,
    Duration,
    Emit,
    EncodedPacket,
    Input,
    Output,
    Record,
    Transform,
    VideoFrame,
    live,
)

KEPT = 10_000
"""Measurements kept in one interval; beyond that, every further one is counted but not kept."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What passed in one interval.

    ``rate`` in payloads per second and ``bitrate_bps`` in bits per second are over the interval. Jitter is how far the
    time between two arrivals was from the time between their media times, latency the time from capture to here; both
    are None when nothing told them. ``gaps`` counts steps in media time of more than one and a half of the usual one,
    ``late`` steps back.
    """

    payloads: int
    rate: float
    bitrate_bps: int
    gaps: int
    late: int
    jitter_p50_ns: int | None
    jitter_p95_ns: int | None
    jitter_max_ns: int | None
    latency_p50_ns: int | None
    latency_p95_ns: int | None
    latency_max_ns: int | None


class ProbeConfig(Config):
    """How often a report comes."""

    interval: Duration = live(default=1_000_000_000, description="Time between two reports.", examples=["1s"])


class Probe(Transform[ProbeConfig], type="probe"):
    """Passes everything through and says how it came: rate, gaps, jitter, and latency since capture.

    The last report shows in status; each leaves as a record too.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      probe: {type: probe, from: pattern}
      nowhere: {type: discard, from: probe}
    ```
    """

    anything = Input(VideoFrame, AudioFrame, EncodedPacket, Record, follows={"size", "extradata"}, doc="Any payload.")
    passed: Output[Any] = Output(like=anything, main=True, doc="What came in, untouched.")
    report = Output(Record[ProbeReport], doc="A ProbeReport for each interval.")

    _start_ns: int | None = None
    _last: tuple[int, int] | None = None  # arrival and media time of the payload before
    _step_ns: int | None = None  # the usual step in media time

    def open(self) -> None:
        """Begins the first interval with the first payload."""
        self._clear()

    def process(self, payload: Any) -> Iterator[Emit[Any]]:
        """Passes the payload on at once, then measures."""
        yield self.passed(payload)
        now_ns = self.ctx.now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        self._measure(payload, now_ns)
        if now_ns - self._start_ns >= self.config.interval:
            yield self._close_interval(now_ns, payload.time_ns)

    def finish(self) -> Iterator[Emit[Any]]:
        """Reports on what came since the last report."""
        if self._payloads and self._start_ns is not None and self._last is not None:
            yield self._close_interval(self.ctx.now_ns(), self._last[1])

    def _clear(self) -> None:
        self._payloads = self._bytes = self._gaps = self._late = 0
        self._jitter_ns: list[int] = []
        self._latency_ns: list[int] = []

    def _measure(self, payload: Any, now_ns: int) -> None:
        self._payloads += 1
        self._bytes += payload.size_bytes
        if payload.capture_ns is not None and len(self._latency_ns) < KEPT:
            self._latency_ns.append(now_ns - payload.capture_ns)
        if self._last is not None:
            arrival_ns, media_ns = now_ns - self._last[0], payload.time_ns - self._last[1]
            if media_ns < 0:
                self._late += 1
            elif self._step_ns is not None and 2 * media_ns > 3 * self._step_ns:
                self._gaps += 1
            else:
                # A gap is no new rhythm, so that only other steps are learned.
                self._step_ns = media_ns if self._step_ns is None else (7 * self._step_ns + media_ns) // 8
            if len(self._jitter_ns) < KEPT:
                self._jitter_ns.append(abs(arrival_ns - media_ns))
        self._last = (now_ns, payload.time_ns)

    def _close_interval(self, now_ns: int, time_ns: int) -> Emit[Record[ProbeReport]]:
        assert self._start_ns is not None
        lasted_ns = max(1, now_ns - self._start_ns)
        jitter, latency = sorted(self._jitter_ns), sorted(self._latency_ns)
        report = ProbeReport(
            payloads=self._payloads,
            rate=round(self._payloads * 1e9 / lasted_ns, 3),
            bitrate_bps=self._bytes * 8 * 1_000_000_000 // lasted_ns,
            gaps=self._gaps,
            late=self._late,
            jitter_p50_ns=_quantile(jitter, 50),
            jitter_p95_ns=_quantile(jitter, 95),
            jitter_max_ns=_quantile(jitter, 100),
            latency_p50_ns=_quantile(latency, 50),
            latency_p95_ns=_quantile(latency, 95),
            latency_max_ns=_quantile(latency, 100),
        )
        self.ctx.report(
            rate=report.rate,
            gaps=report.gaps,
            late=report.late,
            jitter_p95_ms=_ms(report.jitter_p95_ns),
            latency_p50_ms=_ms(report.latency_p50_ns),
            latency_p95_ms=_ms(report.latency_p95_ns),
        )
        self._start_ns = now_ns
        self._clear()
        return self.report(Record(report, time_ns))


def _quantile(ordered: list[int], percent: int) -> int | None:
    """The smallest value that ``percent`` of them do not exceed (nearest rank)."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _ms(value_ns: int | None) -> float | None:
    return None if value_ns is None else round(value_ns / 1e6, 3)
