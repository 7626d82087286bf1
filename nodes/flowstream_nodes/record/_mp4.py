"""One fragmented MP4 file that is whole up to its last fragment whenever the process ends, however it ends.

The header is written before the first packet, and each fragment of at most about a second goes to the operating system
in one piece as soon as it is complete. Muxing is FFmpeg's.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowstream import NS_PER_S, EncodedPacket, PeerError, ticks_of
from flowstream.proto.h264 import NAL_SPS, split_annex_b

if TYPE_CHECKING:
    from av.container.output import OutputContainer
    from av.stream import Stream

Kind = Literal["video", "audio"]
FRAGMENT_NS = NS_PER_S
_MOST_PARTS = 10_000
_NAL_PPS = 8
_RATES_HZ: dict[Kind, int] = {"video": 90_000, "audio": 48_000}
# Which of FFmpeg's codecs a track is declared with; nothing is encoded.
_DECLARED_AS = {"h264": "libx264", "opus": "libopus"}
_OPTIONS = {
    # frag_discont: a track that starts later than the other keeps its distance.
    "movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont",
    "frag_duration": str(FRAGMENT_NS // 1000),
    # Times are what they are told to be; FFmpeg would make the first packet that is written the zero of all.
    "avoid_negative_ts": "disabled",
    "flush_packets": "1",
    # Packets come in order; FFmpeg is not to hold one back for a track that is silent.
    "max_interleave_delta": "1",
}


@dataclass(frozen=True, slots=True)
class TrackFormat:
    """What the header says of a track; packets of another format need another file."""

    codec: str
    extradata: bytes
    width: int = 0
    height: int = 0
    layout: str = "stereo"


def format_of(packet: EncodedPacket) -> TrackFormat:
    """The format a keyframe or a sound packet states; where its caps have no extradata, what the packet holds."""
    caps = packet.caps
    if caps.codec == "opus":
        layout = caps.layout if isinstance(caps.layout, str) else "stereo"
        head = b"OpusHead" + bytes((1, 1 if layout == "mono" else 2)) + bytes(2) + (48_000).to_bytes(4, "little")
        return TrackFormat("opus", caps.extradata or head + bytes(3), layout=layout)
    width, height = caps.width or 0, caps.height or 0
    assert isinstance(width, int)
    assert isinstance(height, int)
    extradata = caps.extradata
    if extradata is None:
        sets = [unit for unit in split_annex_b(packet.data) if unit[0] & 0x1F in (NAL_SPS, _NAL_PPS)]
        extradata = b"".join(b"\x00\x00\x00\x01" + unit for unit in sets)
    return TrackFormat("h264", extradata, width=width, height=height)


def create_next(path: Path) -> tuple[Path, io.FileIO]:
    """A new file at ``path``, or at the first free of ``name-2``, ``name-3`` ...; none that exists is touched.

    Makes the folders above it. Raises PeerError with the reason when that cannot be done.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise PeerError(f"cannot write {path}: {error.filename} is not a folder") from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        for number in range(1, _MOST_PARTS):
            candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            try:
                return candidate, candidate.open("xb", buffering=0)
            except FileExistsError:
                continue
    except OSError as error:
        raise unwritable(path, error) from error
    raise PeerError(f"cannot write {path}: there are {_MOST_PARTS} recordings of that name", hint="clear some away")


def unwritable(path: Path, error: Any) -> PeerError:
    """The error for people."""
    return PeerError(f"cannot write {path}: {error.strerror or error}")


