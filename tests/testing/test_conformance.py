"""The rules of node types: each broken one is found, and all at once."""

import asyncio
import importlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from pydantic import Field

from flowstream import (
    AudioCaps,
    Bitrate,
    Caps,
    Config,
    Context,
    Emit,
    Input,
    Node,
    Output,
    PeerError,
    Percentage,
    Record,
    Sink,
    Source,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)
from flowstream.testing import ConformanceError, check_node, graph_of, make_frame
from flowstream_nodes.flow.discard import Discard

GRAPH = """
    ```yaml
    flowstream: 1
    nodes:
      a: {type: test-pattern}
      it: {type: acme/it, from: a}
    ```
    """


def findings(node_type: type[Node[Any]], config: Any = None, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConformanceError) as caught:
        check_node(node_type, config, **options)
    error = caught.value
    assert str(error).startswith(f"{node_type.type_id or node_type.__qualname__}:\n  - ")
    return error.findings


def documented(text: str) -> type[Node[Any]]:
    body = {"__doc__": text, "video": Input(VideoFrame), "consume": lambda self, payload: None}
    return type("It", (Sink,), body, type="acme/it")


def test_a_good_one_passes() -> None:
    check_node(documented("Takes pictures.\n" + GRAPH))
    check_node(Discard)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Takes pictures" + GRAPH, "the first line of the docstring is no sentence; `flowstream nodes` shows it"),
        ("It " + "very " * 30 + "much." + GRAPH, "the first line of the docstring has 158 characters; 120 fit a line"),
        ("Takes pictures.", "the docstring of It does not end with a ```yaml block"),
        ("Takes pictures.\n\n```yaml\na: [\n```\n", "the graph in the docstring is no YAML: "),
        ("Takes pictures.\n\n```yaml\nnodes: {}\n```\n",
         "the graph in the docstring is not complete; it begins with `flowstream: 1` and has `nodes:`"),
        ("Takes pictures.\n\n```yaml\nflowstream: 1\nnodes: {it: {type: acme/it, from: b}}\n```\n",
         "line 2 of the graph in the docstring: FS301 there is no node b"),
        ("Takes pictures.\n\n```yaml\nflowstream: 1\nnodes: {a: {type: b}}\n```\n",
         "the graph in the docstring does not use acme/it"),
        ("Takes pictures.\n" + GRAPH + "\nAnd more.", "the docstring of It does not end with a ```yaml block"),
    ],
)  # fmt: skip
def test_documentation(text: str, finding: str) -> None:
    (found,) = findings(documented(text))
    assert found.startswith(finding)


def test_a_class_without_type_id_or_docstring() -> None:
    class Bare(Sink):
        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...

    found = findings(Bare, opens=False)
    assert found[0] == 'it has no type id: class Blur(Transform[BlurConfig], type="acme/blur")'
    assert found[1] == "it has no docstring of its own"


class Careless(Config):
    """Settings with everything wrong."""

    plain: int = 3
    silent: str = Field("x", json_schema_extra={"x-live": False})
    bare: int = live(default=3, description="Some amount.")
    loose: float = field(default=1.0, description="Speed, in pixels per second")
    wrong: int = live(default=0, ge=1, description="Number of things.")
    fine: Bitrate = live(default=1, description="What is sent.")
    counted: int = live(default=1, description="How many.")


def test_config_fields() -> None:
    class It(Sink[Careless], type="acme/it"):
        """Takes pictures.

        ```yaml
        flowstream: 1
        nodes: {a: {type: test-pattern}, it: {type: acme/it, from: a}}
        ```
        """

        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...

    assert findings(It, opens=False) == (
        "line 2 of the graph in the docstring: FS208 it: the settings do not fit together",
        "the default of wrong is not valid: Input should be greater than or equal to 1",
        "field 'plain' is made neither by live() nor by field(): say whether a reload may change it",
        "field 'plain' has no description",
        "field 'plain' is a number without a unit; name it in the description or by unit=",
        "field 'silent' has no description",
        "field 'bare' is a number without a unit; name it in the description or by unit=",
        "the description of field 'loose' is no sentence",
    )


