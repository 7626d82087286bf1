"""Talking to a run over its control socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flowstream.control.records import unpack
from flowstream.control.socket import ControlError, found_sockets

TIMEOUT_SECONDS = 3.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024


class NobodyThere(ControlError):  # noqa: N818
    """Raised when no run answers on a socket."""


class Refused(ControlError):  # noqa: N818
    """Raised when a run does not do what it was asked; ``answer`` has ``diagnostics`` or ``error``."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(str(answer.get("error", "the graph cannot be run as it is written")))
        self.answer = answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
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


def ask(path: Path, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a run answers to ``GET resource``, or to a ``POST`` of ``body``.

    Raises NobodyThere, Refused when the run says why it does not do what it is asked, or ControlError when the answer
    cannot be used.
    """
    connection = _Connection(path)
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
        raise ControlError(f"{path} did not answer within {TIMEOUT_SECONDS:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(f"{path} did not answer as a run does: {error}") from error
    finally:
        connection.close()
    if response.status == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(answer, dict):
        raise Refused(answer)
    if response.status != 200 or not isinstance(answer, dict):
        raise ControlError(f"{path} did not answer as a run does: {response.status} {response.reason}")
    return answer


def follow(path: Path, resource: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The records that a run answers to ``GET resource``, as they come, until it ends them.

    Raises what ``ask`` raises, at the first record.
    """
    connection = _Connection(path)
    try:
        try:
            connection.request("GET", resource)
            response = connection.getresponse()
            if response.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise Refused(json.loads(response.read(MAX_ANSWER_BYTES)))
            if response.status != HTTPStatus.OK:
                raise ControlError(f"{path} did not answer as a run does: {response.status} {response.reason}")
            while (record := unpack(response.read)) is not None:
                yield record
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise NobodyThere(f"no run listens at {path}") from error
        except TimeoutError as error:
            raise ControlError(f"{path} said nothing for {TIMEOUT_SECONDS:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
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
