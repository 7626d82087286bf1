"""A graph written out makes the same plan, and says where each value came from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import GraphError
from flowstream.graph import Plan, compile_graph
from flowstream.graph.expand import expand
from flowstream.graph.sources import beside
from tests.graph.cases import FOLDER, case_names, read_case
from tests.graph.compiling import BEGAN, REGISTRY

ENVIRON = {"TOKEN": "s3cret-token", "SIZE": "640x480", "SEED": "77"}


def written_out(files: dict[str, str], *, sets: dict[str, str] | None = None, layers: tuple[str, ...] = ()) -> str:
    """The first file with the layers over it, written out."""
    return expand(
        next(iter(files)), read=lambda path: files[path].encode(), environ=ENVIRON, registry=REGISTRY,
        wallclock=BEGAN, sets=sets, layers=layers,
    )  # fmt: skip


def plan_of(files: dict[str, str], *, sets: dict[str, str] | None = None, layers: tuple[str, ...] = ()) -> Plan:
    return compile_graph(
        next(iter(files)), read=lambda path: files[path].encode(), environ=ENVIRON, registry=REGISTRY,
        wallclock=BEGAN, sets=sets, layers=layers,
    )  # fmt: skip


def uncommented(text: str) -> str:
    return re.sub(r" +# \S+\.yaml:\d+.*$", "", text, flags=re.MULTILINE).partition("\n")[2]


def check(files: dict[str, str], *, sets: dict[str, str] | None = None, layers: tuple[str, ...] = ()) -> str:
    """Holds the text written out against the files it was made of; gives it."""
    text = written_out(files, sets=sets, layers=layers)
    there, again = plan_of(files, sets=sets, layers=layers), plan_of({"out.yaml": text})
    assert again.nodes == there.nodes
    assert [node.written.keys() for node in again.nodes.values()] == [
        node.written.keys() for node in there.nodes.values()
    ]
    assert again.edges == there.edges
    assert (again.serve, again.log, again.is_live) == (there.serve, there.log, there.is_live)
    assert uncommented(written_out({"out.yaml": text})) == uncommented(text)
    return text


@pytest.mark.parametrize("name", [each for each in case_names("valid") if each != "part"])
def test_every_valid_case_written_out_is_the_same_plan_and_stays_as_it_is(name: str) -> None:
    """Unless ``was`` is all that differs: what is written out has it, and compares it not."""
    path, head, sets, environ = read_case(name)
    layers = tuple(beside(path, e) for line in re.findall(r"^# layers: (.*)", head, re.MULTILINE) for e in line.split())

    def read(file: str) -> bytes:
        return next(FOLDER.glob(f"*/{file}"), Path(file)).read_bytes()

    common = {"environ": environ, "registry": REGISTRY, "wallclock": BEGAN}
    text = expand(path, read=read, sets=sets, layers=layers, **common)  # type: ignore[arg-type]
    before = compile_graph(path, read=read, sets=sets, layers=layers, **common)  # type: ignore[arg-type]
    after = compile_graph("o.yaml", read=lambda _: text.encode(), **common)  # type: ignore[arg-type]
    assert after.nodes == before.nodes
    assert after.edges == before.edges
    assert [node.was for node in after.nodes.values()] == [node.was for node in before.nodes.values()]
    again = expand("o.yaml", read=lambda _: text.encode(), **common)  # type: ignore[arg-type]
    assert uncommented(again) == uncommented(text)


def test_each_value_names_its_place() -> None:
    files = {
        "base.yaml": (
            "vars: {text: {default: hello, type: text}, seed: 3}\n"
            "nodes:\n"
            "  pattern: {type: pattern, text: $(text), seed: $(seed), size: $(env:SIZE)}\n"
            "  group: {use: lib/part.yaml, from: pattern, amount: 7}\n"
            "  out: {type: discard, from: {output: group, overflow: block, limit: {items: 3}}}\n"
        ),
        "over.yaml": "nodes: {pattern: {fps: 12.50}}\n",
        "lib/part.yaml": (
            "vars: {amount: 1}\ninputs: {video: soft}\noutputs: {soft: soft}\n"
            "nodes: {soft: {type: blur, radius: $(amount)}}\n"
        ),
    }
    text = check(files, sets={"seed": "5"}, layers=("over.yaml",))
    assert text == (
        "# base.yaml with over.yaml over it, written out by `flowstream expand`. "
        "Behind # stands where a value came from.\n"
        "flowstream: 1\n"
        "\n"
        "nodes:\n"
        "  pattern:                                # base.yaml:3\n"
        "    type: pattern                         # base.yaml:3\n"
        "    text: hello                           # base.yaml:3, base.yaml:1\n"
        "    seed: 5                               # base.yaml:3, --set seed\n"
        "    size: $(env:SIZE)                     # base.yaml:3\n"
        "    fps: 12.50                            # over.yaml:1\n"
        "\n"
        "  group/soft:                             # lib/part.yaml:4\n"
        "    type: blur                            # lib/part.yaml:4\n"
        "    inputs:\n"
        "      frames: pattern.video               # base.yaml:4\n"
        "    radius: 7                             # lib/part.yaml:4, base.yaml:4\n"
        "\n"
        "  out:                                    # base.yaml:5\n"
        "    type: discard                         # base.yaml:5\n"
        "    inputs:\n"
        "      anything:\n"
        "        output: group/soft.blurred        # base.yaml:5\n"
        "        overflow: block                   # base.yaml:5\n"
        "        limit:\n"
        "          items: 3                        # base.yaml:5\n"
    )


def test_secrets_stand_by_their_names_also_within_text() -> None:
    files = {
        "g.yaml": (
            "vars: {pw: $(env:TOKEN)}\n"
            "nodes:\n"
            "  pattern: {type: pattern, text: 'a$$b $(date) $(pw)', seed: $(env:SEED)}\n"
            "  out: {type: discard, from: pattern}\n"
        )
    }
    files["g.yaml"] = files["g.yaml"].replace("a$$b $(date) $(pw)", "$$$(pw)")
    text = check(files)
    assert "s3cret" not in text
    assert "text: $$$(env:TOKEN)" in text
    assert "seed: $(env:SEED)" in text


def test_a_disabled_node_keeps_where_it_would_take_from() -> None:
    files = {
        "g.yaml": (
            "nodes:\n"
            "  pattern: {type: pattern}\n"
            "  out: {type: discard, from: pattern}\n"
            "  group: {use: part.yaml, from: pattern, enabled: false}\n"
            "  other: {type: discard, inputs: {anything: group.soft}, enabled: false}\n"
        ),
        "part.yaml": "inputs: {video: soft}\noutputs: {soft: soft}\nnodes: {soft: {type: blur}}\n",
    }
    text = check(files)
    assert "    from: pattern\n" in text
    assert "      anything: group/soft\n" in text
    assert text.count("enabled: false") == 2


def test_a_part_keeps_its_exports_and_placement_names_nodes() -> None:
    files = {
        "g.yaml": (
            "inputs: {video: [soft, group.video]}\n"
            "outputs: {deep: group.soft, soft: soft.blurred}\n"
            "placement: {edge: {nodes: [group], address: 'a:1'}, center: {}}\n"
            "nodes:\n"
            "  soft: {type: blur}\n"
            "  group: {use: part.yaml}\n"
        ),
        "part.yaml": "inputs: {video: soft}\noutputs: {soft: soft}\nnodes: {soft: {type: blur}}\n",
    }
    text = uncommented(written_out(files))
    assert "  video: [soft, group/soft]\n" in text
    assert "  deep: group/soft\n  soft: soft.blurred\n" in text
    assert "  edge:\n    nodes: [group/soft]\n    address: a:1\n  center: {}\n" in text
    assert uncommented(written_out({"o.yaml": written_out(files)})) == text


def test_numbers_of_the_language_itself_that_are_set_come_back_as_numbers() -> None:
    check(
        {
            "g.yaml": "vars: {count: 3}\nnodes:\n  pattern: {type: pattern, restart: {limit: $(count)}}\n"
            "  out: {type: discard, label: $(count), from: {output: pattern, limit: {items: $(count)}}}\n"
        },
        sets={"count": "5"},
    )


def test_a_part_is_written_out_with_its_variables_given() -> None:
    files = {
        "g.yaml": "vars: {radius: {type: integer}}\ninputs: {video: soft}\noutputs: {soft: soft}\n"
        "nodes:\n  soft: {type: blur, radius: $(radius)}\n"
    }
    with pytest.raises(GraphError) as raised:
        written_out(files)
    assert [each.code for each in raised.value.diagnostics if each.severity == "error"] == ["FS120"]
    assert "    radius: 3 " in written_out(files, sets={"radius": "3"})


@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=18),
    names=st.lists(st.text(st.characters(codec="ascii", min_codepoint=32), max_size=6), max_size=3),
    seed=st.integers(0, 10**6),
    fps=st.floats(0.5, 200),
    is_set=st.booleans(),
)
def test_whatever_a_value_holds_it_comes_back(
    text: str, names: list[str], seed: int, fps: float, is_set: bool
) -> None:  # fmt: skip
    from flowstream.graph.write import text_of

    dollars = {"$": "$$"}
    tree = {
        "vars": {"seed": seed, "text": text.translate(str.maketrans(dollars)) or "x"},
        "nodes": {
            "pattern": {"type": "pattern", "text": "$(text)", "seed": "$(seed)", "fps": round(fps, 3)},
            "blur": {"type": "blur", "from": "pattern",
                     "names": [name.translate(str.maketrans(dollars)) for name in names]},
            "out": {"type": "discard", "from": "blur"},
        },
    }  # fmt: skip
    check({"g.yaml": text_of(tree)}, sets={"seed": "12", "text": text} if is_set else None)
