#!/usr/bin/env python3
"""Congestion control against aiortc's REMB loop: the same traces, one viewer, an encoder that is steered.

    python tools/bench/congestion.py [--quick]

The traces are tools/traces/*.csv, the path is emulated on virtual time, so that these lines are the same on every
machine. Beside them stands what the same code does with a real Chromium behind the link emulator, in real time, on the
traces "step" and "lossy" (not with --quick). The last lines compare CPU time a packet: number, remember, pace, read
feedback and estimate at the sender, against what aiortc's receiver needs for its estimate.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import chromium
import steering
from measuring import RUNS, is_quick, medians, tell, tell_ratio

from flowstream.proto.congestion.arrivals import Arrivals
from flowstream.proto.congestion.estimator import BandwidthEstimator
from flowstream.proto.congestion.pacer import Burst, Pacer, Urgency
from flowstream.proto.rtcp import TransportFeedback, parse_compound

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "traces"))

import traces

MS = 1_000_000
FRAME = [1228] * 9
FRAME_NS = 33 * MS


def judge(name: str, sender: str, *, lasts_ms: int) -> tuple[float, float]:
    """Play a trace and print its line; return the share that was left unused and the waiting time (p95, in ms)."""
    make = steering.Ours if sender == "flowstream" else steering.Aiortc
    return tell_of(name, sender, steering.run(traces.read(name), make, lasts_ms=lasts_ms), lasts_ms=lasts_ms)


def tell_of(name: str, sender: str, outcome: steering.Outcome, *, lasts_ms: int) -> tuple[float, float]:
    """Print the line of a trace that was played."""
    trace = traces.read(name)
    used = steering.utilisation(outcome, trace, lasts_ms=lasts_ms)
    waited_ms = steering.quantile([waited for _, waited in outcome.waits_ms], 0.95)
    recoveries_s = steering.recoveries_s(outcome, trace, lasts_ms=lasts_ms) if name == "step" else []
    recovery = f"{max(recoveries_s):6.1f} s" if recoveries_s else "       -"
    switches = steering.switches(outcome, since_ms=5_000) if name == "steady" else None
    age = f"{steering.quantile(outcome.ages_ms, 0.95):8.0f} ms" if outcome.ages_ms else f"{'-':>11}"
    print(
        f"{name:8}{sender:12}{100 * used:6.1f} %{waited_ms:8.0f} ms{age}  {recovery}  "
        f"{'-' if switches is None else switches:>4}"
    )
    return max(0.0, 1 - used), waited_ms


def bookkeeping_s(frames: int) -> float:
    """CPU time of the sender's part for a stream of 9 packets a picture; what the receiver does is left out."""
    estimator = BandwidthEstimator(now_ns=0, start_bps=4_000_000)
    pacer: Pacer[int] = Pacer(now_ns=0, bps=4_000_000)
    arrivals = Arrivals(ssrc=1)
    feedback: list[bytes] = []
    spent = 0.0
    for frame in range(frames):
        now_ns = frame * FRAME_NS
        sent: list[tuple[int, int, int]] = []
        began = time.thread_time()
        if frame % 2:
            for data in feedback:
                for packet in parse_compound(data):
                    if isinstance(packet, TransportFeedback):
                        estimator.handle_feedback(packet, now_ns=now_ns)
            estimator.poll(now_ns=now_ns)
        pacer.bps = max(estimator.target_bps, 4_000_000)
        pacer.enqueue(frame, FRAME, Urgency.VIDEO, now_ns=now_ns, is_keyframe=True)
        while (due_ns := pacer.next_ns()) is not None:
            at_ns = max(now_ns, due_ns)
            for each in pacer.poll(now_ns=at_ns)[0]:
                if isinstance(each, Burst):
                    sent.append((estimator.packets.next_number, each.end - each.first, at_ns))
                    estimator.sent(FRAME[each.first : each.end], now_ns=at_ns)
        spent += time.thread_time() - began
        for first, count, at_ns in sent:
            for index in range(count):
                arrivals.add((first + index) & 0xFFFF, now_ns=at_ns + 20 * MS + index * MS)
        if frame % 2 == 0:
            feedback = []
            while (told := arrivals.take(media_ssrc=2)) is not None:
                feedback.append(told.to_bytes())
    return spent / frames / len(FRAME)


def remb_s(frames: int) -> float:
    """CPU time of aiortc's estimator for the same stream."""
    from aiortc.rate import RemoteBitrateEstimator

    remote = RemoteBitrateEstimator()
    began = time.thread_time()
    for frame in range(frames):
        for index in range(len(FRAME)):
            at_ms = frame * 33 + index
            remote.add(at_ms + 20, ((at_ms << 18) // 1000) & 0xFFFFFF, 1200, 1)
    return (time.thread_time() - began) / frames / len(FRAME)


def main() -> None:
    """Measure and tell."""
    quick = is_quick(__doc__)
    lasts_ms = 6_000 if quick else traces.LASTS_MS
    print(f"{'trace':8}{'sender':12}{'used':>8}{'waits p95':>11}{'age p95':>11}  {'recovers':>8}  {'switches':>4}")
    judged = {
        sender: [judge(name, sender, lasts_ms=lasts_ms) for name in traces.TRACES]
        for sender in ("flowstream", "aiortc")
    }
    for name in () if quick else ("step", "lossy"):
        played = chromium.play(traces.read(name), lasts_ms=lasts_ms)
        if played is None:
            print(f"{name:8}to Chromium: there is none at {chromium.CHROMIUM}")
        else:
            tell_of(name, "to Chromium", played, lasts_ms=lasts_ms)
    cpu_s = medians(
        {
            "aiortc": lambda: remb_s(300 if quick else 3_000),
            "ours": lambda: bookkeeping_s(300 if quick else 3_000),
        },
        runs=1 if quick else RUNS,
    )
    tell([("aiortc's receiver", cpu_s["aiortc"] * 1e6), ("flowstream's sender", cpu_s["ours"] * 1e6)], "us a packet")
    for index, name in enumerate(("unused", "waits")):
        ours, theirs = (statistics.mean(each[index] for each in judged[who]) for who in ("flowstream", "aiortc"))
        tell_ratio(f"congestion_{name}", ours / theirs)
    tell_ratio("congestion_cpu", cpu_s["ours"] / cpu_s["aiortc"])


if __name__ == "__main__":
    main()
