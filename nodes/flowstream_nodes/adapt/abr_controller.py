"""Steer encoders by what viewers' links carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import field_validator, model_validator

from flowstream import (
    Bitrate,
    Config,
    ContentStats,
    Context,
    EncoderStats,
    Input,
    NegotiationError,
    Node,
    Output,
    Percentage,
    Record,
    Size,
    Target,
    Targets,
    ViewerReports,
    field,
    format_bitrate,
    live,
)
from flowstream.proto.adaptation import Adaptation, EncoderTarget, Policy
from flowstream.proto.ladder import MOST_RUNGS, Rung

TELLS_NS = 1_000_000_000
"""How often targets are told though nothing has changed: an encoder that is new does not know them."""

EVERY = ""
"""The name of the one rung when no encoders are named: its target goes to every encoder that listens."""


class EncoderRange(Config):
    """An encoder, and the rates that its picture is worth."""

    min: Literal["auto"] | Bitrate = field(
        default="auto", description="Its lowest rate, in bits per second; auto is that of the controller."
    )
    max: Literal["auto"] | Bitrate = field(
        default="auto", description="Its highest rate, in bits per second; auto is that of the controller."
    )
    always: bool = field(
        default=False,
        description="Whether it runs also while no viewer gets it: for one that feeds a recording too. Then it runs at "
        "its highest rate.",
    )


class AbrControllerConfig(Config):
    """What is wanted, and within which bounds."""

    encoders: dict[str, EncoderRange] = live(
        default_factory=dict,
        description="The encoders of a ladder by their ids, and the rates of each; the one with the highest rates has "
        "the largest picture. Without any, whichever encoder takes the targets is steered, as the only one.",
        examples=[{"high": {"min": "1M"}, "low": {"max": "600k"}}],
    )
    min: Bitrate = live(
        default=300_000, description="What an encoder is never steered below, in bits per second.", examples=["300k"]
    )
    max: Bitrate = live(
        default=2_500_000, description="What an encoder is never steered above, in bits per second.", examples=["2.5M"]
    )
    mode: Literal["auto", "fixed"] = live(
        default="auto", description="fixed steers nothing: every encoder runs at its highest rate, all of the picture."
    )
    content: Literal["auto", "text", "motion", "camera"] = live(
        default="auto",
        description="What gives way when bits are few: text keeps its size and comes more rarely, motion keeps its "
        "frame rate and becomes smaller, a camera gives up some of both. auto goes by what comes in at `content`, else "
        "by what the encoders see, else it is camera.",
    )
    uplink: Literal["off"] | Bitrate = live(
        default="off", description="What all viewers together may get, in bits per second; off is no bound."
    )
    viewer_max: Literal["off"] | Bitrate = live(
        default="off", description="What a single viewer may get, in bits per second; off is no bound."
    )
    reserve: Bitrate = live(
        default=0,
        description="Kept free on each viewer's link for what else goes over it, such as sound, in bits per second.",
    )
    headroom: Percentage = live(
        default=0.05, ge=0, le=0.5, description="Share of each link's estimate that is left unused."
    )
    leave_out: Percentage = live(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the viewers whose links may carry less than the lowest rung, so that one bad link does "
        "not hold everybody down.",
    )

    @field_validator("encoders")
    @classmethod
    def _are_not_too_many(cls, encoders: dict[str, EncoderRange]) -> dict[str, EncoderRange]:
        if len(encoders) > MOST_RUNGS:
            raise ValueError(f"{len(encoders)} encoders are named; a ladder has at most {MOST_RUNGS}")
        return encoders

    @model_validator(mode="after")
    def _bounds(self) -> AbrControllerConfig:
        if self.min < 1:
            raise ValueError("min is 0; an encoder has at least 1 bit per second, such as 300k")
        for name, (low, high) in {"": (self.min, self.max), **self.ranges()}.items():
            if high < low:
                of = f"{name}: " if name else ""
                raise ValueError(f"{of}max ({format_bitrate(high)}) is below min ({format_bitrate(low)})")
        return self

    def ranges(self) -> dict[str, tuple[int, int]]:
        """The lowest and the highest rate of each encoder that is named, within those of the controller."""
        found = {}
        for name, own in self.encoders.items():
            low = self.min if own.min == "auto" else own.min
            found[name] = (low, self.max if own.max == "auto" else own.max)
        return found


class AbrController(Node[AbrControllerConfig], type="abr-controller"):
    """Steer encoders by what viewers' links carry and by what the encoders get through.

    One edge of targets may go to every encoder; each takes its own. The bitrate follows the viewers: down at once, up
    step by step. When it is too low for the picture, that gives way by its content, and comes back when there has been
    enough for a while. Of several encoders those are used, at those rates, that bring most to the viewers who are
    there, within the uplink; the others are paused. An encoder that does not keep up gets less to do, whatever the
    network carries: first a rung fewer, then less of the picture.

    Encoders are named as in the file in which the controller stands. Without reports only the processor is looked at.
    What is done, what it is limited by and what all links together carry shows in status.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 1280x720, fps: 30}
      encode:
        type: hw-encode
        inputs: {video: pattern, targets: abr}
        bitrate: 1M
        max: 4M
      out: {type: webrtc-out, from: encode}
      abr:
        type: abr-controller
        inputs: {reports: out.reports, stats: encode.stats}
        min: 300k
        max: 4M
    ```
    """

    reports = Input(Record[ViewerReports], optional=True, many=True, doc="Who watches, and what each link carries.")
    stats = Input(Record[EncoderStats], optional=True, many=True, doc="What the encoders measured of themselves.")
    content = Input(Record[ContentStats], optional=True, doc="What the picture shows.")
    targets = Output(Record[Targets], doc="What each encoder is to aim at.")

    _adaptation: Adaptation
    _has_reports = False

    def open(self) -> None:
        """Begins without knowing anybody."""
        self._seen: set[str] = set()
        self._adaptation = Adaptation(self._policy())

    async def run(self, ctx: Context) -> None:
        """Takes what comes in and tells targets, until the inputs end.

        Raises:
            NegotiationError: records of something else come in.
            ValueError: nothing is connected that could tell anything.
        """
        if self.config.mode == "auto" and not (ctx.is_connected(self.reports) or ctx.is_connected(self.stats)):
            raise ValueError("neither 'reports' nor 'stats' is connected, so there is nothing to go by; connect one")
        if not ctx.is_connected(self.targets):
            ctx.log.warning(
                "nothing takes %s.targets, so nothing is steered; give encoders inputs: {targets: %s}",
                ctx.name,
                ctx.name,
            )
        ctx.ready()
        told: Targets | None = None
        told_ns = ctx.now_ns()
        if self.config.mode == "fixed":
            told = self._targets(ctx.now_ns())
            await ctx.emit(self.targets(Record(told, ctx.media_ns())))
        async for port, record in ctx.merge(self.reports, self.stats, self.content):
            now_ns = ctx.now_ns()
            is_heard = self._take(port, record.value, now_ns)
            if not is_heard and self.config.mode == "auto":
                continue
            found = self._targets(now_ns)
            self._tell()
            if found != told or now_ns - told_ns >= TELLS_NS:
                told, told_ns = found, now_ns
                await ctx.emit(self.targets(Record(found, record.time_ns)))

    def reconfigured(self, old: AbrControllerConfig, /) -> None:
        """Other bounds and other encoders count from the next report on; viewers stay known."""
        self._seen.clear()
        self._adaptation.set_policy(self._policy())

    def _take(self, port: str, value: object, now_ns: int) -> bool:
        """Takes a record; whether enough is known to steer by."""
        match port, value:
            case "reports", ViewerReports():
                self._has_reports = True
                self._adaptation.handle_viewers(value.output, value.of, now_ns=now_ns)
            case "stats", EncoderStats():
                self._check_name(value.encoder)
                known = value if self.config.encoders else replace(value, encoder=EVERY)
                self._adaptation.handle_encoder(known, now_ns=now_ns)
                if self.config.content == "auto" and value.content and not self.ctx.is_connected(self.content):
                    self._adaptation.handle_content(value.content)
            case "content", ContentStats():
                if self.config.content == "auto":
                    self._adaptation.handle_content(value.kind)
            case _:
                wanted = {"reports": "ViewerReports", "stats": "EncoderStats", "content": "ContentStats"}[port]
                raise NegotiationError(
                    f"{self.ctx.name}.{port} takes records of {wanted}, but was given {type(value).__name__}",
                    hint="connect it to an output that makes those",
                )
        return self._has_reports or not self.ctx.is_connected(self.reports)

    def _check_name(self, encoder: str) -> None:
        """An encoder that measures itself and is not named is steered by nobody: most likely its name is misspelt."""
        if encoder in self._seen:
            return
        self._seen.add(encoder)
        names = [rung.encoder for rung in self._adaptation.policy.rungs]
        if encoder not in names and names != [EVERY]:
            self.ctx.log.warning(
                "statistics come from %s, which `encoders` does not name, so that it is not steered; it names %s",
                encoder, ", ".join(names),
            )  # fmt: skip

    def _policy(self) -> Policy:
        config = self.config
        within = self.ctx.name.rpartition("/")[0]
        prefix = f"{within}/" if within else ""
        ranges = sorted(config.ranges().items(), key=lambda item: (item[1][1], item[1][0]))
        rungs = tuple(Rung(prefix + name, low, high) for name, (low, high) in ranges)
        return Policy(
            rungs=rungs or (Rung(EVERY, config.min, config.max),),
            kept=frozenset(prefix + name for name, own in config.encoders.items() if own.always) | {EVERY},
            content="camera" if config.content == "auto" else config.content,
            is_fixed=config.mode == "fixed",
            headroom=config.headroom,
            reserve_bps=config.reserve,
            viewer_most_bps=None if config.viewer_max == "off" else config.viewer_max,
            uplink_bps=None if config.uplink == "off" else config.uplink,
            leave_out=config.leave_out,
        )

    def _targets(self, now_ns: int) -> Targets:
        found = {name: _target(each) for name, each in self._adaptation.targets(now_ns=now_ns).items()}
        rest = found.pop(EVERY, None)
        return Targets(found, rest)

    def _tell(self) -> None:
        rates = self._adaptation.rates
        said = ", ".join(f"{name} {format_bitrate(rate)}".strip() for name, rate in reversed(list(rates.items())))
        self.ctx.report(
            viewers=self._adaptation.viewers,
            estimate_bps=self._adaptation.estimate_bps,
            rates=said or None,
            limited_by=self._adaptation.limit,
        )


def _target(target: EncoderTarget) -> Target:
    picture = target.picture
    if picture is None:
        return Target(target.bitrate_bps, paused=target.is_paused)
    return Target(target.bitrate_bps, picture.fps, Size(picture.width, picture.height), target.is_paused)
