"""One value in the text of a graph file: changed or added at its place, and not a character of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


class EditError(ValueError):
    """Raised when a value cannot be put into a text; says why."""


@dataclass(slots=True)
class _Piece:
    """A value in a text: where it begins and ends, without what is behind it; ``inner`` is where its last part ends."""

    begin: int
    end: int
    inner: int
    is_map: bool = False
    is_flow: bool = False
    is_alias: bool = False
    entries: dict[str, _Piece] = field(default_factory=dict)
    first_key: int = -1  # column of the first key


def put(text: str, path: Sequence[str], write: Written) -> str:
    """The text with a value at the path of keys, which is added to the innermost map on the way that is there.

    ``write`` gives the value's text, for within braces or not. Raises EditError when the value stands where it cannot
    be edited without changing something else.
    """
    piece = _root(text)
    for depth, step in enumerate(path):
        if piece.is_alias:
            raise EditError(f"{'.'.join(path[:depth]) or 'the file'} stands there by an alias")
        if not piece.is_map:
            raise EditError(f"{'.'.join(path[:depth])} is no map there")
        inner = piece.entries.get(step)
        if inner is None:
            return _added(text, piece, path[depth:], write)
        is_within_braces = piece.is_flow
        piece = inner
    if piece.is_alias:
        raise EditError(f"{'.'.join(path)} stands there by an alias")
    if piece.begin == piece.end:
        raise EditError(f"{'.'.join(path)} is empty there")
    kept = text[piece.begin : piece.end]
    tail = kept[len(kept.rstrip("\r\n")) :]  # block text ends with its line
    return text[: piece.begin] + write(is_within_braces) + tail + text[piece.end :]


class Written:
    """Says how a value is written."""

    def __init__(self, plain: str, within_braces: str) -> None:
        self._plain = plain
        self._within_braces = within_braces

    def __call__(self, is_within_braces: bool) -> str:
        return self._within_braces if is_within_braces else self._plain


def _added(text: str, piece: _Piece, path: Sequence[str], write: Written) -> str:
    key, *rest = path
    if piece.is_flow:
        said = f"{key}: {_braced(rest, write)}"
        if not piece.entries:
            return f"{text[: piece.begin + 1]}{said}{text[piece.begin + 1 :]}"
        between = text[piece.inner : piece.end - 1]
        if between.lstrip().startswith(","):  # the last one has a comma behind it
            at = piece.inner + between.index(",") + 1
            return f"{text[:at]} {said}{text[at:]}"
        return f"{text[: piece.inner]}, {said}{text[piece.inner :]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f"{' ' * piece.first_key}{key}: {_braced(rest, write) if rest else write(False)}"
    end = text.find("\n", max(0, piece.inner - 1))  # block text ends behind its line
    if end < 0:
        return f"{text}{newline}{line}{newline}"
    return f"{text[: end + 1]}{line}{newline}{text[end + 1 :]}"


def _braced(path: Sequence[str], write: Written) -> str:
    return write(True) if not path else "{" + f"{path[0]}: {_braced(path[1:], write)}" + "}"


def _root(text: str) -> _Piece:
    from ruamel.yaml import YAML
    from ruamel.yaml import events as ev

    events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)
    try:
        for event in events:
            if isinstance(event, ev.NodeEvent):
                return _piece(event, events)
    except Exception as error:  # the parser has no common base for what it raises on odd input
        raise EditError("the file cannot be read as YAML") from error
    raise EditError("the file is empty")


def _piece(event: Any, events: Iterator[Any]) -> _Piece:
    from ruamel.yaml import events as ev

    begin, end = event.start_mark.index, event.end_mark.index
    piece = _Piece(begin, end, end, is_alias=isinstance(event, ev.AliasEvent))
    if isinstance(event, ev.MappingStartEvent):
        piece.is_map = True
        while not isinstance(closing := next(events), ev.MappingEndEvent):
            if piece.first_key < 0:
                piece.first_key = closing.start_mark.column
            key = closing
            _piece(key, events)
            value = _piece(next(events), events)
            piece.inner = value.end
            if isinstance(key, ev.ScalarEvent):
                piece.entries.setdefault(str(key.value), value)
    elif isinstance(event, ev.SequenceStartEvent):
        while not isinstance(closing := next(events), ev.SequenceEndEvent):
            piece.inner = _piece(closing, events).end
    else:
        return piece
    piece.is_flow = bool(event.flow_style)
    piece.end = closing.end_mark.index if piece.is_flow else piece.inner
    return piece
