"""A client of yaml-language-server, the program behind YAML files in VS Code, Neovim, Helix, Zed and others.

It speaks the Language Server Protocol over standard input and output, answers what the server asks of an editor, and
does one thing at a time: a call returns when the server has answered it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SETTINGS: Mapping[str, Any] = {
    "yaml": {
        "schemaStore": {"enable": False},  # no network
        "kubernetesCRDStore": {"enable": False},
        "completion": True,
        "hover": True,
        "validate": True,
        "format": {"enable": False},
    },
    "http": {"proxyStrictSSL": True},
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A diagnostic: the line it stands in, from 1, what it marks there, and what it says."""

    line: int
    text: str
    message: str


class Document:
    """A file open in the editor. Its text never changes: what the server publishes does not say which text it means."""

    def __init__(self, server: LanguageServer, uri: str, text: str) -> None:
        self._server = server
        self.uri = uri
        self.text = text
        server.notify(
            "textDocument/didOpen", textDocument={"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        )

    def close(self) -> None:
        """Close the file; the server forgets it."""
        self._server.notify("textDocument/didClose", textDocument={"uri": self.uri})

    def marks(self) -> list[Mark]:
        """What the editor underlines in the file."""
        lines = self.text.splitlines()
        found = []
        for each in self._server.diagnostics(self.uri):
            start, end = each["range"]["start"], each["range"]["end"]
            line = lines[start["line"]] if start["line"] < len(lines) else ""
            until = end["character"] if end["line"] == start["line"] else len(line)
            found.append(Mark(start["line"] + 1, line[start["character"] : until], each["message"]))
        return sorted(found, key=lambda mark: (mark.line, mark.text, mark.message))

    def completions(self, line: int, column: int) -> list[dict[str, Any]]:
        """What the editor offers with the cursor there; both count from 0."""
        answer = self._server.ask("textDocument/completion", **self._at(line, column))
        items: list[dict[str, Any]] = answer["items"] if isinstance(answer, dict) else answer or []
        return items

    def hover(self, line: int, column: int) -> str:
        """What the editor shows for the word there, in Markdown; both count from 0."""
        answer = self._server.ask("textDocument/hover", **self._at(line, column))
        return str(answer["contents"]["value"]) if answer else ""

    def _at(self, line: int, column: int) -> dict[str, Any]:
        return {"textDocument": {"uri": self.uri}, "position": {"line": line, "character": column}}


class LanguageServer:
    """A running yaml-language-server. ``schemas`` maps the URI of a schema to the paths it is for, as editors do."""

    def __init__(self, command: Sequence[str | Path], root: Path, schemas: Mapping[str, str]) -> None:
        self._settings = {**SETTINGS, "yaml": {**SETTINGS["yaml"], "schemas": schemas}}
        self._asked = 0
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._is_configured = False
        self._process = subprocess.Popen(
            [*map(str, command), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
        )
        self.ask(
            "initialize",
            processId=None,
            rootUri=root.as_uri(),
            workspaceFolders=[{"uri": root.as_uri(), "name": root.name}],
            capabilities={
                "workspace": {"configuration": True, "workspaceFolders": True},
                "textDocument": {
                    "publishDiagnostics": {},
                    "hover": {"contentFormat": ["markdown", "plaintext"]},
                    "completion": {
                        "completionItem": {"documentationFormat": ["markdown", "plaintext"], "snippetSupport": True}
                    },
                },
            },
        )
        self.notify("initialized")
        while not self._is_configured:  # what is opened before that is read without its schema
            self._take(self._receive())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.ask("shutdown")
                self.notify("exit")
        finally:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()

    def open(self, path: Path, text: str | None = None) -> Document:
        """Open a file in the editor, or ``text`` as if it stood in that file. A path is opened once."""
        return Document(self, path.as_uri(), path.read_text(encoding="utf-8") if text is None else text)

    def notify(self, method: str, **params: Any) -> None:
        """Tell the server something that it does not answer."""
        self._send({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> Any:
        """The server's answer to a request. Raises RuntimeError with its words when it refuses."""
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params} if params else
                   {"id": self._asked, "method": method})  # fmt: skip
        while True:
            message = self._receive()
            if "method" in message or message.get("id") != self._asked:
                self._take(message)
            elif "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            else:
                return message["result"]

    def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """What the server finds wrong with a file; waits until it has said so."""
        while uri not in self._diagnostics:
            self._take(self._receive())
        return self._diagnostics[uri]

    def _take(self, message: dict[str, Any]) -> None:
        """Does what an editor does on a message that is no answer."""
        method = message.get("method")
        if method == "textDocument/publishDiagnostics":
            params = message["params"]
            self._diagnostics[params["uri"]] = params["diagnostics"]
        if "id" in message and method is not None:
            result = None
            if method == "workspace/configuration":
                result = [self._section(item.get("section") or "") for item in message["params"]["items"]]
                self._is_configured = True
            self._send({"id": message["id"], "result": result})

    def _section(self, name: str) -> Any:
        value: Any = self._settings
        for part in filter(None, name.split(".")):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline()) != b"\r\n":
            if not line:
                raise RuntimeError(f"the server ended with status {self._process.wait()}")
            name, _, value = line.decode("ascii").partition(":")
            if name.lower() == "content-length":
                length = int(value)
        message: dict[str, Any] = json.loads(stream.read(length))
        return message
