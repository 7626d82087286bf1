"""Raw media on an edge: pictures and sound, shared by everyone who gets them and therefore not modified."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flowstream.media.caps import AudioCaps, VideoCaps

if TYPE_CHECKING:
    import numpy as np
    from av.audio.frame import AudioFrame as AvAudioFrame
    from av.video.frame import VideoFrame as AvVideoFrame
    from typing_extensions import Buffer

    from flowstream.media.pyav import AvHeaders


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of samples. ``stride`` is the distance between rows in bytes (for sound: the plane's length)."""

    data: Buffer
    stride: int


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One picture. Its caps are fixed: format, width and height are single values.

    ``time_ns`` is its media time, ``duration_ns`` how long it stands when known, ``capture_ns`` the now at which it
    was captured (None where nobody captured it). Shared by every consumer: whoever writes takes ``writable()`` first.
    ``origin`` is the library object that owns the memory, when it has one.
    """

    caps: VideoCaps
    planes: tuple[Plane, ...] = field(repr=False)
    time_ns: int
    duration_ns: int | None = None
    capture_ns: int | None = None
    origin: Any = field(default=None, repr=False, compare=False)
    private: bool = field(default=False, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        assert isinstance(self.caps.width, int)
        return self.caps.width

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        assert isinstance(self.caps.height, int)
        return self.caps.height

    @property
    def format(self) -> str:
        """FFmpeg's name of the pixel format."""
        assert isinstance(self.caps.format, str)
        return self.caps.format

    @property
    def size_bytes(self) -> int:
        """Bytes of pixels, for limits."""
        return sum(memoryview(plane.data).nbytes for plane in self.planes)

    def array(self, format: str | None = None) -> np.ndarray[Any, Any]:
        """The pixels as an array in ``format`` (default: as they are), read-only unless the frame is ``writable()``.

        Shapes: ``bgr24``, ``rgb24`` (height, width, 3); ``bgra``, ``rgba`` (height, width, 4); ``gray``
        (height, width); ``yuv420p``, ``nv12`` (height * 3 / 2, width). A view where the memory allows it, else a copy.
        Raises ValueError for a format without an array form, ImportError when numpy (or, to convert, OpenCV and
        PyAV) is missing.
        """
        from flowstream.media import pixels

        return pixels.to_array(self, format or self.format)

    def writable(self, format: str | None = None) -> VideoFrame:
        """A private copy in ``format`` (default: the same), whose ``array()`` may be written."""
        from flowstream.media import pixels

        return pixels.private_copy(self, format or self.format)

    @classmethod
    def from_array(
        cls,
        array: np.ndarray[Any, Any],
        *,
        like: VideoFrame | None = None,
        format: str | None = None,
        time_ns: int | None = None,
        capture_ns: int | None = None,
        duration_ns: int | None = None,
    ) -> VideoFrame:
        """A frame over ``array`` (uint8, no copy where it is contiguous) with the times of ``like``.

        ``format`` defaults to what the shape says: (h, w, 3) is ``bgr24``, (h, w, 4) ``bgra``, (h, w) ``gray``;
        ``yuv420p`` and ``nv12`` (h * 3 / 2, w) have to be named. Raises ValueError when shape and format disagree or
        when there is neither ``like`` nor ``time_ns``.
        """
        from flowstream.media import pixels

        return pixels.from_array(
            array, like=like, format=format, time_ns=time_ns, capture_ns=capture_ns, duration_ns=duration_ns
        )

    def to_av(self, headers: AvHeaders | None = None) -> AvVideoFrame:
        """A PyAV frame with a header of its own over the same memory; pts in nanoseconds.

        PyAV's encoders write into the header they are given, so each encoder takes its own. An encoder passes the
        ``AvHeaders`` it keeps; without one, a fresh one is made, which costs more. Raises ImportError without PyAV.
        """
        from flowstream.media import pyav

        return pyav.video_to_av(self, headers)

    @classmethod
    def from_av(
        cls, frame: AvVideoFrame, *, time_ns: int, capture_ns: int | None = None, duration_ns: int | None = None
    ) -> VideoFrame:
        """A frame over the memory of a PyAV frame, which must not be written afterwards."""
        from flowstream.media import pyav

        return pyav.video_from_av(frame, time_ns=time_ns, capture_ns=capture_ns, duration_ns=duration_ns)

    def replace(self, **changes: Any) -> VideoFrame:
        """The same pixels with other fields: ``frame.replace(time_ns=...)``."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A run of sound samples. Its caps are fixed: format, rate and layout are single values.

    ``samples`` counts per channel. Packed formats (``s16``, ``flt``) have one plane, planar ones (``s16p``, ``fltp``)
    one for each channel. Times as in VideoFrame; ``time_ns`` is that of the first sample.
    """

    caps: AudioCaps
    planes: tuple[Plane, ...] = field(repr=False)
    samples: int
    time_ns: int
    capture_ns: int | None = None
    origin: Any = field(default=None, repr=False, compare=False)
    private: bool = field(default=False, repr=False, compare=False)

    @property
    def format(self) -> str:
        """FFmpeg's name of the sample format."""
        assert isinstance(self.caps.format, str)
        return self.caps.format

    @property
    def rate(self) -> int:
        """Samples per second and channel."""
        assert isinstance(self.caps.rate, int)
        return self.caps.rate

    @property
    def layout(self) -> str:
        """FFmpeg's name of the channel layout."""
        assert isinstance(self.caps.layout, str)
        return self.caps.layout

    @property
    def duration_ns(self) -> int:
        """How long the samples last."""
        return self.samples * 1_000_000_000 // self.rate

    @property
    def size_bytes(self) -> int:
        """Bytes of samples, for limits."""
        return sum(memoryview(plane.data).nbytes for plane in self.planes)

    def array(self, format: str | None = None) -> np.ndarray[Any, Any]:
        """The samples as an array in ``format`` (default: as they are), read-only unless ``writable()``.

        Shapes: packed formats (samples, channels), planar ones (channels, samples). ``flt`` and ``fltp`` are float32
        in -1..1, ``s16`` and ``s16p`` int16, ``s32`` and ``s32p`` int32. Raises ValueError for another format.
        """
        from flowstream.media import samples

        return samples.to_array(self, format or self.format)

    def writable(self, format: str | None = None) -> AudioFrame:
        """A private copy in ``format`` (default: the same), whose ``array()`` may be written."""
        from flowstream.media import samples

        return samples.private_copy(self, format or self.format)

    @classmethod
    def from_array(
        cls,
        array: np.ndarray[Any, Any],
        *,
        like: AudioFrame | None = None,
        format: str | None = None,
        rate: int | None = None,
        layout: str | None = None,
        time_ns: int | None = None,
        capture_ns: int | None = None,
    ) -> AudioFrame:
        """A frame over ``array`` with rate, layout and times of ``like``, or those given.

        ``format`` defaults to that of ``like``, else to the planar format of the array's type. Raises ValueError when
        shape, type and format disagree, or when a time or rate is missing.
        """
        from flowstream.media import samples

        return samples.from_array(
            array, like=like, format=format, rate=rate, layout=layout, time_ns=time_ns, capture_ns=capture_ns
        )

    def to_av(self) -> AvAudioFrame:
        """A PyAV frame with a copy of the samples; pts in samples. Raises ImportError without PyAV."""
        from flowstream.media import pyav

        return pyav.audio_to_av(self)

    @classmethod
    def from_av(cls, frame: AvAudioFrame, *, time_ns: int, capture_ns: int | None = None) -> AudioFrame:
        """A frame over the memory of a PyAV frame, which must not be written afterwards."""
        from flowstream.media import pyav

        return pyav.audio_from_av(frame, time_ns=time_ns, capture_ns=capture_ns)

    def replace(self, **changes: Any) -> AudioFrame:
        """The same samples with other fields: ``frame.replace(time_ns=...)``."""
        return replace(self, **changes)
