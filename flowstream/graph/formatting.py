"""The usual form of a graph file: same meaning, same comments, one layout.

The text is read into a tree that holds every scalar as written and every comment at the entry it is about; the tree
is put in order and written anew. Before the result is given out it is read again and compared with what it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowstream.errors import FlowstreamError, GraphError, Place
from flowstream.graph.diagnostics import Findings
from flowstream.graph.load import List, Map, Scalar, Value, load

WIDTH = 120
"""Columns up to which a map or list in brackets stays on one line."""

_INDENT = 2
_MAX_KEY = 1000  # characters; YAML takes no more than 1,024 before the colon
_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")
_ANCHORS_AND_COMMENTS = re.compile(r"#[^\n]*|&[^\s,\[\]{}]+")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_BEFORE_CONTENT = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BEFORE_COLON = re.compile(r"(?:[ \t\n]+|#[^\n]*)*:?")
_HEADER = re.compile(r"([|>])([+-]?)(\d?)([+-]?)")


class FormattingError(FlowstreamError):
    """Raised for a graph file that is sound, but cannot be written in the usual form without damage."""


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """Which keys of a map stand where, and what is known about the maps beneath it."""

    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    inner: Mapping[str, _Order] = field(default_factory=dict)
    any: _Order | None = None
    """What holds for every entry that ``inner`` does not name, and for the items of a list."""

    def rank(self, key: str) -> int:
        """Where a key belongs; keys of the same rank keep the order they are written in."""
        if key in self.first:
            return self.first.index(key) - len(self.first)
        return self.last.index(key) + 1 if key in self.last else 0

    def beneath(self, key: str | None) -> _Order:
        """What holds for the value of a key, or for an item."""
        return (self.inner.get(key) if key is not None else None) or self.any or _AS_WRITTEN


_AS_WRITTEN = _Order()
_LIMIT = _Order(("items", "bytes", "time"))
_EDGE = _Order(("output", "overflow", "limit"), inner={"limit": _LIMIT})
_EDGES = _Order(_EDGE.first, inner=_EDGE.inner, any=_EDGE)
_RESTART = _Order(("on", "backoff", "limit"), inner={"backoff": _Order(("first", "max"))})
_NODE = _Order(
    ("type", "use", "label", "from", "inputs"),
    ("convert", "restart", "placement", "enabled", "was", "needs"),
    {"from": _EDGES, "inputs": _Order(any=_EDGES), "restart": _RESTART},
)
_GRAPH = _Order(
    ("flowstream", "vars", "include", "inputs", "outputs", "serve", "log", "placement", "nodes"),
    inner={"vars": _Order(any=_Order(("type", "default", "description"))), "nodes": _Order(any=_NODE)},
)


def formatted(file: str, content: bytes) -> str:
    """The usual form of a graph file's content.

    Keys that the graph language knows stand in their usual order, nodes and variables in the order they are written
    in. Scalars and comments stay as they are, and ``formatted`` of what it gave gives the same again.

    Raises GraphError when the content cannot be read as a graph file (mistakes in the graph itself do not matter),
    FormattingError when it can, but not be brought into the usual form.
    """
    findings = Findings()
    before = load(file, content, findings)
    if findings.diagnostics:
        raise GraphError(findings.sorted())
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    if (found := _OTHER_BREAKS.search(text)) is not None:
        raise FormattingError(
            f"U+{ord(found[0]):04X} ends a line for some programs and not for others",
            hint=f'write it as "\\u{ord(found[0]):04X}", in double quotes',
            place=_place(file, text, found.start()),
        )
    reader = _Reader(file, text)
    _settle(reader.root)
    result = _Writer().written(reader.root)
    if result != text:
        _check(file, before, reader, result)
    return result


def _place(file: str, text: str, position: int) -> Place:
    return Place(file, text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


# --- the tree -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Comment:
    """A comment; ``is_own_line`` when nothing stands before it. ``more`` are the lines that go on in its column."""

    text: str
    column: int
    is_own_line: bool
    has_blank: bool
    more: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Leaf:
    """A scalar or an alias as written, line by line; the lines after the first without their indentation."""

    lines: list[str]
    anchor: str | None = None
    is_block: bool = False
    text: str = ""
    """What it says, for keys."""


@dataclass(slots=True, eq=False)
class _Group:
    """A map or a list."""

    is_map: bool
    is_flow: bool
    anchor: str | None = None
    holders: list[_Holder] = field(default_factory=list)
    flat: str | None = None
    """What it is in brackets on one line; None where it cannot be."""


@dataclass(slots=True, eq=False)
class _Holder:
    """An entry of a map, an item of a list, or the whole file: a value with the comments that belong to it.

    ``above`` are those on lines of their own before it, ``inline`` those between or behind its parts, ``foot`` those
    on lines of their own at the end of its value.
    """

    parent: _Holder | None
    key: _Leaf | None = None
    is_item: bool = False
    value: _Leaf | _Group | None = None
    has_blank: bool = False
    above: list[_Comment] = field(default_factory=list)
    inline: list[_Comment] = field(default_factory=list)
    foot: list[_Comment] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return isinstance(self.value, _Leaf) and self.value.lines == [""]

    @property
    def anchor(self) -> str | None:
        return self.value.anchor if self.value else None

    @property
    def block(self) -> list[_Holder]:
        """What stands beneath it, line by line."""
        return self.value.holders if isinstance(self.value, _Group) and not self.value.is_flow else []


class _Reader:
    """Reads a text that is known to be sound."""

    def __init__(self, file: str, text: str) -> None:
        from ruamel.yaml import YAML

        self.file = file
        self.text = text
        self.comments: list[str] = []
        self.root = _Holder(None)
        self._events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)
        self._position = 0
        self._last: _Holder = self.root  # whose text was read last, and where it ended
        self._last_end = 0
        self._opened: list[_Holder] = []  # since then
        self._closed: list[tuple[_Holder, int]] = []  # since then, innermost first, each with the column of its block
        self._columns: list[int] = []  # of the blocks that are open
        self._flows = 0  # brackets that are open
        self._read()

    def _read(self) -> None:
        from ruamel.yaml import events as ev

        for event in self._events:
            if isinstance(event, ev.NodeEvent):
                self.root.value = self._value(event, self.root, -1)
        self._gap(len(self.text), self.root, self.root.foot)
        if self.root.is_empty and not self.root.anchor:  # nothing but the mark of a document
            self.root.value = None
            self.root.foot[:0] = [*self.root.above, *self.root.inline]
            self.root.above, self.root.inline = [], []

    def _value(self, event: Any, holder: _Holder, column: int) -> _Leaf | _Group:
        """Reads the value of an entry or item that stands in a block of this column."""
        from ruamel.yaml import events as ev

        if isinstance(event, ev.CollectionStartEvent):
            return self._group(event, holder, column)
        leaf = self._leaf(event, holder)
        if leaf.lines == [""] and not self._flows:
            self._closed.append((holder, column + 1))
        return leaf

    def _group(self, event: Any, holder: _Holder, column: int) -> _Group:
        from ruamel.yaml import events as ev

        end = event.end_mark.index
        is_map = isinstance(event, ev.MappingStartEvent)
        anchor = None if event.anchor is None else f"&{event.anchor}"
        group = _Group(is_map, bool(event.flow_style), anchor)
        if not group.is_flow:
            own = self._column_of(event, is_map)
            self._columns.append(own)
            self._children(group, holder, own)
            self._columns.pop()
            self._closed.append((holder, max(own, column + 1)))
        elif end > event.start_mark.index and self.text[end - 1] in "[{":
            self._gap(end - 1, holder)
            self._ended(holder, end)
            self._flows += 1
            end = self._children(group, holder, column).end_mark.index
            self._gap(end - 1, holder, holder.foot if group.holders else holder.inline)
            self._flows -= 1
            self._ended(holder, end)
        else:  # [key: value], a map of one entry without brackets of its own
            self._children(group, holder, column)
        return group

    def _column_of(self, event: Any, is_map: bool) -> int:
        """Where a block's entries begin; with an anchor its event begins at that."""
        end = event.end_mark
        if is_map:
            return int(end.column)
        if event.anchor is None:
            return int(event.start_mark.column)
        return int(end.column) - (self.text[end.index : end.index + 1] != "-")

    def _children(self, group: _Group, holder: _Holder, column: int) -> Any:
        """Reads entries or items; gives the event that ends them."""
        from ruamel.yaml import events as ev

        while not isinstance(event := next(self._events), ev.CollectionEndEvent):
            child = _Holder(holder, is_item=not group.is_map)
            group.holders.append(child)
            self._opened.append(child)
            if group.is_map:
                child.key = self._leaf(event, child)
                if len(child.key.lines) > 1 or child.key.is_block or len(child.key.lines[0]) > _MAX_KEY:
                    raise FormattingError(
                        "a key has one line of at most 1,000 characters in the usual form",
                        hint="write a shorter key",
                        place=Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1),
                    )
                event = next(self._events)
            child.value = self._value(event, child, column)
        return event

    def _leaf(self, event: Any, holder: _Holder) -> _Leaf:
        start, end = event.start_mark.index, event.end_mark.index
        if start == end and holder.key is not None:
            start = end = self._behind_colon()
        self._gap(start, holder)
        is_alias = not hasattr(event, "value")
        anchor = None
        if event.anchor is not None and not is_alias:
            anchor = f"&{event.anchor}"
            after = start + len(anchor)
            self._ended(holder, after)
            content = _BEFORE_CONTENT.match(self.text, after, end)
            start = content.end() if content else after
            self._gap(start, holder)
        source = self.text[start:end]
        style = "" if is_alias else event.style or ""
        if style and style in "|>":
            leaf = self._block_scalar(source, start, holder)
        else:
            lines = source.split("\n")
            lines[1:] = [line.lstrip(" \t") for line in lines[1:]]
            lines[:-1] = [_without_ending_space(line, style) for line in lines[:-1]]
            leaf = _Leaf(lines)
            self._ended(holder, end)
        leaf.anchor = anchor
        leaf.text = source if is_alias else event.value
        return leaf

    def _behind_colon(self) -> int:
        """Where the empty value of a key stands: behind the colon. The parser may put it where the next text begins."""
        before = _BEFORE_COLON.match(self.text, self._position)
        assert before is not None
        return before.end() if self.text[before.end() - 1 : before.end()] == ":" else self._position

    def _block_scalar(self, source: str, start: int, holder: _Holder) -> _Leaf:
        first, _, rest = source.partition("\n")
        header = _HEADER.match(first)
        assert header is not None
        style, chomping, digit = header[1], header[2] or header[4], header[3]
        self._ended(holder, start + header.end())
        self._gap(start + len(first), holder)
        *lines, unended = rest.split("\n")
        if digit:
            depth = int(digit) + (self._columns[-1] if self._columns else 0)
        else:
            depth = next((_depth(line) for line in (*lines, unended) if line.strip(" ")), 0)
        if unended.strip(" ") or (depth and len(unended) > depth):
            lines.append(unended)
            chomping = "-"  # the file ends without a line break, and so does this text
        content = [line[depth:] if depth or line.strip(" ") else "" for line in lines]
        if chomping == "+":
            self._ended(holder, start + len(source))
            self._last_end -= source.endswith("\n")
        else:
            while content and not content[-1]:
                content.pop()
            self._ended(holder, start + len("\n".join([first, *lines[: len(content)]])))
        return _Leaf([f"{style}{_INDENT if digit else ''}{chomping}", *content], is_block=True)

    def _ended(self, holder: _Holder, position: int) -> None:
        self._position = self._last_end = position
        self._last = holder

    def _gap(self, end: int, holder: _Holder, foot: list[_Comment] | None = None) -> None:
        """Gives the comments before ``end``, where text of ``holder`` begins, to those that they belong to.

        ``foot`` takes what stands on lines of its own, where not text but the end of the holder's value follows.
        """
        text, before = self.text, self._position
        previous: _Comment | None = None  # that the next line may go on with
        dashes = 0  # passed by
        has_begun = False  # with an anchor, or with a comment behind its dash
        for match in _ANCHORS_AND_COMMENTS.finditer(text, before, end):
            start = match.start()
            dashes += text.count("-", before, start)
            if match[0][0] == "&":
                if text.find("\n", self._last_end, start) >= 0:
                    has_begun = has_begun or self._blank(before, start, holder)
                before = match.end()
                continue
            line = text.rfind("\n", 0, start) + 1
            is_own = not text[line:start].strip(" \t")
            said = match[0].rstrip()
            self.comments.append(said)
            column = start - line
            if previous and is_own and column == previous.column and text.count("\n", before, start) == 1:
                previous.more.append(said)
            else:
                has_blank = is_own and _BLANK_LINE.search(text, before, start) is not None
                comment = _Comment(said, column, is_own, has_blank)
                is_behind = not is_own and text.find("\n", self._last_end, start) < 0
                previous = comment if is_behind else None
                if is_own:
                    self._own_line(comment, holder, foot, dashes)
                else:
                    has_begun = has_begun or (not is_behind and self._blank(before, start, holder))
                    self._inline(holder, is_behind).append(comment)
            before = match.end()
        if foot is None and not has_begun:
            self._blank(before, end, holder)
        self._opened.clear()
        self._closed.clear()
        self._position = end

    def _blank(self, start: int, end: int, holder: _Holder) -> bool:
        """Sees a blank line before what begins here; always true."""
        begins = self._opened[0] if self._opened else holder if holder is self.root else None
        if begins and _BLANK_LINE.search(self.text, start, end):
            begins.has_blank = True
        return True

    def _inline(self, holder: _Holder, is_behind: bool) -> list[_Comment]:
        """Who takes a comment that stands behind something on its line."""
        if is_behind or self._flows:
            return self._last.inline
        if not self._opened:
            return holder.inline
        first = self._opened[0]
        return first.inline if first.is_item or first.parent is None else first.parent.inline

    def _own_line(self, comment: _Comment, holder: _Holder, foot: list[_Comment] | None, dashes: int) -> None:
        while self._closed:
            closed, column = self._closed[0]
            if comment.column >= column:
                closed.foot.append(comment)
                return
            del self._closed[0]
        if foot is not None:
            foot.append(comment)
        elif self._opened:
            below = dashes if self._opened[0].is_item else 0
            self._opened[min(below, len(self._opened) - 1)].above.append(comment)
        elif holder is self.root:
            holder.above.append(comment)
        else:
            holder.inline.append(comment)


