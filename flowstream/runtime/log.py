"""Log records as lines, for people or machines: repetitions counted, secrets shown as the graph file writes them."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

REPEAT_SECONDS = 1.0
MIN_SECRET = 4
"""Shorter values are not looked for: they are no secrets, and stand in any text."""

Level = str


class Secrets:
    """What must not be shown, with what is shown in its place. Any thread."""

    def __init__(self) -> None:
        self._shown: tuple[tuple[str, str], ...] = ()

    def update(self, values: Mapping[str, str]) -> None:
        """Takes environment variables by name whose values are secret, those of before included."""
        known = dict(self._shown)
        known.update({value: f"$(env:{name})" for name, value in values.items() if len(value) >= MIN_SECRET})
        self._shown = tuple(sorted(known.items(), key=lambda pair: -len(pair[0])))

    def scrub(self, text: str) -> str:
        """The text with every secret replaced."""
        for value, shown in self._shown:
            if value in text:
                text = text.replace(value, shown)
        return text

    def scrubbed(self, value: Any) -> Any:
        """JSON values with every secret in their texts replaced."""
        if isinstance(value, str):
            return self.scrub(value)
        if isinstance(value, Mapping):
            return {key: self.scrubbed(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrubbed(item) for item in value]
        return value


class Repeats(logging.Filter):
    """Lets one record per second of each kind through; says how many more there were. Any thread.

    Of a kind are records of one logger, level, node and format, whatever their arguments.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int, Any, Any], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, getattr(record, "node", None), record.msg)
        now = self._clock()
        with self._lock:
            at, held = self._last.get(key, (now - REPEAT_SECONDS, 0))
            if now - at < REPEAT_SECONDS:
                self._last[key] = at, held + 1
                return False
            if len(self._last) > 256:
                self._last = {k: v for k, v in self._last.items() if now - v[0] < REPEAT_SECONDS}
            self._last[key] = now, 0
        if held:
            record.repeated = held
        return True


def split(record: logging.LogRecord) -> tuple[str | None, str]:
    """The node that a record is about, if any, and its message without the node's name."""
    node = getattr(record, "node", None)
    message = record.getMessage()
    if node is not None:
        message = message.removeprefix(f"{node}: ")
    elif not record.name.startswith("flowstream"):
        message = f"{record.name}: {message}"
    if repeated := getattr(record, "repeated", 0):
        message = f"{message} (and {repeated} more like it)"
    return node, message


class TextLines(logging.Formatter):
    """``12:03:07 encode: message``; warnings and errors say so; tracebacks follow on lines of their own."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        node, message = split(record)
        if node is not None:
            message = f"{node}: {message}"
        text = text_line(message, at=record.created, level=record.levelname.lower())
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return self._secrets.scrub(text)


class JsonLines(logging.Formatter):
    """One JSON object per record; see ``json_line``."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        node, message = split(record)
        more: dict[str, Any] = {}
        if record.exc_info and record.exc_info[0] is not None:
            more["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        level = record.levelname.lower()
        return json_line("log", message, at=record.created, level=level, node=node, secrets=self._secrets, **more)


def text_line(message: str, *, at: float, level: Level = "info") -> str:
    """A line for people; ``at`` is UTC in seconds since 1970 and shown as the time of day here."""
    clock = datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")
    return f"{clock} {message}" if level in ("info", "debug") else f"{clock} {level}: {message}"


def json_line(
    event: str,
    message: str,
    *,
    at: float,
    secrets: Secrets,
    level: Level = "info",
    node: str | None = None,
    **more: Any,
) -> str:
    """A line for machines: ``time`` (UTC), ``level``, ``event``, ``message``, ``node`` if it is about one, and more."""
    record: dict[str, Any] = {
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "event": event,
        "message": message,
    }
    if node is not None:
        record["node"] = node
    return json.dumps(secrets.scrubbed({**record, **more}), ensure_ascii=False, default=str)
