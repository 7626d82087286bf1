"""The page as one document: what is in it, under which policy, and what it is told."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import httpx
import pytest

from flowstream.proto.ice_servers import IceServer
from flowstream.runtime.audience import Grant
from flowstream_nodes.webrtc._page import FOLDER, TYPES, bundle, policy, read_page

pytestmark = pytest.mark.anyio

INLINE = re.compile(r"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


def told(document: str) -> dict[str, object] | None:
    """What a document says of what there is to see."""
    found = re.search(r'<html lang="en" data-about="([^"]*)">', document)
    return None if found is None else dict(json.loads(html.unescape(found[1])))


def test_all_files_are_in_the_document_once_and_as_they_are() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(TYPES)
    files = {name: text.decode() for name, text in read_page().items()}
    document = files.pop("index.html")
    assert not re.search(r'\bsrc="|<link rel="(?!icon")', document), "it needs no other"
    for name, text in files.items():
        assert text == (FOLDER / name).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not re.match("import |export ", line)]
        assert all(line in document for line in lines)
        if name.endswith(".js"):
            assert document.count(f'modules["{name}"] = ') == 1


def test_a_module_runs_once_after_those_that_it_needs() -> None:
    files = {
        "a.js": 'import { b, C } from "./b.js";\nimport { d } from "./d.js";\nlog(b, C, d);\n',
        "b.js": 'import { d } from "./d.js";\nexport const b = d + 1;\nexport class C {}\n'
        "export async function e() {}\n",
        "d.js": "const hidden = 1;\nexport const d = hidden;\n",
    }
    done: set[str] = set()
    first, second = bundle("b.js", files, done), bundle("a.js", files, done)
    assert first == (
        '"use strict";\nconst modules = {};\n'
        'modules["d.js"] = (() => {\nconst hidden = 1;\nconst d = hidden;\nreturn { d };\n})();\n'
        'modules["b.js"] = (() => {\nconst { d } = modules["d.js"];\nconst b = d + 1;\nclass C {}\n'
        "async function e() {}\nreturn { b, C, e };\n})();\n"
    )
    assert second == (
        '"use strict";\nmodules["a.js"] = (() => {\nconst { b, C } = modules["b.js"];\n'
        'const { d } = modules["d.js"];\nlog(b, C, d);\nreturn {  };\n})();\n'
    )


@pytest.mark.parametrize("text", ['import x from "./b.js";', "export default 1;", 'log("</script>");', "<!-- x"])
def test_what_cannot_be_in_a_document_is_noticed(text: str) -> None:
    with pytest.raises(AssertionError, match=r"a\.js"):
        bundle("a.js", {"a.js": text, "b.js": ""}, set())


async def test_only_what_the_document_brings_along_runs(http: httpx.AsyncClient, stage: Any) -> None:
    stage.title = "<script>alert('1')</script>\" & more"
    answer = await http.get("/")
    sources = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
    hashes = {
        kind: " ".join(
            f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
            for found, text in INLINE.findall(answer.text)
            if found == kind
        )
        for kind in ("script", "style")
    }
    assert sources["script-src"] == f"'self' {hashes['script']}"
    assert sources["style-src"] == f"'self' {hashes['style']}"
    assert (sources["default-src"], sources["connect-src"]) == ("'none'", "'self'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert re.findall("<title>(.*)</title>", answer.text) == [html.escape(stage.title)]
    assert told(answer.text) == {"title": stage.title, "video": True, "audio": True, "servers": False}
    assert policy(b"") == policy(b"<p>").replace("  ", " ")


async def test_the_document_says_whether_servers_are_named_and_not_which(http: httpx.AsyncClient, stage: Any) -> None:
    stage.servers = (IceServer(("turn:turn.example",), "viewer", "secret"),)
    document = (await http.get("/")).text
    assert (told(document) or {})["servers"] is True
    assert "secret" not in document
    assert "turn.example" not in document


async def test_who_may_not_know_what_there_is_to_see_is_not_told(http: httpx.AsyncClient, stage: Any) -> None:
    stage.approval = "token"
    for link in ("/", "/?token=nonsense"):
        document = (await http.get(link)).text
        assert told(document) is None
        assert "<title>Live</title>" in document
        assert stage.title not in document
    token = stage.tokens.issue(Grant("abc", stage.clock.wallclock_ns() + 60_000_000_000))
    assert told((await http.get(f"/?token={token}")).text) is not None
