"""Talking to a run over its control socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flowstream.control.records import unpack
from flowstream.control.socket import ControlError, found_sockets

TIMEOUT_SECONDS = 3.0
CHANGE_SECONDS = 60.0
"""How long a run may take to change what runs: new nodes have to become ready."""

FOLLOW_SECONDS = 60.0
"""How long events may be silent; a sign of life comes more often."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class NobodyThere(ControlError):  # noqa: N818
    """Raised when no run answers on a socket."""


class Refused(ControlError):  # noqa: N818
    """Raised when a run does not do what it was asked; ``answer`` has ``error``, ``hint`` and maybe ``diagnostics``."""

    def __init__(self, answer: dict[str, Any]) -> None:
        hint = answer.get("hint")
        super().__init__(str(answer.get("error")), hint=str(hint) if hint else None)
        self.answer = answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Run:
    """A run that answers: its socket and what it says about itself."""

    socket: Path
    status: dict[str, Any]

    @property
    def graph(self) -> str:
        """The graph's name."""
        return str(self.status["graph"])

    @property
    def name(self) -> str:
        """What tells it from other runs, also of the same graph."""
        return self.socket.stem


def ask(
    path: Path, resource: str, body: dict[str, Any] | None = None, *, seconds: float | None = None
) -> dict[str, Any]:
    """What a run answers to ``GET resource``, or to a ``POST`` of ``body``, within so long.

    Raises NobodyThere, Refused when the run says why it does not do what it is asked, or ControlError when the answer
    cannot be used.
    """
    seconds = TIMEOUT_SECONDS if seconds is None else seconds
    connection = _Connection(path, seconds)
    try:
        if body is None:
            connection.request("GET", resource)
        else:
            connection.request("POST", resource, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read(MAX_ANSWER_BYTES + 1)
        answer = json.loads(text) if len(text) <= MAX_ANSWER_BYTES else None
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NobodyThere(f"no run listens at {path}") from error
    except TimeoutError as error:
        raise ControlError(f"{path} did not answer within {seconds:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(f"{path} did not answer as a run does: {error}") from error
    finally:
        connection.close()
    is_refused = response.status in (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.BAD_REQUEST)
    if is_refused and isinstance(answer, dict) and isinstance(answer.get("error"), str):
        raise Refused(answer)
    if response.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED) or not isinstance(answer, dict):
        raise ControlError(f"{path} did not answer as a run does: {response.status} {response.reason}")
    return answer


def follow(path: Path, resource: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The records that a run answers to ``GET resource``, as they come, until it ends them.

    Raises what ``ask`` raises, at the first record.
    """
    with reading(path, resource) as read:
        while True:
            with _failing(path):
                record = unpack(read)
            if record is None:
                return
            yield record


@contextmanager
def reading(path: Path, resource: str) -> Iterator[Callable[[int], bytes]]:
    """Reads what a run answers to ``GET resource`` as it comes: so many bytes, fewer at its end.

    Raises what ``ask`` raises, also while it is read.
    """
    connection = _Connection(path, TIMEOUT_SECONDS)
    try:
        with _failing(path):
            connection.request("GET", resource)
            response = connection.getresponse()
            if response.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise Refused(json.loads(response.read(MAX_ANSWER_BYTES)))
            if response.status != HTTPStatus.OK:
                raise ControlError(f"{path} did not answer as a run does: {response.status} {response.reason}")

        def read(count: int) -> bytes:
            with _failing(path):
                return response.read(count)

        yield read
    finally:
        connection.close()


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Says what is wrong when a run does not answer."""
    try:
        yield
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NobodyThere(f"no run listens at {path}") from error
    except TimeoutError as error:
        raise ControlError(f"{path} said nothing for {TIMEOUT_SECONDS:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(f"{path} did not answer as a run does: {error}") from error


def follow_events(path: Path, last: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """What happens to a run from now on, or from an event on: the id and the values of each. Ends with the run.

    Raises NobodyThere or ControlError.
    """
    connection = _Connection(path, FOLLOW_SECONDS)
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    try:
        connection.request("GET", "/events", headers=headers)
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            text = json.loads(response.read(MAX_ANSWER_BYTES))
            raise ControlError(str(text["error"]), hint=text.get("hint"))
        id_, data = "", ""
        while line := response.readline(MAX_ANSWER_BYTES):
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "id":
                id_ = value
            elif key == "data":
                data = value
            elif not key and data:
                yield id_, json.loads(data)
                data = ""
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NobodyThere(f"no run listens at {path}") from error
    except TimeoutError as error:
        raise ControlError(f"{path} has been silent for {FOLLOW_SECONDS:g} s") from error
    except (ConnectionError, http.client.IncompleteRead):  # it ended
        return
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise ControlError(f"{path} did not answer as a run does: {error}") from error
    finally:
        connection.close()


def runs() -> list[Run]:
    """The runs of this user that answer, by name."""
    found = []
    for path in found_sockets():
        try:
            found.append(Run(path, ask(path, "/status")))
        except ControlError:  # left over, or ended in between
            continue
    return found


def choose(name: str | None = None, path: Path | None = None) -> Run:
    """The run that is meant: at a path, by name (of the socket or the graph), or the only one.

    Raises ControlError when there is none or more than one; its text lists them.
    """
    if path is not None:
        return Run(path, ask(path, "/status"))
    there = runs()
    if name is not None:
        exact = [run for run in there if run.name == name] or [run for run in there if run.graph == name]
        if not exact:
            others = f"; there is {', '.join(run.name for run in there)}" if there else ", nor any other"
            raise ControlError(f"no run named {name!r}{others}")
        there = exact
    if not there:
        raise NobodyThere("no graph is running", hint="start one: flowstream run GRAPH")
    if len(there) > 1:
        listed = "".join(f"\n  {run.name}  {run.status['state']}" for run in there)
        raise ControlError(f"{len(there)} graphs are running; choose one by --run NAME:{listed}")
    return there[0]
