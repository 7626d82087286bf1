"""Graphs of several files: whatever they hold, there is a plan or findings, soon; and equal graphs have equal plans."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flowstream.errors import GraphError
from flowstream.graph import Plan, apply, compile_graph, diff, examine
from flowstream.graph.catalog import CATALOG
from flowstream.graph.compile import Examined
from flowstream.graph.diagnostics import render
from flowstream.graph.expand import expand
from flowstream.graph.write import text_of
from tests.graph.compiling import BEGAN, REGISTRY

Files = Mapping[str, str]
Tree = dict[str, Any]

SECRET = "s3cret-token"
ENVIRON = {"TOKEN": SECRET, "PART": "part.yaml"}


class Folder:
    """Files that are read from memory."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[path].encode("utf-8", "surrogatepass")


def examined(files: Files, layers: Sequence[str] = (), *, as_part: bool = False) -> Examined:
    return examine(
        "main.yaml", read=Folder(files).read, environ=ENVIRON, registry=REGISTRY, wallclock=BEGAN, layers=layers,
        as_part=as_part,
    )  # fmt: skip


def plan_of(files: Files, layers: Sequence[str] = ()) -> Plan:
    return compile_graph(
        "main.yaml", read=Folder(files).read, environ=ENVIRON, registry=REGISTRY, wallclock=BEGAN, layers=layers
    )  # fmt: skip


def written_out(files: Files, layers: Sequence[str] = ()) -> str:
    return expand(
        "main.yaml", read=Folder(files).read, environ=ENVIRON, registry=REGISTRY, wallclock=BEGAN, layers=layers
    )  # fmt: skip


def check(files: Files, layers: Sequence[str] = ()) -> None:
    """There is a plan, or an error; neither tells the secret; what is written out is the same graph."""
    for as_part in (False, True):
        found = examined(files, layers, as_part=as_part)
        has_errors = any(each.severity == "error" for each in found.diagnostics)
        assert as_part or (found.plan is None) is has_errors
        shown = render(found.diagnostics)
        assert {each.code for each in found.diagnostics} <= set(CATALOG)
        assert SECRET not in shown
        assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", shown)
        if found.plan is not None:
            nodes = found.plan.nodes.values()
            told = [found.plan.groups, [(node.id, node.label, node.shown_config()) for node in nodes]]
            assert SECRET not in str(told)
    text = ""
    try:
        text = written_out(files, layers)
    except GraphError as error:
        refused = error.diagnostics
    else:
        refused = ()
    assert bool(text) is not any(each.severity == "error" for each in refused)
    assert SECRET not in text
    assert not text or uncommented(written_out({"main.yaml": text})) == uncommented(text)


def uncommented(text: str) -> str:
    return re.sub(r" +# \S+\.yaml:\d+.*$", "", text, flags=re.MULTILINE).partition("\n")[2]


PATHS = st.sampled_from(
    ["main.yaml", "part.yaml", "lib/part.yaml", "./part.yaml", "lib/../part.yaml", "../part.yaml", "../main.yaml",
     "../lib/part.yaml", "no.yaml", "", "/part.yaml", "lib\\part.yaml", "$(a).yaml", "$(env:PART)", "$(env:TOKEN)"]
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "c", "a/b", "a/b/c", "b/a", "A", "video", "../a"])
REFS = st.sampled_from(
    ["a", "b", "c", "a.video", "b.packets", "c.statistics", "a/b", "a/b.video", "b.soft", "a.frames", "$(a)", "a.A"]
)
SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        7,
        1.5,
        "",
        "a",
        "5s",
        "1M",
        "$(a)",
        "$(b)",
        "$(env:TOKEN)",
        "x$(env:TOKEN)$(a)",
        "$$",
        "never",
    ]
)
LOOSE = SCALARS | REFS | st.lists(REFS, max_size=3) | st.dictionaries(NAMES, REFS, max_size=2)
NODE = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["pattern", "tone", "blur", "encode", "show", "mix", "discard", "film", "abr", "pass"])
        | SCALARS,
        "use": PATHS,
        "from": REFS | LOOSE | st.fixed_dictionaries({"output": REFS}, optional={"overflow": SCALARS, "limit": LOOSE}),
        "inputs": st.dictionaries(
            st.sampled_from(["video", "frames", "targets", "sounds", "a"]),
            REFS | st.lists(REFS, max_size=2),
            max_size=2,
        ),
        "bitrate": SCALARS, "radius": SCALARS, "text": SCALARS, "label": SCALARS, "enabled": SCALARS, "was": LOOSE,
        "convert": SCALARS, "placement": SCALARS, "restart": SCALARS, "a": SCALARS, "path": SCALARS,
    },
)  # fmt: skip
EXPORTS = st.dictionaries(NAMES, REFS | st.lists(REFS, max_size=2), max_size=3)
TREE = st.fixed_dictionaries(
    {},
    optional={
        "vars": st.dictionaries(
            st.sampled_from(["a", "b", "from"]),
            SCALARS | st.fixed_dictionaries(
                {}, optional={"type": st.sampled_from(["text", "integer", "bitrate", "no"]), "default": SCALARS}),
            max_size=2),
        "include": PATHS | st.lists(PATHS, max_size=3) | SCALARS,
        "inputs": EXPORTS, "outputs": EXPORTS, "placement": LOOSE, "serve": SCALARS, "log": SCALARS,
        "nodes": st.dictionaries(NAMES, NODE | SCALARS, max_size=4) | SCALARS,
    },
)  # fmt: skip


