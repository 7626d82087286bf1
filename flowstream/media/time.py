"""Media time: nanoseconds on the graph's timeline, and its exact conversions to tick rates.

Three times, three names. *Media time* (``time_ns``) is a position on the graph's timeline. *Now* (``now_ns``) is the
monotonic clock that decisions are made by. *Wallclock* (``wallclock_ns``) is UTC, for people and other machines.
"""

from __future__ import annotations

NS_PER_S = 1_000_000_000
"""Nanoseconds in a second."""


def ticks_of(time_ns: int, rate_hz: int) -> int:
    """The nearest tick of a clock of ``rate_hz`` at ``time_ns``; halves round up, so equal spacing stays equal."""
    return (2 * time_ns * rate_hz + NS_PER_S) // (2 * NS_PER_S)


def time_of(ticks: int, numerator: int, denominator: int) -> int:
    """Nanoseconds at ``ticks`` of a time base of ``numerator / denominator`` seconds."""
    scaled = 2 * ticks * numerator * NS_PER_S + denominator
    return scaled // (2 * denominator)


def period_ns(rate: float) -> int:
    """Length of one cycle of ``rate`` per second, in nanoseconds."""
    return round(NS_PER_S / rate)
