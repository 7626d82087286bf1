"""EncoderStats: what an encoder tells a controller."""

from dataclasses import asdict
from typing import Any

import pytest

from flowstream import EncoderStats, Record, Size

MEASURED: dict[str, Any] = {
    "encoder": "ladder/low",
    "frames": 30,
    "encode_ms_mean": 4.5,
    "encode_ms_p95": 7.0,
    "frame_budget_ms": 33.3,
    "overload": False,
    "bitrate": 998_000,
    "size": Size(640, 360),
    "fps": 30.0,
    "cpu_share": 0.14,
}


def test_they_are_values() -> None:
    stats = EncoderStats(**MEASURED)
    assert asdict(stats) == {**MEASURED, "qp_mean": None, "ssim": None, "content": None}
    assert Record(stats, 5).value == EncoderStats(**MEASURED)
    with pytest.raises(AttributeError):
        stats.bitrate = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["frames", "encode_ms_mean", "encode_ms_p95", "bitrate", "fps", "cpu_share"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_what_cannot_be_measured_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} of an encoder is at least 0, not "):
        EncoderStats(**{**MEASURED, name: value})
