"""What a node lives through in a run, once and small: opened, given to, reconfigured, ended, closed, replaced."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from flowstream.errors import FlowstreamError
from flowstream.media.caps import Caps
from flowstream.node.base import Node, Sink, Source, Transform
from flowstream.node.config import Config, is_live
from flowstream.testing.harness import Harness
from flowstream.testing.leaks import Open
from flowstream.testing.negotiation import configured, payload_of, usual_inputs

LONG_SECONDS = 60.0
"""A life so small takes milliseconds; one that takes so long hangs."""

LOOP_SECONDS = 0.020
"""CPU time that a call on the event loop may take: others wait meanwhile."""

AFTER_NS = 2_000_000_000
"""How long after the end something that still comes is waited for, in the harness's time."""

_HOOKS = ("open", "close", "reconfigured")


def what_it_lives_through(
    node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None, breaking: Collection[str] = ()
) -> list[str]:
    """Every rule of a node's life that this type breaks, in words; in bounded time, also when a call hangs.

    ``breaking`` names live fields that are there to make it fail.
    """
    required = [name for name, info in node_type.config_class.model_fields.items() if info.is_required()]
    if config is None and required:
        return [f"to open it, check_node needs config= with {', '.join(required)}"]
    made = configured(node_type, config)
    if made is None:
        return ["the config= that check_node was given is not valid for it"]
    found: list[str] = []
    doing = ["being opened"]
    failure: list[BaseException] = []

    def live() -> None:
        try:
            for finding in _life(node_type, made, breaking, doing):
                found.append(finding)  # noqa: PERF402 - what is found before a call hangs counts
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=live, name=f"check_node {node_type.type_id}", daemon=True)
    thread.start()
    thread.join(LONG_SECONDS)
    if thread.is_alive():
        found.append(f"it has not come back from {doing[0]} after {LONG_SECONDS:g} s")
    if failure:
        raise failure[0]
    return list(dict.fromkeys(found))


def _life(
    node_type: type[Node[Any]], config: Config, breaking: Collection[str], doing: list[str]
) -> Iterator[str]:  # fmt: skip
    # What libraries open once for the process, on first use, is not the node's.
    with Harness(node_type, config, threads=node_type.thread):
        pass
    before = Open.now()
    with Harness(node_type, config, threads=node_type.thread):
        pass
    if lefts := before.left():
        yield from (f"after open() and close() it leaves {left}" for left in lefts)
        return
    yield from _lanes(node_type)
    doing[0] = "being closed without having been opened"
    yield from _closed_at_once(node_type, config)
    doing[0] = "ending without any input"
    yield from _ended_at_once(node_type, config)
    for incoming in _inputs(node_type):
        said = ", ".join(f"{caps}" for caps in incoming.values()) or "nothing"
        doing[0] = f"a run with {said}"
        yield from _one_run(node_type, config, incoming, said)
    doing[0] = "a change of live fields"
    yield from _reconfigured(node_type, config, breaking)
    for left in before.left():
        yield f"after a run it leaves {left}"


def _lanes(node_type: type[Node[Any]]) -> Iterator[str]:
    if not node_type.thread:
        return
    for name in (*_HOOKS, *node_type.handlers.values(), "finish"):
        if inspect.iscoroutinefunction(getattr(node_type, name, None)):
            yield f"{name}() is async although thread = True: it runs on the event loop, not in the node's thread"


def _inputs(node_type: type[Node[Any]]) -> list[Mapping[str, Caps]]:
    """What it can be given in turn; nothing for a source."""
    if issubclass(node_type, Source):
        return [{}]
    return [each for each in usual_inputs(node_type) if payload_of(each) is not None]


def _closed_at_once(node_type: type[Node[Any]], config: Config) -> Iterator[str]:
    """open() may have failed before it did anything; close() is called all the same."""
    harness = Harness(node_type, config, threads=node_type.thread)
    try:
        harness.call_close()
    except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
        yield (
            f"close() raises {_said(error)} when open() failed before it had done anything; "
            "it is called whatever open() managed to do"
        )
    finally:
        harness.close()


def _ended_at_once(node_type: type[Node[Any]], config: Config) -> Iterator[str]:
    if issubclass(node_type, Source) or not node_type.inputs:
        return
    try:
        with Harness(node_type, config, threads=node_type.thread) as harness:
            harness.finish()
    except FlowstreamError:
        pass  # it says in a sentence what it needs
    except AssertionError as error:
        yield f"when its inputs end before anything came: {error}"
    except Exception as error:  # noqa: BLE001
        yield f"when its inputs end before anything came, it raises {_said(error)}"


