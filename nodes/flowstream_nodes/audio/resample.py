"""Change rate, layout and sample format of sound to what the next node takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from flowstream import AudioCaps, AudioFrame, Caps, Config, Emit, Input, Need, Output, Transform, live, time_of

if TYPE_CHECKING:
    from av.audio.resampler import AudioResampler

T = TypeVar("T")

AS_IS: Literal["as-is"] = "as-is"
Rate = Annotated[int, Field(ge=1_000, le=384_000)]
Layout = Literal[
    "mono", "stereo", "2.1", "3.0", "quad", "4.0", "5.0", "5.0(side)", "5.1", "5.1(side)", "7.1"
]  # fmt: skip
Format = Literal["s16", "s16p", "s32", "s32p", "flt", "fltp"]

# Sound that is this far from where it is expected has a gap before it; less is the jitter of a device's clock.
_TOLERANCE_NS = 30_000_000


class ResampleConfig(Config):
    """What sound is to be: one choice, or a list of those that will do, the best first."""

    rate: Literal["as-is"] | Rate | Annotated[list[Rate], Field(min_length=1)] = live(
        default=AS_IS,
        description="Samples per second, or a list of rates that will do; as-is leaves it.",
        unit="samples per second",
        examples=[48_000],
    )
    layout: Literal["as-is"] | Layout | Annotated[list[Layout], Field(min_length=1)] = live(
        default=AS_IS,
        description="Channel layout, or a list of those that will do; as-is leaves it.",
        examples=["mono"],
    )
    format: Literal["as-is"] | Format | Annotated[list[Format], Field(min_length=1)] = live(
        default=AS_IS,
        description="Sample format under FFmpeg's name, or a list of those that will do; as-is leaves it.",
        examples=["fltp"],
    )

    @field_validator("layout", mode="before")
    @classmethod
    def _is_written_as_a_number(cls, layout: Any) -> Any:
        """``5.1`` without quotes is a number to YAML."""
        if isinstance(layout, list):
            return [str(each) if isinstance(each, float) else each for each in layout]
        return str(layout) if isinstance(layout, float) else layout


class Resample(Transform[ResampleConfig], type="resample"):
    """Gives sound the rate, the channel layout and the sample format that the next node takes.

    Sound that fits already passes untouched. What comes out is continuous: times are counted in samples, and only a gap
    or a jump in what comes in shows. A change of what comes in is followed without a loss.

    ```yaml
    flowstream: 1
    nodes:
      tone: {type: tone, duration: 2s}
      narrow: {type: resample, from: tone, rate: 16000, layout: mono, format: s16}
      nowhere: {type: discard, from: narrow}
    ```
    """

    thread = True
    needs = (Need("av"), Need("numpy"))

    audio = Input(AudioFrame, follows={"format", "rate", "layout"}, doc="Sound of any rate, layout and format.")
    resampled = Output(AudioFrame, doc="The same sound in what was asked for.")

    _resampler: AudioResampler | None = None
    _from: AudioCaps | None = None  # what the resampler takes
    _to: AudioCaps | None = None  # what it gives
    _end_in_ns = 0  # where the next sample that comes in belongs
    _base_ns = 0  # of the sample that the resampler gave first
    _given = 0  # samples since then
    _capture: tuple[int, int] | None = None  # (media time, now) of one sample

    @classmethod
    def negotiate(cls, config: ResampleConfig, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What is asked for; for the rest, what comes in."""
        audio = incoming.get("audio")
        given = audio if isinstance(audio, AudioCaps) else AudioCaps()
        return {
            "resampled": AudioCaps(
                format=_negotiated(config.format, given.format),
                rate=_negotiated(config.rate, given.rate),
                layout=_negotiated(config.layout, given.layout),
            )
        }

    def process(self, frame: AudioFrame) -> Iterator[Emit[AudioFrame]]:
        """Passes what fits and resamples the rest."""
        wanted = AudioCaps(
            format=_chosen(self.config.format, frame.format),
            rate=_chosen(self.config.rate, frame.rate),
            layout=_chosen(self.config.layout, frame.layout),
        )
        if self._resampler is not None:
            is_broken = abs(frame.time_ns - self._end_in_ns) > _TOLERANCE_NS
            if is_broken or frame.caps != self._from or wanted != self._to:
                yield from self._drain()
        if wanted == frame.caps:
            yield self.resampled(frame)
            return
        if self._resampler is None:
            self._open(frame, wanted)
        self._end_in_ns += frame.duration_ns
        self._capture = None if frame.capture_ns is None else (frame.time_ns, frame.capture_ns)
        yield from self._pieces(frame)

    def finish(self) -> Iterator[Emit[AudioFrame]]:
        """Gives what is still in the filter."""
        yield from self._drain()

    def close(self) -> None:
        self._resampler = None

    def _open(self, frame: AudioFrame, wanted: AudioCaps) -> None:
        from av.audio.resampler import AudioResampler

        made: dict[str, Any] = {"format": wanted.format, "layout": wanted.layout, "rate": wanted.rate}
        self._resampler = AudioResampler(**made)
        self._from, self._to = frame.caps, wanted
        self._end_in_ns = self._base_ns = frame.time_ns
        self._given = 0

    def _drain(self) -> Iterator[Emit[AudioFrame]]:
        if self._resampler is not None:
            yield from self._pieces(None)
            self._resampler = None

    def _pieces(self, frame: AudioFrame | None) -> Iterator[Emit[AudioFrame]]:
        assert self._resampler is not None
        assert self._to is not None
        for piece in self._resampler.resample(frame.to_av() if frame is not None else None):
            time_ns = self._base_ns + time_of(self._given, 1, piece.sample_rate)
            self._given += piece.samples
            capture_ns = None
            if self._capture is not None:
                capture_ns = self._capture[1] + time_ns - self._capture[0]
            given = AudioFrame.from_av(piece, time_ns=time_ns, capture_ns=capture_ns)
            yield self.resampled(given.replace(caps=self._to))  # the same object as long as it stays


def _chosen(wanted: Any, given: T) -> T:
    """What comes out of sound with the given value."""
    if wanted == AS_IS:
        return given
    choices = wanted if isinstance(wanted, list) else [wanted]
    chosen: T = given if given in choices else choices[0]
    return chosen


def _negotiated(wanted: Any, given: Any) -> Any:
    """The same for what may not be known, or not yet decided: then it is one of several."""
    if wanted == AS_IS or (given is not None and not isinstance(given, tuple)):
        return _chosen(wanted, given)
    choices = wanted if isinstance(wanted, list) else [wanted]
    return choices[0] if len(choices) == 1 else tuple(choices)
