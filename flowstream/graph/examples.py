"""For every code of the catalog a graph that has it, and the same graph mended.

``flowstream explain`` compiles and shows them, and so does a test: the wrong one gives its code, the right one nothing.
They stand apart from the catalog, which every check loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """Files as they lie in a folder, and what ``flowstream check`` is called with there.

    ``graph`` is the file that is checked, the first one unless it says another, ``layers`` are files over it. A Python
    file in a folder is a node pack, given with ``--nodes``. With ``runs`` it is checked as ``flowstream run`` does.
    ``note`` says what cannot be seen in the text.
    """

    files: Mapping[str, str | bytes]
    graph: str = ""
    layers: tuple[str, ...] = ()
    sets: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    runs: bool = False
    note: str = ""

    @property
    def checked(self) -> str:
        """The file that is checked."""
        return self.graph or next(iter(self.files))

    @property
    def packs(self) -> tuple[str, ...]:
        """The folders with node types."""
        return tuple(dict.fromkeys(name.partition("/")[0] for name in self.files if name.endswith(".py")))


_CHOICE = re.compile(r"«([^|»]*)\|([^»]*)»")


def _pair(
    graph: str,
    others: Mapping[str, str] | None = None,
    *,
    layers: tuple[str, ...] = (),
    note: str = "",
    mended: str = "",
) -> tuple[Example, Example]:
    """A wrong and a right example from texts that mark where they differ: ``«wrong|right»``.

    ``others`` are files beside the graph. ``note`` is about the wrong example, ``mended`` about the right one.
    """
    texts = {"graph.yaml": graph, **(others or {})}
    wrong, right = ({name: _CHOICE.sub(part, text) for name, text in texts.items()} for part in (r"\1", r"\2"))
    return Example(wrong, layers=layers, note=note), Example(right, layers=layers, note=mended)


_GRAPH = """\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern}
  out: {type: webrtc-out, from: encode}
"""
_TITLED = """\
nodes:
  pattern: {type: test-pattern}
  title: {type: overlay, from: pattern, text: Zürich}
  window: {type: display, from: title}
"""
_STUDIO = _TITLED.replace("Zürich", "$(env:STUDIO)")
_RATED = """\
vars: {bitrate: 2.5M}
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern, bitrate: $(bitrate)}
  out: {type: webrtc-out, from: encode}
"""
_USES = """\
nodes:
  pattern: {type: test-pattern}
  studio: {use: studio.yaml, from: pattern}
  window: {type: display, from: studio.titled}
"""
_STUDIO_PART = """\
inputs: {video: title}
outputs: {titled: title}
nodes:
  title: {type: overlay, text: Studio 1}
"""
_NAMED_PART = """\
vars: {name: {description: What is written}}
inputs: {video: title}
outputs: {titled: title}
nodes:
  title: {type: overlay, text: $(name)}
"""
_LOGGED = _GRAPH + "# 13:05:59 encode: 30.0 fps, 2.5 Mb/s, 0 dropped\n" * 25_000
_WALL = "nodes:\n  pattern: {type: test-pattern}\n" + "".join(
    f"  window-{number}: {{type: display, from: «patern|pattern»}}\n" for number in range(1, 221)
)

EXAMPLES: Mapping[str, tuple[Example, Example]] = {
    "FS101": (Example({"desk.yaml": _GRAPH}, graph="desk.yml"), Example({"desk.yaml": _GRAPH})),
    "FS102": (
        Example({"graph.yaml": _TITLED.encode("latin-1")}, note="saved in Latin-1: the byte of its ü is none in UTF-8"),
        Example({"graph.yaml": _TITLED}, note="saved in UTF-8"),
    ),
    "FS103": (Example({"graph.yaml": _LOGGED}), Example({"graph.yaml": _GRAPH})),
    "FS104": _pair("""\
nodes:
  pattern: {type: test-pattern}
  title:
    type: overlay
    from: pattern
    text: «Live: the harbour|"Live: the harbour"»
  window: {type: display, from: title}
"""),
    "FS105": _pair(
        """\
nodes:
  pattern: {type: test-pattern}
  window:
