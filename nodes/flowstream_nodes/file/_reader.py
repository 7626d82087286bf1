"""Decodes a media file in order of time: one pass, from its beginning to its end."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from flowstream import AudioFrame, PeerError, VideoCaps, VideoFrame, time_of

if TYPE_CHECKING:
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container.input import InputContainer
    from av.filter.graph import Graph
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame
    from av.video.stream import VideoStream

Kind = Literal["video", "audio"]
# How far the packets of one stream may lie ahead of the other's in the file.
_MOST_PACKETS, _MOST_PACKET_BYTES = 2_000, 64 * 2**20
_SAMPLE_FORMATS = ("s16", "s16p", "s32", "s32p", "flt", "fltp")
_LAYOUTS = ("mono", "stereo", "quad", "5.0", "5.0(side)", "5.1", "5.1(side)", "7.1")
# Players take untagged pictures above this height for high definition, with its colours.
_TALLEST_STANDARD_DEFINITION = 576
# Decoding in several threads costs 3 % more work; up to this size one thread is fast enough.
_LARGEST_FOR_ONE_THREAD = 1280 * 720
_TRANSPOSE = {90: "cclock", 270: "clock"}


class Track:
    """One stream of the file: its packets wait here, and at most a few decoded frames."""

    def __init__(self, kind: Kind, stream: VideoStream | AudioStream) -> None:
        self.kind: Kind = kind
        self.stream = stream
        self.packets: deque[Packet[Any]] = deque()
        self.frames: deque[VideoFrame | AudioFrame] = deque()
        self.is_at_end = False
        self._next_ns: int | None = None
        self._caps: dict[VideoCaps, VideoCaps] = {}
        self._resampler: AudioResampler | None = None
        self._turn: tuple[object, Graph] | None = None

    def decode(self) -> None:
        """Decodes the next packet, or what is left at the end. Raises av.FFmpegError for one that is broken."""
        packet = self.packets.popleft() if self.packets else None
        if packet is None:
            self.is_at_end = True
        for frame in self.stream.codec_context.decode(packet):
            self.frames.extend(self._converted(frame))
        if packet is None and self._resampler is not None:
            self.frames.extend(self._resampled(None))

    def _time_ns(self, frame: Any, duration_ns: int) -> int:
        """The frame's time in the file; where it states none, that after the frame before."""
        if frame.pts is not None and frame.time_base:
            time_ns = time_of(frame.pts, frame.time_base.numerator, frame.time_base.denominator)
        else:
            time_ns = self._next_ns or 0
        self._next_ns = time_ns + duration_ns
        return time_ns

    def _converted(self, frame: Any) -> Iterator[VideoFrame | AudioFrame]:
        from av.video.frame import VideoFrame as AvVideoFrame

        if isinstance(frame, AvVideoFrame):
            yield self._picture(frame)
        elif frame.format.name in _SAMPLE_FORMATS and frame.layout.name in _LAYOUTS:
            duration_ns = time_of(frame.samples, 1, frame.sample_rate)
            yield AudioFrame.from_av(frame, time_ns=self._time_ns(frame, duration_ns))
        else:
            yield from self._resampled(frame)

    def _resampled(self, frame: Any) -> Iterator[AudioFrame]:
        if self._resampler is None:
            from av.audio.resampler import AudioResampler

            layout = frame.layout.name if frame.layout.name in _LAYOUTS else "stereo"
            self._resampler = AudioResampler(format="fltp", layout=layout, rate=frame.sample_rate)
        for piece in self._resampler.resample(frame):
            duration_ns = time_of(piece.samples, 1, piece.sample_rate)
            yield AudioFrame.from_av(piece, time_ns=self._time_ns(piece, duration_ns))

    def _picture(self, frame: AvVideoFrame) -> VideoFrame:
        duration_ns = 0
        if frame.duration and frame.time_base:
            duration_ns = time_of(frame.duration, frame.time_base.numerator, frame.time_base.denominator)
        elif rate := self.stream.average_rate:  # the last picture of a file often has no duration
            duration_ns = time_of(1, rate.denominator, rate.numerator)
        time_ns = self._time_ns(frame, duration_ns)
        picture = VideoFrame.from_av(self._upright(frame), time_ns=time_ns, duration_ns=duration_ns or None)
        caps = self._caps.get(picture.caps)
        if caps is None:
            self._caps.clear()
            caps = self._caps[picture.caps] = _with_matrix(picture.caps)
        return picture.replace(caps=caps)

    def _upright(self, frame: AvVideoFrame) -> AvVideoFrame:
        """The picture as the file says it is to be shown: phones film sideways and note the turn."""
        degrees = frame.rotation % 360
        if degrees not in (90, 180, 270):
            return frame
        key = (degrees, frame.width, frame.height, frame.format.name)
        if self._turn is None or self._turn[0] != key:
            from av.filter import Graph

            graph = Graph()
            filters = [("hflip", None), ("vflip", None)] if degrees == 180 else [("transpose", _TRANSPOSE[degrees])]
            last = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self.stream.time_base
            )
            for name, argument in [*filters, ("buffersink", None)]:
                following = graph.add(name, argument)
                last.link_to(following)
                last = following
            graph.configure()
            self._turn = (key, graph)
        self._turn[1].push(frame)
        turned: Any = self._turn[1].pull()
        return turned  # type: ignore[no-any-return]


