"""What there is to say of those who watch: values between a node that shows something, and whoever owns the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from flowstream.errors import FlowstreamError
from flowstream.proto.admission import Approval
from flowstream.proto.allocator import Reason

MOST_NAME = 40
"""How many characters of a viewer's name are kept."""

ViewerState = Literal["connecting", "waiting", "watching", "paused", "gone", "rejected"]
"""``connecting`` has a place and no connection yet, ``gone`` may come back, ``rejected`` may not."""


class ViewerError(FlowstreamError):
    """Raised when a viewer cannot be treated as was asked, or there is no such viewer."""


class TokenError(Exception):
    """Raised for a token that is none, has ended, or is for something else; says which in words."""


class TokenRevoked(TokenError):  # noqa: N818 - what became of it
    """Raised for a token that the owner took back."""


class DoorClosed(Exception):  # noqa: N818 - an answer, not a failure
    """Raised when somebody is not let in. ``kind`` says why, ``retry_s`` when it may try again, if it may."""

    def __init__(self, kind: str, message: str, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.kind: str = kind
        self.retry_s: int | None = retry_s


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says: who may watch which nodes (None: all), until ``ends_ns`` (UTC in nanoseconds).

    An invitation is for whoever has it, and may carry a name. A pass is a ``viewer``'s, by which it is known when it
    comes back: ``is_admitted`` when it may watch, ``invitation`` that by which it came and ``until_ns`` its end.
    """

    id: str
    ends_ns: int
    nodes: tuple[str, ...] | None = None
    name: str | None = None
    viewer: str | None = None
    is_admitted: bool = False
    invitation: str | None = None
    until_ns: int | None = None


class Tokens(Protocol):
    """Makes tokens and reads them."""

    def issue(self, grant: Grant) -> str:
        """A token that says so."""
        ...

    def read(self, text: str) -> Grant:
        """What a token says. Raises TokenError for one that does not count."""
        ...

    def revoke(self, id: str) -> None:
        """A token does not count any more, nor the passes of those who came by it, also after a restart."""

    def restore(self, id: str) -> None:
        """A token that was revoked counts again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a viewer may be shown: the stream's picture, a black one in its place, or none; and the sound."""

    picture: Literal["live", "black", "none"]
    sound: bool
    cap_bps: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """What keeps a viewer from a better picture, or from any.

    ``by`` says what: the ``uplink`` that ``sharing`` viewers share, its own ``link``, its ``cap``, its ``choice`` and
    so on. ``rate_bps`` is what that is, in bits per second, where it is a rate: the link's is an estimate, for the
    picture alone. ``above`` is the rung that it would get next, which needs ``above_bps``.
    """

    by: Reason
    rate_bps: int | None = None
    sharing: int = 1
    above: str | None = None
    above_bps: int | None = None


@dataclass(frozen=True, slots=True)
class LinkStats:
    """What a session knows of its link: the loss as a fraction; bytes of media sent so far; None what it does not.

    ``limit`` is None for a viewer who has the best there is.
    """

    sent_bytes: int = 0
    loss: float | None = None
    rtt_ms: float | None = None
    quality: str | None = None
    rung: str | None = None
    limit: Limit | None = None


class Sitting(Protocol):
    """A viewer's session, as the registry sees it."""

    def show(self, shown: Shown) -> None:
        """From now on this is what it may send."""

    def close(self, reason: str) -> None:
        """Ends it."""

    def stats(self) -> LinkStats:
        """What it knows of its link."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody at the door: the address that its request came from, the token that it showed, if any.

    ``vouched`` is what the program around says of it: None when it was not asked, else its name, which may be empty.
    ``name`` is what it calls itself.
    """

    address: str = ""
    token: str | None = None
    vouched: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Viewer:
    """A viewer as it stands. What is not known is None.

    ``id`` is what commands call it. ``is_verified`` when the owner, or the program around, gave it the name; else it
    calls itself so. ``joined`` is UTC in nanoseconds. ``video`` and ``audio`` are what it may be shown. ``loss`` is the
    fraction of packets that were lost lately, ``quality`` what it chose, ``rung`` what it is given, and ``limit`` what
    keeps it from more. Where the uplink is short, a higher ``priority`` comes first.
    """

    node: str
    id: str
    name: str | None
    is_verified: bool
    address: str
    state: ViewerState
    joined_ns: int
    video: bool
    audio: bool
    cap_bps: int | None
    quality: str | None
    loss: float | None
    rtt_ms: float | None
    bitrate_bps: float | None
    rung: str | None
    priority: int = 0
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Limited:
    """A viewer for whom the uplink or its own link is too narrow, and since which now.

    ``called`` is what people call it: its name where it has one, else its id.
    """

    node: str
    called: str
    rung: str | None
    limit: Limit
    since_ns: int


@dataclass(frozen=True, slots=True)
class View:
    """An output as its viewers find it: who may come in, how many, and whether it is paused for all of them."""

    node: str
    approval: Approval
    most: int
    watching: int
    waiting: int
    is_paused: bool


def tidy_name(text: str) -> str | None:
    """What somebody calls itself, fit to be shown: one short line of what prints; None if there is none."""
    kept = "".join(each if each.isprintable() else " " for each in text[: 4 * MOST_NAME])
    return " ".join(kept.split())[:MOST_NAME].strip() or None
