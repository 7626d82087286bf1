"""The page as it is sent: one document with its styles and scripts inside.

A viewer who opens it has all of it with the first answer: nothing has to be asked for before its connection begins.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "page"

TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "session.js": "text/javascript; charset=utf-8",
    "channel.js": "text/javascript; charset=utf-8",
    "panel.js": "text/javascript; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
}

_STYLES: Final = re.compile(r'<link rel="stylesheet" href="([\w.]+)">')
_SCRIPT: Final = re.compile(r'<script src="([\w.]+)" type="module"></script>')
_TITLE: Final = "<title>Live</title>"
_ROOT: Final = '<html lang="en"'
_IMPORT: Final = re.compile(r'^import (\{[\w, ]+\}) from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_INLINE: Final = re.compile(r"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL)


def read_page() -> dict[str, bytes]:
    """The page's files, by name; ``index.html`` has the others inside. Blocks."""
    files = {name: (FOLDER / name).read_text(encoding="utf-8") for name in TYPES}
    done: set[str] = set()
    whole = files["index.html"]
    assert _TITLE in whole
    assert _ROOT in whole
    whole = _STYLES.sub(lambda tag: f'<style data-from="{tag[1]}">\n{files[tag[1]]}</style>', whole)
    whole = _SCRIPT.sub(lambda tag: f'<script data-from="{tag[1]}">\n{bundle(tag[1], files, done)}</script>', whole)
    files["index.html"] = whole
    return {name: text.encode() for name, text in files.items()}


def bundle(entry: str, files: Mapping[str, str], done: set[str]) -> str:
    """A script that does what the module ``entry`` does, and those that it imports from ``files`` before it.

    It runs where it stands, while a module would wait for the end of the document. Modules in ``done`` have run in
    scripts before it; those that it runs are added. A module may import names, ``import { A, b } from "./other.js";``,
    and export what it declares, each on a line that begins with it.
    """
    parts = [] if done else ["const modules = {};\n"]

    def add(name: str) -> None:
        done.add(name)
        text = files[name]
        for _, other in _IMPORT.findall(text):
            if other not in done:
                add(other)
        exported = ", ".join(_EXPORT.findall(text))
        text = _IMPORT.sub(lambda found: f'const {found[1]} = modules["{found[2]}"];', _EXPORT.sub("", text))
        assert not re.search(r"^(import|export)\b|</script|<!--", text, re.MULTILINE), name
        parts.append(f'modules["{name}"] = (() => {{\n{text}return {{ {exported} }};\n}})();\n')

    add(entry)
    return '"use strict";\n' + "".join(parts)


def policy(document: bytes) -> str:
    """The content security policy under which a document's own styles and scripts, and the page's files, count."""
    sources = {"script": ["'self'"], "style": ["'self'"]}
    for kind, text in _INLINE.findall(document.decode()):
        if text:
            sources[kind].append(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'")
    return (
        f"default-src 'none'; script-src {' '.join(sources['script'])}; style-src {' '.join(sources['style'])}; "
        "connect-src 'self'; img-src data:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )


def tell(document: bytes, title: str, known: Mapping[str, object]) -> bytes:
    """The document with a title, and with what its script would ask for first."""
    said = html.escape(json.dumps(known, separators=(",", ":")))
    document = document.replace(_TITLE.encode(), f"<title>{html.escape(title)}</title>".encode(), 1)
    return document.replace(_ROOT.encode(), f'{_ROOT} data-about="{said}"'.encode(), 1)