@given(
    st.fixed_dictionaries({"main.yaml": TREE}, optional={"part.yaml": TREE, "lib/part.yaml": TREE, "over.yaml": TREE}),
    st.booleans(),
)
@settings(max_examples=150)
def test_whatever_several_files_hold(trees: dict[str, Tree], has_layer: bool) -> None:
    files = {path: text_of(tree) for path, tree in trees.items()}
    check(files, ("over.yaml",) if has_layer else ())


# Graphs that make sense, as chains of stages. A stage is a node, or a subgraph of further stages.


@dataclass(frozen=True)
class Stage:
    """``blur``, ``encode`` or ``decode``; or a subgraph of stages, in a file of its own."""

    kind: str
    inner: tuple[Stage, ...] = ()
    setting: int = 5
    is_steered: bool = False


STAGES = st.recursive(
    st.builds(Stage, st.sampled_from(["blur", "encode", "shrink"]), setting=st.integers(1, 4)),
    lambda inner: st.builds(
        Stage, st.just("use"), st.lists(inner, min_size=1, max_size=3).map(tuple), st.integers(1, 4), st.booleans()
    ),
    max_leaves=5,
)  # fmt: skip
CHAINS = st.lists(STAGES, min_size=1, max_size=4).map(tuple)


def settings_of(stage: Stage) -> Tree:
    key, value = {
        "blur": ("radius", stage.setting),
        "encode": ("bitrate", f"{stage.setting}M"),
        "shrink": ("size", f"{stage.setting}00x{stage.setting}00"),
    }[stage.kind]
    return {"type": stage.kind, key: value}


def as_files(chain: tuple[Stage, ...]) -> dict[str, str]:
    """Each subgraph in a file of its own; a steered one gets a setting as a parameter."""
    files: dict[str, str] = {}

    def nodes(stages: tuple[Stage, ...], before: str, folder: str = "") -> tuple[Tree, str]:
        found: Tree = {}
        for index, stage in enumerate(stages):
            id_ = f"n{index}"
            if stage.kind == "use":
                found[id_] = {"use": folder + part(stage)} | ({"radius": stage.setting} if stage.is_steered else {})
            else:
                found[id_] = settings_of(stage)
            if before:
                found[id_]["from"] = before
            before = id_
        return found, before

    def part(stage: Stage) -> str:
        inner, last = nodes(stage.inner, "")
        tree: Tree = {"inputs": {"video": "n0"}, "outputs": {"out": last}, "nodes": inner}
        if stage.is_steered:
            tree["vars"] = {"radius": {"type": "integer"}}
            inner["spare"] = {"type": "blur", "from": last, "radius": "$(radius)"}
            inner["end"] = {"type": "discard", "from": "spare"}
        files[f"lib/part{len(files)}.yaml"] = text_of(tree)
        return f"part{len(files) - 1}.yaml"

    top, last = nodes(chain, "pattern", "lib/")
    everything = {"pattern": {"type": "pattern"}, **top, "out": {"type": "discard", "from": last}}
    return {"main.yaml": text_of({"nodes": everything}), **files}