class _Writes:
    """What FFmpeg writes to: keeps it until ``flush``, so that a fragment gets into the file whole or not at all.

    A process can be killed in the middle of a write. So the head of a fragment is written after its body: until then
    there is a box of type and size zero, which ISO 14496-12 section 4.2 lets run to the end of the file, and readers
    pass over.
    """

    _HEAD_BYTES = 8

    def __init__(self, file: io.FileIO) -> None:
        self._descriptor = file.fileno()
        self._kept: list[bytes] = []
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self._kept.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        whole = memoryview(b"".join(self._kept))
        self._kept.clear()
        if whole:
            self._put(whole[self._HEAD_BYTES :], self.size_bytes + self._HEAD_BYTES)
            self._put(whole[: self._HEAD_BYTES], self.size_bytes)
            self.size_bytes += len(whole)

    def _put(self, data: memoryview, position: int) -> None:
        while data:
            count = os.pwrite(self._descriptor, data, position)
            data, position = data[count:], position + count


class FragmentedMp4:
    """A file being written. Times start at ``base_ns``; what lies before is left out, decoding times made to increase.

    Every call raises PeerError when the file cannot be written any more.
    """

    def __init__(self, path: Path, file: io.FileIO, formats: dict[Kind, TrackFormat], *, base_ns: int) -> None:
        import av

        self.path = path
        self.formats = formats
        self._base_ns = base_ns
        self._end_ns = base_ns
        self._last_ticks: dict[Kind, int] = {}
        self._file = file
        self._writes = _Writes(file)
        self._container: OutputContainer = av.open(self._writes, "w", format="mp4", container_options=_OPTIONS)
        self._streams = {kind: self._add_track(kind, format) for kind, format in formats.items()}
        self._guarded(self._container.start_encoding)

    @property
    def size_bytes(self) -> int:
        """Bytes handed to the operating system."""
        return self._writes.size_bytes

    @property
    def duration_ns(self) -> int:
        """From the first packet to the end of the last."""
        return self._end_ns - self._base_ns

    def add(self, kind: Kind, packet: EncodedPacket) -> bool:
        """Takes a packet in decoding order; False when it lies too far behind the one before to be put in."""
        decode_ns = packet.time_ns if packet.decode_ns is None else packet.decode_ns
        rate_hz = _RATES_HZ[kind]
        ticks = ticks_of(decode_ns - self._base_ns, rate_hz)
        least = self._last_ticks.get(kind, -1) + 1
        if ticks < 0:
            return True
        if ticks < least - rate_hz // 10:
            return False
        late = max(0, least - ticks)
        av_packet = packet.to_av()
        av_packet.time_base = Fraction(1, rate_hz)
        av_packet.dts = ticks + late
        av_packet.pts = max(ticks_of(packet.time_ns - self._base_ns, rate_hz) + late, ticks + late)
        av_packet.duration = ticks_of(packet.duration_ns, rate_hz) if packet.duration_ns else 0
        av_packet.stream = self._streams[kind]
        self._last_ticks[kind] = ticks + late
        self._end_ns = max(self._end_ns, packet.time_ns + (packet.duration_ns or 0))
        self._guarded(self._container.mux, av_packet)
        return True

    def close(self) -> None:
        """Writes the last fragment and closes the file."""
        try:
            self._guarded(self._container.close)
        finally:
            self._file.close()

    def _guarded(self, call: Any, *args: Any) -> None:
        import av

        try:
            call(*args)
            self._writes.flush()
        except (OSError, av.FFmpegError) as error:
            raise unwritable(self.path, error) from error

    def _add_track(self, kind: Kind, format: TrackFormat) -> Stream:
        import av
        from av.audio.codeccontext import AudioCodecContext
        from av.video.codeccontext import VideoCodecContext

        # A template is PyAV's one way to declare a track with extradata and without an encoder of its own.
        with av.open(io.BytesIO(), "w", format="mp4") as donor:
            template = donor.add_stream(_DECLARED_AS[format.codec])
            stream: Stream = self._container.add_stream_from_template(template, opaque=True)
            context = stream.codec_context
            context.extradata = format.extradata
            if isinstance(context, VideoCodecContext):
                context.width, context.height = format.width, format.height
            elif isinstance(context, AudioCodecContext):
                context.sample_rate, context.layout = _RATES_HZ["audio"], format.layout
            context.time_base = stream.time_base = Fraction(1, _RATES_HZ[kind])
        return stream
