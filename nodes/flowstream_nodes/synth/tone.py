"""A steady tone with an accent every second."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING, Any

from flowstream import AudioCaps, AudioFrame, Config, Context, Duration, Output, Source, field, live

if TYPE_CHECKING:
    import numpy as np

RATE = 48_000
SAMPLES = 960
FRAME_NS = 20_000_000
LATE_NS = 200_000_000
"""Later than this, sound is skipped rather than caught up."""

ACCENT_S = 0.1


class ToneConfig(Config):
    """Pitch, loudness and length of the tone."""

    frequency: float = live(default=440.0, ge=20, le=10_000, description="Pitch, in hertz.", unit="Hz")
    level: float = live(default=-20.0, ge=-90, le=0, description="Loudness, in decibels below full scale.", unit="dB")
    accent: bool = live(default=True, description="Whether an octave above sounds for 100 ms at every full second.")
    duration: Duration = field(default=0, description="How long it lasts; 0s is for ever.", examples=["10s"])


class Tone(Source[ToneConfig], type="tone"):
    """A sine in stereo at 48 kHz, in frames of 20 ms, with an accent at every full second of media time.

    The accent falls together with the landing of the ball of ``test-pattern``, so that ear and eye tell whether sound
    and picture are in step. A change of pitch or loudness makes no click.

    ```yaml
    flowstream: 1
    nodes:
      tone: {type: tone, frequency: 440, level: -20, duration: 2s}
      nowhere: {type: discard, from: tone}
    ```
    """

    is_live = True

    audio = Output(AudioFrame, caps=AudioCaps(format="fltp", rate=RATE, layout="stereo"), doc="The sound.")

    _phase = 0.0  # in turns, at the end of the last frame
    _gain = 0.0

    async def run(self, ctx: Context) -> None:
        """Emits a frame when its last sample would have been captured."""
        ctx.ready()
        start_ns = ctx.now_ns()
        media_offset_ns = ctx.media_ns() - start_ns
        frame, skipped = 0, 0
        while not self.config.duration or frame * FRAME_NS < self.config.duration:
            captured_ns = start_ns + frame * FRAME_NS
            await ctx.sleep_until_ns(captured_ns + FRAME_NS)
            samples = self._samples(captured_ns + media_offset_ns)
            await ctx.emit(
                self.audio(
                    AudioFrame.from_array(
                        samples,
                        format="fltp",
                        rate=RATE,
                        layout="stereo",
                        time_ns=captured_ns + media_offset_ns,
                        capture_ns=captured_ns,
                    )
                )
            )
            frame += 1
            late_ns = ctx.now_ns() - (start_ns + (frame + 1) * FRAME_NS)
            if late_ns > LATE_NS:
                skipped += late_ns // FRAME_NS
                frame += late_ns // FRAME_NS
                ctx.report(skipped=skipped)

    def _samples(self, time_ns: int) -> np.ndarray[Any, Any]:
        """(2, SAMPLES) float32; loudness glides over the frame from what it was."""
        import numpy as np

        step = self.config.frequency / RATE
        turns = self._phase + step * np.arange(SAMPLES)
        self._phase = (self._phase + step * SAMPLES) % 1
        wanted = 10 ** (self.config.level / 20)
        gain = np.linspace(self._gain, wanted, SAMPLES, endpoint=False)
        self._gain = wanted
        wave = gain * np.sin(2 * pi * turns)
        start = time_ns / 1e9 % 1
        if self.config.accent and (start < ACCENT_S or start + SAMPLES / RATE > 1):
            second = (start + np.arange(SAMPLES) / RATE) % 1
            bell = np.where(second < ACCENT_S, np.sin(pi * second / ACCENT_S) ** 2, 0)
            wave += gain * bell * np.sin(4 * pi * turns)
        return np.repeat(np.clip(wave, -1, 1).astype(np.float32)[None], 2, axis=0)