def inline(chain: tuple[Stage, ...]) -> dict[str, str]:
    """The same graph in one file, the nodes of subgraphs under their full ids."""
    found: Tree = {"pattern": {"type": "pattern"}}

    def add(stages: tuple[Stage, ...], prefix: str, before: str) -> str:
        for index, stage in enumerate(stages):
            id_ = f"{prefix}n{index}"
            if stage.kind != "use":
                found[id_] = settings_of(stage) | {"from": before}
                before = id_
                continue
            before = add(stage.inner, f"{id_}/", before)
            if stage.is_steered:
                found[f"{id_}/spare"] = {"type": "blur", "from": before, "radius": stage.setting}
                found[f"{id_}/end"] = {"type": "discard", "from": f"{id_}/spare"}
        return before

    found["out"] = {"type": "discard", "from": add(chain, "", "pattern")}
    return {"main.yaml": text_of({"nodes": found})}


def same(one: Plan, other: Plan) -> None:
    assert list(one.nodes) == list(other.nodes)
    assert one.nodes == other.nodes
    assert one.edges == other.edges
    assert [edge.carried for edge in one.edges] == [edge.carried for edge in other.edges]


@given(CHAINS)
@settings(max_examples=60)
def test_a_subgraph_written_inline_is_the_same_plan(chain: tuple[Stage, ...]) -> None:
    files = as_files(chain)
    plan = plan_of(files)
    same(plan, plan_of(inline(chain)))
    text = written_out(files)
    again = plan_of({"main.yaml": text})
    same(plan, again)
    assert uncommented(written_out({"main.yaml": text})) == uncommented(text)


@given(CHAINS, CHAINS)
@settings(max_examples=60)
@example((Stage("encode"), Stage("blur")), (Stage("encode"), Stage("blur", setting=3)))
def test_a_patch_leads_from_one_plan_to_the_other(before: tuple[Stage, ...], after: tuple[Stage, ...]) -> None:
    old, new = plan_of(as_files(before)), plan_of(as_files(after))
    patch = diff(old, new)
    assert apply(old, patch) == new
    assert diff(new, plan_of(as_files(after))).is_empty
    for change in patch.changes:
        if change.action in ("add", "remove"):
            continue
        is_same = old.nodes[change.node] == new.nodes[change.node]
        is_same &= old.inputs_of(change.node) == new.inputs_of(change.node)
        assert (change.action == "keep") is is_same, change


@given(CHAINS, st.data())
@settings(max_examples=40)
def test_a_renamed_node_keeps_its_converters(chain: tuple[Stage, ...], data: st.DataObject) -> None:
    files = as_files(chain)
    old = plan_of(files)
    index = data.draw(st.integers(0, len(chain) - 1))
    name = f"n{index}"
    text = re.sub(rf"^  {name}: *{{", f"  fresh: {{was: {name}, ", files["main.yaml"], flags=re.MULTILINE)
    text = re.sub(rf"^  {name}:\n", f"  fresh:\n    was: {name}\n", text, flags=re.MULTILINE)
    text = re.sub(rf"from: {name}\b", "from: fresh", text)
    patch = diff(old, plan_of({**files, "main.yaml": text}))
    assert {each.action for each in patch.changes} <= {"keep", "update"}
    assert apply(old, patch) == plan_of({**files, "main.yaml": text})


@given(CHAINS, st.sets(st.integers(0, 5)))
@settings(max_examples=40)
def test_an_include_written_inline_is_the_same_plan(chain: tuple[Stage, ...], moved: set[int]) -> None:
    """Some nodes in an included file, some in the file itself, some in a layer over it."""
    whole = inline(chain)["main.yaml"]
    nodes = re.findall(r"^  \S+:.*\n(?:    .*\n)*", whole, re.MULTILINE)
    below = [node for index, node in enumerate(nodes) if index not in moved]
    above = [node for index, node in enumerate(nodes) if index in moved]
    assume(below and above)
    files = {
        "main.yaml": "include: lib/../common.yaml\nnodes:\n" + "".join(above),
        "common.yaml": "nodes:\n" + "".join(below),
    }
    plan, there = plan_of({"main.yaml": whole}), plan_of(files)
    assert there.nodes == plan.nodes
    assert set(there.edges) == set(plan.edges)
    layered = plan_of({"main.yaml": files["common.yaml"], "over.yaml": "nodes:\n" + "".join(above)}, ("over.yaml",))
    assert layered == there


