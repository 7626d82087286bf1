"""Everybody who watches one output: admits them, feeds them, and asks for keyframes on behalf of all."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from flowstream import (
    Caller,
    EncodedPacket,
    Holding,
    Limit,
    Record,
    ResourceBusy,
    Seat,
    ViewerRegistry,
    ViewerReport,
    format_bitrate,
    ticks_of,
)
from flowstream.proto.admission import Approval
from flowstream.proto.allocator import Choice
from flowstream.proto.ice import IceLite
from flowstream.proto.ice_agent import IceAgent, Path
from flowstream.proto.sdp import Kind, Stream, Transport, agree, parse_offer, write_answer
from flowstream.proto.sdpfrag import Fragment, write_fragment
from flowstream.proto.switching import Picture
from flowstream_nodes.webrtc._channels import Around, Channels, Delivery
from flowstream_nodes.webrtc._codecs import codec_of, payloads_of
from flowstream_nodes.webrtc._gathering import Gatherer, Reach
from flowstream_nodes.webrtc._layout import AccessUnit
from flowstream_nodes.webrtc._mux import UdpMux
from flowstream_nodes.webrtc._outbox import Outbox
from flowstream_nodes.webrtc._rate import RateMeter
from flowstream_nodes.webrtc._rungs import MAX_PAYLOAD, Rung, Rungs, Timeline
from flowstream_nodes.webrtc._seats import Covers, Seated
from flowstream_nodes.webrtc._session import ViewerSession
from flowstream_nodes.webrtc._unison import Chorus, Voice
from flowstream_nodes.webrtc._wakeups import Wakeups

CLOCK_RATES: Final[dict[Kind, int]] = {"video": 90_000, "audio": 48_000}

SOUND_OVERHEAD: Final = 70
"""Bytes around a packet of sound: headers, protection, UDP and IP."""

TICK_S: Final = 0.05
"""How often the sessions' clocks are looked at, but while all links carry more than enough."""

ALONG_NS: Final = 33_000_000
"""The same, while all links carry more than enough: soon after the next picture that comes later than this."""

AFTER_NS: Final = 12_000_000
"""How soon after the picture."""

PATIENCE_S: Final = 0.25
"""For so long no picture may come then."""

DECISION_NS: Final = 200_000_000
"""How often it is decided anew who gets which rung; whenever a viewer needs a keyframe, too."""

CALM_DECISION_NS: Final = 500_000_000
"""The same, while all links carry more than enough."""

MOST_REPORTS: Final = 8
"""More than a viewer has to report between two ticks."""

FLOOD_NS: Final = 5_000_000_000
"""After so many that they cannot be the viewers', reports are read as they come for so long."""

AUTO: Final = "auto"
"""What a viewer says that leaves the choice to its link."""

CLOSE_S: Final = 2.0
"""How long the end of all sessions may take."""


class NothingShownError(Exception):
    """There is nothing to watch right now: no node feeds the viewers, or they are being sent away."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a new viewer is told."""

    session_id: str
    etag: str
    answer: str


@dataclass(eq=False, slots=True)
class Feeder:
    """A node that feeds the viewers, and how it is reached.

    ``kinds`` says what it has inputs for, ``most`` how many viewers may be there, ``approval`` who may come in;
    ``ask_keyframe`` sends a request upstream by one edge of the picture, ``on_change`` is called when a count has
    changed. ``rungs`` names who gives the picture, by edge; ``uplink_bps`` is what all viewers may get together;
    ``delivery`` is how records go out, None while there are none to come.
    ``reach`` is what is known of the way to this machine from outside.
    """

    kinds: Callable[[], frozenset[Kind]]
    most: Callable[[], int]
    ask_keyframe: Callable[[int], None]
    on_change: Callable[[], None]
    approval: Callable[[], Approval] = lambda: "none"
    rungs: Callable[[], Mapping[int, str]] = lambda: {0: "video"}
    uplink_bps: Callable[[], int | None] = lambda: None
    delivery: Callable[[], Delivery | None] = lambda: None
    reach: Callable[[], Reach] = Reach


