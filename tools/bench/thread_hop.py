#!/usr/bin/env python3
"""Through a node with a thread of its own and back, against GStreamer's queue element: 1000 a second, paced.

    python tools/bench/thread_hop.py [--quick]

Counted is all that such a node adds to a graph: the hop to it, the way to its thread and the way back.
"""

from __future__ import annotations

from chains import ThreadPass, gstreamer, ours
from measuring import RUNS, is_quick, medians, tell, tell_ratio

PASSES = 5


def main() -> None:
    """Measure and tell."""
    quick = is_quick(__doc__)
    items = 50 if quick else 2_000
    cpu_s = medians(
        {
            "gst none": lambda: gstreamer(0, items),
            "gst": lambda: gstreamer(PASSES, items),
            "ours none": lambda: ours(ThreadPass, 0, items),
            "ours": lambda: ours(ThreadPass, PASSES, items),
        },
        runs=1 if quick else RUNS,
    )
    gst_us = (cpu_s["gst"] - cpu_s["gst none"]) * 1e6 / items / PASSES
    ours_us = (cpu_s["ours"] - cpu_s["ours none"]) * 1e6 / items / PASSES
    tell([("GStreamer queue", gst_us), ("flowstream thread node", ours_us)], "us a hop")
    tell_ratio("thread_hop", ours_us / gst_us)


if __name__ == "__main__":
    main()