def many(count: int, line: str) -> str:
    return "".join(f"  n{index}: {line.replace('#', str(index))}\n" for index in range(count))


BIG_LIST = f"[{', '.join(['x$$'] * 8_000)}]"
LADDER = {
    f"p{level}.yaml": (
        f"inputs: {{v: [a, b]}}\noutputs: {{o: a, p: b, q: a.o}}\n"
        f"nodes:\n  a: {{use: p{level + 1}.yaml}}\n  b: {{use: p{level + 1}.yaml}}\n"
    )
    for level in range(15)
}
HEAVY: dict[str, Files] = {
    "many nodes, used often": {
        "main.yaml": f"nodes:\n{many(1_000, '{use: part.yaml}')}",
        "part.yaml": f"nodes:\n{many(400, '{type: pattern}')}"},
    "long lists, used often": {
        "main.yaml": f"nodes:\n{many(1_000, '{use: part.yaml}')}",
        "part.yaml": f"nodes: {{soft: {{type: blur, names: {BIG_LIST}}}}}"},
    "twice as many at each level": {
        "main.yaml": "nodes:\n  pattern: {type: pattern}\n  x: {use: p0.yaml, from: pattern}\n", **LADDER,
        "p15.yaml": "inputs: {v: soft}\noutputs: {o: soft, p: soft, q: soft}\nnodes: {soft: {type: blur}}\n"},
    "exports of exports": {
        "main.yaml": "nodes:\n  x: {use: p0.yaml}\n  out: {type: discard, from: x}\n",
        **{f"p{level}.yaml": f"outputs: {{{', '.join(f'o{i}: a' for i in range(9))}}}\n"
           f"nodes: {{a: {{use: p{level + 1}.yaml}}}}\n" for level in range(12)},
        "p12.yaml": "outputs: {a: soft, b: soft}\nnodes: {soft: {type: pattern}}\n"},
    "inputs of inputs": {
        "main.yaml": "nodes:\n  t: {type: tone}\n  x: {use: p0.yaml, inputs: {v: [t, t]}}\n",
        **{f"p{level}.yaml": f"inputs: {{v: [a.v, a.v, a, a]}}\nnodes: {{a: {{use: p{level + 1}.yaml}}}}\n"
           for level in range(12)},
        "p12.yaml": "inputs: {v: [mix, mix.sounds]}\nnodes:\n  mix: {type: mix}\n  out: {type: discard, from: mix}\n"},
    "edges times exports": {
        "main.yaml": "nodes:\n  t: {type: tone}\n"
        f"  x: {{use: part.yaml, inputs: {{v: [{', '.join(['t'] * 900)}]}}}}\n",
        "part.yaml": f"inputs: {{v: [{', '.join(f'n{i}' for i in range(900))}]}}\nnodes:\n{many(900, '{type: mix}')}"},
    "names that are not there": {
        "main.yaml": f"nodes:\n{many(900, '{type: discard, from: nn#x}')}"},
    "parameters that are not there": {
        "main.yaml": f"nodes:\n  x: {{use: part.yaml, {', '.join(f'vaar{i}: 1' for i in range(2_000))}}}\n",
        "part.yaml": f"vars: {{{', '.join(f'var{i}x: 1' for i in range(2_000))}}}\nnodes: {{p: {{type: pattern}}}}\n"},
    "files that include two more": {
        "main.yaml": "include: [i0.yaml, i1.yaml]\n",
        **{f"i{i}.yaml": f"include: [i{i + 1}.yaml, i{i + 2}.yaml]\nnodes: {{n{i}: {{type: pattern}}}}\n"
           for i in range(220)}},
    "files that are large together": {
        "main.yaml": f"include: [{', '.join(f'i{i}.yaml' for i in range(30))}]\nnodes: {{p: {{type: pattern}}}}\n",
        **{f"i{i}.yaml": "# a comment\n" * 40_000 for i in range(30)}},
}  # fmt: skip


@pytest.mark.parametrize("files", HEAVY.values(), ids=list(HEAVY))
def test_no_files_take_long(files: Files) -> None:
    began = time.process_time()
    found = examined(files)
    assert time.process_time() - began < 15, "too long, in seconds of processor time"
    assert found.plan is not None or render(found.diagnostics)
