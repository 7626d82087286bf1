"""Quantities: what a person writes, what it means, and what is said when it could mean two things."""

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flowstream import (
    AspectRatio,
    Bitrate,
    ByteSize,
    Config,
    Duration,
    Percentage,
    PictureSize,
    Size,
    field,
    format_aspect,
    format_bitrate,
    format_bytes,
    format_duration,
    format_percentage,
)
from flowstream.node.quantities import (
    parse_aspect,
    parse_bitrate,
    parse_bytes,
    parse_duration,
    parse_percentage,
    parse_size,
)


class Quantities(Config):
    bitrate: Bitrate = field(default=1_000_000, description="How much.")
    wait: Duration = field(default=0, description="How long.")
    room: ByteSize = field(default=0, description="How large.")
    size: PictureSize = field(default=Size(640, 360), description="How wide and high.")
    share: Percentage = field(default=1.0, description="How much of it.")
    aspect: AspectRatio = field(default=Fraction(16, 9), description="What shape.")


WRITTEN = {"bitrate": "1M", "wait": "0s", "room": "0B", "size": "640x360", "share": "100%", "aspect": "16:9"}


def refusal(name: str, value: Any, *, file: bool = True) -> str:
    with pytest.raises(ValidationError) as caught:
        Quantities.model_validate({**(WRITTEN if file else {}), name: value}, context={"file": file})
    (error,) = caught.value.errors()
    assert error["loc"] == (name,)
    return error["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("text", "bps"),
    [("2.5M", 2_500_000), ("300k", 300_000), ("300K", 300_000), ("1G", 10**9), ("2500kbit/s", 2_500_000),
     ("2.5 Mbps", 2_500_000), ("64kb", 64_000), ("9600bit/s", 9600), ("0.0015M", 1500)],
)  # fmt: skip
def test_bitrates(text: str, bps: int) -> None:
    assert parse_bitrate(text) == bps
    assert Quantities.model_validate({**WRITTEN, "bitrate": text}, context={"file": True}).bitrate == bps


@pytest.mark.parametrize(
    ("text", "ns"),
    [("4s", 4 * 10**9), ("250ms", 250_000_000), ("1.5m", 90 * 10**9), ("10 min", 600 * 10**9), ("2h", 7200 * 10**9),
     ("5us", 5000), ("7ns", 7), ("0s", 0)],
)  # fmt: skip
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "count"),
    [("64KiB", 65_536), ("50GB", 50 * 10**9), ("1kB", 1000), ("1KB", 1000), ("2MiB", 2 << 20), ("10B", 10),
     ("1.5MB", 1_500_000)],
)  # fmt: skip
def test_byte_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "size"),
    [("1280x720", (1280, 720)), ("720p", (1280, 720)), ("640 x 360", (640, 360)), ("4k", (3840, 2160))],
)  # fmt: skip
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "share"), [("50%", 0.5), ("12.5%", 0.125), ("0%", 0.0), ("100 %", 1.0), ("250%", 2.5), ("0.1%", 0.001)]
)
def test_percentages(text: str, share: float) -> None:
    assert parse_percentage(text) == share
    assert Quantities.model_validate({**WRITTEN, "share": text}, context={"file": True}).share == share


@pytest.mark.parametrize(
    ("text", "aspect"),
    [("16:9", Fraction(16, 9)), ("4:3", Fraction(4, 3)), ("2.39:1", Fraction(239, 100)), ("32 : 18", Fraction(16, 9)),
     ("9:16", Fraction(9, 16)), ("100:1", Fraction(100)), ("1.5:0.5", Fraction(3))],
)  # fmt: skip
def test_aspect_ratios(text: str, aspect: Fraction) -> None:
    assert parse_aspect(text) == aspect
    assert Quantities.model_validate({**WRITTEN, "aspect": text}, context={"file": True}).aspect == aspect


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bitrate", 2500, "2500 has no unit: write 2500k or 2500M, whichever is meant"),
        ("bitrate", "2500", "'2500' is no bitrate; write it with k or M, such as 2.5M or 300k (bits per second)"),
        ("bitrate", "2.5MB",
         "'2.5MB' counts bytes; a bitrate counts bits: write 20M for that many bytes a second, "
         "or 2.5M for bits"),
        ("bitrate", "fast", "'fast' is no bitrate; write 2.5M or 300k (bits per second)"),
        ("bitrate", "1.5", "'1.5' is no bitrate; write it with k or M, such as 2.5M or 300k (bits per second)"),
        ("bitrate", True, "True is no bitrate; write 2.5M or 300k"),
        ("bitrate", "-1M", "'-1M' is no bitrate; write 2.5M or 300k (bits per second)"),
        ("wait", 250, "250 has no unit: write 250s or 250ms, whichever is meant"),
        ("wait", 0.5, "0.5 has no unit: write 0.5s or 0.5ms, whichever is meant"),
        ("wait", "4", "'4' is no duration; write it with ms, s, m (minutes) or h, such as 250ms"),
        ("wait", "4d", "'4d' is no duration; write it with ms, s, m (minutes) or h, such as 250ms"),
        ("wait", "0.5ns", "'0.5ns' is not a whole number of nanoseconds"),
        ("room", 64, "64 has no unit: write 64kB or 64MB, whichever is meant"),
        ("size", "big", "'big' is no picture size; write it as 1280x720 or 720p"),
        ("size", 720, "720 is no picture size; write it as 1280x720 or 720p"),
        ("size", "8x8", "'8x8' is out of range; each side takes 16 to 16384 pixels"),
        ("share", 0.5, "0.5 has no unit: write 0.5% or 50%, whichever is meant"),
        ("share", 1, "1 has no unit: write 1% or 100%, whichever is meant"),
        ("share", 50, "50 has no unit: write 50%"),
        ("share", "50", "'50' is no percentage; write 50% or 12.5%"),
        ("share", "-5%", "'-5%' is no percentage; write 50% or 12.5%"),
        ("share", "half", "'half' is no percentage; write 50% or 12.5%"),
        ("share", True, "True is no percentage; write 50% or 12.5%"),
        ("aspect", 1.78, "1.78 has one side: write 1.78:1 or 1:1.78, whichever is meant"),
        ("aspect", "16/9", "'16/9' is no aspect ratio; write 16:9 or 2.39:1"),
        ("aspect", "1280x720", "'1280x720' is no aspect ratio; write 16:9 or 2.39:1"),
        ("aspect", "16:0", "'16:0' is out of range; an aspect ratio is from 1:100 to 100:1"),
        ("aspect", "0:0", "'0:0' is out of range; an aspect ratio is from 1:100 to 100:1"),
        ("aspect", "101:1", "'101:1' is out of range; an aspect ratio is from 1:100 to 100:1"),
        ("aspect", True, "True is no aspect ratio from 1:100 to 100:1; write 16:9 or 2.39:1"),
    ],
)  # fmt: skip
def test_refusals_say_what_could_be_meant(name: str, value: Any, message: str) -> None:
    assert refusal(name, value) == message


