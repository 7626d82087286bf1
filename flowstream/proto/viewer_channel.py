"""What a viewer's page and the server say to each other over the data channel ``flowstream``, version 1.

The player opens the channel, ordered and reliable, before its offer. Every message is a JSON object in a text message,
and ``type`` says which. Whoever reads one leaves out the keys and the types that it does not know. Rates are in bits
per second, times that end in ``_ms`` in milliseconds of UTC by the server's clock, or spans of milliseconds.

The server says:

- ``hello``: the first message. ``version`` (1); ``interval_ms``, how often ``stats`` comes.
- ``stats``: how it stands with the viewer, each second while it may watch. ``bitrate``; ``estimate``, what its link is
  taken to carry; ``rung``, the rendition that goes out; ``loss``, a fraction; ``rtt_ms``; ``frames_dropped``, pictures
  that its link had no room for; ``records_dropped``. Unknown ones are null. ``capture`` is null or ``{"rtp": N,
  "captured_ms": T}``: the picture with the RTP timestamp N, at 90,000 a second modulo 2**32, was captured at T.
- ``quality``: an answer to ``quality``, and whenever something of it has changed: ``chosen``, ``rung``, ``why``,
  ``rungs`` with ``name``, ``size`` and ``bitrate`` of each.
- ``pong``: an answer to ``ping``: ``id``, ``received_ms`` and ``sent_ms``. With the times at which it was asked and
  answered that gives how far the server's clock is ahead.
- ``error``: something was not done. ``text`` says why, ``id`` of what where it had one.

The viewer says:

- ``ping``: ``id``, a number that comes back.
- ``quality``: ``choose``, the name of a rung or ``auto``; ``id`` comes back in the answer.

Records for viewers come over a channel of their own, ``flowstream-data``, which the server opens, ordered or not as the
node's settings say. Each is a JSON object in a text message: ``node``, the id of the node that gave it; ``type``, the
name of its value's class; ``number``, which counts the records of that node, so that a gap shows a loss; ``time_ms``,
its media time; ``captured_ms``, when its cause was captured, where that is known; ``value``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

VERSION: Final = 1
LABEL: Final = "flowstream"
DATA_LABEL: Final = "flowstream-data"

LONGEST: Final = 1024
"""Characters of the longest message from a viewer."""

MOST_A_SECOND: Final = 10.0
MOST_AT_ONCE: Final = 30
"""How many messages a viewer may send on average, and in a burst; what is more is not looked at."""

MOST_REFUSED: Final = 100
"""Messages of one viewer that were refused before its channel is closed."""

_LONGEST_NAME: Final = 200
_LARGEST: Final = 2**53
"""Beyond this a number of JSON is not exact in a browser."""


class MessageRefused(ValueError):  # noqa: N818 - an answer, not a failure
    """Raised for a message that makes no sense; the text says why. ``id`` is its id, if it had one."""

    def __init__(self, text: str, id: int | None = None) -> None:
        super().__init__(text)
        self.id: int | None = id


@dataclass(frozen=True, slots=True)
class Ping:
    """The viewer asks what time it is."""

    id: int


@dataclass(frozen=True, slots=True)
class Choose:
    """The viewer wants a rung, or ``auto``."""

    wanted: str
    id: int | None = None


def parse_message(text: str | bytes) -> Ping | Choose:
    """What a viewer says.

    Raises:
        MessageRefused: it is too long, no JSON object, or of no known type.
    """
    if len(text) > LONGEST:
        raise MessageRefused(f"a message has at most {LONGEST} characters")
    if isinstance(text, bytes):
        raise MessageRefused("messages are text")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageRefused("a message is a JSON object") from None
    if not isinstance(said, dict):
        raise MessageRefused("a message is a JSON object")
    number = said.get("id")
    if number is not None and (type(number) is not int or not 0 <= number <= _LARGEST):
        raise MessageRefused(f"'id' is a whole number from 0 to {_LARGEST}")
    match said.get("type"):
        case "ping":
            if number is None:
                raise MessageRefused("a ping has an 'id'")
            return Ping(number)
        case "quality":
            wanted = said.get("choose")
            if not isinstance(wanted, str) or not 0 < len(wanted) <= _LONGEST_NAME:
                raise MessageRefused("'choose' is the name of a quality, or auto", number)
            return Choose(wanted, number)
    raise MessageRefused("'type' is ping or quality", number)


class Patience:
    """How many messages of a viewer are listened to: a bucket, and a count of those that were refused."""

    def __init__(self) -> None:
        self.refused: int = 0
        self._left: float = MOST_AT_ONCE
        self._at_ns = 0

    def listens(self, *, now_ns: int) -> bool:
        """Whether there is time for one more message; else it counts as refused."""
        self._left = min(MOST_AT_ONCE, self._left + max(0, now_ns - self._at_ns) / 1e9 * MOST_A_SECOND)
        self._at_ns = now_ns
        if self._left < 1:
            self.refuse()
            return False
        self._left -= 1
        return True

    def refuse(self) -> None:
        """A message made no sense."""
        self.refused += 1

    @property
    def is_over(self) -> bool:
        """Whether the viewer has been listened to for long enough."""
        return self.refused >= MOST_REFUSED


@dataclass(frozen=True, slots=True)
class Captured:
    """The picture with an RTP timestamp was captured at a time: UTC in ns."""

    timestamp: int
    captured_ns: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with a viewer: rates in bits per second, the loss as a fraction, counts since it came."""

    bitrate_bps: int
    estimate_bps: int | None
    rung: str | None
    loss: float | None
    rtt_ms: float | None
    frames_dropped: int
    records_dropped: int
    captured: Captured | None