class Viewers:
    """The viewers of one output, their sockets and their certificate: what outlives the node that feeds them.

    A node feeds them inside `feeding`. At a reload there are two for a moment, the old and the new.
    """

    def __init__(self, holding: Holding, registry: ViewerRegistry, mux: UdpMux, certificate: Any) -> None:
        self.registry = registry
        self.sessions: dict[str, ViewerSession] = {}
        self._seated: dict[str, Seated] = {}
        self._covers = Covers(max_size=MAX_PAYLOAD, log=holding.log)
        self._uncovered = anyio.Event()
        self._holding = holding
        self._mux = mux
        self._gatherer = Gatherer(mux, holding, on_path=self._add_path)
        self._certificate = certificate
        self._cname = secrets.token_hex(6)
        self.rungs = Rungs()
        self._sound = Timeline(CLOCK_RATES["audio"])
        self._sound_meter = RateMeter()
        self._next_decision_ns = 0
        self._hold_again_ns = 0
        self._is_calm = False
        self._looked_ns = holding.now_ns()
        self._goes_along = False  # every clock is looked at soon after a picture has come
        self._is_asked = self._is_due = False  # a look at them soon, now
        self._woken = anyio.Event()
        self._told_unsent = 0
        self._outbox = Outbox(mux)
        self._chorus = Chorus(self._outbox, now_ns=holding.now_ns)
        self._wakeups = Wakeups(holding.now_ns, together=self._outbox.gathering)
        self._feeders: list[Feeder] = []
        self._current: dict[tuple[Kind, int], Feeder] = {}
        self._epoch_ns: int | None = None
        self._is_closing = False
        self._none_left = anyio.Event()
        self._last_delivery: Delivery | None = None
        self.channels = Channels(
            Around(holding.now_ns, holding.wallclock_ns, self._delivery, self.choose, self.quality), holding.log
        )
        registry.follow(approval=self._approval, most=self._most, on_change=self._tell_change)

    @property
    def connected(self) -> int:
        """How many are connected and may watch."""
        return self.registry.watching

    def seat(self, session_id: str) -> Seat | None:
        """The place of a session, while there is one."""
        seated = self._seated.get(session_id)
        return None if seated is None else seated.seat

    @property
    def unsent_packets(self) -> int:
        """Packets that the kernel had no room for."""
        return self._mux.unsent_packets

    @property
    def wallclock_ms(self) -> int:
        """UTC by the clock that the sender reports tell, in ms."""
        return self._holding.wallclock_ns() // 1_000_000

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Where joins and leaves are written."""
        return self._holding.log

    @contextmanager
    def feeding(self, feeder: Feeder, *, media_ns: int) -> Iterator[None]:
        """``feeder`` may send while the block lasts; ``media_ns`` is the timeline's position right now."""
        if self._epoch_ns is None:
            # One epoch for both streams and for good: what ties them together in the viewers' sender reports.
            self._epoch_ns = self._holding.wallclock_ns() - media_ns
        self._feeders.append(feeder)
        self._gatherer.follow(feeder.reach())
        self.registry.settings_changed()
        try:
            yield
        finally:
            self._feeders.remove(feeder)

    async def gathered(self) -> None:
        """Waits until it is known how to reach this machine from outside, but hardly longer than a moment."""
        await self._gatherer.settled()

    def admit(self, offer_text: str, caller: Caller) -> Admitted:
        """Answers an offer and waits for the viewer to connect, to watch or to be let in.

        Raises:
            NothingShownError: nobody feeds the viewers now.
            DoorClosed: it may not come in, or there is no place.
            SdpError: the offer cannot be answered; NothingInCommonError if for want of a format.
        """
        if self._is_closing or not self._feeders:
            raise NothingShownError("there is nothing to watch right now")
        now_ns = self._holding.now_ns()
        ticket = self.registry.knock(caller)
        kinds = frozenset[Kind]().union(*(feeder.kinds() for feeder in self._feeders))
        agreement = agree(
            parse_offer(offer_text),
            needed=kinds,
            video_codecs=self.rungs.codecs,
            profile_level_id=self.rungs.profile,
        )
        seat = self.registry.seat(ticket)
        streams = _draw_ssrcs({track.kind: track.has_rtx for track in agreement.tracks.values()})
        session = ViewerSession(
            session_id=secrets.token_urlsafe(16),
            agreement=agreement,
            streams=streams,
            certificate=self._certificate,
            cname=self._cname,
            mux=self._mux,
            outbox=self._outbox,
            wakeups=self._wakeups,
            start_bps=min((rate.bitrate_bps for rate in self.rungs.rates(now_ns=now_ns)), default=0),
            clock=self._holding,
            log=self.log,
            want_keyframe=self._want_keyframe,
            on_reached=self._prepare_for,
            on_change=seat.connected,
            make_ice=self._gatherer.make_ice,
        )
        seated = Seated(
            session,
            seat,
            self._covers,
            self._holding,
            newest=lambda: self.rungs.newest_ticks,
            rung=lambda: self._rung_name(session),
            limit=lambda: self._limit(session),
            on_uncovered=self._uncovered.set,
        )
        seat.sit(seated)
        self.channels.attend(session, seated)
        transport = self._transport(session)
        answer = write_answer(agreement, transport, streams, session_id=secrets.randbits(62), cname=self._cname)
        self.sessions[session.id] = session
        self._seated[session.id] = seated
        self._holding.start_soon(self._live, session)
        self._go_alone()
        return Admitted(session.id, session.etag, answer)

    def restart(self, session: ViewerSession, fragment: Fragment) -> str:
        """New ICE credentials for a session whose peer has new ones; gives the fragment that tells them."""
        session.restart_ice(fragment)
        return write_fragment(session.agreement, self._transport(session))

    def dismiss(self, session_id: str, reason: str = "it said goodbye") -> bool:
        """Ends one session; whether there was one."""
        session = self.sessions.get(session_id)
        if session is None:
            return False
        session.close(reason)
        # Whoever said goodbye may be back before its session has ended.
        self._seated[session_id].seat.leave(reason)
        return True

    def send_video(self, packet: EncodedPacket, feeder: Feeder, index: int = 0) -> None:
        """One access unit of a rung, to everybody who gets that rung.

        Who can play none of the rungs any more is let go: a player that comes again is told what it lacks.
        """
        if self._is_superseded(feeder, "video", index):
            return
        now_ns = self._holding.now_ns()
        rung = self.rungs.at(index)
        codec_before = rung.codec
        picture = rung.take(packet, now_ns=now_ns)
        if packet.keyframe:
            self._covers.fit(packet.caps)
            if rung.codec != codec_before:
                self._part_from_incapable()
        unit: AccessUnit | None = None
        if picture.is_keyframe:
            self._chorus.dissolve(picture.rung, now_ns=now_ns)
        elif self._chorus.takes(picture):
            unit = self._unit(packet, picture, now_ns)
            self._chorus.send("video", unit, picture, ticks=picture.ticks, now_ns=now_ns)
        with self._outbox.gathering():
            self._pass_on(packet, picture, self._seated.values(), now_ns, unit)
        self._go_along(now_ns)

    def _pass_on(
        self,
        packet: EncodedPacket,
        picture: Picture,
        to: Iterable[Seated],
        now_ns: int,
        unit: AccessUnit | None = None,
    ) -> None:
        codec, size = codec_of(packet), len(packet.data)
        for seated in to:
            session = seated.session
            if session.sender.unison is not None or not session.can_play(codec):
                continue
            ticks = seated.offer(picture, size, now_ns=now_ns)
            if ticks is None:
                continue
            if unit is None:  # once for all, and only if anybody takes it
                unit = self._unit(packet, picture, now_ns)
            session.send_picture(unit, picture, ticks=ticks, now_ns=now_ns)

    def _unit(self, packet: EncodedPacket, picture: Picture, now_ns: int) -> AccessUnit:
        return AccessUnit(
            payloads_of(packet, max_size=MAX_PAYLOAD),
            codec_of(packet),
            captured_ns=self._captured_ns(packet, now_ns),
            is_keyframe=picture.is_keyframe,
            is_droppable=picture.is_droppable,
        )

    def send_audio(self, packet: EncodedPacket, feeder: Feeder) -> None:
        """One Opus packet to everybody; it is one RTP payload (RFC 7587)."""
        if self._is_superseded(feeder, "audio"):
            return
        ticks = self._sound.advance(packet.time_ns)
        now_ns = self._holding.now_ns()
        self._sound_meter.add(len(packet.data) + SOUND_OVERHEAD, now_ns=now_ns)
        unit = AccessUnit((packet.data,), "opus", captured_ns=self._captured_ns(packet, now_ns))
        self._chorus.send("audio", unit, None, ticks=ticks, now_ns=now_ns)
        with self._outbox.gathering():
            for session in self.sessions.values():
                unison = session.sender.unison
                if unison is None or not unison.has("audio"):
                    session.send_sound(unit, ticks=ticks, now_ns=now_ns)

    def send_record(self, record: Record[Any], node: str) -> None:
        """A record of a node, to everybody who has data channels and may have it."""
        assert self._epoch_ns is not None, "nothing is sent before somebody feeds"
        captured_ns = self._captured_ns(record, self._holding.now_ns())
        self.channels.send(record, node, at_ns=self._epoch_ns + record.time_ns, captured_ns=captured_ns)

    def reports(self) -> tuple[ViewerReport, ...]:
        """What is known of the links of those who are connected and may watch, and what they get."""
        there = [seated for seated in self._seated.values() if seated.session.connected and seated.seat.is_admitted]
        return tuple(
            replace(
                seated.session.report(self._rung_name(seated.session)),
                viewer=seated.seat.viewer,
                cap_bps=seated.seat.shown.cap_bps,
            )
            for seated in there
        )

    @property
    def rungs_text(self) -> str:
        """How many viewers get which rendition, where there are several: ``high 3, low 7, none 1``."""
        if sum(1 for _ in self.rungs) < 2:
            return ""
        counts = Counter(self._rung_name(session) or "none" for session in self.sessions.values() if session.connected)
        names = [rung.name for rung in self.rungs] + ["none"]
        return ", ".join(f"{name} {counts[name]}" for name in names if counts[name])

    @property
    def limited_by(self) -> str | None:
        """What keeps viewers from more, where that is what all of them share: the uplink."""
        held = sum(
            session.choice is not None and session.choice.reason == "uplink" for session in self.sessions.values()
        )
        found_bps, uplink_bps = self.rungs.found_bps, self._uplink_bps
        if not held or (found_bps is None and uplink_bps is None):
            return None
        said = format_bitrate(uplink_bps) if found_bps is None and uplink_bps is not None else None
        uplink = f"the uplink of {said}" if said else f"the uplink, found to carry {(found_bps or 0) / 1e6:.1f} Mbit/s,"
        return f"{uplink} has no more for {held} viewer{'s' if held > 1 else ''}"

    @property
    def _uplink_bps(self) -> int | None:
        return self._feeders[-1].uplink_bps() if self._feeders else None

    def choose(self, session: ViewerSession, wanted: str) -> None:
        """The viewer wants the rung of this name while its link carries it, or the best (``auto``).

        Raises:
            LookupError: there is no such rung.
        """
        rung = next((each for each in self.rungs if each.name == wanted), None)
        if rung is None and wanted != AUTO:
            names = ", ".join([AUTO, *(each.name for each in self.rungs)])
            raise LookupError(f"There is no quality {wanted[:40]!r}, but {names}")
        session.chosen = None if rung is None else rung.key
        self._decide()

    def quality(self, session: ViewerSession) -> dict[str, object]:
        """What a viewer gets of what there is, and why not more, as it is told."""
        chosen, choice = self.rungs.find(session.chosen), session.choice
        rates = {rate.name: rate.bitrate_bps for rate in self.rungs.rates(now_ns=self._holding.now_ns())}
        return {
            "chosen": AUTO if chosen is None else chosen.name,
            "rung": self._rung_name(session),
            "why": None if choice is None else self._why(choice),
            "rungs": [
                {
                    "name": rung.name,
                    "size": None if rung.size is None else str(rung.size),
                    "bitrate": rates.get(rung.key) if rung.meter.bps else None,
                }
                for rung in self.rungs
            ],
        }

    async def tick_forever(self) -> None:
        """Looks at every clock from time to time; runs as long as the viewers are held."""
        while True:
            if self._goes_along:
                await self._look_along()
            if self._holding.now_ns() - self._looked_ns >= ALONG_NS:
                self._look_around()
            await anyio.sleep(TICK_S)

    async def _look_along(self) -> None:
        """Looks when it is due after a picture; where none comes for a while it is over."""
        with anyio.CancelScope() as patience:
            while self._goes_along:
                patience.deadline = anyio.current_time() + PATIENCE_S
                await self._woken.wait()
                self._woken = anyio.Event()
                is_due, self._is_due = self._is_due, False
                if is_due:
                    self._look_around()
                self._goes_along = is_due and self._is_calm
        self._goes_along = False

    def _go_along(self, now_ns: int) -> None:
        """While nothing depends on it, clocks are looked at soon after a picture and not at times of their own: what
        has just been used is in the processor's caches still, and who watches on this machine has had the picture."""
        is_time = self._is_calm and now_ns - self._looked_ns >= ALONG_NS
        if is_time and not self._is_asked and not self._is_closing:
            self._is_asked = True
            self._wakeups.ask(self._note_due, now_ns + AFTER_NS, now_ns=now_ns)

    def _note_due(self, now_ns: int) -> None:
        self._is_asked = False
        if self._is_calm:
            self._is_due = self._goes_along = True
            self._woken.set()

    def _go_alone(self) -> None:
        """From now on every clock is looked at often, whether pictures come or not."""
        self._is_calm = False
        if self._goes_along:
            self._woken.set()

    def _look_around(self) -> None:
        self._tick()
        self._poll_requests()
        if self.unsent_packets != self._told_unsent:
            self._told_unsent = self.unsent_packets
            self._tell_change()

    async def cover_forever(self) -> None:
        """Makes black pictures when they are wanted; runs as long as the viewers are held."""
        while True:
            await self._uncovered.wait()
            self._uncovered = anyio.Event()
            if await self._covers.make():
                for seated in list(self._seated.values()):
                    seated.cover()

    def _tick(self) -> None:  # by itself: what the loop has looked at last is not kept until the next time
        self._chorus.put_down()
        taken = self._mux.take_reports()
        now_ns = self._looked_ns = self._holding.now_ns()
        if now_ns >= self._next_decision_ns:
            self._decide()
        rates = [rate.bitrate_bps for rate in self.rungs.rates(now_ns=now_ns)]
        stream_bps, least_bps = max(rates, default=0), min(rates, default=0)
        for session in list(self.sessions.values()):
            session.tick(
                now_ns=now_ns,
                ticks_at=self._ticks_at,
                stream_bps=stream_bps,
                least_bps=least_bps,
                share_bps=self.rungs.share_bps(session),
            )
            self._seated[session.id].cover()
        self._hold_reports(taken, now_ns)
        self.channels.tick(now_ns=now_ns)
        self.registry.tick()
        self._chorus.keep()
        self._chorus.gather(self._voices(), now_ns=now_ns)

    def _voices(self) -> Iterator[Voice]:
        """Those of all who get the next picture of a rung, and are looked after by themselves so far."""
        rungs = {rung.key: rung for rung in self.rungs}
        for seated in self._seated.values():
            rung = rungs.get(seated.session.switch.current or "")
            is_alone = seated.session.sender.unison is None
            if not is_alone or rung is None or rung.codec is None or seated.is_capped:
                continue
            voice = seated.session.voice(
                rung.key,
                rung.number + 1,
                codec=rung.codec,
                size=rung.picture_bytes,
                after_ticks=-1 if rung.timeline.last is None else rung.timeline.last,
            )
            if voice is not None:
                yield voice

    def _hold_reports(self, taken: int, now_ns: int) -> None:
        """Whether reports wait for the next tick: while nothing depends on them, and nobody sends so many of them that
        there might be no room for those that count."""
        if taken > MOST_REPORTS * (len(self.sessions) + 1):
            self._hold_again_ns = now_ns + FLOOD_NS
        others = [session for session in self.sessions.values() if not session.is_calm]
        can_wait = all(session.reports_can_wait for session in others)
        self._mux.hold_reports(can_wait and now_ns >= self._hold_again_ns)
        self._is_calm = not others
        if not self._is_calm:
            self._next_decision_ns = min(self._next_decision_ns, now_ns + DECISION_NS)

    async def close(self) -> None:
        """Says goodbye to everybody and closes the sockets."""
        self._is_closing = True
        for session in self.sessions.values():
            session.close("the stream's server stopped")
        if self.sessions:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._none_left.wait()
        self._wakeups.close()
        await self._gatherer.close()
        self._mux.close()

    async def _live(self, session: ViewerSession) -> None:
        try:
            await session.run()
        finally:
            del self.sessions[session.id]
            self.channels.forget(session.id)
            self._seated.pop(session.id).seat.leave(session.closed_because or "it ended")
            if self._is_closing and not self.sessions:
                self._none_left.set()

    def _part_from_incapable(self) -> None:
        codecs = self.rungs.codecs
        for session in list(self.sessions.values()) if codecs else ():
            if "video" in session.streams and not any(session.can_play(codec) for codec in codecs):
                session.close(f"the stream is {' or '.join(codecs)} now, which it does not play")

    def _transport(self, session: ViewerSession) -> Transport:
        fingerprint = next(f for f in self._certificate.getFingerprints() if f.algorithm == "sha-256")
        return Transport(
            ufrag=session.ice.ufrag,
            password=session.password,
            fingerprint=(fingerprint.algorithm, fingerprint.value),
            candidates=self._gatherer.candidates(),
            is_lite=isinstance(session.ice, IceLite),
        )

    def _add_path(self, path: Path) -> None:
        for session in self.sessions.values():
            if isinstance(session.ice, IceAgent):
                session.ice.add_paths((path,))

    def _is_superseded(self, feeder: Feeder, kind: Kind, index: int = 0) -> bool:
        """Whether a newer node has begun to send: the tail of the old one would only spoil its keyframe."""
        current = self._current.get((kind, index))
        if current in self._feeders and self._feeders.index(current) > self._feeders.index(feeder):
            return True
        self._current[kind, index] = feeder
        return False

    def _delivery(self) -> Delivery | None:
        if self._feeders:  # between two nodes it stays as it was
            self._last_delivery = self._feeders[-1].delivery()
        return self._last_delivery

    def _approval(self) -> Approval:
        return self._feeders[-1].approval() if self._feeders else "manual"

    def _most(self) -> int:
        return self._feeders[-1].most() if self._feeders and not self._is_closing else 0

    def _tell_change(self) -> None:
        for feeder in self._feeders:
            feeder.on_change()

    def _decide(self) -> None:
        """Who gets what from now on."""
        names: dict[int, str] = {}
        for feeder in self._feeders:
            names |= feeder.rungs()
        if names:
            self.rungs.follow(names)
        if self._feeders:
            self._gatherer.follow(self._feeders[-1].reach())
        watching = [session for session in self.sessions.values() if session.connected]
        now_ns = self._holding.now_ns()
        self._next_decision_ns = now_ns + (CALM_DECISION_NS if self._is_calm else DECISION_NS)
        self.rungs.decide(
            watching,
            uplink_bps=self._uplink_bps,
            sound_bps=self._beside_bps(now_ns),
            now_ns=now_ns,
        )
        for session in watching:
            rung = self.rungs.find(session.switch.needs_keyframe) if session.wants_keyframe else None
            if rung is not None and not self._begin_with_recent(session, rung):
                rung.requests.want()

    def _prepare_for(self, session: ViewerSession) -> None:
        """Has a keyframe made that is there when the viewer's handshake has ended."""
        now_ns = self._holding.now_ns()
        rung = self.rungs.first_for(session, now_ns=now_ns)
        if rung is not None and self._seated[session.id].seat.is_admitted and not rung.is_fresh(now_ns=now_ns):
            rung.requests.want()
            self._poll_requests()

    def _want_keyframe(self, session: ViewerSession) -> None:
        has_seen = session.streams["video"].packets_sent > 0
        self._decide()
        key = session.switch.needs_keyframe or session.switch.current
        if has_seen and (rung := self.rungs.find(key)) is not None:
            rung.requests.want()
        self._poll_requests()

    def _begin_with_recent(self, session: ViewerSession, rung: Rung) -> bool:
        """Sends a viewer who has seen nothing yet the last keyframe and what came after it, if that was just now."""
        now_ns = self._holding.now_ns()
        if session.streams["video"].packets_sent or not session.awaits_keyframe or not rung.is_fresh(now_ns=now_ns):
            return False
        for packet, picture in rung.recent:
            self._pass_on(packet, picture, (self._seated[session.id],), now_ns)
        return session.switch.needs_keyframe is None

    def _poll_requests(self) -> None:
        feeders = [feeder for feeder in self._feeders if "video" in feeder.kinds()]
        now_ns = self._holding.now_ns()
        for rung in self.rungs:
            if feeders and rung.requests.poll(now_ns=now_ns):
                for feeder in feeders:
                    feeder.ask_keyframe(rung.index)

    def _why(self, choice: Choice) -> str:
        rung = self.rungs.find(choice.rung)
        named = choice if rung is None else replace(choice, rung=rung.name)
        return named.why(uplink_bps=None if self.rungs.found_bps is not None else self._uplink_bps)

    def _limit(self, session: ViewerSession) -> Limit | None:
        now_ns = self._holding.now_ns()
        return self.rungs.limit(session, uplink_bps=self._uplink_bps, sound_bps=self._beside_bps(now_ns), now_ns=now_ns)

    def _beside_bps(self, now_ns: int) -> int:
        """What goes to a viewer beside the picture."""
        return self._sound_meter.bps_at(now_ns) + self.channels.bps_at(now_ns)

    def _rung_name(self, session: ViewerSession) -> str | None:
        rung = self.rungs.find(session.switch.current)
        return None if rung is None else rung.name

    def _captured_ns(self, packet: EncodedPacket | Record[Any], now_ns: int) -> int | None:
        """When what a packet shows, or a record tells of, was captured, in UTC."""
        if packet.capture_ns is None:
            return None
        return self._holding.wallclock_ns() - (now_ns - packet.capture_ns)

    def _ticks_at(self, kind: Kind, wallclock_ns: int) -> int:
        assert self._epoch_ns is not None, "nothing is sent before somebody feeds"
        return ticks_of(wallclock_ns - self._epoch_ns, CLOCK_RATES[kind])


