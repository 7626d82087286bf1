"""Record encoded media to a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from flowstream import (
    NS_PER_S,
    Config,
    EncodedCaps,
    EncodedPacket,
    FlowstreamError,
    Input,
    KeyframeRequest,
    Need,
    Sink,
    field,
)
from flowstream_nodes.record._mp4 import FragmentedMp4, Kind, TrackFormat, create_next, format_of

# How long a file waits for the first packet of an input that is connected and silent; a camera is slow to open.
_PATIENCE_FOR_SOUND_NS = NS_PER_S
_PATIENCE_FOR_VIDEO_NS = 5 * NS_PER_S
_MOST_PENDING = 1_000
_REPORT_EVERY_NS = NS_PER_S


class RecorderConfig(Config):
    """Config of ``recorder``."""

    path: str = field(
        description="File to write, ending in .mp4; from the working directory where it is relative. Folders are made. "
        "A file that exists is never written over: name-2.mp4 is taken instead, and so on.",
        examples=["recordings/$(date)-$(time).mp4"],
    )

    @field_validator("path")
    @classmethod
    def _mp4(cls, path: str) -> str:
        if not path.lower().endswith(".mp4") or Path(path).name.lower() == ".mp4":
            raise ValueError(f"{path!r} is no name of an MP4 file; end it with .mp4")
        return path


class Recorder(Sink[RecorderConfig], type="recorder"):
    """Record video, sound or both to an MP4 file that plays up to its last second whatever happens to the process.

    The file is in fragments of at most about a second, each given to the operating system when it is complete; killing
    the process loses only the one being made. It begins with a keyframe, which is asked for. Both inputs are on one
    timeline and stay in sync; where nothing came, the file has a gap. When the picture's size or the codec's
    parameters change, or a silent input begins, the recording goes on in a new file, name-2.mp4, at the next keyframe.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, fps: 30, duration: 2s}
      tone: {type: tone, duration: 2s}
      encode: {type: hw-encode, from: pattern, bitrate: 1M}
      sound: {type: opus-encode, from: tone}
      tape: {type: recorder, inputs: {video: encode, audio: sound}, path: recordings/pattern.mp4}
    ```
    """

    thread = True
    needs = (Need("av"),)

    video = Input(
        EncodedPacket,
        caps=EncodedCaps(codec="h264"),
        optional=True,
        otherwise="begin a new file",
        doc="Encoded pictures, with parameter sets before every keyframe.",
    )
    audio = Input(
        EncodedPacket,
        caps=EncodedCaps(codec="opus"),
        optional=True,
        otherwise="begin a new file",
        doc="Encoded sound.",
    )

    def __init__(self, config: RecorderConfig | None = None) -> None:
        super().__init__(config)
        self._path = Path(self.config.path).expanduser()
        self._kinds: tuple[Kind, ...] = ()
        self._part: FragmentedMp4 | None = None
        self._formats: dict[Kind, TrackFormat] = {}  # the newest of each kind
        self._caps: dict[Kind, EncodedCaps] = {}  # that they were read from
        self._pending: list[tuple[Kind, EncodedPacket]] = []
        self._asked_ns: int | None = None
        self._reported_ns = 0
        self._left_out = 0

    def open(self) -> None:
        ports: tuple[tuple[Kind, Input[EncodedPacket]], ...] = (("video", self.video), ("audio", self.audio))
        self._kinds = tuple(kind for kind, port in ports if self.ctx.is_connected(port))
        if not self._kinds:
            raise FlowstreamError(
                f"{self.ctx.name} has nothing to record", hint="connect its input video, audio or both"
            )
        if "video" in self._kinds:
            self.ctx.request(self.video, KeyframeRequest("a recording begins"))

    @video.handler
    def on_video(self, packet: EncodedPacket) -> None:
        """Takes a picture."""
        if packet.keyframe and packet.caps is not self._caps.get("video"):
            format = format_of(packet)
            if any(kind == "video" for kind, _ in self._pending) and format != self._formats["video"]:
                self._open_part()  # with what came before, which no longer fits
            self._formats["video"] = format
            self._caps["video"] = packet.caps
        part = self._part
        if part is None:
            if packet.keyframe or any(kind == "video" for kind, _ in self._pending):
                self._hold_back("video", packet)
            else:
                self._ask_keyframe(packet)
        elif packet.keyframe and part.formats != self._formats:
            self._close_part()
            self._hold_back("video", packet)
        elif "video" in part.formats:
            self._add(part, "video", packet)
        else:
            self._ask_keyframe(packet)

    @audio.handler
    def on_audio(self, packet: EncodedPacket) -> None:
        """Takes some sound."""
        if packet.caps is not self._caps.get("audio"):
            self._formats["audio"] = format_of(packet)
            self._caps["audio"] = packet.caps
        part = self._part
        if part is None:
            self._hold_back("audio", packet)
        elif part.formats.get("audio") == self._formats["audio"]:
            self._add(part, "audio", packet)
        elif "video" in part.formats:  # a new file, at the next keyframe
            self._ask_keyframe(packet)
        else:
            self._close_part()
            self._hold_back("audio", packet)

    def finish(self) -> None:
        if self._part is None and self._pending:
            self._open_part()
        self._close_part()

    def close(self) -> None:
        self._close_part()

    def _ask_keyframe(self, packet: EncodedPacket) -> None:
        self._left_out += 1
        if self._asked_ns is None or not 0 <= packet.time_ns - self._asked_ns < NS_PER_S:
            self._asked_ns = packet.time_ns
            self.ctx.request(self.video, KeyframeRequest("the recording needs a keyframe to go on"))

    def _hold_back(self, kind: Kind, packet: EncodedPacket) -> None:
        """Keeps packets until every connected input has said its format, within limits; then opens the file."""
        self._pending.append((kind, packet))
        has_video = any(each == "video" for each, _ in self._pending)
        knows_all = all(each in self._formats for each in self._kinds)
        waited_ns = packet.time_ns - self._pending[0][1].time_ns
        patience_ns = _PATIENCE_FOR_SOUND_NS if has_video else _PATIENCE_FOR_VIDEO_NS
        if (
            (knows_all and (has_video or "video" not in self._kinds))
            or waited_ns > patience_ns
            or len(self._pending) >= _MOST_PENDING
        ):
            self._open_part()

    def _open_part(self) -> None:
        pending, self._pending = self._pending, []
        present = {kind for kind, _ in pending}
        kinds: tuple[Kind, ...] = ("video", "audio")
        formats = {kind: self._formats[kind] for kind in kinds if kind in present | (self._formats.keys() & {"audio"})}
        lead: Kind = "video" if "video" in present else "audio"
        first = next(packet for kind, packet in pending if kind == lead)
        base_ns = first.time_ns if first.decode_ns is None else first.decode_ns
        path, file = create_next(self._path)
        try:
            self._part = FragmentedMp4(path, file, formats, base_ns=base_ns)
        except BaseException:
            file.close()
            raise
        self.ctx.log.info("recording to %s", path)
        self._reported_ns = base_ns
        for kind, packet in pending:
            self._add(self._part, kind, packet)
        self._report(self._part)

    def _add(self, part: FragmentedMp4, kind: Kind, packet: EncodedPacket) -> None:
        if not part.add(kind, packet):
            self._left_out += 1
        if packet.time_ns - self._reported_ns >= _REPORT_EVERY_NS:
            self._reported_ns = packet.time_ns
            self._report(part)

    def _close_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.close()
            self._report(part)

    def _report(self, part: FragmentedMp4) -> None:
        self.ctx.report(
            path=str(part.path),
            bytes=part.size_bytes,
            seconds=round(part.duration_ns / NS_PER_S, 1),
            left_out=self._left_out or None,
        )