def hello(*, interval_ms: int) -> str:
    """The first message."""
    return _written("hello", version=VERSION, interval_ms=interval_ms)


def stats(standing: Standing) -> str:
    """How it stands with the viewer."""
    captured = standing.captured
    capture = None
    if captured is not None:
        capture = {"rtp": captured.timestamp, "captured_ms": captured.captured_ns // 10_000 / 100}
    return _written(
        "stats",
        bitrate=standing.bitrate_bps,
        estimate=standing.estimate_bps,
        rung=standing.rung,
        loss=None if standing.loss is None else round(standing.loss, 4),
        rtt_ms=None if standing.rtt_ms is None else round(standing.rtt_ms, 2),
        frames_dropped=standing.frames_dropped,
        records_dropped=standing.records_dropped,
        capture=capture,
    )


def quality(told: Mapping[str, object], id: int | None = None) -> str:
    """Which rung the viewer gets of those there are."""
    return _written("quality", **({} if id is None else {"id": id}), **told)


def pong(id: int, *, received_ns: int, sent_ns: int) -> str:
    """What time it is: UTC in ns."""
    return _written("pong", id=id, received_ms=received_ns // 10_000 / 100, sent_ms=sent_ns // 10_000 / 100)


def refusal(text: str, id: int | None = None) -> str:
    """Something was not done."""
    return _written("error", text=text, **({} if id is None else {"id": id}))


def _written(type: str, **more: Any) -> str:
    return json.dumps({"type": type, **more}, separators=(",", ":"))


def record(node: str, kind: str, number: int, value: Any, *, at_ns: int, captured_ns: int | None) -> str:
    """A record as viewers get it over ``flowstream-data``: ``at_ns`` and ``captured_ns`` are UTC in ns."""
    said: dict[str, Any] = {"node": node, "type": kind, "number": number, "time_ms": at_ns // 10_000 / 100}
    if captured_ns is not None:
        said["captured_ms"] = captured_ns // 10_000 / 100
    return json.dumps({**said, "value": value}, separators=(",", ":"), allow_nan=False)
