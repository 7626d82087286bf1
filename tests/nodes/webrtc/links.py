"""Viewers behind emulated links, on the virtual clock: the real sender, and receivers that do what a browser does.

All of `webrtc-out` between its inputs and its socket is at work: sessions with real ICE, DTLS and SRTP, estimators,
pacers, retransmission, the choice of rungs. The socket is replaced by links of `flowstream.testing`, so that a minute
takes seconds and every run gives the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from flowstream import Caller, EncodedCaps, EncodedPacket, ViewerRegistry
from flowstream.control.tokens import TokenStore
from flowstream.proto import stun
from flowstream.proto.ice import Address, Pair
from flowstream.proto.rtcp import (
    RtcpPacket,
    SenderReport,
    is_report_alone,
    looks_like_rtcp,
    pack_compound,
    parse_compound,
)
from flowstream.proto.rtp import RtpPacket
from flowstream.testing import Change, Delivery, Link, VirtualClock
from flowstream_nodes.webrtc._mux import MOST_TAKEN, UdpMux
from flowstream_nodes.webrtc._viewers import Feeder, Viewers
from tests.nodes.webrtc.player import LoopbackViewer
from tests.nodes.webrtc.receiver import MS, NS_PER_S, Receiver, Shown, freezes_ns, name_picture

SERVER: Final[Address] = ("192.0.2.1", 5004)
FPS: Final = 30
NAMES: Final = ("high", "middle", "low")
RATES_BPS: Final = (2_500_000, 900_000, 300_000)
VIDEO: Final = EncodedCaps(codec="h264", width=1280, height=720)
SOUND: Final = EncodedCaps(codec="opus", rate=48_000, layout="stereo")
SOUND_BYTES: Final = 160  # in 20 ms: 64 kbit/s
ON_THEIR_WAY_NS: Final = 400 * MS
CHECK_NS: Final = 2_500 * MS
"""How often Chromium checks the path that it uses."""

TICK_NS: Final = 10 * MS
LOG: Final = logging.LoggerAdapter(logging.getLogger("flowstream.test"), {})


class _LinkSocket:
    """What a mux sees of a socket; what is sent to nobody's address is lost."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def sendto(self, data: bytes | memoryview, remote: Address) -> int:
        self._network.down(bytes(data), remote)
        return len(data)


class LinkMux(UdpMux):
    """A mux whose datagrams go over links, by the peer's address."""

    def __init__(self, network: Network) -> None:
        super().__init__(SERVER[0], SERVER[1], log=LOG)
        port: Any = SimpleNamespace(socket=_LinkSocket(network), address=SERVER, cuts_up=False)
        self._ports[SERVER[0]] = port
        self._now_ns = network.clock.now_ns
        self.waiting: list[tuple[bytes, Pair, int]] = []
        """Reports that have not been asked for, and when they came."""

    def arrive(self, data: bytes, pair: Pair) -> None:
        """A datagram from a viewer. As with the kernel's sockets, reports come in by themselves."""
        if not is_report_alone(data):
            self._dispatch(data, pair)
        elif self._is_held:
            self.waiting.append((data, pair, self._now_ns()))
        else:
            self._pass_on(data, pair, 0)

    def hold_reports(self, is_held: bool) -> None:
        self._is_held = is_held
        if not is_held and self.waiting:
            asyncio.get_running_loop().call_soon(self.take_reports)

    def take_reports(self) -> int:
        taken, self.waiting = self.waiting[:MOST_TAKEN], self.waiting[MOST_TAKEN:]
        for data, pair, came_ns in taken:
            self._pass_on(data, pair, self._now_ns() - came_ns)
        return len(taken)

    def take_reports_before(self, pair: Pair) -> None:
        self.take_reports()

    def candidates(self) -> list[Address]:
        return [SERVER]

    def close(self) -> None:
        self._sessions.clear()
        self._peers.clear()


