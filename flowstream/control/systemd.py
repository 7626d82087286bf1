"""Telling a service manager how the run is: the messages of sd_notify(3), to whom ``$NOTIFY_SOCKET`` names."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

import anyio


class Notifier:
    """Says READY, RELOADING, STOPPING, STATUS and WATCHDOG; says nothing when nobody wants to know.

    A message that cannot be delivered is let go: the run does not depend on who watches it.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self.watchdog_seconds: float | None = None
        """How soon the next sign of life is due; None when none is awaited."""
        if address[:1] not in ("/", "@"):
            return
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        microseconds = environ.get("WATCHDOG_USEC", "")
        if (
            microseconds.isdecimal()
            and int(microseconds)
            and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        ):
            self.watchdog_seconds = int(microseconds) / 1e6

    @property
    def is_heard(self) -> bool:
        """Whether anybody wants to know."""
        return self._socket is not None

    def ready(self) -> None:
        """The graph runs."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The graph is being changed; ``ready`` says when that is over."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The run is ending."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """How it is, in a line."""
        self._send(f"STATUS={' '.join(text.split())[:500]}")

    async def keep_alive(self) -> None:
        """Gives a sign of life twice as often as is asked for, for as long as the event loop turns."""
        while self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")
            await anyio.sleep(self.watchdog_seconds / 2)

    def close(self) -> None:
        """Says no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
