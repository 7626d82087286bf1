"""The encoders that ``hw-encode`` chooses from, as data: a list in order of preference, which programs may extend.

What stands here is what FFmpeg's encoders need to be told for live use: no delay, no reordering, a constant bit rate,
keyframes when they are asked for. None of the hardware encoders was ever run by this project; their options are those
of FFmpeg's documentation. PyAV's wheels for Linux have no VAAPI.

This module imports nothing heavy: `flowstream check` reads the names in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flowstream import Size
from flowstream_nodes.codec._pictures import PictureKind

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame

Codec = Literal["h264", "hevc", "vp8", "vp9", "av1"]
Content = Literal["motion", "text", "camera"]
Speed = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]

SPEEDS: tuple[Speed, ...] = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
VBV_S = Fraction(1, 5)
"""How many seconds of the highest rate an encoder may spend at once; a keyframe takes most of it."""

_ANY_SIZE = Size(2, 2)


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What an encoder is opened for.

    ``bitrate_bps`` is the rate to begin with and ``ceiling_bps`` the highest that can be asked of it. ``interval_ns``
    is the distance of pictures as far as known, ``nominal_ns`` that which the stream stated before and is to state
    again, ``level_idc`` the H.264 level that it stated. ``threads`` is how many slices or tiles of a picture are coded
    at once, ``layers`` the number of temporal layers.
    """

    kind: PictureKind
    bitrate_bps: int
    ceiling_bps: int
    interval_ns: int | None = None
    nominal_ns: int | None = None
    level_idc: int | None = None
    profile: str = "baseline"
    speed: Speed = "superfast"
    content: Content = "camera"
    intra_refresh: bool = False
    threads: int = 1
    layers: int = 1

    @property
    def step(self) -> int:
        """The speed as a number: 0 is the fastest."""
        return SPEEDS.index(self.speed)


class OpenEncoder(Protocol):
    """An encoder at work, for pictures of one kind; every call is made on one thread.

    ``interval_ns`` is the distance of pictures as estimated so far, ``nominal_ns`` what the stream states, both in
    nanoseconds. ``is_outgrown`` says that pictures come so much rarer or denser than it was opened for that only a new
    encoder reaches the wanted rate.
    """

    @property
    def interval_ns(self) -> int | None: ...
    @property
    def nominal_ns(self) -> int: ...
    @property
    def is_outgrown(self) -> bool: ...

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        """Steers the rate, in bits per second; False when that takes a new encoder."""
        ...

    def encode(
        self, picture: AvVideoFrame, tag: Any, /, *, time_ns: int, keyframe: bool
    ) -> list[tuple[Packet[Any], Any]]:
        """The packets that come of one picture, each with the tag that its picture came with.

        Raises ValueError when the encoder fails; it is not used again.
        """
        ...

    def flush(self) -> list[tuple[Packet[Any], Any]]:
        """What is still inside; the encoder is of no use afterwards. Raises ValueError when it fails."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder that may be there.

    ``name`` is FFmpeg's for it. ``formats`` are the pixel formats that it takes. ``devices`` are patterns of files on
    Linux of which one exists where the hardware does, ``platforms`` names of ``sys.platform``. ``steers`` says that its
    bit rate changes while it is open, ``by_time`` that it counts bits by the pictures' times and not by their number,
    ``layers`` how many temporal layers it can make, ``may_hang`` that its calls may never return: they are made on a
    thread of their own then, as those of all hardware are, and it is left alone for ``rest_s`` after each. ``least`` is
    the smallest picture it takes. ``advice`` is what to do to get it. ``options`` gives FFmpeg's options, ``open``
    replaces the way it is opened: raises ValueError when it does not.
    """

    name: str
    codec: Codec
    options: Callable[[EncoderSettings], Mapping[str, str]] = lambda settings: {}
    formats: tuple[str, ...] = ("yuv420p", "nv12")
    is_hardware: bool = False
    devices: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    steers: bool = False
    by_time: bool = False
    layers: int = 1
    may_hang: bool = False
    rest_s: float = 0.0
    least: Size = _ANY_SIZE
    advice: str = ""
    open: Callable[[EncoderSettings], OpenEncoder] | None = None


