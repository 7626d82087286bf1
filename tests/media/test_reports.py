"""ViewerReports: what an output tells a controller of its viewers."""

from typing import Any

import pytest

from flowstream import ContentStats, Record, Size, ViewerReport, ViewerReports


def test_they_are_values() -> None:
    one = ViewerReport("anna", bandwidth_bps=2_000_000, loss=0.01, rtt_ms=40.0, rung="ladder/low", size=Size(640, 360))
    reports = Record(ViewerReports("out", (one, ViewerReport("ben"))), 5)
    assert reports.value.of[0] == one
    assert reports.value.of[1].bandwidth_bps is None
    assert ContentStats("text") == ContentStats(kind="text")
    with pytest.raises(AttributeError):
        one.loss = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bandwidth_bps": 0}, "bandwidth_bps of a viewer is at least 1 bit per second, not 0"),
        ({"cap_bps": -1}, "cap_bps of a viewer is at least 1 bit per second, not -1"),
        ({"loss": 1.1}, "loss of a viewer is a share from 0 to 1, not 1.1"),
        ({"loss": float("nan")}, "loss of a viewer is a share from 0 to 1, not nan"),
        ({"rtt_ms": -1.0}, "rtt_ms of a viewer is at least 0 milliseconds, not -1.0"),
        ({"queue_delay_ms": float("nan")}, "queue_delay_ms of a viewer is at least 0 milliseconds, not nan"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ViewerReport("anna", **wrong)