«\t|    »type: display
«\t|    »from: pattern
""",
        note="the last two lines begin with a tab",
    ),
    "FS106": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode:
    type: hw-encode
«    bitrate: 2.5M
|»    from: pattern
    bitrate: 4M
  out: {type: webrtc-out, from: encode}
"""),
    "FS107": _pair("""\
nodes:
  pattern: {type: test-pattern}
  «1|window-1»: {type: display, from: pattern}
"""),
    "FS108": _pair("""\
nodes:
  pattern: {type: test-pattern}
  high: «&base {type: hw-encode, from: pattern, speed: fast}|{type: hw-encode, from: pattern, speed: fast}»
  low: «{<<: *base, bitrate: 600k}|{type: hw-encode, from: pattern, speed: fast, bitrate: 600k}»
  out: {type: webrtc-out, from: high}
  tape: {type: recorder, inputs: {video: low}, path: low.mp4}
"""),
    "FS109": _pair(f"""\
nodes:
  pattern: {{type: test-pattern}}
  encode: {{type: hw-encode, from: pattern}}
  out:
    type: webrtc-out
    from: encode
    origins: «{"[" * 31}https://example.org{"]" * 31}|["https://example.org"]»
"""),
    "FS110": _pair("""\
nodes:
  pattern: {type: test-pattern, «fps:30|fps: 30»}
  window: {type: display, from: pattern}
"""),
    "FS111": _pair("""\
nodes:
  «- {type: test-pattern}|pattern: {type: test-pattern}»
  «- {type: display}|window: {type: display, from: pattern}»
"""),
    "FS112": _pair('serve: {«port: 8080|listen: "127.0.0.1:8080"»}\n' + _GRAPH),
    "FS113": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern«, needs: [pattern]|»}
  out: {type: webrtc-out, from: encode}
"""),
    "FS114": _pair("flowstream: «2|1»\n" + _GRAPH),
    "FS115": _pair('«serve:|#serve:»\n#  listen: "127.0.0.1:8080"\n' + _GRAPH),
    "FS120": _pair(_RATED.replace("$(bitrate)", "$(«bitrat|bitrate»)")),
    "FS121": (Example({"graph.yaml": _STUDIO}), Example({"graph.yaml": _STUDIO}, environ={"STUDIO": "Studio 1"})),
    "FS122": _pair("""\
vars:
  usual: $(most)
  most: «$(usual)|4M»
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern, bitrate: $(usual), max: $(most)}
  out: {type: webrtc-out, from: encode}
"""),
    "FS123": _pair("""\
vars: {bitrate: 2.5M}
nodes:
  pattern: {type: test-pattern}
  encode:
    type: hw-encode
    from: pattern
    bitrate: «${bitrate}|$(bitrate)»
  out: {type: webrtc-out, from: encode}
"""),
    "FS124": _pair(_RATED.replace("$(bitrate)", "«2.5M|$(bitrate)»")),
    "FS125": (
        Example({"graph.yaml": _RATED}, sets={"bit-rate": "1M"}),
        Example({"graph.yaml": _RATED}, sets={"bitrate": "1M"}),
    ),
    "FS126": _pair("vars: {«date|day»: 22 November}\n" + _TITLED.replace("Zürich", "Zürich on $(«date|day»)")),
    "FS127": _pair(
        """\
nodes:
  studio: {use: studio.yaml}
  window: {type: display, from: studio.large}
""",
        {
            "studio.yaml": """\
outputs: {large: pattern, «Small|small»: scale}
nodes:
  pattern: {type: test-pattern}
  scale: {type: scale, from: pattern, size: 640x360}
"""
        },
    ),
    "FS130": _pair(
        _USES.replace("studio.yaml", "«studio.yaml|parts/studio.yaml»"), {"parts/studio.yaml": _STUDIO_PART}
    ),
    "FS131": _pair(
        "include: common.yaml\n" + _GRAPH,
        {"common.yaml": '«include: graph.yaml\n|»serve: {listen: "0.0.0.0:8443", tls: auto}\n'},
    ),
    "FS133": _pair(
        "nodes:\n  camera: {type: camera, fps: 30}\n  window: {type: display, from: camera}\n",
        {"home.yaml": "nodes:\n  camera: {«type: test-pattern|device: /dev/video1»}\n"},
        layers=("home.yaml",),
    ),
    "FS134": _pair(
        _GRAPH + "  window: {type: display, from: pattern}\n",
        {"headless.yaml": "nodes:\n  «windwo|window»: null\n"},
        layers=("headless.yaml",),
    ),
    "FS135": _pair(_USES, {"studio.yaml": '«serve: {listen: "127.0.0.1:8080"}\n|»' + _STUDIO_PART}),
    "FS136": _pair(_NAMED_PART.replace("description", "«|default: Studio 1, »description")),
    "FS199": _pair(_WALL),
    "FS201": _pair("""\