def _without_ending_space(line: str, style: str) -> str:
    """A line of a scalar that goes on in the next one; in double quotes an escaped space is text."""
    kept = line.rstrip(" \t")
    is_escaped = style == '"' and (len(kept) - len(kept.rstrip("\\"))) % 2 == 1
    return line[: len(kept) + 1] if is_escaped else kept


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


# --- the usual form -------------------------------------------------------------------------------------------------


def _settle(root: _Holder) -> None:
    """Brings a tree into the form in which it is written; a tree in that form stays as it is."""
    _part_header(root)
    _arrange(root, _GRAPH)
    _place_comments(root, 0)
    _part_header(root)
    _set_gap(root, False)


def _part_header(root: _Holder) -> None:
    """Parts the comments about the file from those about its first key: these have no blank line beneath."""
    if not root.block:
        return
    first = root.block[0]
    if root.above:
        _set_gap(first, root.has_blank)
    comments = [*root.above, *first.above]
    number = len(comments)
    if not first.has_blank:
        number = next((n for n in range(len(comments) - 1, 0, -1) if comments[n].has_blank), len(comments))
    root.above, first.above = comments[:number], comments[number:]
    root.has_blank = bool(root.above) and _has_gap(first)
    _set_gap(first, False)


def _has_gap(holder: _Holder) -> bool:
    return holder.above[0].has_blank if holder.above else holder.has_blank


