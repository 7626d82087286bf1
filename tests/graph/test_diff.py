"""Two plans to a patch."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstream import Node
from flowstream.graph import Change, Patch, Plan, apply, describe, describe_plan, diff
from flowstream.graph.patch import INTERRUPTED
from tests.graph.compiling import compiled

GRAPH = """
nodes:
  pattern: {type: pattern, text: hello, fps: 30}
  encode: {type: encode, inputs: {video: pattern, targets: abr}, bitrate: 2.5M}
  abr: {type: abr, inputs: {reports: out.reports}}
  out: {type: show, from: encode, title: Hello, token: $(env:TOKEN), viewers: {max: 10}}
  tape: {type: tape, from: encode, path: x.mp4}
"""


def plan(*replaced: tuple[str, str], token: str = "one") -> Plan:
    text = GRAPH
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    return compiled(text, environ={"TOKEN": token})


def patch(*replaced: tuple[str, str], token: str = "one") -> Patch:
    old, new = plan(), plan(*replaced, token=token)
    found = diff(old, new)
    assert apply(old, found) == new
    return found


def change(node: str, *replaced: tuple[str, str], token: str = "one") -> Change:
    """The change of one node; all others are kept."""
    found = patch(*replaced, token=token)
    assert [each.node for each in found.changes if each.action != "keep"] == [node]
    return found.of(node)


def test_the_same_text_changes_nothing() -> None:
    found = patch()
    assert found.is_empty
    assert {each.effect for each in found.changes} == {"kept"}
    assert patch(("  pattern:", "\n  # a comment\n  pattern:")).is_empty


def test_a_live_setting_changes_in_place() -> None:
    found = change("encode", ("2.5M", "600k"))
    assert (found.action, found.causes, found.fields) == ("update", ("bitrate 2.5M -> 600k",), ("bitrate",))
    assert found.effect == "changed in place"


def test_settings_within_a_live_setting_are_live() -> None:
    found = change("out", ("{max: 10}", "{max: 3, idle: 5s}"))
    assert found.action == "update"
    assert found.causes == ("viewers.max 10 -> 3", "viewers.idle 1m -> 5s")


def test_any_other_setting_replaces() -> None:
    found = change("pattern", ("fps: 30", "fps: 25"), ("text: hello", "text: world"))
    assert found.action == "replace"
    assert found.fields == ("fps", "text")
    assert found.effect == INTERRUPTED
    assert change("tape", ("x.mp4", "y.mp4")).effect == "replaced"


def test_a_node_type_may_refuse_a_live_change() -> None:
    found = change("encode", ("2.5M", "6M"))
    assert found.action == "replace"
    assert found.causes == ("bitrate 2.5M -> 6M", "more than the encoder was opened for")
    assert found.effect == INTERRUPTED


def test_a_secret_is_compared_and_not_shown() -> None:
    found = change("out", token="two")
    assert found.action == "update"
    assert found.causes == ("token $(env:TOKEN) -> another value",)
    assert change("out", ("$(env:TOKEN)", "three")).causes == ("token $(env:TOKEN) -> three",)


def test_another_type_replaces() -> None:
    found = patch(("type: pattern, text: hello, fps: 30", "type: views"), ("video: pattern", "video: pattern.left"))
    assert found.of("pattern").action == "replace"
    assert found.of("pattern").causes == ("type pattern -> views",)
    assert found.of("pattern").effect == INTERRUPTED
    assert found.of("encode").action == "rewire"
    assert found.of("encode").causes == ("video from pattern.video -> pattern.left",)


def test_a_node_put_between_rewires_its_consumer() -> None:
    found = patch(
        ("video: pattern", "video: blur"), ("  abr: {type", "  blur: {type: blur, from: pattern}\n  abr: {type")
    )
    assert {each.node: each.action for each in found.changes if each.action != "keep"} == {
        "encode": "rewire",
        "blur": "add",
    }
    assert found.of("encode").effect == "rewired"
    assert [(each.kind, each.key) for each in found.edges] == [
        ("added", ("blur", "frames", 0)),
        ("changed", ("encode", "video", 0)),
    ]


def test_packets_from_elsewhere_wait_for_a_keyframe() -> None:
    found = patch(
        ("  out: {type: show, from: encode", "  out: {type: show, from: other"),
        ("  abr: {type", "  other: {type: encode, from: pattern, bitrate: 1M}\n  abr: {type"),
    )
    assert found.of("out").action == "rewire"
    assert found.of("out").effect == INTERRUPTED


def test_overflow_and_limit_rewire() -> None:
    block = "tape: {type: tape, from: {output: encode, overflow: block}"
    assert change("tape", ("tape: {type: tape, from: encode", block)).causes == (
        "video overflow drop-to-keyframe -> block",
    )
    limit = "tape: {type: tape, from: {output: encode, limit: {items: 7}}"
    found = change("tape", ("tape: {type: tape, from: encode", limit))
    assert found.causes == ("video limit 120 items, 16MiB, 2s -> 7 items, 16MiB, 2s",)
    assert (found.action, found.effect) == ("rewire", "rewired")


def test_rewired_and_updated_at_once() -> None:
    found = change("out", ("title: Hello", "title: Bye"), ("from: encode, title", "inputs: {video: encode}, title"))
    assert found.action == "update"
    found = change("out", ("out: {type: show, from: encode, title: Hello",
                           "out: {type: show, from: {output: encode, limit: {items: 3}}, title: Bye"))  # fmt: skip
    assert (found.action, found.fields) == ("rewire", ("title",))


def test_removed() -> None:
    found = patch(("  tape: {type: tape, from: encode, path: x.mp4}\n", ""))
    assert found.changes[-1].node == "tape"
    assert found.of("tape").action == "remove"
    assert [each.kind for each in found.edges] == ["removed"]
    with pytest.raises(KeyError):
        found.of("nobody")


def test_a_renamed_node_is_the_same_node() -> None:
    found = patch(("  encode: {type: encode,", "  coder: {type: encode, was: encode,"), ("from: encode", "from: coder"))
    assert {each.node: (each.action, each.was) for each in found.changes if each.action != "keep"} == {
        "coder": ("update", "encode")
    }
    assert found.renamed == {"encode": "coder"}
    assert not found.edges
    assert found.of("coder").causes == ("was encode",)


def test_without_was_a_renamed_node_is_another() -> None:
    found = patch(("  tape: {type", "  copy: {type"))
    assert {each.node: each.action for each in found.changes if each.action != "keep"} == {
        "copy": "add",
        "tape": "remove",
    }


def test_label_and_restart_do_not_touch_the_node() -> None:
    found = change("tape", ("path: x.mp4", "path: x.mp4, label: Copy, restart: {on: any}"))
    assert (found.action, found.fields, found.causes) == ("update", (), ("label tape -> Copy", "restart"))


def test_a_type_whose_code_changed_replaces() -> None:
    old = plan()

    class Changed(Node, type="abr"):
        """The same, edited."""

        reports = old.nodes["abr"].node_type.inputs["reports"]
        targets = old.nodes["abr"].node_type.outputs["targets"]

        async def run(self, ctx: Any) -> None:
            ctx.ready()

    edited = replace(old.nodes["abr"], node_type=Changed)
    found = diff(old, replace(old, nodes={**old.nodes, "abr": edited}))
    assert found.of("abr").causes == ("its code changed",)
    assert found.of("abr").action == "replace"


def test_serve_is_part_of_the_patch() -> None:
    found = patch(("nodes:", 'serve: {listen: "127.0.0.1:9"}\nnodes:'))
    assert not found.is_empty
    assert describe(found)[-1].startswith("serve changes")
    found = patch(("nodes:", "log: {level: debug}\nnodes:"))
    assert not found.is_empty
    assert describe(found)[-1] == "log changes"


def test_description() -> None:
    found = patch(("2.5M", "600k"), ("fps: 30", "fps: 25"), ("  tape: {type: tape, from: encode, path: x.mp4}\n", ""))
    assert describe(found) == [
        "pattern  interrupted until the next keyframe, felt by out for 2s at most  (fps 30.0 -> 25.0)",
        "encode   changed in place  (bitrate 2.5M -> 600k)",
        "abr      kept",
        "out      kept",
        "tape     removed",
    ]


def test_description_of_a_plan() -> None:
    assert describe_plan(plan()) == [
        "graph: 5 nodes, 5 edges, live",
        "  pattern  pattern",
        "  encode   encode   targets from abr.targets, video from pattern.video (yuv420p)",
        "  abr      abr      reports from out.reports",
        "  out      show     video from encode.packets (h264)",
        "  tape     tape     video from encode.packets (h264)",
    ]


IDS = ["n0", "n1", "n2", "n3", "n4", "n5"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Graphs of sources, blurs and mixers in any order, with edges among them."""
    lines = []
    pictures: list[str] = []
    sounds: list[str] = []
    for id_ in draw(st.permutations(IDS)):
        kind = draw(st.sampled_from(["none", "pattern", "tone", "blur", "mix", "discard"]))
        limit = draw(st.sampled_from(["", ", limit: {items: 3}", ", overflow: latest"]))
        if kind == "pattern":
            lines.append(
                f"{id_}: {{type: pattern, seed: {draw(st.integers(0, 1))}, text: {draw(st.sampled_from('ab'))}}}"
            )
            pictures.append(id_)
        elif kind == "tone":
            lines.append(f"{id_}: {{type: tone, label: {draw(st.sampled_from('ab'))}}}")
            sounds.append(id_)
        elif kind == "blur" and pictures:
            source = draw(st.sampled_from(pictures))
            lines.append(f"{id_}: {{type: blur, from: {{output: {source}{limit}}}, radius: {draw(st.integers(1, 2))}}}")
            pictures.append(id_)
        elif kind == "mix" and sounds:
            sources = draw(st.lists(st.sampled_from(sounds), min_size=1, max_size=3))
            lines.append(f"{id_}: {{type: mix, from: [{', '.join(sources)}]}}")
            sounds.append(id_)
        elif kind == "discard" and (pictures or sounds):
            was = draw(st.sampled_from(["", ", was: old", ", was: n1"]))
            lines.append(f"{id_}: {{type: discard, from: {draw(st.sampled_from(pictures + sounds))}{was}}}")
    lines = lines or ["n0: {type: tone}"]
    text = "nodes:\n" + "".join(f"  {line}\n" for line in lines)
    present = {line.partition(":")[0] for line in lines}
    if "n1" in present or text.count("was: n1") > 1:
        text = text.replace(", was: n1", "")
    if text.count("was: old") > 1:
        text = text.replace(", was: old", "")
    return compiled(text)