nodes:
  pattern: {type: test-pattern}
  «Big Window: {type: display, from: pattern}|big-window: {type: display, from: pattern, label: Big Window}»
"""),
    "FS202": _pair(_GRAPH.replace("type: hw-encode", "«typ|type»: hw-encode")),
    "FS203": _pair(_GRAPH.replace("hw-encode", "«h264-encode|hw-encode»")),
    "FS204": _pair(
        """\
nodes:
  pattern: {type: test-pattern}
  mirror: {type: acme/mirror, from: pattern}
  window: {type: display, from: mirror}
""",
        {
            "acme/nodes.py": '''\
from flowstream import VideoFrame, node

@node("acme/mirror")
def mirror(«frame|frame: VideoFrame») -> VideoFrame:
    """Swap left and right."""
    return VideoFrame.from_array(frame.array("bgr24")[:, ::-1], like=frame)
'''
        },
    ),
    "FS205": _pair(
        """\
nodes:
  pattern: {type: test-pattern}
  faces: {type: acme/faces, from: pattern}
  window: {type: display, from: faces}
""",
        {
            "acme/nodes.py": '''\
from flowstream import Need, VideoFrame, node

@node("acme/faces"«, needs=[Need("face_finder", "face-finder")]|»)
def faces(frame: VideoFrame) -> VideoFrame:
    """Blur every face."""
«    import face_finder
|»    ...
'''
        },
        mended="installing the library mends it as well; this one does without",
    ),
    "FS206": _pair(_GRAPH.replace("from: pattern", "from: pattern, «bit_rate|bitrate»: 4M")),
    "FS207": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern}
  tape: {type: recorder, inputs: {video: encode}«|, path: tape.mp4»}
"""),
    "FS208": _pair(_GRAPH.replace("from: pattern", "from: pattern, bitrate: «2500|2.5M»")),
    "FS209": _pair("""\
nodes:
  pattern: {type: test-pattern}
  tone: {type: tone}
  encode: {type: hw-encode, from: pattern}
  voice: {type: opus-encode, from: tone}
  out: {type: webrtc-out, «from: encode, inputs: {audio: voice}|inputs: {video: encode, audio: voice}»}
"""),
    "FS210": _pair(_USES.replace("use: studio", "«type: overlay, |»use: studio"), {"studio.yaml": _STUDIO_PART}),
    "FS214": _pair('serve: {listen: "0.0.0.0:8443"«|, tls: auto»}\n' + _GRAPH),
    "FS211": _pair(
        _USES.replace("from: pattern", "from: pattern, «title|name»: Studio 1"),
        {"studio.yaml": _NAMED_PART.replace("description", "default: Studio 0, description")},
    ),
    "FS212": _pair(_USES.replace("from: pattern", "from: pattern«|, name: Studio 1»"), {"studio.yaml": _NAMED_PART}),
    "FS213": _pair(
        _USES
        + "  «studio/title|title»: {type: overlay, from: pattern, text: Studio 2}\n"
        + "  second: {type: display, from: «studio/title|title»}\n",
        {"studio.yaml": _STUDIO_PART},
    ),
    "FS301": _pair(_GRAPH.replace("from: pattern", "from: «patern|pattern»")),
    "FS302": _pair(_GRAPH.replace("from: pattern", "from: pattern.«picture|video»")),
    "FS303": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern}
  tape: {type: recorder, inputs: {«picture|video»: encode}, path: tape.mp4}
"""),
    "FS304": _pair(
        """\
nodes:
  eyes: {type: acme/eyes}
  window: {type: display, from: «eyes|eyes.left»}