def _x264(settings: EncoderSettings) -> dict[str, str]:
    params = {"scenecut": "0", **_X264_CONTENT[settings.content]}
    if settings.speed == "ultrafast":  # which has none, so that it stays what its name says
        params = {"scenecut": "0"}
    # Keyframes come when they are asked for, by time; a scene cut is no reason to spend one.
    params["keyint"] = "infinite"
    if settings.intra_refresh:
        frames = max(10, round(2e9 / (settings.interval_ns or settings.nominal_ns or 33_333_333)))
        params.update({"keyint": str(frames), "intra-refresh": "1"})
    options = {
        "preset": settings.speed,
        "tune": "zerolatency",
        "profile": settings.profile,
        "forced-idr": "1",
        "x264-params": ":".join(f"{name}={value}" for name, value in params.items()),
    }
    if settings.level_idc is not None:
        options["level"] = f"{settings.level_idc // 10}.{settings.level_idc % 10}"
    return options


# What gave the most structural similarity of these kinds of pictures, at superfast and veryfast and a rate that hurts:
# up to 0.01 more than libx264's own setting, aq-mode 1 and deblock 0. Text has the deblocking of its `tune stillimage`,
# which leaves edges alone; the others have that of its `tune animation`.
_X264_CONTENT: dict[Content, dict[str, str]] = {
    "camera": {"aq-mode": "1", "deblock": "1,1"},
    "motion": {"aq-mode": "1", "aq-strength": "0.5", "deblock": "1,1"},
    "text": {"aq-mode": "2", "deblock": "-3,-3"},
}


def _x265(settings: EncoderSettings) -> dict[str, str]:
    return {
        "preset": settings.speed,
        "tune": "zerolatency",
        "forced-idr": "1",
        "x265-params": "keyint=-1:scenecut=0:bframes=0:repeat-headers=1:log-level=none"
        f":pools={settings.threads}:frame-threads=1:vbv-maxrate={settings.bitrate_bps // 1000}"
        f":vbv-bufsize={int(settings.bitrate_bps * 2 * VBV_S) // 1000}",
    }


_LAYER_SHARES: dict[int, tuple[float, ...]] = {1: (1.0,), 2: (0.6, 1.0), 3: (0.4, 0.6, 1.0)}
LAYER_PATTERNS: dict[int, tuple[int, ...]] = {1: (0,), 2: (0, 1), 3: (0, 2, 1, 2)}
"""The temporal layer of each picture in turn, by the number of layers; begins again with a keyframe."""


def _layered(settings: EncoderSettings) -> dict[str, str]:
    """What libvpx is told about temporal layers: rates in kbit/s, each with those below it (its modes 2 and 3)."""
    if settings.layers == 1:
        return {}
    rates = ",".join(str(int(settings.bitrate_bps * share / 1000)) for share in _LAYER_SHARES[settings.layers])
    pattern = LAYER_PATTERNS[settings.layers]
    decimators = {2: "2,1", 3: "4,2,1"}[settings.layers]
    return {
        "error-resilient": "1",
        "ts-parameters": f"ts_number_layers={settings.layers}:ts_target_bitrate={rates}:ts_rate_decimator={decimators}"
        f":ts_periodicity={len(pattern)}:ts_layer_id={','.join(map(str, pattern))}"
        f":ts_layering_mode={settings.layers}",
    }


def _vpx(settings: EncoderSettings) -> dict[str, str]:
    return {
        "deadline": "realtime",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "undershoot-pct": "50",
        "overshoot-pct": "50",
        "minrate": str(settings.bitrate_bps),
        "maxrate": str(settings.bitrate_bps),
        "bufsize": str(int(settings.bitrate_bps * 2 * VBV_S)),
        **_layered(settings),
    }


def _vp8(settings: EncoderSettings) -> dict[str, str]:
    text = {"screen-content-mode": "1"} if settings.content == "text" else {}
    return {**_vpx(settings), "cpu-used": str((16, 12, 10, 8, 6, 4)[settings.step]), "static-thresh": "1", **text}


def _vp9(settings: EncoderSettings) -> dict[str, str]:
    tune = {"tune-content": "screen"} if settings.content == "text" else {}
    return {**_vpx(settings), "cpu-used": str((8, 8, 7, 7, 6, 5)[settings.step]), "row-mt": "1", "aq-mode": "3", **tune}


def _svt_av1(settings: EncoderSettings) -> dict[str, str]:
    scm = ":scm=1" if settings.content == "text" else ""
    return {
        "preset": str((13, 12, 11, 10, 9, 8)[settings.step]),
        "svtav1-params": f"pred-struct=1:rc=2:rtc=1:keyint=-1:scd=0:lp={min(settings.threads, 6)}{scm}",
    }


