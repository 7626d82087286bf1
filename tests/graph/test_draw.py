"""Plans as the text of diagrams."""

from dataclasses import replace

import pytest

from flowstream import AudioCaps, AudioFrame, EncodedCaps, EncodedPacket, VideoCaps, VideoFrame
from flowstream.graph.carried import carried_text, carried_whole
from flowstream.graph.draw import drawn_groups, edge_label, group_of, to_dot, to_mermaid
from flowstream.graph.negotiate import Carried
from tests.graph.compiling import compiled
from tests.graph.drawing import CONVERTED, STUDIO

COMPILED = compiled("""
nodes:
  pattern: {type: pattern, label: 'Say "hi" <b> | \\'}
  encode: {type: encode, inputs: {video: pattern, targets: abr}, bitrate: 1M}
  abr: {type: abr, inputs: {reports: out.reports}}
  out: {type: show, from: encode}
  all: {type: discard, from: pattern}
""")
PLAN = replace(COMPILED, edges=tuple(replace(edge, carried=None) for edge in COMPILED.edges))
"""What its edges carry is known from the declarations of the outputs only."""


def test_mermaid() -> None:
    assert to_mermaid(PLAN) == (
        "flowchart LR\n"
        '  n0(["Say &quot;hi&quot; &lt;b&gt; &#124; \\<br/><small>pattern</small>"])\n'
        '  n1["encode<br/><small>encode</small>"]\n'
        '  n2["abr<br/><small>abr</small>"]\n'
        '  n3[["out<br/><small>show</small>"]]\n'
        '  n4[["all<br/><small>discard</small>"]]\n'
        '  n2 -.->|"Record to targets"| n1\n'
        '  n0 -->|"VideoFrame"| n1\n'
        '  n3 -.->|"Record to reports"| n2\n'
        '  n1 -->|"h264 to video"| n3\n'
        '  n0 -->|"VideoFrame"| n4\n'
    )


def test_dot() -> None:
    text = to_dot(PLAN)
    assert '  "pattern" [label="Say \\"hi\\" <b> | \\\\\\npattern"];\n' in text
    assert '  "abr" -> "encode" [label="Record to targets", style=dashed, constraint=false];\n' in text
    assert '  "encode" -> "out" [label="h264 to video"];\n' in text


def test_subgraphs_in_mermaid() -> None:
    assert to_mermaid(STUDIO) == (
        "flowchart LR\n"
        '  n0(["camera<br/><small>pattern</small>"])\n'
        '  n4[["out<br/><small>show</small>"]]\n'
        '  n5["abr<br/><small>abr</small>"]\n'
        '  n6[["tape<br/><small>tape</small>"]]\n'
        '  subgraph g0["The studio<br/><small>lib/studio.yaml</small>"]\n'
        '    n1["clean<br/><small>blur</small>"]\n'
        '    subgraph g1["ladder<br/><small>lib/ladder.yaml</small>"]\n'
        '      n2["high<br/><small>encode</small>"]\n'
        '      n3["For phones<br/><small>encode</small>"]\n'
        "    end\n"
        "  end\n"
        '  n0 -->|"yuv420p 1280x720 30 fps"| n1\n'
        '  n1 -->|"yuv420p 1280x720 30 fps"| n2\n'
        '  n1 -->|"VideoFrame"| n3\n'
        '  n2 -->|"h264 to video"| n4\n'
        '  n3 -->|"h264 to video"| n6\n'
        '  n4 -.->|"Record to reports"| n5\n'
        '  n5 -.->|"Record to targets"| n2\n'
    )


def test_subgraphs_in_dot() -> None:
    assert (
        '  subgraph "cluster_studio" {\n'
        '    label="The studio\\nlib/studio.yaml"; labeljust=l; style=rounded; fontname="sans-serif"; fontsize=11;\n'
        '    "studio/clean" [label="clean\\nblur"];\n'
        '    subgraph "cluster_studio/ladder" {\n'
        '      label="ladder\\nlib/ladder.yaml"; labeljust=l; style=rounded; fontname="sans-serif"; fontsize=11;\n'
        '      "studio/ladder/high" [label="high\\nencode"];\n'
        '      "studio/ladder/low" [label="For phones\\nencode"];\n'
        "    }\n"
        "  }\n"
    ) in to_dot(STUDIO)


