"""Values given while the graph runs: over all files, until one of them says something else at the same place."""

import pytest

from flowstream.errors import GraphError
from flowstream.graph.overrides import MAX_TEXT, from_json, parse_target, parse_value, to_json
from flowstream.graph.plan import Override, Plan
from tests.graph.compiling import BEGAN, REGISTRY

MAIN = """\
nodes:
  pattern: {type: pattern, fps: 25}
  enc: {type: encode, from: pattern, bitrate: 1M}
  end: {type: discard, from: enc}
"""


def compiled(*overrides: Override, files: dict[str, str] | None = None, **environ: str) -> Plan:
    from flowstream.graph import compile_graph

    texts = {"main.yaml": MAIN, **(files or {})}
    return compile_graph(
        "main.yaml", read=lambda path: texts[path].encode(), environ=environ, registry=REGISTRY, wallclock=BEGAN,
        overrides=overrides,
    )  # fmt: skip


def given(target: str, value: str) -> Override:
    return Override(*parse_target(target), parse_value(value))


def config(plan: Plan, node: str) -> dict[str, object]:
    return plan.nodes[node].shown_config()


def test_a_value_lies_over_the_file_and_knows_what_is_beneath() -> None:
    plan = compiled(given("enc.bitrate", "600k"))
    assert config(plan, "enc")["bitrate"] == "600k"
    (kept,) = plan.overrides
    assert (kept.target, kept.text, kept.written) == ("enc.bitrate", "600k", "1M")
    assert str(kept) == "enc.bitrate is 600k (the file says 1M)"
    assert str(compiled(given("pattern.text", "hi")).overrides[0]) == "pattern.text is hi (the file does not say)"
    assert plan.content == compiled().revision
    assert plan.revision != plan.content
    assert compiled(*plan.overrides).revision == plan.revision


def test_a_save_that_leaves_it_alone_keeps_it_and_one_that_changes_it_wins() -> None:
    kept = compiled(given("enc.bitrate", "600k")).overrides
    elsewhere = compiled(*kept, files={"main.yaml": MAIN.replace("fps: 25", "fps: 30")})
    assert config(elsewhere, "enc")["bitrate"] == "600k"
    assert elsewhere.overrides == kept
    for text in (
        MAIN.replace("1M", "2M"),
        MAIN.replace("enc:", "other:").replace("from: enc", "from: other"),
    ):
        assert compiled(*kept, files={"main.yaml": text}).overrides == ()
    assert config(compiled(*kept, files={"main.yaml": MAIN.replace("1M", "2M")}), "enc")["bitrate"] == "2M"
    commented = MAIN.replace("bitrate: 1M}", "bitrate: 1M}  # enough")
    assert compiled(*kept, files={"main.yaml": commented}).overrides == kept


def test_numbers_and_text_need_no_quotes() -> None:
    plan = compiled(given("pattern.fps", "29.97"), given("pattern.text", "30"), given("pattern.seed", "7"))
    assert {key: config(plan, "pattern")[key] for key in ("fps", "text", "seed")} == {
        "fps": 29.97, "text": "30", "seed": 7,
    }  # fmt: skip


def test_null_is_the_default() -> None:
    plan = compiled(given("pattern.fps", "null"))
    assert config(plan, "pattern")["fps"] == 30.0
    assert [each.text for each in plan.overrides] == ["null"]
    assert compiled(given("pattern.text", "null")).overrides == ()


def test_a_part_of_a_setting() -> None:
    text = f"{MAIN}  out: {{type: show, from: enc, viewers: {{max: 3}}}}\n"
    found = compiled(given("out.viewers.idle", "5s"), files={"main.yaml": text})
    assert config(found, "out")["viewers"] == {"max": 3, "idle": "5s"}


def test_nodes_in_subgraphs_are_reached() -> None:
    files = {
        "main.yaml": "nodes:\n  pattern: {type: pattern}\n"
        "  a: {use: part.yaml, from: pattern}\n  b: {use: part.yaml, from: pattern}\n",
        "part.yaml": "inputs: {video: enc.video}\nnodes:\n"
        "  enc: {type: encode, bitrate: 1M}\n  end: {type: discard, from: enc}\n",
    }
    plan = compiled(given("b/enc.bitrate", "2M"), files=files)
    assert (config(plan, "a/enc")["bitrate"], config(plan, "b/enc")["bitrate"]) == ("1M", "2M")


@pytest.mark.parametrize(
    ("target", "value", "said"),
    [
        ("enc.bitrate", "fast", "set:1:14: FS208 bad value"),
        ("enc.bitrte", "1M", "set:1:1: FS206 unknown setting"),
        ("patern.fps", "1", "set:1:1: FS301 unknown node\n  there is no node patern\n  hint: did you mean pattern?"),
        ("pattern.fps", "[1, 2]", "set:1:14: FS208 bad value"),
    ],
)
def test_what_does_not_fit_is_found_at_its_own_place(target: str, value: str, said: str) -> None:
    with pytest.raises(GraphError) as refused:
        compiled(given(target, value))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("encode", "'encode' is not NODE.FIELD"),
        ("encode.", "is not NODE.FIELD"),
        ("view.video~decode.x", "is not NODE.FIELD"),
        ("enc.from", "from belongs to the graph language"),
        ("x" * 500, "is not NODE.FIELD"),
    ],
)
def test_a_target_that_cannot_be(target: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_target(target)


@pytest.mark.parametrize(
    ("given_text", "as_yaml"),
    [
        ("600k", "600k"),
        (" 600k ", "600k"),
        ("%H:%M:%S", '"%H:%M:%S"'),
        ("Hello: x", '"Hello: x"'),
        ("a # b", '"a # b"'),
        ('"30"', '"30"'),
        ("[1, 2]", "[1, 2]"),
        ("{max: 3}", "{max: 3}"),
        ("", '""'),
        ("two\nlines", '"two\\nlines"'),
        ("{a", '"{a"'),
        ("&a x", '"&a x"'),
    ],
)
def test_values_are_written_as_people_write_them(given_text: str, as_yaml: str) -> None:
    assert parse_value(given_text) == as_yaml


def test_values_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"\$\( is put in where it stands in a file"):
        parse_value("$(env:HOME)")
    with pytest.raises(ValueError, match="at most 4,096 characters"):
        parse_value("x" * (MAX_TEXT + 1))


def test_a_secret_beneath_is_shown_by_its_name() -> None:
    text = MAIN.replace("25", "25, text: $(env:WORD)")
    (kept,) = compiled(given("pattern.text", "hi"), files={"main.yaml": text}, WORD="hunter22").overrides
    assert kept.written == "$(env:WORD)"
    assert "hunter22" not in repr(kept)


def test_as_json_and_back() -> None:
    (kept,) = compiled(given("enc.bitrate", "600k")).overrides
    assert from_json(to_json(kept)) == kept
    with pytest.raises((ValueError, KeyError)):
        from_json({"target": "nonsense"})