def _nvenc(settings: EncoderSettings) -> dict[str, str]:
    preset = f"p{min(settings.step + 1, 7)}"
    return {"preset": preset, "tune": "ull", "rc": "cbr", "zerolatency": "1", "delay": "0", "forced-idr": "1"}


def _qsv(settings: EncoderSettings) -> dict[str, str]:
    preset = ("veryfast", "veryfast", "faster", "fast", "fast", "medium")[settings.step]
    return {"preset": preset, "async_depth": "1", "look_ahead": "0", "forced_idr": "1"}


def _amf(settings: EncoderSettings) -> dict[str, str]:
    quality = "speed" if settings.step < 3 else "balanced"
    return {"usage": "ultralowlatency", "quality": quality, "rc": "cbr", "forced_idr": "1"}


def _video_toolbox(settings: EncoderSettings) -> dict[str, str]:
    return {"realtime": "1", "allow_sw": "0", "prio_speed": "1"}


def _media_foundation(settings: EncoderSettings) -> dict[str, str]:
    return {"rate_control": "cbr", "scenario": "live_streaming", "hw_encoding": "1"}


_NVIDIA = "install NVIDIA's driver (libnvidia-encode), and give a container NVIDIA_DRIVER_CAPABILITIES=video"
_INTEL = "install Intel's media driver and libvpl, and join the group render"
_AMD = "install AMD's amf-amdgpu-pro runtime, and join the group render"
_V4L2 = "a board with a V4L2 memory-to-memory encoder has it; join the group video"
_WINDOWS, _MAC = "it is part of Windows", "it is part of macOS"


def _hardware(codec: Codec, suffixes: str) -> list[Candidate]:
    kinds: dict[str, dict[str, Any]] = {
        "nvenc": {"options": _nvenc, "least": Size(160, 64), "devices": ("/dev/nvidia[0-9]*", "/dev/dxg"),
                  "platforms": ("linux", "win32"), "advice": _NVIDIA},
        "qsv": {"options": _qsv, "formats": ("nv12",), "devices": ("/dev/dri/renderD*",),
                "platforms": ("linux", "win32"), "advice": _INTEL},
        "amf": {"options": _amf, "formats": ("nv12", "yuv420p"), "devices": ("/dev/dri/renderD*",),
                "platforms": ("linux", "win32"), "advice": _AMD},
        "videotoolbox": {"options": _video_toolbox, "platforms": ("darwin",), "advice": _MAC},
        "mf": {"options": _media_foundation, "formats": ("nv12",), "platforms": ("win32",), "advice": _WINDOWS},
        "v4l2m2m": {"formats": ("nv12", "yuv420p"), "devices": ("/dev/video1[0-9]",), "platforms": ("linux",),
                    "advice": _V4L2},
    }  # fmt: skip
    return [Candidate(f"{codec}_{each}", codec, is_hardware=True, **kinds[each]) for each in suffixes.split()]


CANDIDATES: list[Candidate] = [
    *_hardware("h264", "nvenc qsv amf videotoolbox mf v4l2m2m"),
    Candidate("libx264", "h264", _x264, steers=True, advice="pip install av"),
    *_hardware("hevc", "nvenc qsv amf videotoolbox mf v4l2m2m"),
    Candidate("libx265", "hevc", _x265, formats=("yuv420p",), advice="pip install av"),
    *_hardware("vp8", "v4l2m2m"),
    Candidate("libvpx", "vp8", _vp8, formats=("yuv420p",), by_time=True, layers=3, advice="pip install av"),
    *_hardware("vp9", "qsv"),
    Candidate("libvpx-vp9", "vp9", _vp9, formats=("yuv420p",), by_time=True, layers=3, advice="pip install av"),
    *_hardware("av1", "nvenc qsv amf mf"),
    Candidate(
        "libsvtav1",
        "av1",
        _svt_av1,
        formats=("yuv420p",),
        may_hang=True,
        rest_s=0.002,  # enough for its threads to come to rest, and nothing to pictures that are 16 ms apart
        least=Size(64, 64),
        advice="pip install av",
    ),
]
"""Every encoder that is tried, the preferred ones of a codec first."""


def candidates_for(codec: str, *, layers: int = 1) -> list[Candidate]:
    """The candidates for a codec with so many temporal layers, in order of preference."""
    return [each for each in CANDIDATES if each.codec == codec and each.layers >= layers]
