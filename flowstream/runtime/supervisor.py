"""Whether a node that came to its end is started anew, and when."""

from __future__ import annotations

from collections.abc import Callable

from flowstream.errors import PeerError
from flowstream.graph.plan import Restart
from flowstream.proto.backoff import Backoff
from flowstream.runtime.runner import LeftBehindError


class Supervisor:
    """The restart policy of one node at work; None never restarts.

    ``chance`` gives numbers from 0 up to 1 and spreads the waits; without it they are exact.
    """

    def __init__(self, restart: Restart | None, chance: Callable[[], float] | None = None) -> None:
        self._chance = chance
        self.restarts = 0
        self.is_exit_expected = False  # while the node is being swapped for another: its end is no failure
        self._restart: Restart | None = None
        self._backoff: Backoff | None = None
        self.take(restart)

    def take(self, restart: Restart | None) -> None:
        """Takes another policy; the count of restarts goes on."""
        if restart != self._restart:
            self._restart = restart
            self._backoff = None
            if restart is not None:
                self._backoff = Backoff(
                    first_ns=restart.first_ns, max_ns=restart.max_ns, limit=restart.limit,
                    window_ns=restart.window_ns, chance=self._chance,
                )  # fmt: skip

    @property
    def restarts_on_end(self) -> bool:
        """Whether an end without failure is followed by a restart."""
        return self._restart is not None and self._restart.on == "end"

    def started(self, *, now_ns: int) -> None:
        """A restarted node is ready."""
        self.restarts += 1
        if self._backoff is not None:
            self._backoff.started(now_ns=now_ns)

    def failed(self, error: Exception, *, now_ns: int) -> int | None:
        """How long to wait before the restart, in nanoseconds; None for none."""
        if self._restart is None or self._backoff is None or isinstance(error, LeftBehindError):
            return None
        if self._restart.on == "peer" and not isinstance(error, PeerError):
            return None
        return self._backoff.failed(now_ns=now_ns)

    def ended(self, *, now_ns: int) -> int | None:
        """As ``failed``, for a node that ended by itself."""
        return self._backoff.failed(now_ns=now_ns) if self._backoff is not None else None
