"""Files that ``flowstream tap`` saves what it sees to: pictures, bare packets, FFmpeg's containers."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click

from flowstream.errors import FlowstreamError

T = TypeVar("T")

KINDS = {"VideoFrame": "frame", "AudioFrame": "sound", "EncodedPacket": "packet", "Record": "record"}
"""Payloads as people call them."""

_BYTE_STREAMS = {".h264": "h264", ".264": "h264", ".hevc": "hevc", ".h265": "hevc", ".265": "hevc"}
"""Files that are the packets' bytes, one after the other, and of which codec."""

# Which of FFmpeg's encoders a track is declared with; nothing is encoded.
_DECLARED_AS = {"h264": "libx264", "hevc": "libx265", "opus": "libopus"}


class Saving(ABC):
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

    @abstractmethod
    def take(self, head: dict[str, Any], body: bytes) -> None:
        """Saves a payload if it is one that goes into such a file. Raises FlowstreamError when that fails."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more comes. May be called when nothing came."""


class Pictures(Saving):
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
        guarded(path, lambda: path.write_bytes(body))

    def close(self) -> None:
        """Each picture is a file of its own, written when it came."""

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")


class Bytes(Saving):
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
            self._file = guarded(self.path, lambda: self.path.open("wb"))
        guarded(self.path, lambda: self._file.write(body))
        self.count += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Container(Saving):
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
            raise unwritable(self.path, error) from error
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


def saving_to(path: Path) -> Saving:
    """What saves to a file of such a name. Raises BadParameter for one that nothing is known of."""
    end = path.suffix.lower()
    if end == ".png":
        return Pictures(path)
    if end in _BYTE_STREAMS:
        return Bytes(path, _BYTE_STREAMS[end])
    if end in (".mkv", ".mp4", ".mov", ".webm", ".ts", ".opus", ".ogg", ".mka"):
        return Container(path)
    raise click.BadParameter(
        f"what goes into a {end or 'file without an ending'} is not known; "
        "pictures go to .png, packets to .h264, .hevc, .mkv, .mp4, .ts, .webm or .opus; "
        "everything as it is: flowstream record",
        param_hint="--save",
    )


def _what_comes(head: dict[str, Any]) -> str:
    kind = KINDS.get(head["kind"], head["kind"])
    return f"what comes there is a {kind} ({head['caps']})"


def guarded(path: Path, write: Callable[[], T]) -> T:
    """What a call gives that writes to a file. Raises FlowstreamError when it cannot."""
    try:
        return write()
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Any) -> FlowstreamError:
    """What is said of a file that cannot be written."""
    return FlowstreamError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")
