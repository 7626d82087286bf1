"""A script for one node: what happens to it when, and what is to be seen then.

::

    with Harness(Throttle, {"max_fps": 10}) as throttle:
        throttle.play(
            Give("0s", make_frame(0)),
            Give("40ms", make_frame(1)),
            Expect("60ms", emitted=1),
            Reconfigure("100ms", max_fps=30),
            Give("140ms", make_frame(2)),
            Expect("150ms", emitted=2),
        )

Times are media time as a graph writes it (``40ms``, ``1.5s``) or nanoseconds, from the beginning of the script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowstream.media.signals import KeyframeRequest
from flowstream.node.ports import Input, Output
from flowstream.node.quantities import format_duration, parse_duration

if TYPE_CHECKING:
    from flowstream.testing.harness import Harness

At = int | str
"""Nanoseconds, or a duration as a graph writes it."""


@dataclass(frozen=True, slots=True)
class Emission:
    """A payload that came out: ``at_ns`` counts from the beginning of the script."""

    at_ns: int
    output: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Step:
    """Something at a time."""

    at: At

    @property
    def at_ns(self) -> int:
        """When, in nanoseconds from the beginning. Raises ValueError for a text that is no duration."""
        return self.at if isinstance(self.at, int) else parse_duration(self.at)

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Does it. ``emissions`` are those of the script so far."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Give(Step):
    """A payload comes in; ``port`` may be left out when there is one. Feedback inputs are given to by name."""

    payload: Any
    port: str | Input[Any] | None = None

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Pushes it."""
        harness.push(self.payload, self.port)


@dataclass(frozen=True, slots=True)
class End(Step):
    """One input ends, or all of them: then the node finishes."""

    port: str | Input[Any] | None = None

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Ends it."""
        if self.port is None:
            harness.finish()
        else:
            harness.end(self.port)


@dataclass(frozen=True, slots=True)
class Request(Step):
    """Somebody downstream of an output asks for a keyframe, or what ``signal`` says."""

    output: str | Output[Any]
    signal: KeyframeRequest | None = None

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Asks."""
        harness.request(self.output, self.signal)


@dataclass(frozen=True, slots=True, init=False)
class Reconfigure(Step):
    """Live fields change: ``Reconfigure("1s", bitrate="2M")``."""

    changes: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, at: At, **changes: Any) -> None:
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "changes", changes)

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Changes them."""
        harness.reconfigure(**self.changes)


@dataclass(frozen=True, slots=True)
class Replace(Step):
    """A reload puts an instance with another configuration in the node's place: holdings and snapshot pass on."""

    config: Any = None

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Replaces it."""
        harness.replace(self.config)


@dataclass(frozen=True, slots=True)
class Expect(Step):
    """What is to be seen by now: how many payloads came, what the last one is, what the node reported or asked.

    ``emitted`` counts from the beginning of the script, over all outputs or one ``output``. ``last`` is the newest
    payload, or a function that is true of it. ``facts`` are those that must be reported so, ``requests`` the number of
    requests that went up since the harness was opened.
    """

    emitted: int | None = None
    output: str | None = None
    last: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    requests: int | None = None

    def take(self, harness: Harness[Any], emissions: list[Emission]) -> None:
        """Looks. Raises AssertionError with what was expected and what there is."""
        if missed := list(self._missed(harness, emissions)):
            raise AssertionError(f"at {format_duration(self.at_ns)}: {'; '.join(missed)}")

    def _missed(self, harness: Harness[Any], emissions: list[Emission]) -> Iterable[str]:
        seen = [each for each in emissions if self.output in (None, each.output)]
        of = f" of {self.output}" if self.output else ""
        if self.emitted is not None and len(seen) != self.emitted:
            yield f"{len(seen)} payloads{of} came, not {self.emitted}"
        if self.last is not None:
            if not seen:
                yield f"no payload{of} came"
            elif not _fits(self.last, seen[-1].payload):
                yield f"the last payload{of} is {seen[-1].payload!r}"
        for name, wanted in self.facts.items():
            if harness.facts.get(name) != wanted:
                yield f"{name} is {harness.facts.get(name)!r}, not {wanted!r}"
        if self.requests is not None and len(harness.requests) != self.requests:
            yield f"{len(harness.requests)} requests went up, not {self.requests}"


def _fits(wanted: Any, payload: Any) -> bool:
    if isinstance(wanted, Callable):  # type: ignore[arg-type]
        return bool(wanted(payload))
    return payload is wanted or bool(payload == wanted)


def played(harness: Harness[Any], steps: Iterable[Step]) -> list[Emission]:
    """Plays the steps on an open harness; see ``Harness.play``."""
    begin_ns = harness.clock.now_ns()
    first = len(harness.emits)
    emissions: list[Emission] = []
    for step in steps:
        ahead_ns = begin_ns + step.at_ns - harness.clock.now_ns()
        if ahead_ns < 0:
            said = format_duration(harness.clock.now_ns() - begin_ns)
            raise ValueError(f"the step {step!r} comes too late: it is {said} already")
        harness.advance(ahead_ns)
        if isinstance(step, Expect):
            _note(harness, emissions, first, begin_ns)
        step.take(harness, emissions)
    _note(harness, emissions, first, begin_ns)
    return emissions


def _note(harness: Harness[Any], emissions: list[Emission], first: int, begin_ns: int) -> None:
    for index in range(first + len(emissions), len(harness.emits)):
        emit = harness.emits[index]
        emissions.append(Emission(harness.emitted_ns[index] - begin_ns, emit.output.name, emit.payload))