def _set_gap(holder: _Holder, has_gap: bool) -> None:
    """Whether a blank line stands before an entry and the comments above it."""
    if holder.above:
        holder.above[0].has_blank = has_gap
    else:
        holder.has_blank = has_gap


def _arrange(holder: _Holder, order: _Order) -> tuple[frozenset[str], frozenset[str]]:
    """Puts keys in order and finds what fits on a line; gives the anchors that are set within, and those used."""
    value = holder.value
    if not isinstance(value, _Group):
        is_alias = isinstance(value, _Leaf) and value.lines[0].startswith("*")
        return _names(holder.anchor), _names(value.text if is_alias and isinstance(value, _Leaf) else None)
    names = []
    for child in value.holders:
        of_key = _names(child.key.anchor if child.key else None)
        used_by_key = _names(child.key.text if child.key and child.key.lines[0].startswith("*") else None)
        sets, uses = _arrange(child, order.beneath(child.key.text if child.key else None))
        names.append((sets | of_key, uses | used_by_key))
    every_set = frozenset[str]().union(*(sets for sets, _ in names))
    every_use = frozenset[str]().union(*(uses for _, uses in names))
    if value.is_map and order.first:
        _sort(holder, value, order, names, every_set)
    if value.is_flow and (holder.parent is None or not holder.foot):
        value.flat = _flat(value)
    return every_set | _names(value.anchor), every_use


