"""probe: what it measures, and that it changes nothing."""

from typing import Any

import pytest

from flowstream import Record
from flowstream.testing import Harness, check_node, make_packet, make_sound
from flowstream_nodes.flow.probe import Probe, ProbeReport

MS = 1_000_000


def send(probe: Harness[Any], times_ms: list[float], arrivals_ms: list[float], **packet: Any) -> None:
    start_ns = probe.clock.now_ns()
    for at_ms, arrival_ms in zip(times_ms, arrivals_ms, strict=True):
        probe.clock.step(start_ns + round(arrival_ms * MS) - probe.clock.now_ns())
        payload = make_packet(size=1000, **packet)
        probe.push(type(payload)(**{**_fields(payload), "time_ns": round(at_ms * MS)}))


def _fields(payload: Any) -> dict[str, Any]:
    return {name: getattr(payload, name) for name in payload.__dataclass_fields__}


def reports(probe: Harness[Any]) -> list[ProbeReport]:
    return [record.value for record in probe.payloads("report")]


def test_conformance() -> None:
    check_node(Probe)


def test_payloads_pass_at_once_and_untouched() -> None:
    with Harness(Probe) as probe:
        for payload in (make_packet(), make_sound(), Record("x", 5)):
            assert probe.push(payload)[0] is payload


def test_a_steady_stream() -> None:
    with Harness(Probe) as probe:
        beat = [n * 40.0 for n in range(26)]
        send(probe, beat, beat)
        (report,) = reports(probe)
        assert report == ProbeReport(
            payloads=26, rate=26.0, bitrate_bps=208_000, gaps=0, late=0, jitter_p50_ns=0, jitter_p95_ns=0,
            jitter_max_ns=0, latency_p50_ns=None, latency_p95_ns=None, latency_max_ns=None,
        )  # fmt: skip
        assert probe.facts == {
            "rate": 26.0, "gaps": 0, "late": 0, "jitter_p95_ms": 0.0, "latency_p50_ms": None, "latency_p95_ms": None,
        }  # fmt: skip


def test_jitter_is_arrival_against_media_time() -> None:
    with Harness(Probe) as probe:
        send(probe, [0, 40, 80, 120], [0, 45, 80, 121])
        probe.finish()
        (report,) = reports(probe)
        assert (report.jitter_p50_ns, report.jitter_p95_ns, report.jitter_max_ns) == (5 * MS, 5 * MS, 5 * MS)


def test_gaps_and_steps_back_are_told_apart() -> None:
    with Harness(Probe) as probe:
        send(probe, [0, 40, 80, 200, 240, 100, 140], [0, 40, 80, 200, 240, 280, 320])
        probe.finish()
        (report,) = reports(probe)
        assert (report.gaps, report.late) == (1, 1)


def test_a_gap_does_not_become_the_rhythm() -> None:
    with Harness(Probe) as probe:
        times = [0, 40, 80, 1080, 1120, 1160, 2160.0]
        send(probe, times, [n * 10.0 for n in range(7)])
        probe.finish()
        assert reports(probe)[0].gaps == 2


def test_latency_is_since_capture() -> None:
    with Harness(Probe) as probe:
        for n in range(100):
            captured_ns = probe.clock.now_ns() - (n + 1) * MS
            probe.push(make_packet(n, capture_ns=captured_ns))
        probe.finish()
        (report,) = reports(probe)
        assert (report.latency_p50_ns, report.latency_p95_ns, report.latency_max_ns) == (50 * MS, 95 * MS, 100 * MS)


def test_a_report_for_each_interval_and_one_at_the_end() -> None:
    with Harness(Probe, {"interval": "500ms"}) as probe:
        beat = [n * 100.0 for n in range(13)]
        send(probe, beat, beat)
        assert [report.payloads for report in reports(probe)] == [6, 5]
        probe.finish()
        assert [report.payloads for report in reports(probe)] == [6, 5, 2]
        assert probe.payloads("report")[-1].time_ns == 1200 * MS


def test_nothing_came_nothing_to_report() -> None:
    with Harness(Probe) as probe:
        assert probe.finish() == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream_nodes.flow.probe.KEPT", 10)
    with Harness(Probe, {"interval": "1h"}) as probe:
        for n in range(50):
            probe.push(make_packet(n, capture_ns=0))
        assert len(probe.node._latency_ns) == len(probe.node._jitter_ns) == 10
        probe.finish()
        assert reports(probe)[0].payloads == 50