""",
        {
            "acme/nodes.py": '''\
from flowstream import Output, Source, VideoFrame

class Eyes(Source, type="acme/eyes"):
    """Capture a camera with two lenses."""
    left = Output(VideoFrame)
    right = Output(VideoFrame)

    def capture(self):
        ...
'''
        },
    ),
    "FS305": _pair("""\
nodes:
  tone: {type: tone}
  voice: {type: «hw-encode|opus-encode», from: tone}
  out: {type: webrtc-out, from: voice}
"""),
    "FS306": _pair("""\
nodes:
  tone: {type: tone}
  voice: {type: opus-encode, from: tone}
  tape: {type: recorder, inputs: {«video|audio»: voice}, path: voice.mp4}
"""),
    "FS307": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode«|, from: pattern»}
  out: {type: webrtc-out, from: encode}
  window: {type: display, from: pattern}
"""),
    "FS308": _pair("""\
nodes:
  screen: {type: screen}
  camera: {type: camera«|, enabled: false»}
  window: {type: display, from: «[screen, camera]|screen»}
"""),
    "FS309": _pair("""\
nodes:
  pattern: {type: test-pattern}
  small: {type: scale, from: «title|pattern», size: 640x360}
  title: {type: overlay, from: small, text: Studio 1}
  window: {type: display, from: title}
  whole: {type: display, from: pattern}
"""),
    "FS310": _pair("""\
nodes:
  pattern: {type: test-pattern}
  title: {type: overlay, from: pattern, text: Studio 1, enabled: false}
  window: {type: display, from: «title|pattern»}
"""),
    "FS311": _pair(
        """\
nodes:
  screen: {type: screen}
  both: {type: acme/inset, «from: screen|inputs: {large: screen}»}
  window: {type: display, from: both}
""",
        {
            "acme/nodes.py": '''\
from flowstream import Context, Input, Node, Output, VideoFrame

class Inset(Node, type="acme/inset"):
    """Put a small picture into a large one."""
    large = Input(VideoFrame, optional=True)
    small = Input(VideoFrame, optional=True)
    joined = Output(VideoFrame)

    async def run(self, ctx: Context) -> None:
        ...
'''
        },
    ),
    "FS312": _pair(_GRAPH.replace("from: pattern", 'from: «"pattern:video"|pattern.video»')),
    "FS313": _pair("""\
nodes:
  pattern: {type: test-pattern}
  encode: {type: hw-encode, from: pattern}
  out: {type: webrtc-out, from: encode}
  page: {type: webrtc-out, from: encode«, was: out|»}
"""),
    "FS314": (
        Example({"studio.yaml": _STUDIO_PART, "graph.yaml": _USES}, runs=True),
        Example({"studio.yaml": _STUDIO_PART, "graph.yaml": _USES}, graph="graph.yaml", runs=True),
    ),
    "FS315": _pair("""\
placement:
  studio: {nodes: [camera, encode]}
  office: {nodes: [«encode, |»out]}
nodes:
  camera: {type: camera}
  encode: {type: hw-encode, from: camera}
  out: {type: webrtc-out, from: encode}
"""),
    "FS316": _pair("""\
«placement:
  studio: {nodes: [camera, encode]}
  office: {nodes: [out]}
|»nodes:
  camera: {type: camera}
  encode: {type: hw-encode, from: camera}
  out: {type: webrtc-out, from: encode}
"""),
    "FS320": _pair("""\
nodes:
  camera: {type: camera}
  window:
    type: display
    from: {output: camera, overflow: latest«, limit: {items: 5}|»}
"""),
    "FS321": _pair("""\
nodes:
  camera: {type: camera}
  encode: {type: hw-encode, from: camera}
  out: {type: webrtc-out, from: encode}
  tape:
    type: recorder
    inputs: {video: {output: encode, overflow: «block|drop-to-keyframe»}}
    path: tape.mp4
"""),
    "FS322": _pair("""\
nodes:
  camera: {type: camera}
  small: {type: scale, from: camera, size: 640x360}
  window: {type: display, from: «camera|small»}
"""),
    "FS323": _pair("""\
nodes:
  camera: {type: camera}
  encode: {type: hw-encode, from: camera}
  out:
    type: webrtc-out
    from: {output: encode, overflow: «drop-oldest|drop-to-keyframe»}
"""),
}
"""The wrong and the right example of every code."""
