"""``flowstream tap``: looks at what goes over an edge of a run, line by line, and saves it."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from flowstream.cli import COMMANDS
from flowstream.cli.graphs import control_option, run_option
from flowstream.errors import FlowstreamError

_BYTE_STREAMS = {".h264": "h264", ".264": "h264", ".hevc": "hevc", ".h265": "hevc", ".265": "hevc"}
"""Files that are the packets' bytes, one after the other, and of which codec."""

# Which of FFmpeg's encoders a track is declared with; nothing is encoded.
_DECLARED_AS = {"h264": "libx264", "hevc": "libx265", "opus": "libopus"}
_LINES = 10


@click.command("tap", short_help=COMMANDS["tap"])
@click.argument("edge")
@click.option("--frames", "-n", metavar="N", type=click.IntRange(1, 1_000_000), help="How many; 10, or one picture.")
@click.option(
    "--save", "path", metavar="FILE", type=click.Path(path_type=Path),
    help="A picture as FILE.png (several are numbered); packets as FILE.h264, .mkv, .mp4, .opus ...",
)  # fmt: skip
@run_option
@control_option
def command(edge: str, frames: int | None, path: Path | None, name: str | None, control: Path | None) -> int:
    """Look at what goes over EDGE, a line for each frame or packet.

    An edge is named by who takes from it: out.video, or mix.video[1] where an input takes several. What is seen is what
    the producer puts on the edge, before any of it is dropped. Looking does not slow the graph: what cannot be shown in
    time is missed, and counted. Packets of pictures are saved from a keyframe on, which the producer is asked for.

    A line tells the media time, what it is, its size, and how long ago it was captured.
    """
    from urllib.parse import urlencode

    from flowstream.control.client import choose, follow

    saving = None if path is None else _saving(path)
    count = frames or (1 if isinstance(saving, _Pictures) else _LINES)
    run = choose(name, control)
    query = urlencode({"edge": edge, "frames": count, "data": "none" if saving is None else saving.data})
    quiet, missed = 0, 0
    try:
        for head, body in follow(run.socket, f"/tap?{query}"):
            if "waiting" in head:
                quiet += 1
                click.echo(f"nothing came for {quiet} s", err=True)
                continue
            quiet = 0
            if head.get("missed", 0) > missed:
                click.echo(f"({head['missed'] - missed} were missed)")
                missed = head["missed"]
            if "edge" in head:
                click.echo(f"{head['edge']}, from {head['producer']}.{head['output']}")
            elif "end" not in head:
                click.echo(line_of(head))
                if saving is not None:
                    saving.take(head, body)
                    if not saving.count:
                        break  # what comes does not go into such a file
            elif not head["end"].endswith(" came"):
                click.echo(head["end"], err=True)
    except KeyboardInterrupt:
        pass
    finally:
        if saving is not None:
            saving.close()
    if saving is None:
        return 0
    if not saving.count:
        click.echo(f"nothing was saved: {saving.excuse}", err=True)
        return 1
    click.echo(f"saved {saving.count} to {saving.saved}")
    return 0


def line_of(head: dict[str, Any]) -> str:
    """A payload in a line: media time, kind, size, caps, and what else is known."""
    from flowstream.cli.top import milliseconds, size

    parts = [f"{head['time_ns'] / 1e9:11.3f} s", f"{_KINDS.get(head['kind'], head['kind']):6}"]
    parts.append(f"{size(head['size_bytes']):>8}")
    parts.append("keyframe" if head.get("keyframe") and head.get("width") else "")
    parts.append(head["caps"])
    if head.get("samples"):
        parts.append(f"{head['samples']} samples")
    if head["latency_ns"] is not None:
        parts.append(f"captured {milliseconds(head['latency_ns'])} ago")
    return "  ".join(part for part in parts if part)


_KINDS = {"VideoFrame": "frame", "AudioFrame": "sound", "EncodedPacket": "packet", "Record": "record"}


class _Saving:
    """Where payloads go. ``data`` is what the run is asked for, ``excuse`` why nothing was saved."""

    data = "raw"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.excuse = "nothing came"

    @property
    def saved(self) -> str:
        """What was written, for a person."""
        return str(self.path)

    def take(self, head: dict[str, Any], body: bytes) -> None:
        """Saves a payload if it is one that goes into such a file."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing more comes."""


class _Pictures(_Saving):
    """PNG files."""

    data = "png"

    @property
    def saved(self) -> str:
        return str(self.path) if self.count == 1 else f"{self._numbered(1)} ... {self._numbered(self.count).name}"

    def take(self, head: dict[str, Any], body: bytes) -> None:
        if not body:
            self.excuse = head.get("problem") or "no picture comes there; packets go to .h264, .mkv or .opus"
            return
        self.count += 1
        if self.count == 2:
            self.path.replace(self._numbered(1))
        path = self.path if self.count == 1 else self._numbered(self.count)
        _guarded(path, lambda: path.write_bytes(body))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")