class Network:
    """Links between the server and its viewers, and when what is on them arrives."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.mux = LinkMux(self)
        self.viewers: dict[Address, Watcher] = {}
        self.spoofed = 0
        self._links: dict[Link, Callable[[Delivery], None]] = {}
        self._timers: dict[Link, asyncio.TimerHandle] = {}
        self._addresses = 0

    def add(self, conditions: Mapping[str, Any], arrive: Callable[[Delivery], None], *, seed: int) -> Link:
        """A link; ``arrive`` is called with what it delivers."""
        link = Link(conditions, seed=seed)
        self._links[link] = arrive
        return link

    def draw_address(self) -> Address:
        """An address that nobody has."""
        self._addresses += 1
        return (f"198.51.{100 + self._addresses // 250}.{1 + self._addresses % 250}", 40_000 + self._addresses)

    def down(self, data: bytes, remote: Address) -> None:
        """From the server to whoever has an address now."""
        viewer = self.viewers.get(remote)
        if viewer is not None:
            self.send(viewer.aside if _is_dtls(data) else viewer.down, data, viewer)

    def send(self, link: Link, data: bytes, tag: Any) -> None:
        """Puts a datagram on a link."""
        link.send(data, self.clock.now_ns(), tag)
        self._work(link)

    def change(self, link: Link, **changes: Any) -> None:
        """Other conditions from now on."""
        link.set(self.clock.now_ns(), **changes)
        self._work(link)

    def close(self) -> None:
        """Nothing arrives any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._links.clear()

    def _work(self, link: Link) -> None:
        for delivery in link.poll(self.clock.now_ns()):
            self._links[link](delivery)
        if (timer := self._timers.pop(link, None)) is not None:
            timer.cancel()
        if link in self._links and (due_ns := link.next_ns()) is not None:
            self._timers[link] = asyncio.get_running_loop().call_at(due_ns / 1e9, self._work, link)


def _is_dtls(data: bytes) -> bool:
    """Handshakes go aside, where nothing is lost and no rate counts: signatures differ in length from run to run, and
    OpenSSL sends again by a clock of its own."""
    return 20 <= data[0] <= 63


@cache
def _certificate() -> Any:
    from aiortc.rtcdtlstransport import RTCCertificate

    return RTCCertificate.generateCertificate()


class Watcher(LoopbackViewer):
    """A viewer at the other end of two links. It takes the place of its socket itself."""

    def __init__(self, stage: VirtualStage, name: str, down: Link, up: Link) -> None:
        super().__init__()
        self.name = name
        self.address = stage.network.draw_address()
        self.down, self.up = down, up
        self.aside = stage.network.add({"delay": down.conditions.delay}, stage.arrive_down, seed=0)
        self.aside_up = stage.network.add({"delay": up.conditions.delay}, stage.arrive_up, seed=0)
        self.session: Any = None
        self.waits_ns: list[tuple[int, int]] = []
        """When each packet arrived, and how long it was on its way."""
        self._stage = stage
        self._receiver: Receiver | None = None
        self._next_check_ns = 0
        stage.network.viewers[self.address] = self

    @property
    def receiver(self) -> Receiver:
        assert self._receiver is not None, "it has joined"
        return self._receiver

    @property
    def shown(self) -> list[Shown]:
        return self.receiver.shown

    async def join(self, *, audio: bool = False) -> None:
        """Is admitted, checks the path and shakes hands."""
        from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport

        stage = self._stage
        offer = self.offer(numbers=True, audio=audio)
        admitted = stage.viewers.admit(offer, Caller(self.address[0]))
        self.session = stage.viewers.sessions[admitted.session_id]
        self.answer = answer = admitted.answer
        self.peer_ufrag = re.findall(r"a=ice-ufrag:(\S+)", answer)[0]
        self.peer_password = re.findall(r"a=ice-pwd:(\S+)", answer)[0]
        self.ssrcs = [int(ssrc) for ssrc in re.findall(r"a=ssrc:(\d+) cname", answer)]
        self._receiver = Receiver(self.ssrcs[0])
        self.send(self.request())
        await self.checked.wait()
        self.dtls = RTCDtlsTransport(self, [self.certificate])  # type: ignore[arg-type]
        self.dtls._set_role("client")
        value = re.findall(r"a=fingerprint:sha-256 (\S+)", answer)[0]
        await self.dtls.start(RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint("sha-256", value)]))
        assert self.dtls.state == "connected"
        self._next_check_ns = stage.clock.now_ns() + CHECK_NS
        stage.tasks.start_soon(self._live)
        await anyio.sleep(0.1)  # the last flight of the handshake is on its way
        assert self.session.connected

    def send(self, data: bytes) -> None:
        """One datagram to the server."""
        self._stage.network.send(self.aside_up if _is_dtls(data) else self.up, data, self)

    def send_rtcp(self, *packets: RtcpPacket, before: bytes = b"") -> None:
        self.send(self.dtls._tx_srtp.protect_rtcp(before + pack_compound(packets)))

    def move(self) -> None:
        """Its NAT gives it another address; it does not know of that."""
        network = self._stage.network
        del network.viewers[self.address]
        self.address = network.draw_address()
        network.viewers[self.address] = self

    def arrive(self, delivery: Delivery) -> None:
        """A datagram from the server."""
        data, now_ns = delivery.data, delivery.at_ns
        if stun.looks_like_stun(data):
            message = stun.Message.parse(data)
            if message.kind is stun.Class.SUCCESS and message.transaction_id in self._transactions:
                self.checked.set()
        elif 20 <= data[0] <= 63:
            self._pending.put_nowait(data)
        elif not hasattr(self, "dtls") or self.dtls.state != "connected":
            pass  # it has overtaken the end of the handshake
        elif delivery.is_duplicate:
            pass  # SRTP refuses it
        elif looks_like_rtcp(data):
            for packet in parse_compound(self.dtls._rx_srtp.unprotect_rtcp(data)):
                self.rtcp.append(packet)
                if isinstance(packet, SenderReport):
                    self.receiver.hear(packet, now_ns)
        else:
            self.waits_ns.append((now_ns, now_ns - delivery.sent_ns))
            self.receiver.take(RtpPacket.parse(self.dtls._rx_srtp.unprotect(data)), now_ns)
            self._tell(now_ns)

    async def _send(self, data: bytes) -> None:
        self.send(data)

    async def _live(self) -> None:
        while True:
            await anyio.sleep(TICK_NS / NS_PER_S)
            now_ns = self._stage.clock.now_ns()
            if now_ns >= self._next_check_ns:
                self._next_check_ns = now_ns + CHECK_NS
                self.send(self.request())
            self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        for packets in self.receiver.poll(now_ns):
            self.send_rtcp(*packets)


