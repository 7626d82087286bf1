"""A recording in the place of a node: what it gave then comes again, bit for bit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import new_class
from typing import Any, BinaryIO, ClassVar, Literal

from flowstream.errors import PackError
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.replays import Replay
from flowstream.media.byte_form import PAYLOADS, ByteFormError, caps_from_json
from flowstream.media.caps import Caps, VideoCaps
from flowstream.media.frames import VideoFrame
from flowstream.media.pixels import ARRAY_FORMATS
from flowstream.media.recording import Arrived, Contents, Reader, RecordingError, StreamContents, contents
from flowstream.node.base import Source
from flowstream.node.config import Config, field
from flowstream.node.context import Context
from flowstream.node.ports import Emit, Output
from flowstream.node.registry import Registry

Speed = Literal["real", "max"]

_AT_ONCE_BYTES = 256 * 1024
_AT_ONCE = 64
_WORD = re.compile(r"([a-z][a-z0-9/-]*)=(.+)", re.DOTALL)


class ReplayConfig(Config):
    """Config of a replayed node."""

    path: str = field(description="The recording.")
    speed: Speed = field(
        default="real",
        description="real gives each payload when it came then; max gives them as fast as they are taken.",
    )


class RecordedSource(Source[ReplayConfig]):
    """Gives what was recorded of one node. Subclasses are made of a recording, with the outputs that it has.

    Payloads and their media times are those of the recording; ``capture_ns`` is as long before or after the beginning
    as it was then. Nobody who asks for a keyframe gets one that is not in the recording.
    """

    thread = True
    contents: ClassVar[Contents]
    node: ClassVar[str]

    _file: BinaryIO | None = None

    @classmethod
    def live_with(cls, config: ReplayConfig, /) -> bool:
        """Whether it goes at its own pace: in real time, if the node did."""
        return config.speed == "real" and any(each.stream.live for each in cls.contents.of(cls.node))

    @classmethod
    def negotiate(cls, config: Any, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """The caps that were recorded, at the frame rate that was known then."""
        return {each.stream.output: caps for each in cls.contents.of(cls.node) if (caps := _caps(each)) is not None}

    def open(self) -> None:
        self._file = open_file(self.config.path)
        self._reader = Reader(self._file.read, self.config.path)
        self._items = iter(self._reader)
        connected = {name for name, port in self.outputs.items() if self.ctx.is_connected(port)}
        streams = self._reader.header.streams
        self._wanted = {id(each) for each in streams if each.node == self.node and each.output in connected}
        for stream in streams:
            if id(stream) in self._wanted and "Record" in stream.payloads:
                _load(stream.type)
        if said := _flaws(self.contents):
            self.ctx.log.warning("%s is not exact: %s", self.config.path, said)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    async def run(self, ctx: Context) -> None:
        """Gives what there is, then ends."""
        shift_ns = ctx.now_ns() - self.contents.first_ns
        is_paced = self.config.speed == "real"
        reported_s = -1
        while found := await ctx.in_thread(self._next, 1 if is_paced else _AT_ONCE):
            for at_ns, output, payload in found:
                if is_paced:
                    await ctx.sleep_until_ns(shift_ns + at_ns)
                if payload.capture_ns is not None:
                    payload = replace(payload, capture_ns=payload.capture_ns + shift_ns)
                await ctx.emit(Emit(self.outputs[output], payload))
            seconds = (found[-1][0] - self.contents.first_ns) // 1_000_000_000
            if seconds > reported_s:
                reported_s = seconds
                ctx.report(seconds=seconds)
        if self._reader.problem:
            ctx.log.warning("%s was replayed up to here: %s", self.config.path, self._reader.problem)

    def _next(self, most: int) -> list[tuple[int, str, Any]]:
        """The next payloads, made; none at the end."""
        found: list[tuple[int, str, Any]] = []
        size = 0
        while len(found) < most and size < _AT_ONCE_BYTES:
            item = next(self._items, None)
            if item is None:
                break
            if isinstance(item, Arrived) and id(item.stream) in self._wanted:
                found.append((item.at_ns, item.stream.output, _usable(item.payload())))
                size += item.size_bytes
        return found


def _load(type_id: str) -> None:
    """Loads the node type that gave records, if it is installed: their classes are beside it."""
    try:
        Registry.installed().get(type_id)
    except PackError:  # they may be known all the same
        pass


def _usable(payload: Any) -> Any:
    """A picture in a format or a size without an array form goes on from memory of FFmpeg's."""
    if not isinstance(payload, VideoFrame):
        return payload
    is_stacked = ARRAY_FORMATS.get(payload.format) == 0
    if payload.format in ARRAY_FORMATS and not (is_stacked and (payload.width % 2 or payload.height % 2)):
        return payload
    from flowstream.media.pyav import video_in_av

    return video_in_av(payload)