class _Bytes(_Saving):
    """Packets one after the other."""

    def __init__(self, path: Path, codec: str) -> None:
        super().__init__(path)
        self._codec = codec
        self._file: Any = None

    def take(self, head: dict[str, Any], body: bytes) -> None:
        if head.get("codec") != self._codec:
            self.excuse = f"{self.path.suffix} is for packets of {self._codec}; {_what_comes(head)}"
            return
        if self._file is None:
            self._file = _guarded(self.path, lambda: self.path.open("wb"))
        _guarded(self.path, lambda: self._file.write(body))
        self.count += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Container(_Saving):
    """Packets in a file of FFmpeg's; the first is at time zero."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._container: Any = None
        self._stream: Any = None
        self._zero_ns = 0

    def take(self, head: dict[str, Any], body: bytes) -> None:
        import av

        if not body:
            self.excuse = f"packets go into a file like that; {_what_comes(head)}"
            return
        try:
            if self._container is None:
                self._begin(head, body)
            packet = av.Packet(body)
            packet.time_base = Fraction(1, 1_000_000_000)
            packet.pts = head["time_ns"] - self._zero_ns
            packet.dts = packet.pts if head["decode_ns"] is None else head["decode_ns"] - self._zero_ns
            packet.duration = head["duration_ns"] or 0
            packet.is_keyframe = head["keyframe"]
            packet.stream = self._stream
            self._container.mux(packet)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise _unwritable(self.path, error) from error
        self.count += 1

    def _begin(self, head: dict[str, Any], body: bytes) -> None:
        import av

        codec = head["codec"]
        self._container = av.open(str(self.path), "w")
        self._zero_ns = head["time_ns"] if head["decode_ns"] is None else min(head["time_ns"], head["decode_ns"])
        # A template is PyAV's one way to declare a track with extradata and without an encoder of its own.
        with av.open(io.BytesIO(), "w", format="matroska") as donor:
            template = donor.add_stream(_DECLARED_AS.get(codec, codec))
            self._stream = self._container.add_stream_from_template(template, opaque=True)
        context = self._stream.codec_context
        context.extradata = _extradata(head, body)
        if head["width"]:
            context.width, context.height = head["width"], head["height"]
            if head["duration_ns"]:
                context.framerate = Fraction(1_000_000_000, head["duration_ns"]).limit_denominator(1001)
        else:
            context.sample_rate, context.layout = 48_000, head["layout"] or "stereo"
        context.time_base = self._stream.time_base = (
            Fraction(1, 1_000_000_000) if head["width"] else Fraction(1, 48_000)
        )

    def close(self) -> None:
        if self._container is not None:
            self._container.close()


def _extradata(head: dict[str, Any], body: bytes) -> bytes | None:
    """What the file's header says of the codec; for h264 taken from the keyframe where the caps have none."""
    if head["extradata"] is not None:
        return bytes.fromhex(head["extradata"])
    if head["codec"] == "opus":
        channels = 1 if head["layout"] == "mono" else 2
        return b"OpusHead" + bytes((1, channels)) + bytes(2) + (48_000).to_bytes(4, "little") + bytes(3)
    if head["codec"] == "h264":
        from flowstream.proto.h264 import split_annex_b

        sets = [unit for unit in split_annex_b(body) if unit[0] & 0x1F in (7, 8)]
        return b"".join(b"\0\0\0\1" + unit for unit in sets)
    return None


def _saving(path: Path) -> _Saving:
    """What saves to a file of such a name. Raises BadParameter for one that nothing is known of."""
    end = path.suffix.lower()
    if end == ".png":
        return _Pictures(path)
    if end in _BYTE_STREAMS:
        return _Bytes(path, _BYTE_STREAMS[end])
    if end in (".mkv", ".mp4", ".mov", ".webm", ".ts", ".opus", ".ogg", ".mka"):
        return _Container(path)
    raise click.BadParameter(
        f"what goes into a {end or 'file without an ending'} is not known; "
        "pictures go to .png, packets to .h264, .hevc, .mkv, .mp4, .ts, .webm or .opus",
        param_hint="--save",
    )


def _what_comes(head: dict[str, Any]) -> str:
    kind = _KINDS.get(head["kind"], head["kind"])
    return f"what comes there is a {kind} ({head['caps']})"


def _guarded(path: Path, write: Callable[[], Any]) -> Any:
    try:
        return write()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Any) -> FlowstreamError:
    return FlowstreamError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")