def test_converters() -> None:
    mermaid, dot = to_mermaid(CONVERTED), to_dot(CONVERTED)
    assert '  n1("<small>decode, high</small>")\n' in mermaid
    assert '  n2("<small>pixel format bgr24, medium</small>")\n  style n2 stroke-dasharray:4 3\n' in mermaid
    assert "style n1" not in mermaid
    assert '"view.video~decode" [label="decode, high", shape=ellipse, style=solid,' in dot
    assert '"view.video~format" [label="pixel format bgr24, medium", shape=ellipse, style=dashed,' in dot


def test_a_node_stands_in_the_innermost_subgraph_that_there_is() -> None:
    assert [group_of(STUDIO, id_) for id_ in ("out", "studio/x", "studio/ladder/x", "studio/other/x", "none/x")] == [
        "", "studio", "studio/ladder", "studio", "",
    ]  # fmt: skip
    assert drawn_groups(STUDIO) == {"studio": "", "studio/ladder": "studio"}


def test_what_the_plan_knows_of_an_edge_goes_before_what_its_output_declares() -> None:
    edge = PLAN.edges[1]
    assert edge_label(PLAN, edge) == "VideoFrame"
    known = replace(edge, carried=Carried((VideoFrame,), VideoCaps(format="nv12")))
    assert edge_label(PLAN, known) == "nv12"


@pytest.mark.parametrize(
    ("payloads", "caps", "text"),
    [
        ((VideoFrame,), None, "VideoFrame"),
        ((VideoFrame, EncodedPacket), None, "VideoFrame or EncodedPacket"),
        ((object,), None, "any"),
        ((VideoFrame,), VideoCaps(), "VideoFrame"),
        ((VideoFrame,), VideoCaps(format="yuv420p", width=1280, height=720, fps=30), "yuv420p 1280x720 30 fps"),
        ((VideoFrame,), VideoCaps(format=("yuv420p", "nv12"), fps=29.97), "yuv420p or nv12 29.97 fps"),
        ((VideoFrame,), VideoCaps(format=("yuv420p", "nv12", "bgr24"), width=640), "yuv420p or 2 others 640 wide"),
        ((VideoFrame,), VideoCaps(height=720, width=(1280, 960), fps=(25, 30)), "VideoFrame 720 high 25 or 30 fps"),
        ((AudioFrame,), AudioCaps(format="fltp", rate=48000, layout="stereo"), "fltp 48 kHz stereo"),
        ((AudioFrame,), AudioCaps(rate=44100), "AudioFrame 44.1 kHz"),
        ((EncodedPacket,), EncodedCaps(codec="h264"), "h264"),
        ((EncodedPacket,), EncodedCaps(codec="h264", profile="high", width=1920, height=1080), "h264 high 1920x1080"),
        ((EncodedPacket,), EncodedCaps(codec=("opus", "aac"), rate=48000), "opus or aac 48 kHz"),
        ((VideoFrame, EncodedPacket), VideoCaps(format="nv12"), "VideoFrame or EncodedPacket"),
    ],
)
def test_caps_in_brief(payloads: tuple[type, ...], caps: VideoCaps | None, text: str) -> None:
    assert carried_text(Carried(payloads, caps)) == text


def test_caps_as_a_whole() -> None:
    caps = VideoCaps(format=("yuv420p", "nv12", "bgr24"), width=640)
    assert carried_whole(Carried((VideoFrame,), caps)) == "VideoFrame: format yuv420p or nv12 or bgr24, width 640"
    assert carried_whole(Carried((VideoFrame,))) == "VideoFrame"
