"""What a plan holds that the case files do not tell."""

import hashlib
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from flowstream.errors import GraphError, PackError, Place
from flowstream.graph import Plan, compile_graph
from flowstream.graph.policy import FEEDBACK, LIVE, OFFLINE
from flowstream.node.registry import Pack, Registry
from flowstream.proto.overflow import Limit, Overflow
from tests.graph.compiling import BEGAN, REGISTRY, codes, compiled

PAIR = "nodes: {pattern: {type: pattern}, out: {type: discard, from: pattern}}"


def test_name_files_revision_and_places() -> None:
    plan = compiled(PAIR, path="some/where/desk.yaml")
    assert plan.name == "desk"
    assert plan.files == ("some/where/desk.yaml",)
    assert plan.revision == hashlib.sha256(PAIR.encode()).hexdigest()[:12]
    assert plan.nodes["pattern"].place == Place("some/where/desk.yaml", 1, 9)
    assert plan.edges[0].place == Place("some/where/desk.yaml", 1, 62)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory"), "g.yaml: there is no such file"),
        (PermissionError(13, "Permission denied"), "g.yaml: permission denied"),
        (IsADirectoryError(21, "Is a directory"), "g.yaml: is a directory"),
        (OSError("odd"), "g.yaml: odd"),
    ],
)
def test_a_file_that_cannot_be_read(error: OSError, said: str) -> None:
    def read(path: str) -> bytes:
        raise error

    with pytest.raises(GraphError) as raised:
        compile_graph("g.yaml", read=read, environ={}, registry=REGISTRY, wallclock=BEGAN)
    assert [(each.code, each.message) for each in raised.value.diagnostics] == [("FS101", said)]


def test_a_plan_is_the_same_for_the_same_text_and_moment() -> None:
    text = "nodes: {tone: {type: tone}, tape: {type: tape, path: $(date)-$(time).mp4}}"
    assert compiled(text) == compiled(text.replace(", ", ",  "))
    later = compile_graph(
        "g.yaml", read=lambda _: text.encode(), environ={}, registry=REGISTRY, wallclock=datetime(2027, 1, 2, 3, 4, 5)
    )
    assert later.nodes["tape"].shown_config()["path"] == "2027-01-02-03-04-05.mp4"


def overflows(text: str) -> dict[str, tuple[Overflow, Limit]]:
    return {edge.name: (edge.overflow, edge.limit) for edge in compiled(text).edges}


def test_what_waits_on_live_edges() -> None:
    found = overflows("""
    nodes:
      pattern: {type: pattern}
      tone: {type: tone}
      encode: {type: encode, inputs: {video: pattern, targets: abr}, bitrate: 1M}
      sound: {type: sound-encode, from: tone}
      abr: {type: abr, inputs: {reports: encode.statistics}}
      out: {type: show, from: [encode, sound]}
      log: {type: discard, from: encode.statistics}
    """)
    assert found == {
        "encode.video": LIVE["video"],
        "encode.targets": FEEDBACK,
        "sound.audio": LIVE["audio"],
        "abr.reports": FEEDBACK,
        "out.video": LIVE["encoded video"],
        "out.audio": LIVE["encoded audio"],
        "log.anything": LIVE["record"],
    }


def test_every_edge_waits_without_a_live_source() -> None:
    text = """
    nodes:
      film: {type: film, path: x}
      views: {type: views}
      blur: {type: blur, from: views.left}
      tape: {type: tape, path: y, inputs: {video: film.video, audio: film.audio}}
      out: {type: discard, from: blur}
    """
    found = overflows(text)
    assert found == {
        "blur.frames": OFFLINE["video"],
        "tape.video": OFFLINE["encoded video"],
        "tape.audio": OFFLINE["encoded audio"],
        "out.anything": OFFLINE["video"],
    }
    assert {policy for policy, _ in OFFLINE.values()} == {"block"}
    assert not compiled(text).is_live
    assert compiled(text.replace("path: x", "path: x, paced: true")).is_live


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ("limit: {items: 7}", Limit(7, LIVE["encoded video"][1].bytes, LIVE["encoded video"][1].time_ns)),
        ("limit: {time: 10s}", Limit(1024, LIVE["encoded video"][1].bytes, 10_000_000_000)),
        ("limit: {bytes: 1KiB}", Limit(1024, 1024, LIVE["encoded video"][1].time_ns)),
        ("overflow: latest", Limit(1)),
    ],
)
def test_limits_of_the_graph_stand_before_the_defaults(options: str, limit: Limit) -> None:
    found = overflows(f"""
    nodes:
      pattern: {{type: pattern}}
      encode: {{type: encode, from: pattern, bitrate: 1M}}
      out: {{type: show, from: {{output: encode, {options}}}}}
    """)
    policy, found_limit = found["out.video"]
    assert found_limit == limit
    assert policy == ("latest" if "latest" in options else "drop-to-keyframe")