def _one_run(
    node_type: type[Node[Any]], config: Config, incoming: Mapping[str, Caps], said: str
) -> Iterator[str]:  # fmt: skip
    """A run with a few payloads of one kind, its snapshot, its end and what comes after that."""
    try:
        with Harness(node_type, config, threads=node_type.thread) as harness:
            if issubclass(node_type, Source):
                _try_source(harness)
            else:
                yield from _given(harness, incoming, said)
            yield from _left(harness, config)
            if not issubclass(node_type, Source):
                harness.finish()
                harness.advance(AFTER_NS)
                if len(harness.emits) > (harness.emitted_at_end or 0):
                    yield f"from {said}, it goes on to emit after its end"
    except FlowstreamError:
        pass  # it takes no such thing, and says so in a sentence
    except AssertionError as error:
        yield f"from {said}: {error}"
    except Exception as error:  # noqa: BLE001
        yield f"from {said}, it raises {_said(error)}"


def _try_source(harness: Harness[Any]) -> None:
    try:
        harness.run(emissions=3)
    except AssertionError:
        return  # fewer than that came; a short source may end


def _given(harness: Harness[Any], incoming: Mapping[str, Caps], said: str) -> Iterator[str]:
    payload = payload_of(incoming)
    took: list[float] = []
    for _ in range(4):
        began = time.thread_time()
        for name in incoming:
            harness.push(payload, name)
        took.append(time.thread_time() - began)
    is_on_loop = not harness.node_type.thread and issubclass(harness.node_type, (Transform, Sink))
    if is_on_loop and min(took) > LOOP_SECONDS:  # the first may load libraries, another may be disturbed
        yield (
            f"from {said}, a call takes {min(took) * 1000:.0f} ms of the event loop even for a small payload; "
            "set thread = True"
        )


def _left(harness: Harness[Any], config: Config) -> Iterator[str]:
    """The snapshot, where it takes one: plain, of a version that it knows, and taken by another instance."""
    take: Callable[[], Any] | None = getattr(harness.node, "snapshot", None)
    left = take() if take is not None else None
    if left is None:
        return
    known = getattr(harness.node_type, "restores", ())
    if left.version not in known:
        yield f"snapshot() gives version {left.version}, but restores names {', '.join(map(str, known)) or 'none'}"
        return
    try:
        values = json.loads(json.dumps(left.values))
    except (TypeError, ValueError) as error:
        yield f"what snapshot() gives is not plain: {error}"
        return
    if values != dict(left.values):
        yield "what snapshot() gives is not plain: it is something else after it was written as JSON"
        return
    with Harness(harness.node_type, config, threads=harness.node_type.thread) as successor:
        try:
            successor.node.restore(left)  # type: ignore[attr-defined, unused-ignore]
        except Exception as error:  # noqa: BLE001
            yield f"restore() raises {_said(error)} for what snapshot() gave"


# --- live fields ----------------------------------------------------------------------------------------------------


def _reconfigured(node_type: type[Node[Any]], config: Config, breaking: Collection[str]) -> Iterator[str]:
    """Every live field changed by itself while it runs: it is refused with a reason, or taken."""
    incoming = next(iter(_inputs(node_type)), {})
    for name, info in node_type.config_class.model_fields.items():
        if not is_live(info) or name in breaking:
            continue
        changed = _another(config, name, info)
        if changed is None:
            continue
        said = f"{name}: {getattr(changed, name)!r}"
        try:
            in_place = node_type.updates_in_place(config, changed)
        except Exception as error:  # noqa: BLE001
            yield f"updates_in_place() raises {_said(error)} for {said}"
            continue
        if in_place is not True:
            continue
        try:
            with Harness(node_type, config, threads=node_type.thread) as harness:
                _move(harness, incoming)
                try:
                    harness.reconfigure_to(changed)
                except ValueError:
                    continue  # refused in accepts(), or by the node: it is replaced instead
                _move(harness, incoming)
        except FlowstreamError:
            continue
        except Exception as error:  # noqa: BLE001
            yield f"with {said} changed in place, it raises {_said(error)}"


def _move(harness: Harness[Any], incoming: Mapping[str, Caps]) -> None:
    if issubclass(harness.node_type, Source):
        _try_source(harness)
        return
    for name in incoming:
        harness.push(payload_of(incoming), name)


def _another(config: Config, name: str, info: FieldInfo) -> Config | None:
    """The configuration with another value of one field, as far as one can be thought of."""
    values = {each: getattr(config, each) for each in type(config).model_fields}
    now = values[name]
    for candidate in _candidates(now, info, type(config), name):
        if candidate == now:
            continue
        try:
            return type(config).model_validate({**values, name: candidate})
        except ValidationError:
            continue
    return None


def _candidates(now: Any, info: FieldInfo, config_class: type[Config], name: str) -> Iterator[Any]:
    yield from info.examples or ()
    described = config_class.model_json_schema(by_alias=False)["properties"].get(name, {})
    kinds = [described, *described.get("anyOf", ())]
    for kind in kinds:
        yield from kind.get("enum", ())
    if isinstance(now, bool):
        yield not now
    elif isinstance(now, int):
        yield from (now + 1, now * 2, now // 2, now - 1)
    elif isinstance(now, float):
        yield from (now + 0.5, now * 2, now / 2, now - 0.5)
    elif isinstance(now, str):
        yield from (f"{now} another", "another")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