def _names(mark: str | None) -> frozenset[str]:
    return frozenset() if mark is None else frozenset([mark[1:]])


def _sort(
    holder: _Holder,
    group: _Group,
    order: _Order,
    names: list[tuple[frozenset[str], frozenset[str]]],
    every_set: frozenset[str],
) -> None:
    ranks = [order.rank(child.key.text) if child.key else 0 for child in group.holders]
    numbers = sorted(range(len(ranks)), key=ranks.__getitem__)
    if numbers == list(range(len(ranks))):
        return
    where = {number: position for position, number in enumerate(numbers)}
    furthest: dict[str, int] = {}
    for number, (sets, uses) in enumerate(names):
        for name in (sets | uses) & every_set:  # an anchor stays before what uses it, and before its like
            if furthest.get(name, -1) > where[number]:
                return
            furthest[name] = where[number]
    was_first = group.holders[0]
    group.holders[:] = [group.holders[number] for number in numbers]
    now_first = group.holders[0]
    if now_first is not was_first:
        _set_gap(was_first, _has_gap(now_first))
        _set_gap(now_first, False)
        if holder.parent is None and not group.is_flow:
            holder.has_blank |= bool(holder.above)


def _flat(group: _Group) -> str | None:
    """A group in brackets on one line; None when comments or scalars of several lines are in it."""
    parts = []
    for child in group.holders:
        value = child.value
        if child.above or child.inline or child.foot or value is None:
            return None
        if isinstance(value, _Leaf):
            if len(value.lines) > 1:
                return None
            said = value.lines[0]
        elif value.flat is None:
            return None
        else:
            said = value.flat
        parts.append(" ".join(filter(None, [_lead(child), value.anchor, said])))
    inside = ", ".join(parts)
    return f"{{{inside}}}" if group.is_map else f"[{inside}]"


