"""share: the whole job in one call."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import av
import pytest

import flowstream
from flowstream import GraphError
from flowstream.api.sharing import shared
from tests.api.graphs import PATIENCE_S
from tests.api.test_blocking import interrupted


@pytest.mark.parametrize(
    ("source", "types"),
    [
        ("screen", ["screen", "scale", "hw-encode", "webrtc-out", "recorder"]),
        ("camera", ["camera", "hw-encode", "webrtc-out", "recorder"]),
        ("pattern", ["test-pattern", "tone", "hw-encode", "opus-encode", "webrtc-out", "recorder"]),
        ("film.mp4", ["file", "scale", "hw-encode", "opus-encode", "webrtc-out", "recorder"]),
    ],
)
def test_its_graph_is_without_findings(source: str, types: list[str]) -> None:
    from datetime import datetime

    graph = shared(source, viewers=3, record=True, title=None, bitrate="1M")
    plan = graph.plan(wallclock=datetime(2026, 1, 1))
    assert plan.warnings == ()
    assert sorted(node.type_id for node in plan.nodes.values() if node.conversion is None) == sorted(types)
    assert plan.nodes["out"].config.viewers.max == 3  # type: ignore[attr-defined]


def test_text_is_taken_as_it_is() -> None:
    graph = shared("a$b.mp4", viewers=1, record=Path("c$d.mp4"), title="$$ (5)", bitrate="1M")
    plan = graph.plan()
    configs = {id: node.shown_config() for id, node in plan.nodes.items()}
    assert (configs["film"]["path"], configs["tape"]["path"]) == ("a$b.mp4", "c$d.mp4")
    assert configs["out"]["title"] == "$$ (5)"


def test_what_is_nothing_to_share_is_told() -> None:
    with pytest.raises(ValueError, match=r"'sceen' is nothing to share: .* did you mean screen\?"):
        flowstream.share("sceen")
    with pytest.raises(GraphError, match="bitrate"):
        flowstream.share("pattern", bitrate="fast")


def test_without_blocking_it_gives_the_run(tmp_path: Path) -> None:
    links: list[str] = []
    tape = tmp_path / "tape.mp4"
    with flowstream.share("pattern", record=tape, serve="127.0.0.1:0", on_link=links.append, block=False) as run:
        assert links == list(run.links)
        with urllib.request.urlopen(links[0], timeout=PATIENCE_S) as page:
            assert b"<!doctype html>" in page.read()
        while run.status().nodes["tape"].received < 60:
            pass
    with av.open(str(tape)) as film:
        assert {stream.type for stream in film.streams} == {"video", "audio"}


def test_ctrl_c_finishes_the_recording(tmp_path: Path) -> None:
    tape = tmp_path / "tape.mp4"
    program = f"""
import flowstream
from flowstream.runtime.events import Applied

def tell(link):
    assert link.startswith("http://127.0.0.1:"), link
    print("running", flush=True)

flowstream.share("pattern", record={str(tape)!r}, on_link=tell, serve="127.0.0.1:0")
print("done")
"""
    done = interrupted(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
