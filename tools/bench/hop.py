#!/usr/bin/env python3
"""A paced hop between two async nodes, against GStreamer's queue element: 1000 a second, one under way at a time.

python tools/bench/hop.py [--quick]
"""

from __future__ import annotations

from chains import Pass, gstreamer, ours
from measuring import RUNS, is_quick, medians, tell, tell_ratio

PASSES = 10


def main() -> None:
    """Measure and tell."""
    quick = is_quick(__doc__)
    items = 50 if quick else 2_000
    cpu_s = medians(
        {
            "gst none": lambda: gstreamer(0, items),
            "gst": lambda: gstreamer(PASSES, items),
            "ours none": lambda: ours(Pass, 0, items),
            "ours": lambda: ours(Pass, PASSES, items),
        },
        runs=1 if quick else RUNS,
    )
    gst_us = (cpu_s["gst"] - cpu_s["gst none"]) * 1e6 / items / PASSES
    ours_us = (cpu_s["ours"] - cpu_s["ours none"]) * 1e6 / items / PASSES
    tell([("GStreamer queue", gst_us), ("flowstream edge", ours_us)], "us a hop")
    tell_ratio("hop", ours_us / gst_us)


if __name__ == "__main__":
    main()