def _lead(holder: _Holder) -> str:
    """What an entry begins with: the key and its colon."""
    if holder.key is None:
        return ""
    key = " ".join(filter(None, [holder.key.anchor, holder.key.lines[0]]))
    return f"{key} :" if key.startswith("*") else f"{key}:"


def _place_comments(holder: _Holder, indent: int) -> None:
    """Decides what becomes a block, and gives every comment a place where it can be written."""
    value = holder.value
    is_root = holder.parent is None
    if isinstance(value, _Group) and value.is_flow and value.holders:
        line = " ".join(filter(None, ["-" if holder.is_item else _lead(holder), value.anchor, value.flat]))
        value.is_flow = value.flat is not None and indent + len(line) <= WIDTH
    if isinstance(value, _Group) and value.is_flow:
        _join_lines(value)
    for child in holder.block:
        _place_comments(child, indent if is_root else indent + _INDENT)
    if holder.is_item and holder.block and holder.block[0].is_item and holder.block[0].block:
        holder.inline += holder.block[0].inline  # of two dashes on a line, the first has what stands behind them
        holder.block[0].inline = []
    slot = None if is_root and holder.block else next((each for each in holder.inline if not each.is_own_line), None)
    moved = []
    for comment in holder.inline:
        if comment is not slot:
            moved += _apart([comment.text, *comment.more])
    is_head = bool(holder.is_item and (holder.block or holder.is_empty))
    if slot and (is_head or (isinstance(value, _Leaf) and value.is_block)):  # what is below it is no comment there
        moved += _apart(slot.more)
        slot.more = []
    holder.inline = [slot] if slot else []
    if holder.block:
        first = holder.block[0]
        if holder.is_item:  # on the line of the dash, so what stands above it stands above that
            moved += first.above
            first.above = []
        _set_gap(first, False)
    elif holder.foot and (value is None or not is_root):
        holder.foot[0].has_blank = False
    if moved:
        moved[0].has_blank |= holder.has_blank
        holder.has_blank = False
        holder.above += moved


def _join_lines(group: _Group) -> None:
    """Forgets the blank lines in what comes to stand on one line."""
    for child in group.holders:
        child.has_blank = False
        if isinstance(child.value, _Group):
            _join_lines(child.value)


def _apart(texts: Iterable[str]) -> list[_Comment]:
    return [_Comment(text, 0, True, False) for text in texts]


