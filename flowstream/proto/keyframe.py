"""Asking for keyframes on behalf of many: one request upstream for all who want one at about the same time."""

from typing import Final

SPACING_NS: Final = 300_000_000
"""Requests are at least this far apart, so that a lossy viewer cannot make the encoder spend all on keyframes."""

PATIENCE_NS: Final = 1_000_000_000
"""An unanswered request is repeated after this."""


class KeyframeRequests:
    """Decides when to ask upstream for a keyframe.

    Many may call `want`; `poll` says when to ask. One request is outstanding at a time, until a keyframe comes.
    """

    def __init__(self, *, spacing_ns: int = SPACING_NS, patience_ns: int = PATIENCE_NS) -> None:
        self._spacing_ns = spacing_ns
        self._patience_ns = patience_ns
        self._is_wanted = False
        self._is_outstanding = False
        self._asked_ns: int | None = None

    @property
    def deadline_ns(self) -> int | None:
        """When `poll` will ask; None while nobody wants a keyframe; may have passed."""
        if not self._is_wanted:
            return None
        if self._asked_ns is None:
            return 0
        return self._asked_ns + (self._patience_ns if self._is_outstanding else self._spacing_ns)

    def want(self) -> None:
        """Somebody cannot go on without a keyframe."""
        self._is_wanted = True

    def arrived(self) -> None:
        """A keyframe came: everybody has what they wanted."""
        self._is_wanted = self._is_outstanding = False

    def poll(self, *, now_ns: int) -> bool:
        """Whether to ask upstream right now; asking is then taken as done."""
        deadline_ns = self.deadline_ns
        if deadline_ns is None or now_ns < deadline_ns:
            return False
        self._asked_ns = now_ns
        self._is_outstanding = True
        return True
