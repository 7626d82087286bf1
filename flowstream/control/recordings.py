"""Recording what flows in a run, over its API: the answer is the file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.recording import Recorder
from flowstream.runtime.tap import TapError

if TYPE_CHECKING:
    from typing_extensions import Buffer

MOST_RECORDINGS = 4
"""How many may be made at a time."""

MOST_SECONDS = 24 * 3600
MOST_BYTES = 1 << 40

PIECE_BYTES = 1024 * 1024
"""How much is sent at once, so that others get their turn."""

_LOGIN = re.compile(r"(?<=://)[^/\s@:\"']+:[^/\s@\"']+(?=@)")
_NAME = r"""["']?[\w-]*(?:token|password|passphrase|secret|key)["']?\s*:[ \t]+"""
_QUOTED = r""""[^"\n]*"|'[^'\n]*'"""
_SECRETS = (
    # On a line of its own a text goes on to the end or a comment, within braces to the next comma.
    re.compile(rf"(^[ \t]*(?:- )?{_NAME})(?!\$\()({_QUOTED}|(?:[^\s#]|(?<=\S)#|[ \t]+(?![#\s]))+)", re.I | re.M),
    re.compile(rf"([{{,]\s*{_NAME})(?!\$\()({_QUOTED}|(?:[^\s,}}]|[ \t]+(?![,}}\s]))+)", re.I | re.M),
)


def routes(engine: Engine, secrets: Secrets, files: Callable[[], Mapping[str, bytes]]) -> list[Route]:
    """``GET /record?what=NAME&what=...&seconds=&bytes=&as_is=``; ``files`` gives those that the run was made of.

    The answer is a recording (see ``flowstream.media.recording``) as it comes about. A reader who is gone ends it,
    then without its end. What is asked wrongly gets 422 with ``{"error", "hint"}``.
    """
    running = 0

    async def record(request: Request) -> Response:
        """A recording of outputs, edges or nodes (what=, several times), for seconds= and of bytes= at most, as_is=1"""
        asked = request.query_params
        seconds, size = _number(asked.get("seconds"), MOST_SECONDS), _number(asked.get("bytes"), MOST_BYTES)
        if seconds == 0:
            return _wrong(f"seconds= is a number above 0, and {MOST_SECONDS} at most")
        if size == 0:
            return _wrong(f"bytes= is a number above 0, and {MOST_BYTES} at most")
        if running >= MOST_RECORDINGS:
            return _wrong(f"{MOST_RECORDINGS} recordings are being made already", "end one of them")
        texts = {path: scrubbed(text.decode("utf-8", "replace"), secrets) for path, text in files().items()}
        try:
            recorder = Recorder(
                engine, asked.getlist("what"), files=texts, as_is=asked.get("as_is") in ("1", "true", "yes")
            )  # fmt: skip
        except TapError as error:
            return _wrong(error.message, error.hint)
        return StreamingResponse(sent(recorder, seconds, size), media_type="application/octet-stream")

    async def sent(recorder: Recorder, seconds: float | None, size: float | None) -> AsyncIterator[bytes | memoryview]:
        nonlocal running
        running += 1
        try:
            most = None if size is None else round(size)
            with recorder:
                async with aclosing(recorder.pieces(seconds=seconds, max_bytes=most)) as made:
                    async for pieces in made:
                        for each in _sendable(pieces):
                            yield each
        finally:
            running -= 1

    return [Route("/record", record)]


def _number(text: str | None, most: int) -> float | None:
    """A number from above 0 to ``most``; 0 for anything else, None for nothing."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return 0
    return value if 0 < value <= most else 0


def _sendable(pieces: list[Buffer]) -> list[bytes | memoryview]:
    """Small pieces in one, large ones in parts."""
    if sum(memoryview(piece).nbytes for piece in pieces) <= PIECE_BYTES:
        return [b"".join(pieces)]
    views = [memoryview(piece).cast("B") for piece in pieces]
    return [view[begin : begin + PIECE_BYTES] for view in views for begin in range(0, len(view), PIECE_BYTES)]


def _wrong(message: str, hint: str | None = None) -> Response:
    return JSONResponse({"error": message, "hint": hint}, 422)


def scrubbed(text: str, secrets: Secrets) -> str:
    """A graph's text without what is secret: what came from the environment, logins in addresses, keys and passwords.

    What is a variable, ``$(env:NAME)``, stays.
    """
    text = _LOGIN.sub("***:***", secrets.scrub(text))
    for written in _SECRETS:
        text = written.sub(r'\1"***"', text)
    return text
