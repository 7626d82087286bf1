"""A pack folder that is edited while its nodes run: who gets new classes, who keeps the old, what is refused."""

import importlib
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream.control.files import GraphFile
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.events import Applied, Event, Refused
from flowstream.runtime.reload import Reloader
from tests.runtime.test_saves import Desk, actions, at_desk, kinds

pytestmark = pytest.mark.usefixtures("backend")

SHAPES = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    width: int
"""

DETECT = """
from flowstream import Output, Record, Source
from .shapes import Box


class Detect(Source, type="acme/detect"):
    \"\"\"Gives a box each 10 ms.\"\"\"

    is_live = True
    out = Output(Record[Box])

    async def run(self, ctx):
        while True:
            await ctx.emit(self.out(Record(Box(1), ctx.media_ns())))
            await ctx.sleep_until_ns(ctx.now_ns() + 10_000_000)
"""

PASS = """
from flowstream import Input, Output, Record, Transform


class Pass(Transform, type="acme/pass"):
    \"\"\"Passes on what comes, whatever it is.\"\"\"

    items = Input(Record)
    out = Output(like=items)

    def process(self, item):
        yield self.out(item)
"""

DRAW = """
from flowstream import Input, Record, Sink
from .shapes import Box


class Draw(Sink, type="acme/draw"):
    \"\"\"Takes boxes that it knows.\"\"\"

    boxes = Input(Record)

    def open(self):
        self.known, self.unknown = 0, 0

    def consume(self, item: Record[Box]) -> None:
        if isinstance(item.value, Box):
            self.known += 1
        else:
            self.unknown += 1
"""

BOXES = """
nodes:
  detect: {type: acme/detect}
  pass: {type: acme/pass, from: detect}
  draw: {type: acme/draw, from: pass}