def test_what_passes_through_keeps_its_kind() -> None:
    found = overflows("""
    nodes:
      tone: {type: tone}
      sound: {type: sound-encode, from: tone}
      one: {type: pass, from: sound}
      two: {type: pass, from: one}
      out: {type: show, from: two}
    """)
    assert found["out.audio"] == LIVE["encoded audio"]
    assert found["two.anything"] == LIVE["encoded audio"]


def test_the_main_output_is_meant_where_several_fit() -> None:
    text = """
    nodes:
      pattern: {type: pattern}
      encode: {type: encode, from: pattern, bitrate: 1M}
      out: {type: discard, from: encode}
    """
    assert compiled(text).edges[-1].output == "packets"


def test_the_one_output_that_fits_is_meant() -> None:
    text = "nodes: {film: {type: film, path: x}, out: {type: show, from: [film, film.video]}}"
    assert codes(text) == ["FS311"]
    text = "nodes: {film: {type: film, path: x}, out: {type: show, inputs: {video: film, audio: film}}}"
    assert [edge.output for edge in compiled(text).edges] == ["audio", "video"]


def test_disabled_nodes_are_not_looked_up() -> None:
    text = f"{PAIR[:-1]}, later: {{type: acme/blur, enabled: false, from: nowhere, odd: 1}}}}"
    plan = compiled(text)
    assert list(plan.nodes) == ["pattern", "out"]
    assert not plan.warnings


def test_a_pack_is_imported_only_for_its_types() -> None:
    class Counting(Registry):
        asked: list[str] = []

        def _load(self, namespace: str) -> object:  # type: ignore[override]
            self.asked.append(namespace)
            return super()._load(namespace)

    registry = Counting([Pack("flowstream", "tests", module="tests.graph.pack"), Pack("acme", "x", module="nowhere")])
    compile_graph("g", read=lambda _: PAIR.encode(), environ={}, registry=registry, wallclock=BEGAN)
    assert set(registry.asked) == {"flowstream"}
    with pytest.raises(PackError):
        registry.get("acme/x")


def test_an_edited_node_type_is_another_implementation(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    file = folder / "beep.py"
    source = '''
from flowstream import AudioFrame, Output, Source

class Beep(Source, type="mine/beep"):
    """Beep."""

    audio = Output(AudioFrame)

    def capture(self):
        return None
'''

    def plan() -> Plan:
        registry = Registry(
            [Pack("flowstream", "tests", module="tests.graph.pack"), Pack("mine", str(folder), folder=folder)]
        )
        text = b"nodes: {beep: {type: mine/beep}, out: {type: discard, from: beep}}"
        return compile_graph("g", read=lambda _: text, environ={}, registry=registry, wallclock=BEGAN)

    file.write_text(source)
    first, again = plan(), plan()
    file.write_text(source.replace("Beep.", "Beep louder."))
    edited = plan()
    assert first.nodes["beep"].implementation == again.nodes["beep"].implementation != ""
    assert edited.nodes["beep"].implementation != first.nodes["beep"].implementation
    assert first.nodes["out"].implementation == ""


def test_checking_imports_no_media_library_and_no_graph_library() -> None:
    script = """
import sys
from tests.graph.compiling import compiled
compiled("nodes: {pattern: {type: pattern}, out: {type: discard, from: pattern}}")
print(sorted({"av", "cv2", "numpy", "aiortc", "networkx", "anyio", "asyncio"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
