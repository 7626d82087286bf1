"""Show a stream in browsers."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import field_validator, model_validator

from flowstream import (
    Bitrate,
    ByteSize,
    Config,
    Context,
    EncodedCaps,
    EncodedPacket,
    Input,
    KeyframeRequest,
    Need,
    NegotiationError,
    Node,
    Output,
    Record,
    ViewerReports,
    field,
    live,
)
from flowstream.proto.admission import Approval
from flowstream.proto.hosts import is_loopback, read_address
from flowstream.proto.ice_servers import IceServer, ServerUrl, ServerUrlError
from flowstream.proto.sdp import VIDEO_CODECS, Kind

if TYPE_CHECKING:
    from flowstream import ViewerRegistry
    from flowstream_nodes.webrtc._viewers import Viewers

REPORTS_NS = 250_000_000
"""How often it tells who watches."""


class ViewersConfig(Config):
    """Who may watch."""

    approval: Literal["auto", "none", "token", "manual"] = field(
        default="auto",
        description="Who comes in: 'none' asks nobody, so whoever reaches the page may watch; 'token' lets in who has "
        "a link with a token; with 'manual' viewers wait until you let each in, or come by an invitation. 'auto' is "
        "'none' where only this machine reaches the page, and 'token' otherwise.",
    )
    max: int = field(
        default=10, ge=1, le=500, description="How many may watch at a time; the next ones are asked to wait."
    )


class IceServerConfig(Config):
    """A STUN or TURN server."""

    urls: list[str] = field(
        min_length=1,
        max_length=10,
        description="Its addresses, as stun:, stuns:, turn: or turns: with host and port.",
        examples=[["turn:relay.example.org:3478?transport=udp"]],
    )
    username: str | None = field(default=None, max_length=500, description="User name; TURN needs one.")
    credential: str | None = field(
        default=None, max_length=500, description="Password; TURN needs one. Every viewer is told it."
    )
    secret: str | None = field(
        default=None,
        min_length=1,
        max_length=500,
        description="In place of both, what the TURN server has as its shared secret (static-auth-secret of coturn): "
        "each viewer is told a user name and a password made from it, which count for a day.",
    )

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            try:
                ServerUrl.parse(url)
            except ServerUrlError as error:
                raise ValueError(f"{error}; write turn:HOST:PORT or stun:HOST:PORT") from None
        return urls

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.credential is None):
            raise ValueError("'username' and 'credential' go together; give both or none")
        if self.secret is not None and self.username is not None:
            raise ValueError("'secret' is in place of 'username' and 'credential'; leave those out, or it")
        if self.username is self.secret is None and any(url.startswith("turn") for url in self.urls):
            raise ValueError("a TURN server lets in nobody without 'username' and 'credential'; give both, or 'secret'")
        for name, text in (("username", self.username), ("credential", self.credential)):
            if text is not None and not (text.isascii() and text.isprintable()):
                raise ValueError(f"{name!r} travels in a header, which takes printable ASCII only")
        return self


class DataConfig(Config):
    """How records go to viewers."""

    delivery: Literal["ordered", "lossy"] = field(
        default="ordered",
        description="'ordered': every record arrives, in order, and those behind a lost one wait for it; 'lossy': each "
        "is sent once, and goes past what was lost.",
    )
    backlog: ByteSize = field(
        default=64 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="How much may wait for one viewer whose link is slow; beyond that it loses the oldest records.",
    )


class WebrtcOutConfig(Config):
    """How the stream is shown."""

    title: str | None = live(
        default=None, max_length=200, description="Title of the page; the node's label when it is left out."
    )
    viewers: ViewersConfig = live(default_factory=ViewersConfig, description="Who may watch.")
    uplink: Literal["off"] | Bitrate = live(
        default="off",
        description="What all viewers together may get, in bits per second; when it is short, those who get most of "
        "the picture get a lower rendition, before anybody gets none.",
    )
    data: DataConfig = live(default_factory=DataConfig, description="How records on the input 'data' reach viewers.")
    origins: list[str] = live(
        default_factory=list,
        max_length=100,
        description="Other web pages that may play this stream, by origin; '*' for any. The built-in page always may.",
        examples=[["https://example.org"]],
    )
    ice_servers: list[IceServerConfig] = live(
        default_factory=list,
        max_length=10,
        description="STUN and TURN servers for where this machine or a viewer is behind a NAT or a firewall. This "
        "machine learns from STUN how its port looks from outside, has TURN lend it an address, and opens the way with "
        "checks of its own; the viewers are told of the servers too.",
        examples=[
            [{"urls": ["stun:relay.example.org", "turn:relay.example.org"], "secret": "$(env:TURN_SECRET)"}],
            [{"urls": ["turn:relay.example.org:3478"], "username": "viewer", "credential": "secret"}],
        ],
    )
    public_addresses: list[str] = live(
        default_factory=list,
        max_length=10,
        description="Addresses at which viewers from outside reach this machine, where a NAT passes its port on: a "
        "forwarded port, or the public address of a machine in a cloud. The port is that of the graph unless another "
        "one is written behind it.",
        examples=[["203.0.113.7"], ["203.0.113.7:5000", "[2001:db8::7]:5000"]],
    )

    @field_validator("public_addresses")
    @classmethod
    def _public(cls, written: list[str]) -> list[str]:
        for text in written:
            read_address(text)
        return written


class WebrtcOut(Node[WebrtcOutConfig], type="webrtc-out"):
    """Show a stream to viewers in their browsers, with a fraction of a second of delay.

    Serves a page at ``/<node>/`` and, for other players, a WHEP endpoint at ``/<node>/whep``. Takes H.264 without
    B-frames, VP8, VP9 or AV1, and Opus; they are passed on as they come, so one encoder serves every viewer. A new
    viewer, or one that lost too much, makes it ask for a keyframe upstream; requests of several are joined. A viewer
    that lacks the codec is told which one it would need; renditions may differ in it, so that everybody has one.

    ``video`` takes several renditions of one picture, the largest first: ``video: [high, middle, low]``. Each viewer
    gets the one that its link carries, which its browser's feedback on every packet tells, and another one from a
    keyframe on when that changes; it may choose one itself. ``uplink`` bounds the sum of all viewers. A viewer whose
    link does not even carry the lowest one sees the picture stand still, and hears the sound. ``flowstream why`` names
    who gets less than the best, and because of what; ``flowstream viewers prioritize`` says who comes first.

    Media travels on UDP at the address where the graph serves (``serve.listen``), on the same port number when it is
    free. Behind a NAT, either pass that port on and say under ``public_addresses`` where it can be reached, or name
    STUN and TURN servers under ``ice_servers``. Viewers stay connected across reloads: what feeds this node may be
    replaced, the page goes on.

    Records on ``data`` go to the viewers over a data channel, as JSON: ``{"node": "encode", "type": "EncoderStats",
    "number": 7, "time_ms": ..., "value": {...}}``, at most 16 KiB each. A page that shows the player gets each as an
    event, ``addEventListener("flowstream:data", (event) => event.detail.value)``. Who waits or is paused gets none.

    Who may watch is said under ``viewers``, and changed while it runs: ``flowstream viewers`` lists who is there, lets
    in, sends away, pauses and bounds. Who waits is connected already, and sent nothing.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 1280x720, fps: 30}
      encode: {type: hw-encode, from: pattern, codec: h264, bitrate: 2.5M}
      tone: {type: tone}
      opus: {type: opus-encode, from: tone}
      out:
        type: webrtc-out
        inputs: {video: encode, audio: opus}
        title: Test pattern
        viewers: {max: 10, approval: manual}
    ```
    """

    serves = True
    asyncio_only = True
    needs = (
        Need("aiortc"),
        Need("aioice"),
        Need("pylibsrtp"),
        Need("ifaddr"),
        Need("starlette"),
    )

    video = Input(
        EncodedPacket,
        caps=EncodedCaps(codec=VIDEO_CODECS),
        optional=True,
        many=True,
        follows={"size", "extradata"},
        otherwise="let go of viewers that do not play the other format",
        doc="The picture: H.264 in Annex B form with parameter sets before every keyframe and no B-frames, which every "
        "browser plays but a Firefox without its plugin; VP8 and VP9, which Safari plays too; or AV1. Several "
        "renditions of it are a ladder: each viewer gets the one that its link carries.",
    )
    audio = Input(
        EncodedPacket,
        caps=EncodedCaps(codec="opus"),
        optional=True,
        follows={"rate", "layout", "extradata"},
        doc="The sound: Opus.",
    )

    data = Input(
        Record[Any],
        optional=True,
        many=True,
        doc="What viewers get beside the picture, as JSON: any record, such as the statistics of an encoder.",
    )

    reports = Output(
        Record[ViewerReports],
        doc="Who watches, and what each viewer says of its link: losses and round trip. For an abr-controller.",
    )

    _registry: ViewerRegistry | None = None

    def open(self) -> None:
        """Begins without having seen a picture."""
        self._last: dict[int, EncodedPacket] = {}

    async def run(self, ctx: Context) -> None:
        """Serves viewers until the inputs end.

        Raises:
            NegotiationError: the picture has B-frames.
            ResourceBusy: no UDP address can be bound.
            ValueError: the graph serves nobody, or no input is connected.
        """
        if ctx.listen is None:
            raise ValueError("there is no server to show it; give the graph 'serve: {listen: \"127.0.0.1:8080\"}'")
        host, port = ctx.listen
        page = await ctx.in_thread(_load)
        import anyio

        from flowstream import VIEWERS, ViewerRegistry
        from flowstream_nodes.webrtc._channels import Delivery
        from flowstream_nodes.webrtc._gathering import Reach
        from flowstream_nodes.webrtc._viewers import Feeder, open_viewers
        from flowstream_nodes.webrtc._whep import About, make_app

        async with (
            ctx.hold(VIEWERS, ViewerRegistry.open) as registry,
            ctx.hold(
                f"viewers {host}:{port}", lambda holding: open_viewers(holding, registry, host=host, port=port)
            ) as viewers,
        ):
            self._registry = registry

            def kinds() -> frozenset[Kind]:
                ports: dict[Kind, Input[EncodedPacket]] = {"video": self.video, "audio": self.audio}
                return frozenset(kind for kind, port in ports.items() if ctx.is_connected(port))

            def about() -> About:
                title = self.config.title or ctx.label
                told = tuple(
                    server.login(secrets.token_hex(4), wallclock_ns=ctx.wallclock_ns()) for server in servers()
                )
                return About(title, "video" in kinds(), "audio" in kinds(), tuple(self.config.origins), told)

            def servers() -> tuple[IceServer, ...]:
                return tuple(
                    IceServer(tuple(each.urls), each.username, each.credential, each.secret)
                    for each in self.config.ice_servers
                )

            def reach() -> Reach:
                return Reach(servers(), tuple(read_address(text) for text in self.config.public_addresses))

            def report() -> None:
                ctx.report(
                    viewers=registry.watching,
                    waiting=registry.waiting or None,
                    view="paused" if registry.view.is_paused else None,
                    unsent_packets=viewers.unsent_packets or None,
                    rungs=viewers.rungs_text or None,
                    limited_by=viewers.limited_by,
                )

            def delivery() -> Delivery | None:
                said = self.config.data
                return Delivery(said.delivery, said.backlog) if ctx.is_connected(self.data) else None

            def approval() -> Approval:
                asked = self.config.viewers.approval
                if asked != "auto":
                    return asked
                # Mounted in a program, whose port is not known here, it is the program that lets in.
                return "none" if port == 0 or is_loopback(host) else "token"

            feeder = Feeder(
                kinds=kinds,
                most=lambda: self.config.viewers.max,
                ask_keyframe=lambda index: ctx.request(self.video, KeyframeRequest("a viewer needs one"), index=index),
                on_change=report,
                approval=approval,
                rungs=lambda: {origin.index: origin.node for origin in ctx.origins(self.video)},
                uplink_bps=lambda: None if self.config.uplink == "off" else self.config.uplink,
                delivery=delivery,
                reach=reach,
            )
            app = make_app(viewers, about=about, page=page)
            async with ctx.mount(app, page=True):
                with viewers.feeding(feeder, media_ns=ctx.media_ns()):
                    report()
                    ctx.ready()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._tell_reports, ctx, viewers)
                        async for origin, payload in ctx.each(self.video, self.audio, self.data):
                            if origin.port == "video":
                                self._check_order(payload, origin.index)
                                viewers.send_video(payload, feeder, origin.index)
                            elif origin.port == "audio":
                                viewers.send_audio(payload, feeder)
                            else:
                                viewers.send_record(payload, origin.node)
                        tasks.cancel_scope.cancel()
        if not kinds():
            raise ValueError("neither 'video' nor 'audio' is connected; connect at least one")

    def reconfigured(self, old: WebrtcOutConfig) -> None:
        """Whoever waits comes in where nobody has to wait any more."""
        if self._registry is not None:
            self._registry.settings_changed()

    async def _tell_reports(self, ctx: Context, viewers: Viewers) -> None:
        """Also while no picture comes: it may be waiting for somebody to watch."""
        while True:
            if ctx.is_connected(self.reports):
                found = ViewerReports(ctx.name, viewers.reports())
                await ctx.emit(self.reports(Record(found, ctx.media_ns())))
            ctx.report(
                rungs=viewers.rungs_text or None,
                limited_by=viewers.limited_by,
                dropped_records=viewers.channels.dropped_records or None,
                refused_messages=viewers.channels.refused_messages or None,
            )
            await ctx.sleep_until_ns(ctx.now_ns() + REPORTS_NS)

    def _check_order(self, packet: EncodedPacket, index: int) -> None:
        last = self._last.get(index)
        self._last[index] = packet
        if last is None or last.decode_ns is None or packet.decode_ns is None:
            return
        if packet.decode_ns > last.decode_ns and packet.time_ns < last.time_ns:
            raise NegotiationError(
                "input 'video': the pictures come in another order than they are shown (B-frames), "
                "and a browser takes them only in the order they are shown",
                hint="put 'decode' and 'hw-encode' in between",
            )


def _load() -> dict[str, bytes]:
    """Imports what serving takes, a tenth of a second that the loop cannot spare, and reads the page."""
    import aiortc.rtcdtlstransport  # noqa: F401

    import flowstream_nodes.webrtc._association
    import flowstream_nodes.webrtc._viewers  # noqa: F401
    from flowstream_nodes.webrtc._whep import read_page

    return read_page()