class _Writer:
    """Writes a settled tree."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lead: str | None = None  # dashes that the next line begins with
        self._is_after_kept = False  # blank lines after it would belong to the scalar before

    def written(self, root: _Holder) -> str:
        """The text of a file."""
        self._holder(root, 0)
        return "".join(f"{line}\n" for line in self._lines)

    def _holder(self, holder: _Holder, indent: int) -> None:
        self._comments(holder.above, indent)
        self._gap(holder)
        value = holder.value
        is_root = holder.parent is None
        inner = indent if is_root else indent + _INDENT
        lead = "-" if holder.is_item else _lead(holder)
        if holder.block and (is_root or holder.is_item) and not holder.anchor and not holder.inline:
            if holder.is_item:
                self._lead = f"{' ' * indent if self._lead is None else self._lead}- "
        elif value is not None:
            self._first_line(holder, value, lead, indent, inner)
        for child in holder.block:
            self._holder(child, inner)
        self._comments(holder.foot, inner)

    def _first_line(self, holder: _Holder, value: _Leaf | _Group, lead: str, indent: int, inner: int) -> None:
        first, *more = value.lines if isinstance(value, _Leaf) else ["" if holder.block else value.flat or ""]
        words = " ".join(filter(None, [lead, value.anchor, first]))
        if isinstance(value, _Leaf) and value.is_block:
            self._line(indent, words)
            self._inline(holder)
            self._scalar(more, indent + _INDENT)
            self._is_after_kept = first.endswith("+")
        else:
            self._line(indent, words)
            self._scalar(more, inner)
            self._inline(holder)

    def _scalar(self, lines: Iterable[str], indent: int) -> None:
        self._lines += [f"{' ' * indent}{line}" if line else "" for line in lines]

    def _line(self, indent: int, text: str) -> None:
        self._lines.append(f"{' ' * indent if self._lead is None else self._lead}{text}")
        self._lead = None
        self._is_after_kept = False

    def _inline(self, holder: _Holder) -> None:
        for comment in holder.inline:
            column = len(self._lines[-1]) + 1
            self._lines[-1] += f" {comment.text}"
            self._lines += [f"{' ' * column}{text}" for text in comment.more]

    def _comments(self, comments: Iterable[_Comment], indent: int) -> None:
        for comment in comments:
            self._gap(comment)
            self._line(indent, comment.text)

    def _gap(self, below: _Holder | _Comment) -> None:
        below.has_blank &= not self._is_after_kept
        if below.has_blank:
            self._lines.append("")


# --- proof ----------------------------------------------------------------------------------------------------------


def _check(file: str, before: Value | None, reader: _Reader, result: str) -> None:
    """Raises FormattingError unless the result has the meaning and the comments of what it was made from."""
    findings = Findings()
    after = load(file, result.encode(), findings)
    if reader.root.value is None:
        before = None
    if findings.diagnostics:
        raise FormattingError(f"{file} is left as it is: in the usual form {findings.diagnostics[0].message}")
    if not _same(before, after, _GRAPH, set()):
        raise FormattingError(f"{file} is left as it is: it would not mean the same in the usual form")
    again = _Reader(file, result)
    _settle(again.root)
    is_kept = sorted(again.comments) == sorted(reader.comments) and list(_told(again.root)) == list(_told(reader.root))
    if not is_kept or _Writer().written(again.root) != result:
        raise FormattingError(f"{file} is left as it is: its comments would not stay beside what they are about")


def _same(before: Value | None, after: Value | None, order: _Order, seen: set[tuple[int, int]]) -> bool:
    """Whether two trees mean the same; the keys of maps that have a usual order may stand in another one."""
    if (id(before), id(after)) in seen:
        return True
    seen.add((id(before), id(after)))
    match before, after:
        case Scalar(), Scalar():
            return _meaning(before) == _meaning(after)
        case Map(), Map():
            if order.first:
                is_same = before.entries.keys() == after.entries.keys()
            else:
                is_same = list(before.entries) == list(after.entries)
            return is_same and all(
                _meaning(entry.key) == _meaning(after.entries[key].key)
                and _same(entry.value, after.entries[key].value, order.beneath(key), seen)
                for key, entry in before.entries.items()
            )
        case List(), List():
            return len(before.items) == len(after.items) and all(
                _same(each, other, order.beneath(None), seen)
                for each, other in zip(before.items, after.items, strict=True)
            )
    return before is after


def _meaning(scalar: Scalar) -> tuple[object, ...]:
    return type(scalar.value), scalar.value, scalar.text, scalar.plain


def _told(holder: _Holder) -> Iterator[tuple[object, ...]]:
    """Everything that is written of a tree, with the comments at what they belong to."""
    value = holder.value
    comments = holder.above, holder.inline, holder.foot
    yield (
        holder.key and (holder.key.anchor, *holder.key.lines), holder.is_item, holder.has_blank,
        *([(each.text, *each.more, each.has_blank) for each in some] for some in comments),
        holder.anchor, value.lines if isinstance(value, _Leaf) else value and (value.is_map, value.is_flow),
    )  # fmt: skip
    for child in value.holders if isinstance(value, _Group) else ():
        yield from _told(child)