@asynccontextmanager
async def open_viewers(holding: Holding, registry: ViewerRegistry, *, host: str, port: int) -> AsyncIterator[Viewers]:
    """Binds the sockets and makes the certificate; ends every session on the way out.

    Raises:
        ResourceBusy: no address can be bound.
    """
    from aiortc.rtcdtlstransport import RTCCertificate

    mux = UdpMux(host, port, log=holding.log)
    try:
        await mux.open()
    except OSError as error:
        raise ResourceBusy(f"viewers cannot be served on UDP at {host}: {error}") from error
    viewers = Viewers(holding, registry, mux, RTCCertificate.generateCertificate())
    try:
        holding.start_soon(viewers.tick_forever)
        holding.start_soon(viewers.cover_forever)
        yield viewers
    finally:
        await viewers.close()


def _draw_ssrcs(kinds: dict[Kind, bool]) -> dict[Kind, Stream]:
    """Distinct synchronization sources for each kind, a second one where its packets can be sent again."""
    drawn: set[int] = set()

    def draw() -> int:
        while (ssrc := secrets.randbits(32)) in drawn or ssrc == 0:
            pass
        drawn.add(ssrc)
        return ssrc

    return {kind: Stream(draw(), draw() if has_rtx else None) for kind, has_rtx in kinds.items()}
