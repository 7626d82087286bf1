"""The fenced blocks of a Markdown file, with what their info strings say about them.

An info string begins with the language; the words after it tell the tests what the block is: ``yaml file=first.yaml``.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it stands, what its info string says, and its text without the indentation of the fence."""

    document: str
    line: int
    end: int
    info: str
    text: str

    @property
    def language(self) -> str:
        """The first word of the info string, by which it is highlighted; empty when there is none."""
        return self.info.partition(" ")[0]

    @property
    def kind(self) -> str:
        """The info string without what stands behind ``=``: ``yaml file``."""
        return " ".join(word.partition("=")[0] for word in self.info.split())

    def value(self, name: str) -> str:
        """What the info string gives for a name; empty when it does not have it."""
        return dict(word.partition("=")[::2] for word in self.info.split()[1:]).get(name, "")

    def __str__(self) -> str:
        return f"{self.document}:{self.line}-{self.info.replace(' ', '-')}"


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a file, in order. Raises ValueError for one that is not closed."""
    return blocks_in(path.read_text(encoding="utf-8"), path.name)


def blocks_in(markdown: str, document: str) -> list[Block]:
    """The fenced blocks of a text. A fence closes with at least as many backticks as it opened (CommonMark 4.5)."""
    found: list[Block] = []
    opening: re.Match[str] | None = None
    begin = 0
    lines = markdown.split("\n")
    for number, line in enumerate(lines, 1):
        match = _FENCE.match(line)
        if opening is None:
            opening, begin = match, number
        elif match and not match["info"].strip() and len(match["ticks"]) >= len(opening["ticks"]):
            text = textwrap.dedent("".join(f"{each}\n" for each in lines[begin : number - 1]))
            found.append(Block(document, begin, number, opening["info"].strip(), text))
            opening = None
    if opening is not None:
        raise ValueError(f"{document}:{begin}: the fence is not closed")
    return found


def prose_of(path: Path) -> str:
    """A Markdown file without its fenced blocks."""
    lines = path.read_text(encoding="utf-8").split("\n")
    fenced = {number for block in blocks_of(path) for number in range(block.line, block.end + 1)}
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in fenced)
