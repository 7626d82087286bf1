"""A ladder, in a file and by code: scaled and encoded once per rung, each from the next larger, keyframes together."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowstream import RENDITIONS, Graph, Rendition, Size, ladder
from flowstream.graph import Plan, compile_graph
from flowstream.node.registry import Registry
from flowstream.runtime.engine import Engine
from flowstream.testing.clock import VirtualClock, run_virtual

ROOT = Path(__file__).resolve().parents[2]
PART = ROOT / "graphs" / "lib" / "ladder.yaml"
SIZES = {"high": (1280, 720), "middle": (640, 360), "low": (320, 180)}


def plan_of_file(text: str, registry: Registry | None = None) -> Plan:
    """The plan of a graph that stands beside ``lib/``."""

    def read(path: str) -> bytes:
        return text.encode() if path == "graph.yaml" else (ROOT / "graphs" / path).read_bytes()

    return compile_graph(
        "graph.yaml", read=read, environ={}, registry=registry or Registry.installed(),
        wallclock=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def plan_of_code(**options: Any) -> Plan:
    graph = Graph()
    pattern = graph.add("test-pattern", id="pattern", size="1280x720", fps=30)
    for name, encoder in ladder(graph, pattern, **options).items():
        graph.add("discard", id=f"{name}-end", from_=encoder)
    return graph.plan()


ENDS = "\n".join(f"  {name}-end: {{type: discard, from: sizes.{name}}}" for name in SIZES)
FILE = f"""
flowstream: 1
nodes:
  pattern: {{type: test-pattern, size: 1280x720, fps: 30}}
  sizes: {{use: lib/ladder.yaml, inputs: {{video: pattern}}}}
{ENDS}
"""


def producers(plan: Plan, type_id: str) -> dict[str, tuple[str, str]]:
    """Of each node of a type: from where its pictures come, and in what size."""
    found = {}
    for id, node in plan.nodes.items():
        if node.type_id == type_id:
            (edge,) = (each for each in plan.inputs_of(id) if each.input == "video")
            assert edge.carried is not None
            assert edge.carried.caps is not None
            found[id] = (edge.producer, f"{edge.carried.caps.width}x{edge.carried.caps.height}")  # type: ignore[union-attr]
    return found


def test_each_rung_is_scaled_once_from_the_next_larger_one_and_encoded_once() -> None:
    plan = plan_of_file(FILE)
    assert producers(plan, "scale") == {
        "sizes/large": ("pattern", "1280x720"),
        "sizes/medium": ("sizes/large", "1280x720"),
        "sizes/small": ("sizes/medium", "640x360"),
    }
    assert producers(plan, "hw-encode") == {
        "sizes/high": ("sizes/large", "1280x720"),
        "sizes/middle": ("sizes/medium", "640x360"),
        "sizes/low": ("sizes/small", "320x180"),
    }


def test_code_makes_the_same() -> None:
    file, code = plan_of_file(FILE), plan_of_code()
    names = {
        "ladder-high-size": "sizes/large", "ladder-middle-size": "sizes/medium", "ladder-low-size": "sizes/small",
        "ladder-high": "sizes/high", "ladder-middle": "sizes/middle", "ladder-low": "sizes/low",
    }  # fmt: skip
    assert {names.get(id, id) for id in code.nodes} == set(file.nodes)
    for id, node in code.nodes.items():
        other = file.nodes[names.get(id, id)]
        assert (node.type_id, node.config) == (other.type_id, other.config)
    edges = {(names.get(each.producer, each.producer), names.get(each.consumer, each.consumer)) for each in code.edges}
    assert edges == {(each.producer, each.consumer) for each in file.edges}


def test_parameters_are_typed_and_take_other_values() -> None:
    plan = plan_of_file(
        FILE.replace("inputs: {video: pattern}", "inputs: {video: pattern}, low: 160x90, low-bitrate: 90k")
    )
    assert producers(plan, "hw-encode")["sizes/low"] == ("sizes/small", "160x90")
    assert plan.nodes["sizes/low"].config.bitrate == 90_000  # type: ignore[attr-defined]
    text = PART.read_text()
    assert all(f"{name}: {{type: size" in text and f"{name}-bitrate: {{type: bitrate" in text for name in SIZES)


def test_code_takes_any_rungs_and_somebody_who_steers() -> None:
    graph = Graph()
    pattern = graph.add("test-pattern", id="pattern")
    rungs = [Rendition("top", Size(1280, 720), 3_000_000), *RENDITIONS[1:], Rendition("least", "160x90", "80k")]
    made = ladder(graph, pattern, rungs, id="x", targets="abr", speed="ultrafast", encode={"profile": "high"})
    watched = graph.add("webrtc-out", id="out", from_=made["top"])
    encoders = {f"x-{name}": {} for name in made}
    graph.add("abr-controller", id="abr", inputs={"reports": watched["reports"]}, settings={"encoders": encoders})
    plan = graph.plan()
    assert list(made) == ["top", "middle", "low", "least"]
    steered = {each.consumer for each in plan.edges if each.producer == "abr"}
    assert steered == {f"x-{name}" for name in made}
    assert plan.nodes["x-top"].config.bitrate == 3_000_000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("renditions", "said"),
    [
        ([], "a ladder has at least one rung"),
        ([RENDITIONS[2], RENDITIONS[0]], r"rung high \(1280x720\) is larger than low \(320x180\) before it"),
        ([RENDITIONS[0], RENDITIONS[0]], "two rungs are called high"),
        ([Rendition("high", "big", "1M")], "'big' is no picture size"),
        ([Rendition("high", "720p", "1")], "is no bitrate"),
    ],
)
def test_what_is_no_ladder_is_refused(renditions: list[Rendition], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ladder(Graph(), "pattern", renditions)


# --- real encodes ---------------------------------------------------------------------------------------------------

KEEPER = '''
import json
from pathlib import Path

from flowstream import Config, EncodedPacket, Input, KeyframeRequest, Sink, field


class KeeperConfig(Config):
    path: str = field(description="Where it writes what came.")
    asks_at: int = field(default=-1, description="The packet at which it asks for a keyframe, by its number.")


class Keeper(Sink[KeeperConfig], type="here/keeper"):
    """Writes down what came.

    ```yaml
    flowstream: 1
    nodes: {keeper: {type: here/keeper, path: x}}
    ```
    """

    video = Input(EncodedPacket)

    def open(self):
        self.came = []

    def consume(self, packet):
        if len(self.came) == self.config.asks_at:
            self.ctx.request(self.video, KeyframeRequest())
        caps = packet.caps
        self.came.append([packet.time_ns, packet.capture_ns, packet.keyframe, caps.width, caps.height])

    def close(self):
        Path(self.config.path).write_text(json.dumps(self.came))
'''


def test_keyframes_of_real_encodes_come_at_the_same_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "nodes.py").write_text(KEEPER)
    keepers = "\n".join(
        f"  {name}-end: {{type: here/keeper, from: sizes.{name}, path: {tmp_path / name}, asks_at: {at}}}"
        for name, at in (("high", -1), ("middle", 40), ("low", -1))
    )
    text = FILE.replace(ENDS, keepers).replace("fps: 30}", "fps: 30, duration: 4s}")
    text = text.replace("{video: pattern}", "{video: pattern}, keyframe-interval: 1s")
    plan = plan_of_file(text, Registry.installed([folder]))

    async def run(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine:
            await engine.start(plan)
            await engine.wait()
            assert engine.failures == []

    run_virtual(run)
    came = {name: json.loads((tmp_path / name).read_text()) for name in SIZES}
    keyframes = {name: [each[0] for each in packets if each[2]] for name, packets in came.items()}
    for name, packets in came.items():
        assert {tuple(each[3:]) for each in packets} == {SIZES[name]}
    captured = {tuple(each[1] for each in packets) for packets in came.values()}
    assert len(captured) == 1, "every rung has every picture, with the time at which it was taken"
    assert keyframes["high"] == keyframes["low"]
    assert [time_ns // 1_000_000_000 for time_ns in keyframes["high"]] == [0, 1, 2, 3]
    extra = set(keyframes["middle"]) - set(keyframes["high"])
    assert set(keyframes["high"]) < set(keyframes["middle"])
    assert len(extra) == 1, "who asked gets a keyframe, in the rung that it takes; the others do not pay for it"