class Encoders:
    """Encoders of three renditions, whose pictures differ in size; a keyframe is four times as large, and comes with
    the next picture when one is asked for."""

    def __init__(self, rates_bps: Sequence[int], *, seed: int) -> None:
        self.rates_bps = rates_bps
        self.made_ns: list[int] = []
        """When each picture was made, by its number."""
        self.keyframes = 0
        self._wanted = [True] * len(rates_bps)
        self._chance = random.Random(seed)

    def ask(self, index: int) -> None:
        """The next picture of a rung is to be a keyframe."""
        self._wanted[index] = True

    def pictures(self, now_ns: int, time_ns: int) -> list[EncodedPacket]:
        """The next picture of each."""
        number = len(self.made_ns)
        self.made_ns.append(now_ns)
        made = []
        for index, rate_bps in enumerate(self.rates_bps):
            is_keyframe, self._wanted[index] = self._wanted[index], False
            self.keyframes += is_keyframe
            size = rate_bps / 8 / FPS * min(max(self._chance.gauss(1, 0.15), 0.5), 1.5) * (4 if is_keyframe else 0.97)
            head = b"\0\0\1\x67\x42\xe0\x1f\0\0\1\x65" if is_keyframe else b"\0\0\1\x41"
            data = head + name_picture(number, index) + bytes([index + 1]) * int(size)
            made.append(EncodedPacket(VIDEO, data, time_ns=time_ns, keyframe=is_keyframe))
        return made


@dataclass
class VirtualHolding:
    """A holding as the engine gives it."""

    tasks: TaskGroup
    clock: VirtualClock
    log: logging.LoggerAdapter[logging.Logger] = LOG

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def wallclock_ns(self) -> int:
        return self.clock.wallclock_ns()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        self.tasks.start_soon(function, *args)


