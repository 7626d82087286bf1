"""A run as it stands, and what is wrong with it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Fact = str | int | float | None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as it stands.

    ``state`` is ``starting``, ``ready``, ``running``, ``restarting``, ``ended``, ``failed`` or ``stopped``. ``config``
    has its settings as people write them, secrets as the graph does. ``received`` and ``emitted`` count payloads,
    ``dropped`` losses on its inputs by cause. ``error`` is what it failed with last.
    """

    type: str
    state: str
    config: Mapping[str, Any]
    restarts: int
    received: int
    emitted: Mapping[str, int]
    dropped: Mapping[str, int]
    facts: Mapping[str, Fact]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A run as it stands.

    ``state`` is ``starting``, ``running``, ``degraded`` (a node failed), ``draining`` or ``ended``. ``running`` is the
    revision that runs and ``file`` the one that the files have, digests both. They differ when one was ``refused``,
    which says why, or when settings were given other values by `Run.set`: ``overrides`` are those, by NODE.FIELD.
    ``difference`` says in words why what runs is not what the files say; None when it is. ``links`` are the addresses
    of the pages that people open.
    """

    graph: str
    state: str
    running: str
    file: str
    refused: str | None
    difference: str | None
    overrides: Mapping[str, str]
    nodes: Mapping[str, NodeStatus]
    links: tuple[str, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any], links: tuple[str, ...]) -> Status:
        """The same as what a control socket tells."""
        names = NodeStatus.__dataclass_fields__
        return cls(
            graph=told["graph"],
            state=told["state"],
            running=told["revision"]["running"],
            file=told["revision"]["file"],
            refused=told["revision"]["refused"],
            difference=told["revision"]["difference"],
            overrides={each["target"]: each["value"] for each in told["revision"]["overrides"]},
            nodes={id: NodeStatus(**{name: node[name] for name in names}) for id, node in told["nodes"].items()},
            links=links,
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong with a run, and so one thing to mend, however many nodes suffer from it.

    ``node`` is where it is to be mended, empty when that is the file. ``kind`` is ``deadlock``, ``silent-source``,
    ``starvation``, ``slow-consumer``, ``blocked-siblings``, ``drop-storm``, ``restart-loop``, ``refused-peer``,
    ``failed``, ``starting``, ``held-loop``, ``refused-file``, ``narrow-uplink`` or ``narrow-link``. ``chain`` are all
    nodes that it concerns, those that suffer first and ``node`` last. ``since`` is when it began, in UTC, to the
    second; ``for_seconds`` how long ago. One that is no fault is worth to know and as it should be: viewers who get
    less than the best, because no more goes over their links.
    """

    node: str
    kind: str
    sentence: str
    chain: tuple[str, ...]
    since: datetime
    for_seconds: float
    is_fault: bool = True

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run, or a node of it, does as it should, and why not.

    ``sentences`` is for people: one for each of the ``reasons``, the gravest first, or one that says that all is well.
    """

    is_healthy: bool
    sentences: tuple[str, ...]
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Verdict:
        """The same as what a control socket tells."""
        names = ("node", "kind", "sentence", "for_seconds", "is_fault")
        return cls(
            is_healthy=told["healthy"],
            sentences=tuple(told["verdict"]),
            reasons=tuple(
                Reason(
                    chain=tuple(each["chain"]),
                    since=datetime.fromisoformat(each["since"]),
                    **{name: each[name] for name in names},
                )
                for each in told["causes"]
            ),
        )