def _with_matrix(caps: VideoCaps) -> VideoCaps:
    """The YUV matrix that players assume where the file states none."""
    if caps.matrix is not None or not str(caps.format).startswith(("yuv", "nv")):
        return caps
    assert isinstance(caps.height, int)
    return replace(caps, matrix="bt709" if caps.height > _TALLEST_STANDARD_DEFINITION else "smpte170m")


class MediaFile:
    """An open file. ``wants`` says whether frames of a kind are asked for at the moment; others are not decoded.

    Raises PeerError when the file is not there, is no media file, or has neither video nor sound.
    """

    def __init__(self, path: str, wants: Callable[[Kind], bool]) -> None:
        import av

        self.path = path
        self.broken = 0  # packets that did not decode
        self._wants = wants
        self._read_to_ns = 0
        try:
            self._container: InputContainer = av.open(path, "r")
        except FileNotFoundError as error:
            hint = None if os.path.isabs(path) else f"looked in {os.getcwd()}"
            raise PeerError(f"there is no file {path}", hint=hint) from error
        except (OSError, av.FFmpegError) as error:
            raise PeerError(f"cannot read {path}: {_reason(error)}") from error
        try:
            self.tracks = self._tracks()
        except BaseException:
            self._container.close()
            raise
        self._packets = iter(self._container.demux([track.stream for track in self.tracks]))
        self._is_read = False

    def _tracks(self) -> tuple[Track, ...]:
        streams = self._container.streams
        # A cover picture is a video stream of one frame.
        pictures = [s for s in streams.video if not s.disposition & s.disposition.attached_pic]
        tracks: list[Track] = []
        if pictures:
            context = pictures[0].codec_context
            if context.width * context.height <= _LARGEST_FOR_ONE_THREAD:
                context.thread_count = 1
            else:
                context.thread_type = "AUTO"
            tracks.append(Track("video", pictures[0]))
        if streams.audio:
            tracks.append(Track("audio", streams.audio[0]))
        if not tracks:
            raise PeerError(f"{self.path} has neither video nor sound")
        return tuple(tracks)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What the file has."""
        return tuple(track.kind for track in self.tracks)

    @property
    def duration_ns(self) -> int | None:
        """How long the file says it is."""
        return self._container.duration * 1000 if self._container.duration else None

    def next(self) -> tuple[Kind, VideoFrame | AudioFrame] | None:
        """The next frame of all streams in order of time, at its time in the file; None at the end.

        Raises PeerError when the file cannot be read on.
        """
        for track in self.tracks:
            while not track.frames and not track.is_at_end:
                if track.packets or self._is_read:
                    self._decode(track)
                elif not self._wants(track.kind) or self._is_crowded():
                    break  # the other stream goes ahead: this one has a hole, is stored far away or not asked for
                else:
                    self._read()
        ready = [track for track in self.tracks if track.frames]
        if not ready:
            return None
        first = min(ready, key=lambda track: track.frames[0].time_ns)
        frame = first.frames.popleft()
        self._read_to_ns = frame.time_ns
        return first.kind, frame

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _is_crowded(self) -> bool:
        packets = [packet for track in self.tracks for packet in track.packets]
        return len(packets) >= _MOST_PACKETS or sum(packet.size for packet in packets) >= _MOST_PACKET_BYTES

    def _decode(self, track: Track) -> None:
        import av

        try:
            track.decode()
        except av.FFmpegError:
            self.broken += 1

    def _read(self) -> None:
        import av

        try:
            packet = next(self._packets, None)
        except (OSError, av.FFmpegError) as error:
            seconds = self._read_to_ns / 1e9
            raise PeerError(f"cannot read {self.path} beyond {seconds:.1f} s: {_reason(error)}") from error
        if packet is None or packet.size == 0:
            self._is_read = self._is_read or packet is None
            return
        for track in self.tracks:
            if track.stream.index == packet.stream_index and self._wants(track.kind):
                track.packets.append(packet)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