def test_several_ports_have_to_be_explained() -> None:
    class It(Transform, type="acme/it"):
        __doc__ = "Takes pictures.\n" + GRAPH.replace("from: a", "inputs: {one: a, two: a}")
        one = Input(VideoFrame, doc="The first.")
        two = Input(VideoFrame)
        out = Output(VideoFrame)
        notes = Output(Record[str], doc="Notes.")

        @one.handler
        def on_one(self, frame: VideoFrame) -> None: ...

        @two.handler
        def on_two(self, frame: VideoFrame) -> None: ...

    assert findings(It) == (
        "input 'two' has no doc; with several inputs the name alone does not tell them apart",
        "output 'out' has no doc; with several outputs the name alone does not tell them apart",
        "output 'out' should be main=True, so that a bare node name goes on to mean it",
    )


class Messy(Sink, type="acme/it"):
    __doc__ = "Takes pictures.\n" + GRAPH

    video = Input(VideoFrame)
    left: list[Any] = []

    def open(self) -> None:
        done = threading.Event()
        thread = threading.Thread(target=done.wait, args=(30,), name="forgotten", daemon=True)
        thread.start()
        self.left.append((done, thread, socket.socket()))

    def consume(self, frame: VideoFrame) -> None: ...


def test_what_is_left_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.leaks.GRACE_SECONDS", 0.01)
    try:
        thread, file = findings(Messy)
    finally:
        for done, forgotten, opened in Messy.left:
            done.set()
            forgotten.join()
            opened.close()
        Messy.left.clear()
    assert thread == "after open() and close() it leaves thread 'forgotten'"
    assert file.startswith("after open() and close() it leaves open socket:[")


def test_a_required_field_needs_a_value_to_open_with() -> None:
    class Named(Config):
        """Settings."""

        name: str = field(description="What it is called.")

    class It(Sink[Named], type="acme/it"):
        __doc__ = "Takes pictures.\n" + GRAPH.replace("from: a", "from: a, name: x")

        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...

    assert findings(It) == ("to open it, check_node needs config= with name",)
    check_node(It, {"name": "x"})
    check_node(It, opens=False)


def test_heavy_imports_are_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowstream.testing import conformance

    (tmp_path / "heavy_pack.py").write_text("import numpy, cryptography\n")
    (tmp_path / "broken_pack.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert conformance._heavy_imports("heavy_pack") == ("numpy", "cryptography")
    assert conformance._heavy_imports("broken_pack") == (
        "nothing at all, it fails: ZeroDivisionError: division by zero",
    )


def test_the_graph_is_given_as_it_stands() -> None:
    assert graph_of(Discard).startswith("flowstream: 1\nnodes:\n  pattern: {type: test-pattern")


# --- negotiate ------------------------------------------------------------------------------------------------------


def promising(told: Any, *, gives: str = "bgr24") -> type[Node[Any]]:
    """A node type that says ``told`` about what comes out, and gives pictures of one format."""

    class It(Transform, type="acme/it"):
        __doc__ = "Takes pictures.\n" + GRAPH

        video = Input(VideoFrame)
        out = Output(VideoFrame, caps=VideoCaps(format=("bgr24", "yuv420p")))

        @classmethod
        def negotiate(cls, config: Any, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
            return cast("Mapping[str, Caps]", told(incoming) if callable(told) else told)

        def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
            yield self.out(frame.writable(gives))

    return It


def test_what_negotiate_says_may_be_true() -> None:
    check_node(promising({"out": VideoCaps(format="bgr24")}))
    check_node(promising(lambda incoming: {"out": VideoCaps(format="bgr24", width=incoming["video"].width)}
                         if incoming else {}))  # fmt: skip
    check_node(promising({}))


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        ({"sound": VideoCaps()}, "negotiate() tells of 'sound', which is not one of its outputs"),
        ({"out": AudioCaps()}, "negotiate() gives AudioCaps for 'out', which has VideoCaps"),
        ({"out": VideoCaps(format="nv12")},
         "negotiate() contradicts what output 'out' declares: format: offered nv12, accepted bgr24 or yuv420p"),
        (lambda incoming: {"out": incoming["video"]},
         "negotiate() raises KeyError when nothing is known to come in: 'video'"),
    ],
)  # fmt: skip
def test_what_negotiate_may_not_say(told: Any, finding: str) -> None:
    assert finding in findings(promising(told))


def test_what_comes_out_is_what_negotiate_said() -> None:
    found = findings(promising({"out": VideoCaps(format="yuv420p", width=64)}))
    assert found[0] == (
        "from format yuv420p, width 64, height 48, fps 30.0, output 'out' gives format bgr24, "
        "but negotiate() said yuv420p"
    )
    found = findings(promising({"out": VideoCaps(width=32)}))
    assert "output 'out' gives width 64, but negotiate() said 32" in found[0]


