"""Messages between a viewer's page and the server."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto import viewer_channel as wire
from flowstream.proto.viewer_channel import (
    LONGEST,
    MOST_A_SECOND,
    MOST_AT_ONCE,
    MOST_REFUSED,
    Captured,
    Choose,
    MessageRefused,
    Patience,
    Ping,
    Standing,
    parse_message,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"type": "ping", "id": 0}', Ping(0)),
        ('{"type": "ping", "id": 9, "of a later version": [1]}', Ping(9)),
        ('{"type": "quality", "choose": "high"}', Choose("high")),
        ('{"type": "quality", "choose": "auto", "id": 3}', Choose("auto", 3)),
    ],
)
def test_what_a_viewer_says(text: str, said: Ping | Choose) -> None:
    assert parse_message(text) == said


@pytest.mark.parametrize(
    ("text", "reason", "id"),
    [
        ("", "a message is a JSON object", None),
        ("[]", "a message is a JSON object", None),
        ("[" * LONGEST, "a message is a JSON object", None),
        ("x" * (LONGEST + 1), "a message has at most 1024 characters", None),
        (b"{}", "messages are text", None),
        ("{}", "'type' is ping or quality", None),
        ('{"type": "sing", "id": 4}', "'type' is ping or quality", 4),
        ('{"type": ["ping"]}', "'type' is ping or quality", None),
        ('{"type": "ping"}', "a ping has an 'id'", None),
        ('{"type": "ping", "id": true}', "'id' is a whole number from 0 to 9007199254740992", None),
        ('{"type": "ping", "id": -1}', "'id' is a whole number from 0 to 9007199254740992", None),
        ('{"type": "quality", "id": 5}', "'choose' is the name of a quality, or auto", 5),
        ('{"type": "quality", "choose": ""}', "'choose' is the name of a quality, or auto", None),
    ],
)
def test_what_makes_no_sense_is_told_why(text: str | bytes, reason: str, id: int | None) -> None:
    with pytest.raises(MessageRefused) as caught:
        parse_message(text)
    assert (str(caught.value), caught.value.id) == (reason, id)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(st.text(max_size=100) | st.dictionaries(st.sampled_from(["type", "id", "choose"]), JSON).map(json.dumps))
def test_whatever_comes_is_understood_or_refused(text: str) -> None:
    with suppress(MessageRefused):
        assert isinstance(parse_message(text), Ping | Choose)


def test_only_so_many_are_listened_to() -> None:
    patience, now_ns = Patience(), 5_000_000_000
    assert sum(patience.listens(now_ns=now_ns) for _ in range(MOST_AT_ONCE + 10)) == MOST_AT_ONCE
    assert patience.refused == 10
    heard = sum(patience.listens(now_ns=now_ns + each * 10_000_000) for each in range(1, 201))  # for 2 s
    assert heard == pytest.approx(2 * MOST_A_SECOND, abs=1)
    assert patience.is_over
    assert not Patience().is_over


def test_it_is_over_after_so_many() -> None:
    patience = Patience()
    for _ in range(MOST_REFUSED - 1):
        patience.refuse()
    assert not patience.is_over
    patience.refuse()
    assert patience.is_over


def test_what_the_server_says() -> None:
    assert json.loads(wire.hello(interval_ms=1000)) == {"type": "hello", "version": 1, "interval_ms": 1000}
    assert json.loads(wire.pong(3, received_ns=1_500_000_000, sent_ns=1_500_010_000)) == {
        "type": "pong", "id": 3, "received_ms": 1500.0, "sent_ms": 1500.01
    }  # fmt: skip
    assert json.loads(wire.quality({"chosen": "auto"}, 4)) == {"type": "quality", "id": 4, "chosen": "auto"}
    assert json.loads(wire.refusal("no \ud800")) == {"type": "error", "text": "no \ud800"}
    known = Standing(2_500_000, 5_000_000, "high", 0.012345, 12.3456, 1, 2, Captured(90_000, 1_764_000_000_123_456_789))
    assert json.loads(wire.stats(known)) == {
        "type": "stats", "bitrate": 2_500_000, "estimate": 5_000_000, "rung": "high", "loss": 0.0123, "rtt_ms": 12.35,
        "frames_dropped": 1, "records_dropped": 2, "capture": {"rtp": 90_000, "captured_ms": 1_764_000_000_123.45},
    }  # fmt: skip
    unknown = json.loads(wire.stats(Standing(0, None, None, None, None, 0, 0, None)))
    assert [key for key, value in unknown.items() if value is None] == ["estimate", "rung", "loss", "rtt_ms", "capture"]


def test_a_record_says_where_and_when_it_is_from() -> None:
    text = wire.record("encode", "Stats", 7, {"fps": 30}, at_ns=1_000_000_000, captured_ns=990_000_000)
    assert json.loads(text) == {
        "node": "encode", "type": "Stats", "number": 7, "time_ms": 1000.0, "captured_ms": 990.0, "value": {"fps": 30}
    }  # fmt: skip
    assert text.isascii()
    with pytest.raises(ValueError, match="JSON"):
        wire.record("encode", "Stats", 7, float("nan"), at_ns=0, captured_ns=None)