"""

OWN_BOX = DETECT.replace(
    "from .shapes import Box", "from dataclasses import dataclass\n\n\n@dataclass\nclass Box:\n    height: int\n"
)


def boxes(desk: Desk) -> None:
    for name, text in (("shapes", SHAPES), ("detect", DETECT), ("pass_on", PASS), ("draw", DRAW)):
        desk.write(f"acme/{name}.py", text)
    desk.write("graph.yaml", BOXES)


async def all_are_known(engine: Engine) -> bool:
    """Whether boxes come to where they are drawn, and are what is known there."""
    node: Any = engine.runners["draw"].node
    node.known = node.unknown = 0
    await anyio.sleep(0.105)
    return node.known >= 10 and not node.unknown


def test_an_edited_payload_class_replaces_all_that_use_it_and_nobody_else(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        assert await all_are_known(engine)
        passing = engine.runners["pass"]
        await desk.save("acme/shapes.py", SHAPES + "    depth: int = 3\n")
        assert actions(events[0]) == {"detect": "replace", "pass": "keep", "draw": "replace"}
        assert engine.runners["pass"] is passing
        assert await all_are_known(engine)

    at_desk(tmp_path, main, before=boxes)


def test_an_edited_node_shares_the_payload_class_of_its_file_as_before(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        await desk.save("acme/detect.py", DETECT.replace("Box(1)", "Box(2)"))
        assert actions(events[0]) == {"detect": "replace", "pass": "keep", "draw": "keep"}
        assert await all_are_known(engine)

    at_desk(tmp_path, main, before=boxes)


def test_a_file_that_takes_its_payload_class_from_the_edited_one_is_new_too(tmp_path: Path) -> None:
    """The class stands beside the node that gives it; whoever imports it there is replaced with it."""

    def beside(desk: Desk) -> None:
        boxes(desk)
        desk.write("acme/detect.py", OWN_BOX.replace("height", "width"))
        desk.write("acme/draw.py", DRAW.replace(".shapes", ".detect"))

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        assert await all_are_known(engine)
        await desk.save("acme/detect.py", OWN_BOX)
        assert actions(events[0]) == {"detect": "replace", "pass": "keep", "draw": "replace"}
        assert await all_are_known(engine)

    at_desk(tmp_path, main, before=beside)


def test_a_kept_node_is_given_no_instances_of_a_class_that_it_does_not_know(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        runners = dict(engine.runners)
        await desk.save("acme/detect.py", OWN_BOX)
        (refused,) = events
        assert isinstance(refused, Refused)
        place, _, reason = refused.reason.partition(": ")
        assert place == f"{tmp_path}/graph.yaml:3:3"
        assert reason == (
            "detect (acme/detect) is to be replaced and would go by the Box of detect.py, but draw (acme/draw) stays "
            "and goes by the Box of shapes.py: two classes of one name, and what is of one is not of the other "
            "(import the same one in draw.py (from .detect import Box), so that both are replaced, or give one of the "
            "two another name)"
        )
        assert engine.runners == runners
        assert await all_are_known(engine)
        await desk.save("acme/draw.py", DRAW.replace(".shapes", ".detect"))
        assert kinds(events) == [Refused, Applied]
        assert actions(events[1]) == {"detect": "replace", "pass": "keep", "draw": "replace"}
        assert await all_are_known(engine)

    at_desk(tmp_path, main, before=boxes)


def test_a_consumer_that_goes_by_another_class_than_its_kept_producer_is_refused_too(tmp_path: Path) -> None:
    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        await desk.save("acme/draw.py", DRAW.replace("from .shapes import Box", "\n\nclass Box:\n    width = 1\n"))
        (refused,) = events
        assert isinstance(refused, Refused)
        assert "draw (acme/draw) is to be replaced and would go by the Box of draw.py" in refused.reason
        assert "detect (acme/detect) stays and goes by the Box of shapes.py" in refused.reason
        assert await all_are_known(engine)

    at_desk(tmp_path, main, before=boxes)


def test_two_classes_of_one_name_in_ports_are_told_apart(tmp_path: Path) -> None:
    def in_ports(desk: Desk) -> None:
        boxes(desk)
        desk.write("acme/shapes.py", "from flowstream import Record\n\n\nclass Box(Record[int]):\n    pass\n")
        desk.write("acme/detect.py", ports(DETECT))
        desk.write("acme/draw.py", DRAW.replace("Input(Record)", "Input(Box)").replace("Record[Box]", "Box"))
        desk.write("graph.yaml", BOXES.replace("from: pass", "from: detect"))

    def ports(text: str) -> str:
        return text.replace("Output(Record[Box])", "Output(Box)").replace("Record(Box(1),", "Box(1,")

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        own = ports(DETECT).replace("from .shapes import Box", "\n\nclass Box(Record[int]):\n    pass\n")
        await desk.save("acme/detect.py", own)
        (refused,) = events
        assert isinstance(refused, Refused)
        (finding,) = refused.diagnostics
        assert finding.code == "FS305"
        assert finding.message == "draw.boxes takes the Box of shapes.py, but detect.out gives the Box of detect.py"
        assert finding.hint == "these are two classes of one name: let both node types import Box from one file"

    at_desk(tmp_path, main, before=in_ports)


def test_a_file_that_was_imported_without_a_dot_cannot_be_edited_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def ordinary(desk: Desk) -> None:
        boxes(desk)
        for name, text in (("detect", DETECT), ("draw", DRAW)):
            desk.write(f"acme/{name}.py", text.replace("from .shapes", "from acme.shapes") + f"# {tmp_path}\n")
        importlib.invalidate_caches()

    async def main(engine: Engine, desk: Desk, reloader: Reloader, events: list[Event]) -> None:
        assert await all_are_known(engine)
        await desk.save("acme/shapes.py", SHAPES + "    depth: int = 3\n")
        (refused,) = events
        assert isinstance(refused, Refused)
        assert {(each.code, each.place.line) for each in refused.diagnostics if each.place} == {
            ("FS204", 3),
            ("FS204", 4),
            ("FS204", 5),
        }
        assert refused.diagnostics[0].message == (
            "acme/shapes.py was changed, but it was imported as acme.shapes, which Python does once: Box would stay as "
            "before, in the nodes that run and in those that come"
        )
        assert refused.diagnostics[0].hint == ("import it with a dot (from .shapes import Box), or restart flowstream")
        assert await all_are_known(engine)
        await desk.save("acme/shapes.py", SHAPES)
        assert [type(each) for each in events] == [Refused, Applied]

    try:
        at_desk(tmp_path, main, before=ordinary)
    finally:
        for name in ("acme.shapes", "acme"):
            sys.modules.pop(name, None)


# --- files that import one another ------------------------------------------------------------------------------------


def compiled(folder: Path, graph: str = BOXES, **files: str) -> Plan:
    for name, text in files.items():
        (folder / "acme").mkdir(exist_ok=True)
        (folder / "acme" / f"{name}.py").write_text(text)
    (folder / "graph.yaml").write_text(graph)
    return GraphFile(str(folder / "graph.yaml"), folders=(folder / "acme",)).compile()


def test_a_file_below_another_edited_one_is_followed_however_deep_and_in_circles(tmp_path: Path) -> None:
    deep = {
        "shapes": "from ._sizes import Size\n" + SHAPES,
        "_sizes": "class Size:\n    from . import _units\n",
        "_units": "def back():\n    from .shapes import Box\n    return Box\nUNIT = 1\n",
    }
    sources = {"detect": DETECT, "pass_on": PASS, "draw": DRAW, **deep}
    first = compiled(tmp_path, **sources)
    again = compiled(tmp_path)
    assert {id: node.node_type for id, node in first.nodes.items()} == {
        id: node.node_type for id, node in again.nodes.items()
    }
    third = compiled(tmp_path, _units=deep["_units"] + "MORE = 2\n")
    changed = {id for id, node in third.nodes.items() if node.implementation != first.nodes[id].implementation}
    assert changed == {"detect", "draw"}
    box = sys.modules[third.nodes["draw"].implementation].Box
    assert sys.modules[third.nodes["detect"].implementation].Box is box
    assert sys.modules[box.__module__].Size._units.back() is box


def test_an_edit_within_the_same_second_and_of_the_same_length_is_seen(tmp_path: Path) -> None:
    for number in range(10):
        made = compiled(tmp_path, shapes=SHAPES, pass_on=PASS, draw=DRAW, detect=DETECT + f"\nNUMBER = {number}\n")
        assert number == sys.modules[made.nodes["detect"].implementation].NUMBER
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("shapes", "def broken(:", "detect.py: shapes.py: invalid syntax (shapes.py, line 1)"),
        ("shapes", "class Bow:\n    pass\n", "detect.py: cannot import name 'Box' from '.shapes'"),
        ("shapes", "from .nothing import Box", "detect.py: shapes.py: No module named '.nothing'"),
        ("shapes", "from ._deep import Box", "detect.py: _deep.py: division by zero"),
    ],
)
def test_what_is_wrong_with_an_imported_file_is_told_of_it(tmp_path: Path, file: str, text: str, said: str) -> None:
    from flowstream.errors import GraphError

    before = set(sys.modules)
    with pytest.raises(GraphError) as refused:
        compiled(
            tmp_path, **{"detect": DETECT, "pass_on": PASS, "draw": DRAW, "_deep": "1 / 0", file: text},
        )  # fmt: skip
    assert said in refused.value.diagnostics[0].message
    assert "flowstream_folder" not in refused.value.diagnostics[0].message
    left = {name.rpartition(".")[2] for name in set(sys.modules) - before if name.startswith("flowstream_folder")}
    assert not left & {"detect", "draw"}