@given(plans(), plans())
@settings(max_examples=200, deadline=None)
def test_applying_the_patch_gives_the_new_plan(old: Plan, new: Plan) -> None:
    found = diff(old, new)
    applied = apply(old, found)
    assert applied == new
    assert list(applied.nodes) == list(new.nodes)
    for each in found.changes:
        if each.action == "keep":
            assert old.nodes[each.node] == new.nodes[each.node]
            assert old.inputs_of(each.node) == new.inputs_of(each.node)
        else:
            assert each.causes or each.action in ("add", "remove")
    assert diff(new, new).is_empty


@given(plans())
@settings(max_examples=50, deadline=None)
def test_producers_stand_before_their_consumers(plan: Plan) -> None:
    rank = {id_: index for index, id_ in enumerate(plan.nodes)}
    assert all(rank[edge.producer] < rank[edge.consumer] for edge in plan.edges if not edge.feedback)


CONVERTED = """
nodes:
  film: {type: film, path: x.mp4}
  view: {type: picky, from: film.video}
"""


def test_the_converters_of_a_renamed_node_are_kept() -> None:
    old = compiled(CONVERTED)
    found = diff(old, compiled(CONVERTED.replace("view: {", "show: {was: view, ")))
    assert {each.node: each.action for each in found.changes} == {
        "film": "keep",
        "show.video~decode": "update",
        "show.video~convert": "update",
        "show.video~frame-rate": "update",
        "show": "update",
    }
    assert not found.edges


def test_a_label_from_the_environment_stays_secret() -> None:
    graph = "nodes: {pattern: {type: pattern, label: a $(env:TOKEN)}, out: {type: discard, from: pattern}}"
    assert compiled(graph, environ={"TOKEN": "hunter2"}).nodes["pattern"].label == "a $(env:TOKEN)"
