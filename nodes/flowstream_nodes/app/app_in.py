"""Frames of the program that runs the graph."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowstream import (
    AudioCaps,
    AudioFrame,
    Caps,
    Config,
    Context,
    Emit,
    EncodedCaps,
    EncodedPacket,
    EndOfInput,
    FlowstreamError,
    Output,
    PictureSize,
    Source,
    VideoCaps,
    VideoFrame,
    field,
    period_ns,
)

if TYPE_CHECKING:
    import numpy as np

    from flowstream import Delivery, ProgramInput

ADRIFT_NS = 200_000_000
"""Sound that comes later than this after what came before is no continuation of it."""


class AppInConfig(Config):
    """What the program pushes."""

    size: PictureSize | None = field(
        default=None, description="Width and height of the pictures, in pixels; any when it is left out."
    )
    fps: float | None = field(
        default=None, gt=0, le=1000, unit="frames per second",
        description="Frame rate. Pictures without a time of their own then follow one another by it, unless the graph "
        "is live.",
    )  # fmt: skip
    format: str | None = field(
        default=None, description="Pixel format under FFmpeg's name; when it is left out, arrays (h, w, 3) are bgr24.",
        examples=["bgr24"],
    )  # fmt: skip
    rate: int = field(default=48_000, ge=8000, le=192_000, description="Samples per second of sound.", unit="Hz")
    layout: str = field(default="stereo", description="Channel layout of sound under FFmpeg's name.")
    codec: str | None = field(
        default=None, description="Codec of packets under FFmpeg's name; any when it is left out.", examples=["h264"]
    )
    live: bool = field(
        default=False,
        description="Whether the program cannot wait, so that what is old is dropped; by default it waits.",
    )


class AppIn(Source[AppInConfig], type="app-in"):
    """Bring frames of the Python program that runs the graph into it: ``await run.push("in", array)``.

    Takes arrays, frames and packets. A push returns when every edge that blocks has taken the payload; a full edge that
    drops, drops and counts. Arrays of uint8 are pictures, others are sound; they are copied. What has no media time of
    its own gets the time of the push, or follows what came before by ``fps`` and by the length of the sound. A payload
    that is not what the settings say is refused, and the program gets to see why. ``run.end("in")`` ends the stream.

    ```yaml
    flowstream: 1
    nodes:
      in: {type: app-in, size: 640x360, fps: 30, format: bgr24}
      encode: {type: hw-encode, from: in, bitrate: 1M}
      tape: {type: recorder, from: encode, path: tape.mp4}
    ```
    """

    video = Output(VideoFrame, main=True, doc="Pictures that were pushed.")
    audio = Output(AudioFrame, doc="Sound that was pushed.")
    packets = Output(EncodedPacket, doc="Packets that were pushed.")

    _stack: AsyncExitStack | None = None
    _program: ProgramInput
    _pushed = 0

    @classmethod
    def live_with(cls, config: AppInConfig, /) -> bool:
        """As it is configured."""
        return config.live

    @classmethod
    def negotiate(cls, config: AppInConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What the settings say; what comes is held to it."""
        width, height = config.size or (None, None)
        told: dict[str, Caps] = {
            "video": VideoCaps(format=config.format, width=width, height=height, fps=config.fps),
            "audio": AudioCaps(rate=config.rate, layout=config.layout),
            "packets": EncodedCaps(codec=config.codec),
        }
        return told

    async def open(self) -> None:
        """Makes it possible to push."""
        from flowstream import PROGRAM, ProgramInput

        self._last_ns: dict[str, int] = {}  # the end of the sound, the time of the picture, that came last
        self._stack = AsyncExitStack()
        self._program = await self._stack.enter_async_context(self.ctx.hold(PROGRAM, ProgramInput.open))

    async def close(self) -> None:
        """Lets go of what the program holds too."""
        if self._stack is not None:
            await self._stack.aclose()

    async def run(self, ctx: Context) -> None:
        """Passes on what is pushed. Raises FlowstreamError when there is no program that could."""
        if not self._program.is_attended:
            raise FlowstreamError(
                "no program pushes anything here", hint="run this graph from Python: flowstream.open(...)"
            )
        self._program.begin()
        while True:
            try:
                delivery = await self._program.take()
            except EndOfInput:
                return
            try:
                emit = self._payload(delivery)
            except (TypeError, ValueError) as error:
                delivery.settle(error)
                continue
            try:
                await ctx.emit(emit)
            finally:
                delivery.settle()
            self._pushed += 1
            ctx.report(pushed=self._pushed)

    # --- what was pushed --------------------------------------------------------------------------------------------

    def _payload(self, delivery: Delivery) -> Emit[Any]:
        item, time_ns = delivery.item, delivery.time_ns
        match item:
            case VideoFrame() | AudioFrame() | EncodedPacket():
                payload = item if time_ns is None else replace(item, time_ns=time_ns)
            case _ if hasattr(item, "dtype") and hasattr(item, "ndim"):
                payload = self._picture(item, time_ns) if str(item.dtype) == "uint8" else self._sound(item, time_ns)
            case _:
                raise TypeError(
                    f"{self.ctx.name} takes an array, a VideoFrame, an AudioFrame or an EncodedPacket, "
                    f"not {type(item).__name__}"
                )
        output: Output[Any] = self.video
        if isinstance(payload, AudioFrame):
            output = self.audio
        elif isinstance(payload, EncodedPacket):
            output = self.packets
        self._require(output, payload)
        if not self.ctx.is_connected(output):
            raise ValueError(f"nothing takes from {self.ctx.name}.{output.name}; connect it in the graph")
        self._last_ns[output.name] = payload.time_ns + (payload.duration_ns if isinstance(payload, AudioFrame) else 0)
        return output(payload)

    def _require(self, output: Output[Any], payload: VideoFrame | AudioFrame | EncodedPacket) -> None:
        said = self.negotiate(self.config, {})[output.name]
        for name in ("format", "width", "height", "rate", "layout", "codec"):
            wanted, given = getattr(said, name, None), getattr(payload.caps, name, None)
            if wanted is not None and given != wanted:
                raise ValueError(f"{self.ctx.name}: its {name} is {wanted}, what was pushed has {given}")

    def _picture(self, array: np.ndarray[Any, Any], time_ns: int | None) -> VideoFrame:
        now_ns = self.ctx.media_ns()
        last_ns = self._last_ns.get("video")
        step_ns = period_ns(self.config.fps) if self.config.fps else None
        if time_ns is None:
            if last_ns is None:
                time_ns = now_ns
            elif step_ns is None or self.ctx.is_live:
                time_ns = max(now_ns, last_ns + 1)
            else:
                time_ns = last_ns + step_ns
        return VideoFrame.from_array(
            array.copy(),
            format=self.config.format,
            time_ns=time_ns,
            duration_ns=step_ns,
            capture_ns=self.ctx.now_ns(),
        )

    def _sound(self, array: np.ndarray[Any, Any], time_ns: int | None) -> AudioFrame:
        rows = array.reshape(1, -1) if array.ndim == 1 else array
        made = AudioFrame.from_array(
            rows.copy(),
            rate=self.config.rate,
            layout=self.config.layout,
            time_ns=0,
            capture_ns=self.ctx.now_ns(),
        )
        if time_ns is None:
            time_ns = max(0, self.ctx.media_ns() - made.duration_ns)
            last_ns = self._last_ns.get("audio")
            if last_ns is not None and (not self.ctx.is_live or time_ns - last_ns < ADRIFT_NS):
                time_ns = last_ns
        return made.replace(time_ns=time_ns)