@pytest.mark.parametrize("text", ["64", "64K", "64M", "many", "64KB/s"])
def test_byte_sizes_without_their_b_are_refused(text: str) -> None:
    assert text in refusal("room", text)


def test_from_python_an_integer_is_the_value() -> None:
    made = Quantities(bitrate=5, wait=7, room=9, size=Size(16, 16))
    assert (made.bitrate, made.wait, made.room, made.size) == (5, 7, 9, (16, 16))
    assert refusal("bitrate", 2.5, file=False) == "2.5 is no bitrate; write 2.5M or 300k"
    assert refusal("wait", -1, file=False) == "-1 is no duration; write 4s or 250ms"
    shaped = Quantities(share=0.25, aspect=Fraction(4, 3))
    assert (shaped.share, shaped.aspect) == (0.25, Fraction(4, 3))
    assert type(Quantities(share=2).share) is float
    for value in (-0.1, math.inf, math.nan):
        assert refusal("share", value, file=False) == f"{value!r} is no percentage; write 50% or 12.5%"
    for aspect in (Fraction(101), Fraction(0), Fraction(-1), 2):
        assert "is no aspect ratio from 1:100 to 100:1" in refusal("aspect", aspect, file=False)


def test_text_is_bounded() -> None:
    assert len(refusal("bitrate", "9" * 100_000 + "M")) < 200
    assert len(refusal("share", "9" * 100_000 + "%")) < 200
    assert len(refusal("aspect", "9" * 100_000 + ":9")) < 200


@given(st.integers(0, 10**13))
def test_bitrates_are_read_as_they_are_written(bps: int) -> None:
    assert parse_bitrate(format_bitrate(bps)) == bps


@given(st.integers(0, 10**17))
def test_durations_are_read_as_they_are_written(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@given(st.integers(0, 10**15))
def test_byte_sizes_are_read_as_they_are_written(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == count


@given(st.decimals(0, 10**6, places=12).map(float))
def test_percentages_are_read_as_they_are_written(share: float) -> None:
    assert parse_percentage(format_percentage(share)) == share


@given(st.fractions(Fraction(1, 100), 100, max_denominator=10**9))
def test_aspect_ratios_are_read_as_they_are_written(aspect: Fraction) -> None:
    assert parse_aspect(format_aspect(aspect)) == aspect


@pytest.mark.parametrize(
    ("written", "said"),
    [(format_bitrate(2_500_000), "2.5M"), (format_bitrate(300_000), "300k"), (format_bitrate(999), "0.999k"),
     (format_duration(250_000_000), "250ms"), (format_duration(90 * 10**9), "1.5m"), (format_duration(0), "0ns"),
     (format_bytes(65_536), "64KiB"), (format_bytes(50 * 10**9), "50GB"), (format_bytes(0), "0B"),
     (format_percentage(0.125), "12.5%"), (format_percentage(1), "100%"), (format_percentage(0), "0%"),
     (format_percentage(0.07), "7%"), (format_aspect(Fraction(16, 9)), "16:9"), (format_aspect(Fraction(1)), "1:1"),
     (format_aspect(Fraction(239, 100)), "2.39:1"), (format_aspect(Fraction(185, 100)), "1.85:1"),
     (format_aspect(Fraction(64, 27)), "64:27")],
)  # fmt: skip
def test_quantities_are_written_as_a_person_would(written: str, said: str) -> None:
    assert written == said


def test_json_is_what_a_graph_says() -> None:
    written = {"bitrate": "2.5M", "wait": "250ms", "room": "64KiB", "share": "12.5%", "aspect": "2.39:1"}
    made = Quantities.model_validate({**written, "size": "720p"})
    assert json.loads(made.model_dump_json()) == {**written, "size": "1280x720"}
    assert Quantities.model_validate_json(made.model_dump_json()) == made


def test_the_schema_names_the_units() -> None:
    properties = Quantities.model_json_schema()["properties"]
    assert {name: each["x-unit"] for name, each in properties.items()} == {
        "bitrate": "bits per second", "wait": "nanoseconds", "room": "bytes", "size": "pixels",
        "share": "share of one", "aspect": "width by height",
    }  # fmt: skip
