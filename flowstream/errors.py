"""What can go wrong, as types: each carries a stable code, the place it is about and a hint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; line and column count from 1, as editors show them."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Related:
    """A second place that a finding is about, with what is to be seen there; ``source`` is that line's text."""

    place: Place
    message: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about a graph: what, where, both sides, and the way out.

    ``severity`` is ``error``, ``warning`` or ``note``. ``length`` is how many columns the finding spans on its line,
    ``source`` that line's text.
    """

    code: str
    title: str
    message: str
    place: Place | None = None
    hint: str | None = None
    severity: str = "error"
    length: int = 1
    related: tuple[Related, ...] = field(default=())
    source: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.code} {self.title}\n  {self.message}{hint}"


class FlowstreamError(Exception):
    """Base of every error that flowstream raises on purpose; its text is fit for a user to read."""

    def __init__(self, message: str, *, hint: str | None = None, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class GraphError(FlowstreamError):
    """Raised when a graph cannot be run as written; ``diagnostics`` holds every finding, not only the first.

    ``files`` are the files that were read to find that out.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic], *, files: Iterable[str] = ()) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        self.files: tuple[str, ...] = tuple(files)
        super().__init__("\n".join(str(d) for d in self.diagnostics))


class PackError(FlowstreamError):
    """Raised when a node pack cannot be loaded; the text names the pack and the cause."""


class NegotiationError(FlowstreamError):
    """Raised when a payload's caps are not what the receiving port can take; names the field and both sides."""


class NodeError(FlowstreamError):
    """Raised by the runtime when a node failed; ``node`` is its id in the graph, ``__cause__`` what it raised."""

    def __init__(self, node: str, message: str, *, hint: str | None = None, place: Place | None = None) -> None:
        super().__init__(message, hint=hint, place=place)
        self.node = node


class EndedError(FlowstreamError):
    """Raised when a graph, or the node that is meant, has come to its end and takes or does nothing more."""


class PeerError(FlowstreamError):
    """Raised by a node when the other side misbehaved or left: a device unplugged, a server gone. Restartable."""


class ResourceBusy(PeerError):  # noqa: N818 - the field's word for it
    """Raised by a node when something it needs exclusively is held by somebody else."""