@dataclass
class VirtualStage:
    """An output with its encoders, and the network in front of it."""

    clock: VirtualClock
    tasks: TaskGroup
    viewers: Viewers
    network: Network
    encoders: Encoders
    most: int = 100
    uplink_bps: int | None = None
    watchers: list[Watcher] = field(default_factory=list)
    feeder: Feeder = field(init=False)
    begun_ns: int = 0
    has_sound: bool = False

    def watcher(
        self, conditions: Mapping[str, Any], *, back: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Watcher:
        """A viewer behind a link of its own; ``back`` are the conditions of the way back, by default the delay of the
        way there."""
        return self.watcher_on(self.network.add(conditions, self.arrive_down, seed=seed), back, seed=seed)

    def watcher_on(self, down: Link, back: Mapping[str, Any] | None = None, *, seed: int = 0) -> Watcher:
        """A viewer whose packets come over a given link, maybe with those of others."""
        conditions = {"delay": down.conditions.delay} if back is None else back
        up = self.network.add(conditions, self.arrive_up, seed=1_000 + seed)
        watcher = Watcher(self, f"viewer {len(self.watchers) + 1}", down, up)
        self.watchers.append(watcher)
        return watcher

    @staticmethod
    def arrive_down(delivery: Delivery) -> None:
        """A datagram comes out at a viewer's end of a link."""
        delivery.tag.arrive(delivery)

    def arrive_up(self, delivery: Delivery) -> None:
        """A datagram comes out at the server, from the address that its viewer has now."""
        self.network.mux.arrive(delivery.data, Pair(SERVER, delivery.tag.address))

    async def play(self) -> None:
        """Encodes until cancelled."""
        for count in range(1 << 30):
            due_ns = self.begun_ns + count * NS_PER_S // (FPS * 5)
            await self.clock.sleep_until_ns(due_ns)
            now_ns = self.clock.now_ns()
            if count % 5 == 0:
                for index, packet in enumerate(self.encoders.pictures(now_ns, due_ns - self.begun_ns)):
                    self.viewers.send_video(packet, self.feeder, index)
            if count % 3 == 0 and self.has_sound:
                packet = EncodedPacket(SOUND, bytes(SOUND_BYTES), time_ns=due_ns - self.begun_ns)
                self.viewers.send_audio(packet, self.feeder)

    async def until(self, second: float) -> None:
        """Goes on to this time since the pictures began."""
        await self.clock.sleep_until_ns(self.begun_ns + round(second * NS_PER_S))

    def story(self, watcher: Watcher, *, since: float, until: float) -> Story:
        """What a viewer saw between two times, in seconds since the pictures began."""
        return Story.of(
            watcher.shown,
            self.encoders.made_ns,
            since_ns=self.begun_ns + round(since * NS_PER_S),
            until_ns=self.begun_ns + round(until * NS_PER_S),
        )


@dataclass(frozen=True, slots=True)
class Story:
    """What a viewer saw in a stretch of time."""

    pictures: int
    share: float
    """Of the pictures that were made, without those of the end, which may be on their way."""
    freezes: int
    frozen_s: float
    longest_s: float
    delay_p50_ms: float
    delay_p95_ms: float
    rungs: tuple[str, ...]
    """The rungs it got, each as often as it changed to it."""
    high: float
    """The share of its pictures that were of the highest rung."""

    @classmethod
    def of(cls, shown: Sequence[Shown], made_ns: Sequence[int], *, since_ns: int, until_ns: int) -> Story:
        seen = [each for each in shown if since_ns <= each.at_ns < until_ns]
        delays = sorted((each.at_ns - made_ns[each.number]) / MS for each in seen) or [float("inf")]
        freezes = freezes_ns(list(shown), since_ns=since_ns, until_ns=until_ns)
        made = {number for number, at_ns in enumerate(made_ns) if since_ns <= at_ns < until_ns - ON_THEIR_WAY_NS}
        rungs = [each.rung for each in seen]
        changes = [rung for index, rung in enumerate(rungs) if not index or rungs[index - 1] != rung]
        return cls(
            pictures=len(seen),
            share=len(made.intersection(each.number for each in seen)) / max(1, len(made)),
            freezes=len(freezes),
            frozen_s=sum(freezes) / NS_PER_S,
            longest_s=max(freezes, default=0) / NS_PER_S,
            delay_p50_ms=delays[len(delays) // 2],
            delay_p95_ms=delays[int(0.95 * (len(delays) - 1))],
            rungs=tuple(NAMES[rung] for rung in changes),
            high=rungs.count(0) / max(1, len(rungs)),
        )


@asynccontextmanager
async def open_virtual_stage(
    clock: VirtualClock,
    *,
    rates_bps: Sequence[int] = RATES_BPS,
    seed: int = 1,
    has_sound: bool = False,
    begins_in_ns: int = 0,
) -> AsyncIterator[VirtualStage]:
    """A stage whose encoders begin at once, or in a while: else pictures, and looks at the clocks, come at the same
    times now and then, one first or the other."""
    async with anyio.create_task_group() as tasks:
        holding: Any = VirtualHolding(tasks, clock)
        registry = ViewerRegistry(clock.now_ns, clock.wallclock_ns)
        network = Network(clock)
        viewers = Viewers(holding, registry, network.mux, _certificate())
        stage = VirtualStage(clock, tasks, viewers, network, Encoders(rates_bps, seed=seed), has_sound=has_sound)
        stage.feeder = Feeder(
            lambda: frozenset({"video", "audio"} if has_sound else {"video"}),
            lambda: stage.most,
            stage.encoders.ask,
            lambda: None,
            rungs=lambda: dict(enumerate(NAMES[: len(rates_bps)])),
            uplink_bps=lambda: stage.uplink_bps,
        )
        registry.attend(node=lambda: "out", tell=lambda event: None, tokens=TokenStore(None, clock.wallclock_ns))
        tasks.start_soon(viewers.tick_forever)
        stage.begun_ns = clock.now_ns() + begins_in_ns
        with viewers.feeding(stage.feeder, media_ns=0):
            tasks.start_soon(stage.play)
            try:
                yield stage
            finally:
                await viewers.close()
                network.close()
                for watcher in stage.watchers:
                    if hasattr(watcher, "dtls"):
                        await watcher.leave()
        tasks.cancel_scope.cancel()


def apply(stage: VirtualStage, links: Iterable[Link], changes: Sequence[Change]) -> None:
    """Changes of conditions at times since the pictures began."""
    loop = asyncio.get_running_loop()
    for change in changes:
        for link in links:
            at_s = (stage.begun_ns + change.at_ns) / 1e9
            loop.call_at(at_s, lambda link=link, change=change: stage.network.change(link, **change.changes))
