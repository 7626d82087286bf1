"""The text format of Prometheus, read by the parser of its own client library."""

from prometheus_client.parser import text_string_to_metric_families

from flowstream.control.metrics import to_text
from flowstream.runtime.cause import Cause
from flowstream.runtime.stats import EdgeStats, Fill, Latency, NodeStats, RunStats

ODD = 'a "quoted" \\ name\nin two lines'
LATENCY = Latency(600, 3_000_000, 5_500_000, 21_000_000)
NODE = NodeStats(
    id="out", type="webrtc-out", state="running", received=300, emitted={"reports": 7}, rate_in=30.0,
    rates_out={"reports": 0.7}, latency=LATENCY, cpu=0.25, cpu_ns=1_500_000_000, memory_bytes=400, queued=4, dropped=2,
    drop_rate=0.2, restarts=3,
)  # fmt: skip
EDGE = EdgeStats(
    name="out.video", producer="encode", output="packets", consumer="out", overflow="drop-oldest", feedback=False,
    received=306, delivered=300, dropped={"overflow": 2}, rate=30.0, drop_rate=0.2, latency=LATENCY,
    queue=Fill(4, 400, 60_000_000, 120, 1000, None), idle_ns=20_000_000, latency_count=300, latency_sum_ns=900_000_000,
)  # fmt: skip
STATS = RunStats(
    graph=ODD, state="running", wallclock_ns=0, up_ns=61_500_000_000, span_ns=10_000_000_000, cpu=0.5,
    cpu_ns=2_000_000_000, peak_memory_bytes=100_000_000, threads=8, nodes=(NODE,), edges=(EDGE,),
)  # fmt: skip


def test_every_number_comes_back_as_it_is() -> None:
    text = to_text(STATS, [Cause("out", "slow-consumer", "...", 0, ("out",))], is_refused=True)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith("flowstream_") for name in families)
    assert all(family.documentation.endswith(".") for family in families.values())
    values = {
        (sample.name.removeprefix("flowstream_"), *sorted(v for k, v in sample.labels.items() if k not in DULL)): (
            sample.value
        )
        for family in families.values()
        for sample in family.samples
    }
    assert all(sample.labels["graph"] == ODD for family in families.values() for sample in family.samples)
    assert values == {
        ("run_up_seconds",): 61.5,
        ("run_state", "running"): 1,
        ("run_file_refused",): 1,
        ("run_cause", "out", "slow-consumer"): 1,
        ("process_cpu_seconds_total",): 2,
        ("process_peak_memory_bytes",): 100_000_000,
        ("process_threads",): 8,
        ("node_state", "out", "running"): 1,
        ("node_restarts_total", "out"): 3,
        ("node_received_total", "out"): 300,
        ("node_emitted_total", "out", "reports"): 7,
        ("node_cpu_seconds_total", "out"): 1.5,
        ("node_buffer_bytes", "out"): 400,
        ("edge_received_total", "out.video"): 306,
        ("edge_delivered_total", "out.video"): 300,
        ("edge_dropped_total", "out.video", "overflow"): 2,
        ("edge_queue_items", "out.video"): 4,
        ("edge_queue_bytes", "out.video"): 400,
        ("edge_queue_seconds", "out.video"): 0.06,
        ("edge_queue_limit_items", "out.video"): 120,
        ("edge_queue_limit_bytes", "out.video"): 1000,
        ("edge_idle_seconds", "out.video"): 0.02,
        ("edge_latency_seconds", "0.5", "out.video"): 0.003,
        ("edge_latency_seconds", "0.95", "out.video"): 0.0055,
        ("edge_latency_seconds_sum", "out.video"): 0.9,
        ("edge_latency_seconds_count", "out.video"): 300,
        ("edge_latency_max_seconds", "out.video"): 0.021,
    }
    assert families["flowstream_edge_latency_seconds"].type == "summary"
    assert families["flowstream_edge_received"].type == "counter"
    assert families["flowstream_node_state"].type == "gauge"


DULL = ("graph", "type", "producer", "consumer")


def test_each_family_stands_once_and_the_text_ends_with_a_line() -> None:
    text = to_text(STATS)
    heads = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    assert text.endswith("\n")
    assert "\n\n" not in text
