"""Every code of the catalog has a graph in which it is found, and the same graph mended, in which nothing is."""

import re
from collections import Counter

import pytest

from flowstream.cli.explain import command_of, findings_of
from flowstream.graph.catalog import CATALOG, GROUPS
from flowstream.graph.diagnostics import render
from flowstream.graph.examples import EXAMPLES, Example

BESIDE = {"FS199": {"FS301": 200}, "FS315": {"FS316": 1}}
"""What cannot but be found too: there is no `more` without the first 200, and placement is always noted."""
LONG = 100  # lines; a file from there on is made to be too long, and cut when it is shown


def test_every_code_has_its_examples() -> None:
    missing = sorted(set(CATALOG) - set(EXAMPLES))
    assert missing == [], (
        f"{' and '.join(missing)} cannot be explained: add to EXAMPLES in flowstream/graph/examples.py a graph in "
        "which it is found, and the same graph mended, for example\n\n"
        f'    "{missing[0]}": _pair("""\\\n'
        "nodes:\n  pattern: {type: test-pattern}\n  window: {type: display, from: «patern|pattern»}\n"
        '"""),\n\nwith «wrong|right» where the two differ; then read what `flowstream explain '
        f"{missing[0]}` says"
    )
    unknown = sorted(set(EXAMPLES) - set(CATALOG))
    assert unknown == [], f"{' and '.join(unknown)} in flowstream/graph/examples.py: there are no such codes"


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_wrong_example_has_its_code_and_no_other(code: str) -> None:
    found = findings_of(EXAMPLES[code][0])
    codes = Counter(each.code for each in found)
    assert codes == Counter({code: 1, **BESIDE.get(code, {})}), (
        f"the wrong example of {code} is to give {code} once:\n{render(found)}"
    )


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_right_example_has_no_finding(code: str) -> None:
    beside = set() if code == "FS199" else set(BESIDE.get(code, {}))
    found = render(each for each in findings_of(EXAMPLES[code][1]) if each.code not in beside)
    assert found == "", f"the right example of {code} is to be a graph without a finding, warnings included:\n{found}"


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_are_short_and_differ(code: str) -> None:
    wrong, right = EXAMPLES[code]
    assert (wrong.files, command_of(wrong)) != (right.files, command_of(right))
    for example in (wrong, right):
        for name, content in example.files.items():
            text = content.decode("latin-1") if isinstance(content, bytes) else content
            lines = text.splitlines()
            assert len(lines) < 12 or len(lines) > LONG, f"{code}: {name}"
            assert len(lines) > LONG or max(map(len, lines)) < 100, f"{code}: {name}"
            assert not set(text) & set("«»"), f"{code}: {name}: a mark «wrong|right» that was not understood"


@pytest.mark.parametrize("code", CATALOG)
def test_a_code_has_a_group_and_an_explanation_of_one_to_four_sentences(code: str) -> None:
    assert any(code.startswith(beginning) for beginning in GROUPS)
    sentences = re.split(r"(?<=[.])\s+(?=[A-Z$`])", CATALOG[code].explanation)
    assert 1 <= len(sentences) <= 4, sentences
    assert all(each.endswith(".") for each in sentences)


def test_an_example_is_compiled_with_the_files_and_values_that_it_names() -> None:
    pattern = "nodes:\n  pattern: {type: test-pattern, size: $(size), duration: $(env:HOW_LONG)}\n  end: {type: discard"
    graphs = {"no.yaml": "nodes: 1\n", "yes.yaml": "vars: {size: 1}\n" + pattern + ", from: pattern}\n"}
    good = Example(graphs, graph="yes.yaml", sets={"size": "640x360"}, environ={"HOW_LONG": "1s"})
    assert findings_of(good) == ()
    assert command_of(good) == "HOW_LONG=1s flowstream check --set size=640x360 yes.yaml"
    assert [each.code for each in findings_of(Example(graphs))] == ["FS111"]
    assert [each.code for each in findings_of(Example(graphs, graph="yes.yaml"))] == ["FS208", "FS121"]