def test_negotiate_of_a_source_is_checked_against_its_first_picture() -> None:
    class It(Source, type="acme/it"):
        """Gives pictures.

        ```yaml
        flowstream: 1
        nodes: {it: {type: acme/it}, end: {type: discard, from: it}}
        ```
        """

        out = Output(VideoFrame)

        @classmethod
        def negotiate(cls, config: Any, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
            return {"out": VideoCaps(format="yuv420p")}

        async def run(self, ctx: Context) -> None:
            await ctx.emit(self.out(make_frame()))

    assert findings(It) == (
        "from nothing, output 'out' gives format bgr24, but negotiate() said yuv420p",
    )  # fmt: skip


def test_negotiate_loads_no_media_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "promising_pack.py").write_text(
        "from flowstream import Input, Output, Transform, VideoFrame\n\n\n"
        'class It(Transform, type="acme/it"):\n'
        '    """Takes pictures.\n\n    ```yaml\n    flowstream: 1\n'
        "    nodes: {a: {type: test-pattern}, it: {type: acme/it, from: a}}\n    ```\n"
        '    """\n\n'
        "    video = Input(VideoFrame)\n    out = Output(VideoFrame)\n\n"
        "    @classmethod\n    def negotiate(cls, config, incoming):\n"
        "        import cv2\n\n        return {}\n\n"
        "    def process(self, frame):\n        yield self.out(frame)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    it = importlib.import_module("promising_pack").It
    try:
        assert findings(it, opens=False) == (
            "negotiate() imports cv2, numpy; it is asked when a graph is checked, without them",
        )
    finally:
        del sys.modules["promising_pack"]


# --- life -----------------------------------------------------------------------------------------------------------


class Sizes(Config):
    """Settings."""

    size: int = live(default=1, ge=0, description="Number of things.")
    mode: Literal["a", "b"] = live(default="a", description="Which of two ways.")
    is_loud: bool = live(default=False, description="Whether it is loud.")
    share: Percentage = live(default=0.5, description="How much of it.")
    rate: Bitrate = live(default=1000, description="What is sent.")
    word: str = live(default="x", description="A word.", examples=["y"])


class Plain(Transform[Sizes], type="acme/it"):
    __doc__ = "Takes pictures.\n" + GRAPH

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        yield self.out(frame)


def other(**members: Any) -> type[Node[Any]]:
    """The plain one with something else about it."""
    return type("It", (Plain,), {"__doc__": Plain.__doc__, **members}, type="acme/it")


def test_every_live_field_is_changed_by_itself() -> None:
    seen: list[tuple[str, Any]] = []

    def reconfigured(self: Plain, old: Sizes) -> None:
        seen.extend(
            (name, getattr(self.config, name))
            for name in Sizes.model_fields
            if getattr(old, name) != getattr(self.config, name)
        )

    check_node(other(reconfigured=reconfigured))
    assert seen == [("size", 2), ("mode", "b"), ("is_loud", True), ("share", 1.0), ("rate", 1001), ("word", "y")]


def test_a_live_field_may_be_refused_but_not_break() -> None:
    def refuse(self: Plain, config: Sizes) -> None:
        raise ValueError("no")

    def breaks(self: Plain, old: Sizes) -> None:
        if self.config.mode != old.mode:
            raise KeyError("lost")

    check_node(other(accepts=refuse, reconfigured=breaks))
    assert findings(other(reconfigured=breaks)) == ("with mode: 'b' changed in place, it raises KeyError: 'lost'",)
    check_node(other(reconfigured=breaks), breaking=["mode"])

    @classmethod  # type: ignore[misc]
    def undecided(cls: Any, opened: Sizes, new: Sizes) -> bool:
        raise TypeError("what")

    assert "updates_in_place() raises TypeError: what for size: 2" in findings(other(updates_in_place=undecided))


def test_close_is_called_after_an_open_that_failed() -> None:
    def open(self: Any) -> None:
        self.file = 1

    def close(self: Any) -> None:
        del self.file

    (finding,) = findings(other(open=open, close=close))
    assert finding.startswith("close() raises AttributeError: ")
    assert finding.endswith(
        "when open() failed before it had done anything; it is called whatever open() managed to do"
    )


def test_an_end_without_a_beginning() -> None:
    def finish(self: Any) -> Any:
        yield self.out(self.last)

    def process(self: Any, frame: VideoFrame) -> Any:
        self.last = frame
        return ()

    (finding,) = findings(other(finish=finish, process=process))
    assert finding.startswith("when its inputs end before anything came, it raises AttributeError: ")


def test_what_goes_wrong_with_a_payload() -> None:
    def process(self: Any, frame: VideoFrame) -> Any:
        if frame.format == "yuv420p":
            raise IndexError("no third plane")
        if frame.format == "bgr24":
            raise PeerError("gone")
        return ()

    assert findings(other(process=process)) == (
        "from format yuv420p, width 64, height 48, fps 30.0, it raises IndexError: no third plane",
        "with size: 2 changed in place, it raises IndexError: no third plane",
        "with mode: 'b' changed in place, it raises IndexError: no third plane",
        "with is_loud: True changed in place, it raises IndexError: no third plane",
        "with share: 1.0 changed in place, it raises IndexError: no third plane",
        "with rate: 1001 changed in place, it raises IndexError: no third plane",
        "with word: 'y' changed in place, it raises IndexError: no third plane",
    )


class Endless(Node, type="acme/it"):
    __doc__ = "Takes pictures.\n" + GRAPH

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async for _ in ctx.stream(self.video):
            pass
        await asyncio.get_running_loop().create_future()


def test_a_node_that_goes_on_after_its_end() -> None:
    assert findings(Endless) == (
        "when its inputs end before anything came: acme/it goes on although its inputs have ended",
        "from format yuv420p, width 64, height 48, fps 30.0: acme/it goes on although its inputs have ended",
        "from format bgr24, width 64, height 48, fps 30.0: acme/it goes on although its inputs have ended",
    )


class Late(Node, type="acme/it"):
    __doc__ = "Takes pictures.\n" + GRAPH

    video = Input(VideoFrame)
    out = Output(VideoFrame)

    async def run(self, ctx: Context) -> None:
        async def later() -> None:
            await ctx.sleep_until_ns(ctx.now_ns() + 1_000_000_000)
            await ctx.emit(self.out(make_frame()))

        @asynccontextmanager
        async def session(holding: Any) -> Any:
            holding.start_soon(later)
            yield 1

        async with ctx.hold("late", session):
            ctx.ready()
            async for _ in ctx.stream(self.video):
                pass


def test_a_node_that_emits_after_its_end() -> None:
    assert "from format yuv420p, width 64, height 48, fps 30.0, it goes on to emit after its end" in findings(Late)


def test_an_async_hook_is_not_in_the_thread() -> None:
    async def open(self: Any) -> None: ...

    assert findings(other(open=open, thread=True)) == (
        "open() is async although thread = True: it runs on the event loop, not in the node's thread",
    )


def test_a_slow_call_belongs_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(self: Any, frame: VideoFrame) -> Any:
        until = time.thread_time() + 0.025
        while time.thread_time() < until:
            pass
        return ()

    (finding, _) = findings(other(process=process))
    assert re.fullmatch(
        r"from format yuv420p, width 64, height 48, fps 30\.0, a call takes \d+ ms of the event loop even for a small "
        r"payload; set thread = True", finding,
    )  # fmt: skip
    check_node(other(process=process, thread=True))


def test_a_call_that_never_returns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstream.testing.life.LONG_SECONDS", 0.2)
    stop = threading.Event()
    ended: list[threading.Thread] = []

    def process(self: Any, frame: VideoFrame) -> Any:
        ended.append(threading.current_thread())
        stop.wait(30)
        return ()

    found = findings(other(process=process))
    stop.set()
    ended[0].join()
    assert found == (
        "it has not come back from a run with format yuv420p, width 64, height 48, fps 30.0 after 0.2 s",
    )  # fmt: skip


@dataclass
class Left:
    version: int
    values: Mapping[str, Any]


@pytest.mark.parametrize(
    ("left", "restore", "finding"),
    [
        (Left(2, {"a": 1}), None, "snapshot() gives version 2, but restores names 1"),
        (Left(1, {"a": object()}), None, "what snapshot() gives is not plain: Object of type object is not JSON"),
        (Left(1, {1: "a"}), None, "what snapshot() gives is not plain: it is something else after it was written"),
        (Left(1, {"a": 1}), "a", "restore() raises KeyError: 'a' for what snapshot() gave"),
        (Left(1, {"a": 1}), None, ""),
    ],
)
def test_snapshots(left: Left, restore: str | None, finding: str) -> None:
    def take(self: Any, snapshot: Any) -> None:
        if restore is not None:
            raise KeyError(restore)

    node_type = other(snapshot=lambda self: left, restore=take, restores=(1,))
    if finding:
        assert findings(node_type)[0].startswith(finding)
    else:
        check_node(node_type)
