"""A screen, a camera or a file, shown in browsers: the whole job in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Literal, overload

from flowstream.api.blocking import SyncRun, open_sync
from flowstream.api.running import TlsChoice
from flowstream.graph.builder import Graph, GraphNode
from flowstream.graph.diagnostics import did_you_mean

SOURCES = ("screen", "camera", "pattern")
RECORDING = "recordings/$(date)-$(time).mp4"


@overload
def share(
    source: str | PurePath = "screen",
    *,
    viewers: int = 10,
    record: bool | str | PurePath = False,
    title: str | None = None,
    bitrate: str = "2.5M",
    serve: str | bool = True,
    tls: TlsChoice | None = None,
    on_link: Callable[[str], object] = print,
    block: Literal[True] = True,
) -> None: ...
@overload
def share(
    source: str | PurePath = "screen",
    *,
    viewers: int = 10,
    record: bool | str | PurePath = False,
    title: str | None = None,
    bitrate: str = "2.5M",
    serve: str | bool = True,
    tls: TlsChoice | None = None,
    on_link: Callable[[str], object] = print,
    block: Literal[False],
) -> SyncRun: ...
def share(
    source: str | PurePath = "screen",
    *,
    viewers: int = 10,
    record: bool | str | PurePath = False,
    title: str | None = None,
    bitrate: str = "2.5M",
    serve: str | bool = True,
    tls: TlsChoice | None = None,
    on_link: Callable[[str], object] = print,
    block: bool = True,
) -> SyncRun | None:
    """Shows something to people in their browsers: ``flowstream.share("screen", viewers=10, record=True)``.

    ``source`` is ``screen``, ``camera``, ``pattern`` (a test picture with a tone) or the path of a media file, which is
    played over and over. ``viewers`` is how many may watch at a time. ``record`` keeps a copy, in ``recordings/`` or at
    a path. ``bitrate`` is that of the picture, in bits per second. ``serve`` is HOST:PORT; 127.0.0.1, at the next free
    port from 8080 on, unless given. ``tls`` is as for `flowstream.open`, and needed where other machines reach the
    address. ``on_link`` is called with the address of the page.

    Blocks until Ctrl-C, which finishes the recording, or until the source has ended. ``block=False`` returns the run
    at once, for a ``with`` block or its `SyncRun.close`. Raises as `flowstream.open_sync`.
    """
    graph = shared(source, viewers=viewers, record=record, title=title, bitrate=bitrate)
    run = open_sync(graph, serve=serve, tls=tls)
    if not block:
        for link in run.links:
            on_link(link)
        return run
    with run:
        try:
            for link in run.links:
                on_link(link)
            run.wait()
        except KeyboardInterrupt:
            run.stop()
    return None


def shared(
    source: str | PurePath, *, viewers: int, record: bool | str | PurePath, title: str | None, bitrate: str
) -> Graph:
    """The graph of `share`. Raises ValueError for a source that is none."""
    graph = Graph("share.yaml")
    sound: GraphNode | None = None
    match source:
        case "screen":
            picture = graph.add("scale", id="small", from_=graph.add("screen", fps=30), size="1280x720")
        case "camera":
            picture = graph.add("camera", size="1280x720")
        case "pattern":
            picture = graph.add("test-pattern", id="pattern", size="1280x720", fps=30)
            sound = graph.add("tone")
        case _:
            path = _literal(_path_of(source))
            sound = graph.add("file", id="film", path=path, loop=True)
            picture = graph.add("scale", id="small", from_=sound, size="1280x720")
    encode = graph.add("hw-encode", id="encode", from_=picture, codec="h264", bitrate=bitrate)
    streams = {"video": encode}
    if sound is not None:
        streams["audio"] = graph.add("opus-encode", id="opus", from_=sound)
    shown = title if title is not None else str(source)
    graph.add("webrtc-out", id="out", inputs=streams, title=_literal(shown), viewers={"max": viewers})
    if record is not False:
        path = RECORDING if record is True else _literal(record) if isinstance(record, PurePath) else record
        graph.add("recorder", id="tape", inputs=streams, path=path)
    return graph


def _path_of(source: str | PurePath) -> str:
    if isinstance(source, str) and "." not in source and not Path(source).exists():
        close = did_you_mean(source, SOURCES)
        raise ValueError(
            f"{source!r} is nothing to share: {', '.join(SOURCES)}, or the path of a media file"
            + (f"; did you mean {close}?" if close else "")
        )
    return str(source)


def _literal(text: str | PurePath) -> str:
    """Text in which the graph puts nothing in."""
    return str(text).replace("$", "$$")
