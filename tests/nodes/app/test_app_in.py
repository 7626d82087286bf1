"""app-in: what a program pushes; most of it is in tests/api, where there is a program."""

from pathlib import Path

import av
import numpy as np
import pytest

import flowstream
from flowstream import AudioCaps, EncodedCaps, Graph, VideoCaps
from flowstream.testing import check_node, graph_of
from flowstream_nodes.app.app_in import AppIn, AppInConfig
from tests.api.graphs import PATIENCE_S


def test_conformance() -> None:
    check_node(AppIn)


def test_what_comes_out_is_what_it_says() -> None:
    assert AppIn.negotiate(AppInConfig(), {})["video"] == VideoCaps()
    config = AppInConfig.model_validate({"size": "640x360", "fps": 25.0, "format": "rgb24", "codec": "h264"})
    assert AppIn.negotiate(config, {}) == {
        "video": VideoCaps(format="rgb24", width=640, height=360, fps=25.0),
        "audio": AudioCaps(rate=48_000, layout="stereo"),
        "packets": EncodedCaps(codec="h264"),
    }


def test_the_plan_knows_what_will_be_pushed() -> None:
    graph = Graph()
    pushed = graph.add("app-in", id="in", size="640x360", fps=25, format="rgb24")
    graph.add("hw-encode", id="encode", from_=pushed)
    graph.add("discard", from_="encode")
    plan = graph.plan()
    assert not plan.is_live
    (edge,) = [edge for edge in plan.edges if edge.producer == "in"]
    assert edge.overflow == "block"
    assert edge.carried is not None
    assert isinstance(edge.carried.caps, VideoCaps)
    assert (edge.carried.caps.width, edge.carried.caps.fps) == (640, 25.0)


def test_a_live_one_makes_the_graph_live() -> None:
    graph = Graph()
    graph.add("discard", from_=graph.add("app-in", id="in", live=True))
    plan = graph.plan()
    assert plan.is_live
    assert {edge.overflow for edge in plan.edges} == {"drop-oldest"}


def test_in_a_live_graph_pictures_have_the_time_of_the_push() -> None:
    graph = Graph()
    graph.add("app-out", id="out", from_=graph.add("app-in", id="in", live=True, fps=30))
    with flowstream.open_sync(graph) as run:
        frames = run.frames("out")
        run.push("in", np.zeros((90, 160, 3), np.uint8), time_ns=1)
        first = next(frames)
        run.push("in", np.zeros((90, 160, 3), np.uint8))
        second = next(frames)
        run.push("in", np.zeros((90, 160, 3), np.uint8), time_ns=1 << 60)
        next(frames)
        run.push("in", np.zeros((90, 160, 3), np.uint8))
        last = next(frames)
        assert first.time_ns == 1
        assert 1 < second.time_ns < PATIENCE_S * 1_000_000_000
        assert last.time_ns == (1 << 60) + 1


def test_its_documented_graph_records_what_is_pushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    monkeypatch.chdir(tmp_path)
    with flowstream.open_sync(Graph.from_yaml(graph_of(AppIn))) as run:
        for value in range(10):
            run.push("in", np.full((360, 640, 3), value, np.uint8))
        run.end("in")
        run.wait()
    with av.open(str(tmp_path / "tape.mp4")) as tape:
        frames = list(tape.decode(video=0))
        assert len(frames) == 10
        assert round(float(frames[9].time - frames[0].time), 3) == 0.3
