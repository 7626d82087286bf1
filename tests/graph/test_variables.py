"""Substitution and secrets."""

from collections.abc import Mapping

import pytest

from flowstream.errors import GraphError
from tests.graph.compiling import codes, compiled, findings

GRAPH = """
vars: {VARS}
nodes:
  pattern: {{type: pattern, text: "{TEXT}"}}
  out: {{type: discard, from: pattern}}
"""


def text_of(text: str, variables: str = "{}", environ: Mapping[str, str] | None = None) -> object:
    plan = compiled(GRAPH.format(TEXT=text, VARS=variables), environ=environ)
    return plan.nodes["pattern"].config.model_dump()["text"]


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("$(a)", "{a: x}", "x"),
        ("<$(a)$(a)>", "{a: x}", "<xx>"),
        ("$(a)", "{a: $(b)-$(c), b: 1.10, c: true}", "1.10-true"),
        ("$$(a) $$ $$$$", "{}", "$(a) $ $$"),
        ("$$$(a)", "{a: x}", "$x"),
        ("5$ and $ and $x", "{}", "5$ and $ and $x"),
        ("$(date) $(time)", "{}", "2026-11-22 13-05-59"),
        ("$(a)", "{a: {default: x, description: A letter}}", "x"),
        ("$(a)", "{a: $$(b)}", "$(b)"),
    ],
)
def test_substitution(text: str, variables: str, expected: str) -> None:
    assert text_of(text, variables) == expected


def test_a_whole_value_keeps_its_kind() -> None:
    plan = compiled("""
    vars: {fps: 25, seed: $(number), number: 7}
    nodes: {pattern: {type: pattern, fps: $(fps), seed: $(seed)}, out: {type: discard, from: pattern}}
    """)
    assert plan.nodes["pattern"].config.model_dump()["fps"] == 25
    assert plan.nodes["pattern"].config.model_dump()["seed"] == 7


def test_references_may_be_variables() -> None:
    text = "vars: {from: pattern}\nnodes: {pattern: {type: pattern}, out: {type: discard, from: $(from)}}"
    assert compiled(text).edges[0].producer == "pattern"


def test_sets_override_and_are_read_as_what_is_wanted() -> None:
    text = """
    vars: {fps: 25, text: hello, from: {description: Where from}}
    nodes: {pattern: {type: pattern, fps: $(fps), text: $(text)}, out: {type: discard, from: $(from)}}
    """
    plan = compiled(text, sets={"fps": "50", "text": "60", "from": "pattern"})
    assert plan.nodes["pattern"].shown_config() | {"fps": 50.0, "text": "60"} == plan.nodes["pattern"].shown_config()
    assert codes(text) == ["FS120"]


def test_a_value_from_the_environment_is_text_with_no_meaning_of_its_own() -> None:
    assert text_of("$(env:A)", environ={"A": "$(b) ${c} $$ 1.10"}) == "$(b) ${c} $$ 1.10"
    assert text_of("$(env:A)", environ={"A": "true"}) == "true"
    assert text_of("$(env:A)", environ={"A": ""}) == ""


SECRET = "hunter2"


@pytest.mark.parametrize(
    "settings",
    [
        "fps: $(env:PW)", "size: $(env:PW)", "style: $(env:PW)", "seed: $(url)", "text: $(url)$(url)$(url)",
        "duration: $(url)",
        "fps: [$(url)]", "fps: {a: $(url)}", "label: $(url), restart: {on: $(url)}", "enabled: $(url)", "was: $(url)",
        "type: $(url)", "nothing: $(url)", "restart: {backoff: {first: $(url)}, limit: $(url)}", "from: $(url)",
        "from: {output: $(url), limit: {items: $(url), time: $(url)}, overflow: $(url)}", "inputs: {a: $(url)}",
        "from: {output: tone, limit: $(url)}", "restart: $(url)", "text: $(PW)$(env:pw)$(env:PW",
    ],
)  # fmt: skip
def test_no_finding_tells_a_secret(settings: str) -> None:
    nodes = f"nodes: {{pattern: {{type: pattern, {settings}}}, tone: {{type: tone}}}}"
    text = f'vars: {{url: "rtsp://me:$(env:PW)@host"}}\n{nodes}'
    if settings.startswith("type"):
        text = text.replace("type: pattern, ", "")
    found = findings(text, environ={"PW": SECRET})
    assert found
    with pytest.raises(GraphError) as error:
        compiled(text, environ={"PW": SECRET})
    assert SECRET not in str(error.value)
    assert SECRET not in repr(found)


def test_what_a_node_type_says_is_scrubbed() -> None:
    long = "s3cret" * 20
    text = "nodes: {tone: {type: tone}, tape: {type: tape, path: 'a/$(env:PW)', first: 5, last: 3}}"
    for secret in (SECRET, long, "it's \\ 'quoted'"):
        found = findings(text, environ={"PW": secret})
        assert secret not in repr(found)
        assert secret[:6] not in repr(found)
        assert "a/$(env:PW)" in found[0].message


def test_a_plan_shows_secrets_as_written() -> None:
    plan = compiled(
        """
        nodes:
          pattern: {type: pattern, text: "pw $(env:PW)"}
          blur: {type: blur, from: pattern, names: [a, $(env:PW)]}
          out: {type: discard, from: blur}
        """,
        environ={"PW": SECRET},
    )
    assert plan.nodes["pattern"].config.model_dump()["text"] == f"pw {SECRET}"
    assert plan.nodes["pattern"].shown_config()["text"] == "pw $(env:PW)"
    assert plan.nodes["blur"].shown_config()["names"] == ["a", "$(env:PW)"]
    assert plan.nodes["blur"].written == {"names.1": "$(env:PW)"}


def test_what_substitution_makes_is_bounded() -> None:
    variables = ", ".join([f"v{i + 1}: {f'$(v{i})' * 10}" for i in range(8)])
    assert "FS109" in codes(GRAPH.format(TEXT="$(v8)", VARS=f"{{v0: xxxxxxxxxx, {variables}}}"))
