"""Plans as SVG pictures."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowstream.graph import Plan, compile_graph
from flowstream.graph.plan import Group
from flowstream.graph.svg import layout_of, shortened, text_width, to_svg
from flowstream.node.registry import Registry
from tests.graph import pack
from tests.graph.compiling import BEGAN
from tests.graph.drawing import CONVERTED, PICTURES, STUDIO, edge, plan, planned

SVG = "{http://www.w3.org/2000/svg}"
GRAPHS = Path(__file__).parent.parent.parent / "graphs"


def drawn(a_plan: Plan) -> ElementTree.Element:
    """The picture, read back by an XML parser."""
    return ElementTree.fromstring(to_svg(a_plan))


def texts(picture: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in picture.iter() if each.tag in (f"{SVG}text", f"{SVG}tspan")]


def tooltips(picture: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}title")]


def classes(picture: ElementTree.Element) -> list[str]:
    return [each.get("class", "") for each in picture.iter()]


def test_what_is_on_the_picture() -> None:
    picture = drawn(STUDIO)
    assert picture.tag == f"{SVG}svg"
    assert picture.get("role") == "img"
    assert picture.get("aria-label") == "Graph graph: 7 nodes, 7 edges"
    said = texts(picture)
    for text in ("camera", "clean", "high", "For phones", "The studio", "lib/studio.yaml", "ladder", "lib/ladder.yaml"):
        assert text in said
    assert said.count("yuv420p 1280x720 30 fps") == 2
    assert said.count("h264 to video") == 2
    assert classes(picture).count("fs-line fs-feedback") == 2
    assert classes(picture).count("fs-frame") == 2
    assert {"fs-box fs-source", "fs-box fs-transform", "fs-box fs-sink"} <= set(classes(picture))


def test_tooltips_say_all() -> None:
    said = tooltips(drawn(STUDIO))
    assert "For phones\nstudio/ladder/low\nencode (transform)" in said
    assert (
        "studio/clean.frames from camera.video\nVideoFrame: format yuv420p, width 1280, height 720, fps 30" in said
    )  # fmt: skip
    assert "abr.reports from out.reports\nRecord, feedback" in said
    assert "tape.video from studio/ladder/low.packets\nh264" in said
    assert "The studio\nstudio\nlib/studio.yaml" in said


def test_converters_are_small_and_dashed_where_they_may_have_nothing_to_do() -> None:
    picture, layout = drawn(CONVERTED), layout_of(CONVERTED)
    assert {"decode, high", "pixel format bgr24, medium"} <= set(texts(picture))
    kinds = classes(picture)
    assert kinds.count("fs-box fs-converter") == kinds.count("fs-box fs-converter fs-maybe") == 1
    assert "view.video~decode\ndecode, high cost, on view.video\npass" in tooltips(picture)
    assert "pixel format bgr24, medium cost, on view.video\nonly where it has to" in "\n".join(tooltips(picture))
    assert layout.boxes["view.video~decode"].height < layout.boxes["film"].height
    assert len({rect.y + rect.height / 2 for rect in layout.boxes.values()}) == 1


def test_a_long_label_goes_on_beneath_its_line() -> None:
    door = plan(
        [planned("a", pack.Pattern), planned("door", pack.Door)],
        [edge("a:video", "door:front", PICTURES), edge("a:video", "door:back", PICTURES)],
    )
    said = texts(drawn(door))
    assert said.count("yuv420p 1280x720 30 fps") == 2
    assert {"to front", "to back"} <= set(said)


def test_it_needs_nothing_else_and_knows_light_and_dark() -> None:
    text = to_svg(STUDIO)
    assert "@media (prefers-color-scheme:dark)" in text
    assert not re.search(r"<script|href|url\(|@import|@font-face|https?://(?!www\.w3\.org/2000/svg)", text)
    light, dark = text.split("@media", 1)
    coloured = {name for name, rule in re.findall(r"\.(fs-\w+(?:-\w+)?)\{([^}]*)\}", light) if "#" in rule}
    assert coloured - {"fs-reach"} <= {name for name, _ in re.findall(r"\.(fs-\w+(?:-\w+)?)\{([^}]*)\}", dark)}
    used = {name for each in classes(drawn(STUDIO)) + classes(drawn(CONVERTED)) for name in each.split()}
    assert used == set(re.findall(r"\.(fs-\w+(?:-\w+)?)\{", light))


NAMES = st.text(min_size=1, max_size=30)
ODD = [
    "<b>&amp;]]></b>", "\x00\x1b[31m", "\ud800", "\ufffe", "مرحبا بالعالم", "שלום", "字" * 40, "é" * 60,
    "\U0001f469\u200d\U0001f467" * 9, "\"'`", "a\nb\tc",
]  # fmt: skip


@given(NAMES, NAMES, NAMES)
@example(*ODD[:3])
@example(*ODD[3:6])
@example(*ODD[6:9])
@example(*ODD[8:11])
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_a_name(label: str, type_id: str, file: str) -> None:
    odd = plan(
        [planned("g/a", pack.Pattern, label, type_id), planned("g/b", pack.Drop)],
        [edge("g/a:video", "g/b:anything", PICTURES)],
        Group("g", file, label),
        name=label,
    )
    text = to_svg(odd)
    text.encode()
    picture = ElementTree.fromstring(text)
    allowed = {"svg", "style", "rect", "g", "path", "text", "title", "tspan"}
    assert {each.tag.removeprefix(SVG) for each in picture.iter()} <= allowed
    assert to_svg(odd) == text


def test_markup_in_a_name_is_text() -> None:
    odd = plan([planned("a", pack.Pattern, "<b>&amp;")], [], name='a" onload="x')
    picture = drawn(odd)
    assert "<b>&amp;" in texts(picture)
    assert "onload" not in picture.attrib
    assert picture.get("aria-label") == 'Graph a" onload="x: 1 node, 0 edges'


@given(st.text(max_size=60) | st.sampled_from(ODD), st.floats(30, 300))
@settings(deadline=None)
def test_shortened_texts_fit(text: str, room: float) -> None:
    short = shortened(text, 12, room)
    assert text_width(short, 12) <= room
    assert "\n" not in short
    if text_width(" ".join(text.split()), 12) > room + 12:
        assert short.endswith("…")


def test_what_belongs_together_is_not_cut_apart() -> None:
    assert shortened("x" * 5 + "e\u0301" * 40, 12, 100).removesuffix("…").endswith("e\u0301")
    family = "👩‍👩‍👧"
    assert shortened(family * 20, 12, 100).removesuffix("…").replace(family, "") == ""


def test_wide_characters_take_room() -> None:
    assert text_width("字字字", 10) > text_width("abc", 10) > text_width("ill", 10)
    assert text_width("e\u0301", 10) == text_width("e", 10)


def test_a_long_name_is_whole_in_the_tooltip() -> None:
    name = "recording-of-the-whole-evening-kept-for-a-month-on-the-big-disk"
    picture = drawn(plan([planned(name, pack.Pattern)], []))
    assert any(text.endswith("…") and name.startswith(text[:-1]) for text in texts(picture))
    assert any(each.startswith(f"{name}\n") for each in tooltips(picture))


@pytest.mark.parametrize("name", ["hello", "desk", "camera", "file"])
def test_the_graphs_that_ship(name: str) -> None:
    shipped = compile_graph(
        str(GRAPHS / f"{name}.yaml"),
        read=lambda path: Path(path).read_bytes(),
        environ={},
        registry=Registry.installed(),
        wallclock=BEGAN,
        sets={"path": "film.mp4"} if name == "file" else {},
    )
    picture = drawn(shipped)
    said = texts(picture)
    for id_, node in shipped.nodes.items():
        assert node.conversion or {node.label or id_, node.type_id} <= set(said)
    assert sum(each.startswith("fs-line") for each in classes(picture)) == len(shipped.edges)
    assert layout_of(replace(shipped)) == layout_of(shipped)
