"""Plans as pictures."""

from flowstream.graph.draw import to_dot, to_mermaid
from tests.graph.compiling import compiled

PLAN = compiled("""
nodes:
  pattern: {type: pattern, label: 'Say "hi" <b> | \\'}
  encode: {type: encode, inputs: {video: pattern, targets: abr}, bitrate: 1M}
  abr: {type: abr, inputs: {reports: out.reports}}
  out: {type: show, from: encode}
  all: {type: discard, from: pattern}
""")


def test_mermaid() -> None:
    assert to_mermaid(PLAN) == (
        "flowchart LR\n"
        '  n0(["Say &quot;hi&quot; &lt;b&gt; &#124; \\<br/><small>pattern</small>"])\n'
        '  n1["encode<br/><small>encode</small>"]\n'
        '  n2["abr<br/><small>abr</small>"]\n'
        '  n3["out<br/><small>show</small>"]\n'
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
