"""Show a stream in browsers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from flowstream import (
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
from flowstream.proto.hosts import is_loopback
from flowstream.proto.sdp import Kind

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


class WebrtcOutConfig(Config):
    """How the stream is shown."""

    title: str | None = live(
        default=None, max_length=200, description="Title of the page; the node's label when it is left out."
    )
    viewers: ViewersConfig = live(default_factory=ViewersConfig, description="Who may watch.")
    origins: list[str] = live(
        default_factory=list,
        max_length=100,
        description="Other web pages that may play this stream, by origin; '*' for any. The built-in page always may.",
        examples=[["https://example.org"]],
    )


class WebrtcOut(Node[WebrtcOutConfig], type="webrtc-out"):
    """Show a stream to viewers in their browsers, with a fraction of a second of delay.

    Serves a page at ``/<node>/`` and, for other players, a WHEP endpoint at ``/<node>/whep``. Takes H.264 without
    B-frames, and Opus; both are passed on as they come, so one encoder serves every viewer. A new viewer, or one that
    lost too much, makes it ask for a keyframe upstream; requests of several are joined.

    Media travels on UDP at the address where the graph serves (``serve.listen``), on the same port number when it is
    free. Viewers stay connected across reloads: what feeds this node may be replaced, the page goes on.

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
        Need("pylibsrtp"),
        Need("ifaddr"),
        Need("starlette"),
    )

    video = Input(
        EncodedPacket,
        caps=EncodedCaps(codec="h264"),
        optional=True,
        follows={"size", "extradata"},
        doc="The picture: H.264 in Annex B form with parameter sets before every keyframe, no B-frames.",
    )
    audio = Input(
        EncodedPacket,
        caps=EncodedCaps(codec="opus"),
        optional=True,
        follows={"rate", "layout", "extradata"},
        doc="The sound: Opus.",
    )

    reports = Output(
        Record[ViewerReports],
        doc="Who watches, and what each viewer says of its link: losses and round trip. For an abr-controller.",
    )

    _last: EncodedPacket | None = None
    _registry: ViewerRegistry | None = None

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
                return About(title, "video" in kinds(), "audio" in kinds(), tuple(self.config.origins))

            def report() -> None:
                ctx.report(
                    viewers=registry.watching,
                    waiting=registry.waiting or None,
                    view="paused" if registry.view.is_paused else None,
                    unsent_packets=viewers.unsent_packets or None,
                )

            def approval() -> Approval:
                asked = self.config.viewers.approval
                if asked != "auto":
                    return asked
                # Mounted in a program, whose port is not known here, it is the program that lets in.
                return "none" if port == 0 or is_loopback(host) else "token"

            feeder = Feeder(
                kinds=kinds,
                most=lambda: self.config.viewers.max,
                ask_keyframe=lambda: ctx.request(self.video, KeyframeRequest("a viewer needs one")),
                on_change=report,
                approval=approval,
            )
            app = make_app(viewers, about=about, page=page)
            async with ctx.mount(app, page=True):
                with viewers.feeding(feeder, media_ns=ctx.media_ns()):
                    report()
                    ctx.ready()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._tell_reports, ctx, viewers)
                        async for kind, packet in ctx.merge(self.video, self.audio):
                            if kind == "video":
                                self._check_order(packet)
                                viewers.send_video(packet, feeder)
                            else:
                                viewers.send_audio(packet, feeder)
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
            await ctx.sleep_until_ns(ctx.now_ns() + REPORTS_NS)

    def _check_order(self, packet: EncodedPacket) -> None:
        last, self._last = self._last, packet
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

    import flowstream_nodes.webrtc._viewers  # noqa: F401
    from flowstream_nodes.webrtc._whep import read_page

    return read_page()
