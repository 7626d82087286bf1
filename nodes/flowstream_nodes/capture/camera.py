"""Capture a camera."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowstream import (
    NS_PER_S,
    Caps,
    Config,
    Emit,
    Need,
    Output,
    PeerError,
    PictureSize,
    ResourceBusy,
    Size,
    Source,
    VideoCaps,
    VideoFrame,
    field,
    period_ns,
    time_of,
)

if TYPE_CHECKING:
    from av.container.input import InputContainer

_DEFAULT_SIZE = Size(1280, 720)
# What cameras send that is no code: the pictures then have this very format.
_RAW_FORMATS = ("yuyv422", "uyvy422", "yvyu422", "nv12", "yuv420p", "yuv422p", "bgr24", "rgb24", "gray")


class CameraConfig(Config):
    """Config of ``camera``."""

    device: str = field(
        default="first",
        min_length=1,
        description="The camera: a device file such as /dev/video0, or its name on Windows and macOS; first takes the "
        "first there is.",
    )
    size: PictureSize = field(
        default=_DEFAULT_SIZE, description="Wanted size in pixels; the camera gives the nearest it has."
    )
    fps: float = field(
        default=30.0, gt=0, le=240, description="Wanted pictures per second; the camera gives the nearest it has."
    )
    format: str = field(
        default="auto",
        pattern="^[a-z0-9]+$",
        description="What the camera sends, under FFmpeg's name: a raw format such as yuyv422 or nv12, or mjpeg. auto "
        "takes raw pictures where they come in the wanted size and rate, and mjpeg where only that does.",
    )


class DeviceClock:
    """Maps times of a device's own clock to now: offset by the least delay seen, so jitter of arrival does not show.

    The offset creeps up by at most 0.1 %, to follow a device whose clock runs slow; a jump of more than half a second
    between the two clocks starts it afresh. What comes later than that may also have waited for its reader: it keeps
    the times it has from the device, unless all that follows for five seconds is as late.
    """

    _JUMP_NS = NS_PER_S // 2
    _LONGEST_BACKLOG_NS = 5 * NS_PER_S

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._late_since_ns: int | None = None
        self._last_device_ns = 0
        self._last_ns = 0

    def now_of(self, device_ns: int, *, now_ns: int) -> int:
        """The now at which something with this device time happened, when it arrived at ``now_ns``; it increases."""
        offset_ns = now_ns - device_ns
        step_ns = device_ns - self._last_device_ns
        is_late = self._offset_ns is not None and offset_ns - self._offset_ns > self._JUMP_NS
        if not is_late:
            self._late_since_ns = None
        elif self._late_since_ns is None:
            self._late_since_ns = now_ns
        has_jumped = self._late_since_ns is not None and now_ns - self._late_since_ns > self._LONGEST_BACKLOG_NS
        if self._offset_ns is None or step_ns < 0 or has_jumped:
            self._offset_ns = offset_ns
            self._late_since_ns = None
        else:
            self._offset_ns = min(offset_ns, self._offset_ns + step_ns // 1000)
        self._last_device_ns = device_ns
        self._last_ns = max(self._last_ns + 1, min(now_ns, device_ns + self._offset_ns))
        return self._last_ns


class Camera(Source[CameraConfig], type="camera"):
    """Capture a camera, by what the platform offers: V4L2 on Linux, AVFoundation on macOS, DirectShow on Windows.

    Size and rate are wishes; what the camera really gives is in the node's status. Pictures have the time at which the
    camera says they were taken. A camera that is unplugged is a loss that `restart` can answer.

    ```yaml
    flowstream: 1
    nodes:
      camera: {type: camera, size: 1280x720, fps: 30, restart: {on: peer}}
      encode: {type: hw-encode, from: camera}
      tape: {type: recorder, inputs: {video: encode}, path: recordings/camera.mp4}
    ```
    """

    thread = True
    is_live = True
    needs = (Need("av"),)

    video = Output(VideoFrame, main=True, doc="Pictures in the camera's own raw format.")

    @classmethod
    def negotiate(cls, config: CameraConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """A raw format that is asked for; size and rate are wishes."""
        return {"video": VideoCaps(format=config.format)} if config.format in _RAW_FORMATS else {}

    @classmethod
    def exclusive(cls, config: CameraConfig, /) -> str:
        """The device: it is opened by one at a time."""
        return f"camera {config.device}"

    _container: InputContainer | None = None
    _packets: Iterator[Any] = iter(())

    def open(self) -> None:
        self._device = find_device(self.config.device)
        self._clock = DeviceClock()
        self._broken = 0
        self._container = self._opened()
        stream = self._container.streams.video[0]
        rate = float(stream.average_rate) if stream.average_rate else self.config.fps
        self._duration_ns = period_ns(rate)
        context = stream.codec_context
        self.ctx.report(device=self._device, size=f"{context.width}x{context.height}", fps=round(rate, 2))
        self._packets = iter(self._container.demux(stream))

    def close(self) -> None:
        # A packet lies in the device's memory and may not outlive it; the demuxer still holds the last one.
        self._packets = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def capture(self) -> list[Emit[VideoFrame]]:
        """Waits for the next picture. Raises PeerError when the camera has gone."""
        import av

        try:
            packet = next(self._packets, None)
        except (OSError, ValueError) as error:  # unplugged: ENODEV or EINVAL, by kernel
            raise PeerError(f"camera {self._device} has gone: {_reason(error)}", hint="is it plugged in?") from error
        if packet is None or (packet.size == 0 and packet.pts is None):
            raise PeerError(f"camera {self._device} has stopped", hint="is it plugged in?")
        now_ns = self.ctx.now_ns()
        try:
            frames = packet.decode()
        except av.FFmpegError:  # a picture damaged on the cable
            self._broken += 1
            self.ctx.report(broken=self._broken)
            return []
        return list(self._emits(packet, frames, now_ns))

    def _emits(self, packet: Any, frames: list[Any], now_ns: int) -> Iterator[Emit[VideoFrame]]:
        to_media_ns = self.ctx.media_ns() - self.ctx.now_ns()
        base = packet.time_base
        for frame in frames:
            capture_ns = now_ns
            if packet.pts is not None and base is not None:
                device_ns = time_of(packet.pts, base.numerator, base.denominator)
                capture_ns = self._clock.now_of(device_ns, now_ns=now_ns)
            # A raw picture lies in the device's own memory, which goes away with the device; with the packet still
            # holding it too, this copies.
            frame.make_writable()
            yield self.video(
                VideoFrame.from_av(
                    frame,
                    time_ns=capture_ns + to_media_ns,
                    capture_ns=capture_ns,
                    duration_ns=self._duration_ns,
                )
            )

    def _opened(self) -> InputContainer:
        """Opens the device in the wanted format; for auto, raw where that gives size and rate, mjpeg where only it."""
        if self.config.format != "auto":
            return self._open_as(self.config.format)
        raw = self._open_as(None)
        if _gives(raw, self.config) or not sys.platform.startswith("linux"):
            return raw
        raw.close()  # a device is opened by one at a time
        try:
            packed = self._open_as("mjpeg")
        except PeerError:
            return self._open_as(None)
        if _gives(packed, self.config):
            return packed
        packed.close()
        return self._open_as(None)

    def _open_as(self, format: str | None) -> InputContainer:
        import av

        options = {"video_size": str(self.config.size), "framerate": f"{self.config.fps:g}"}
        if format is not None:
            options["input_format" if sys.platform.startswith("linux") else "pixel_format"] = format
        name = f"video={self._device}" if sys.platform == "win32" else self._device
        try:
            return av.open(name, format=_interface(), options=options)
        except (OSError, ValueError) as error:
            raise _open_error(self._device, self.config, format, error) from error


def _interface() -> Literal["v4l2", "avfoundation", "dshow"]:
    """What FFmpeg calls this platform's camera interface."""
    if sys.platform == "win32":
        return "dshow"
    return "avfoundation" if sys.platform == "darwin" else "v4l2"


