"""What happens to a run, as JSON: kept for a while, and followed by clients over server-sent events."""

from __future__ import annotations

import json
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import anyio
import anyio.lowlevel

from flowstream.errors import Diagnostic, FlowstreamError
from flowstream.graph.described import patch_to_json
from flowstream.graph.diagnostics import to_json as findings_to_json
from flowstream.graph.patch import Patch
from flowstream.runtime.events import Event
from flowstream.runtime.log import Secrets

MAX_EVENTS = 1000
MAX_BYTES = 4 * 1024 * 1024
"""How much is kept for clients that come back; older events are forgotten."""

HEARTBEAT_SECONDS = 15.0
STALL_SECONDS = 30.0
"""How long a client may take none of what it is sent before it is cut off."""

CLIENTS = 16
"""How many clients may follow at a time."""

RETRY_MS = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it is sent. ``number`` counts up in a run."""

    number: int
    name: str
    data: str


class EventLog:
    """The last events of a run, and whoever follows them. For the event loop.

    Nothing is queued for a client: each reads on where it is, so that a slow one costs no memory; what is forgotten
    before it came to it is counted in an event ``lost``.
    """

    def __init__(self, secrets_: Secrets, wallclock_ns: Callable[[], int]) -> None:
        self.run = secrets.token_hex(4)
        self.clients = 0
        self._secrets = secrets_
        self._wallclock_ns = wallclock_ns
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._next = 1
        self._changed = anyio.Event()

    def add(self, name: str, /, **data: Any) -> None:
        """Tells everybody."""
        from flowstream.control.state import utc_text

        told = self._secrets.scrubbed({"event": name, "time": utc_text(self._wallclock_ns()), **data})
        entry = Entry(self._next, name, json.dumps(told, ensure_ascii=False, default=str))
        self._next += 1
        self._entries.append(entry)
        self._bytes += len(entry.data)
        while len(self._entries) > MAX_EVENTS or (self._bytes > MAX_BYTES and len(self._entries) > 1):
            self._bytes -= len(self._entries.popleft().data)
        self._changed.set()
        self._changed = anyio.Event()

    def hear(self, event: Event) -> None:
        """Tells everybody what happened to the graph."""
        self.add(name_of(event), **values_of(event))

    def after(self, number: int) -> tuple[int, list[Entry]]:
        """How many events after the given one are forgotten, and those that are not."""
        first = self._entries[0].number if self._entries else self._next
        return max(0, first - number - 1), [each for each in self._entries if each.number > number]

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before there is one."""
        return self._next - 1

    def resumed(self, last_event_id: str | None) -> int:
        """The number after which a client reads on that says what it had last: 0 when that was another run's."""
        if last_event_id is None:
            return self.last
        run, _, number = last_event_id.partition("-")
        if run != self.run or not re.fullmatch(r"\d{1,15}", number, re.ASCII):
            return 0
        return min(int(number), self.last)

    async def follow(self, number: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends what comes after an event, for ever. Raises TimeoutError when ``send`` takes nothing any more."""

        async def tell(text: str) -> None:
            with anyio.fail_after(STALL_SECONDS):
                await send(text.encode())
            # Who reads many at once holds up nobody, and that a client has left is heard before the next one.
            await anyio.lowlevel.checkpoint()

        await tell(f"retry: {RETRY_MS}\n\n")
        while True:
            changed = self._changed
            lost, entries = self.after(number)
            if lost:
                await tell(f'event: lost\ndata: {{"event": "lost", "count": {lost}}}\n\n')
            for entry in entries:
                await tell(f"id: {self.run}-{entry.number}\nevent: {entry.name}\ndata: {entry.data}\n\n")
                number = entry.number
            if entries:
                continue  # more may have come while these were sent
            with anyio.move_on_after(HEARTBEAT_SECONDS) as scope:
                await changed.wait()
            if scope.cancelled_caught:
                await tell(": still here\n\n")


def name_of(event: Event) -> str:
    """``node-failed`` for NodeFailed."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(event).__name__).lower()


def values_of(event: Event) -> dict[str, Any]:
    """An event's fields as JSON values; times in nanoseconds stay what they are."""
    found: dict[str, Any] = {}
    for key, value in _fields(event):
        if isinstance(value, Patch):
            found.update(patch_to_json(value))
        elif key == "diagnostics":
            found.update(findings_to_json(value))
        else:
            found[key] = _json(value)
    return found


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    for each in fields(value):
        yield each.name, getattr(value, each.name)


def _json(value: Any) -> Any:
    if isinstance(value, FlowstreamError):
        return {"message": value.message, "hint": value.hint, "place": str(value.place) if value.place else None}
    if isinstance(value, Diagnostic):
        return findings_to_json([value])["diagnostics"][0]
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _json(each) for key, each in _fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