def _caps(found: StreamContents) -> Caps | None:
    caps = found.caps[0] if found.caps else None
    try:
        declared = caps_from_json(found.stream.declared) if found.stream.declared is not None else None
    except ByteFormError:
        return caps
    if isinstance(caps, VideoCaps) and isinstance(declared, VideoCaps):
        return replace(caps, fps=declared.fps)
    return caps or declared


# --- from words to what the plan takes ------------------------------------------------------------------------------


def open_file(path: str) -> BinaryIO:
    """A recording, opened for reading. Raises RecordingError."""
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def contents_of(path: str) -> Contents:
    """What is in a recording, every byte of it checked. Raises RecordingError when it cannot be read or is none."""
    with open_file(path) as file:
        try:
            return contents(file.read, path)
        except OSError as error:
            raise RecordingError(f"cannot read {path}: {error.strerror}") from error


def replays_of(words: Sequence[str], speed: Speed = "real") -> dict[str, Replay]:
    """What is to run in the place of which node: words are NODE=FILE, or FILE for all nodes that a recording has.

    Raises RecordingError when a file is no recording, or has nothing of a node.
    """
    known: dict[str, Contents] = {}
    found: dict[str, Replay] = {}
    for word in words:
        match = None if os.path.exists(word) else _WORD.fullmatch(word)
        node, path = match.groups() if match else ("", word)
        if path not in known:
            known[path] = contents_of(path)
        there = [each for each in known[path].nodes if "~" not in each]
        if node and node not in there:
            close = did_you_mean(node, there)
            raise RecordingError(
                f"{path} has nothing of a node {node}",
                hint=f"did you mean {close}?"
                if close
                else f"it has {listed(each.stream.source for each in known[path].streams)}",
            )
        if not there:
            raise RecordingError(
                f"{path} has nothing that a node of a graph gave: {listed(known[path].nodes)} came with the plan",
                hint="record the output of a node",
            )
        for each in [node] if node else there:
            if each in found:
                raise RecordingError(f"{each} is replayed from {found[each].path} already")
            found[each] = replay(known[path], each, path, speed)
    return found


def replay(recording: Contents, node: str, path: str, speed: Speed = "real") -> Replay:
    """The recording at ``path`` in the place of the node that it calls so."""
    streams = recording.of(node)
    outputs = {each.stream.output: _output(each) for each in streams}

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(
            outputs, contents=recording, node=node, __doc__=f"Give what {node} gave.", __module__=__name__
        )  # fmt: skip

    made = new_class("Replayed", (RecordedSource,), {"type": "replay"}, body)
    kind = f" in place of {streams[0].stream.type}" if streams[0].stream.type else ""
    how = "" if speed == "real" else ", as fast as it is taken"
    said = f"replayed from {path}{kind}{how}"
    return Replay(made, ReplayConfig(path=path, speed=speed), path, said, is_fast=speed == "max")


def _output(found: StreamContents) -> Output[Any]:
    names = [found.payload] if found.payload else found.stream.payloads
    kinds = [PAYLOADS[name] for name in names if name in PAYLOADS]
    if not kinds:
        raise RecordingError(f"the recording does not say what {found.stream.source} gives")
    return Output(kinds[0], main=found.stream.main)


def _flaws(recording: Contents) -> str:
    """What is wrong with a recording, in words; nothing when it is exact."""
    said = [
        f"{count} of {each.stream.source} were lost ({cause})"
        for each in recording.streams
        for cause, count in each.lost.items()
    ]  # fmt: skip
    return "; ".join([*said, *([recording.problem] if recording.problem else [])])