def _gives(container: InputContainer, config: CameraConfig) -> bool:
    """Whether the device, once open, has the wanted size and rate."""
    stream = container.streams.video[0]
    size = (stream.codec_context.width, stream.codec_context.height)
    return size == config.size and (not stream.average_rate or float(stream.average_rate) >= config.fps * 0.9)


def found_devices() -> list[str]:
    """The cameras of this machine, in the platform's order."""
    if sys.platform.startswith("linux"):
        files = [file for file in Path("/dev").glob("video*") if re.fullmatch(r"video\d+", file.name)]
        return [str(file) for file in sorted(files, key=lambda file: int(file.name[5:]))]
    from av.device import enumerate_input_devices

    return [device.name for device in enumerate_input_devices(_interface()) if "video" in device.media_types]


def find_device(wanted: str) -> str:
    """The device that a configuration means. Raises PeerError, with what there is, when it is not there."""
    found = found_devices()
    if wanted == "first":
        if not found:
            raise PeerError("there is no camera on this machine", hint="plug one in")
        return found[0]
    if sys.platform.startswith("linux") and not Path(wanted).exists():
        there = f"there is {', '.join(found)}" if found else "there is none on this machine; plug one in"
        raise PeerError(f"there is no camera {wanted}", hint=there)
    return wanted


def _open_error(device: str, config: CameraConfig, format: str | None, error: Exception) -> PeerError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EBUSY:
        return ResourceBusy(f"camera {device} is in use by another program", hint="close that program")
    if number in (errno.EACCES, errno.EPERM):
        return PeerError(
            f"camera {device} may not be opened by this user",
            hint="add the user to the group video: sudo usermod -aG video $USER, then log in again",
        )
    if number in (errno.ENODEV, errno.ENXIO):
        return PeerError(f"camera {device} has gone", hint="is it plugged in?")
    if number == errno.ENOTTY:
        return PeerError(f"{device} is no camera", hint=f"there is {', '.join(found_devices()) or 'none'}")
    wish = f"{config.size} at {config.fps:g} fps" + (f" as {format}" if format else "")
    return PeerError(f"camera {device} does not give {wish}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
