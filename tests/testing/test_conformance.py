"""The rules of node types: each broken one is found, and all at once."""

import importlib
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

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
        nodes: {it: {type: acme/it, from: a}}
        ```
        """

        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...

    assert findings(It, opens=False) == (
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
        __doc__ = "Takes pictures.\n" + GRAPH

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
        __doc__ = "Takes pictures.\n" + GRAPH

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
        nodes: {it: {type: acme/it}}
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
        '    """Takes pictures.\n\n    ```yaml\n    flowstream: 1\n    nodes: {it: {type: acme/it, from: a}}\n    ```\n'
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
