"""Between the registry of viewers and their sessions: what each may send, and what there is in its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio.to_thread

from flowstream import EncodedCaps, Limit, LinkStats, Seat, Shown
from flowstream.proto.admission import RateCap
from flowstream.proto.sdp import Kind
from flowstream.proto.switching import Picture
from flowstream_nodes.webrtc._cover import SIZE, cover
from flowstream_nodes.webrtc._session import ViewerSession

COVER_NS: Final = 1_000_000_000
"""How often the black picture is sent again: it may have been lost, and somebody may have come."""

_EVERYTHING: Final[frozenset[Kind]] = frozenset({"video", "audio"})


class Clock(Protocol):
    """Monotonic time."""

    def now_ns(self) -> int:
        """In ns."""


class Covers:
    """Black pictures, made on a thread when they are first wanted."""

    def __init__(self, *, max_size: int, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._max_size = max_size
        self._log = log
        self._size = SIZE
        self._payloads: dict[tuple[int, int], list[bytes]] = {}
        self._is_wanted = False

    def fit(self, caps: EncodedCaps) -> None:
        """The stream's pictures are like this."""
        width, height = caps.width, caps.height
        self._size = (width, height) if isinstance(width, int) and isinstance(height, int) else SIZE

    def get(self) -> Sequence[bytes] | None:
        """The payloads of one that fits; None while there is none, which asks for it."""
        found = self._payloads.get(self._size)
        self._is_wanted |= found is None
        return found

    async def make(self) -> bool:
        """Makes the one that was asked for; whether there is a new one."""
        if not self._is_wanted:
            return False
        self._is_wanted = False
        size = self._size
        try:
            payloads = await anyio.to_thread.run_sync(lambda: cover(*size, max_size=self._max_size))
        except (OSError, ValueError) as error:  # the encoder takes no such size
            self._log.warning("there is no black picture of %dx%d: %s", *size, error)
            payloads = []
        if len(self._payloads) >= 8:
            self._payloads.clear()
        self._payloads[size] = payloads
        return True


class Seated:
    """A session in its seat: keeps to what its viewer may be shown. It is what the registry calls a `Sitting`."""

    def __init__(
        self,
        session: ViewerSession,
        seat: Seat,
        covers: Covers,
        clock: Clock,
        *,
        newest: Callable[[], int | None],
        rung: Callable[[], str | None],
        limit: Callable[[], Limit | None],
        on_uncovered: Callable[[], object],
    ) -> None:
        """``newest`` gives the position of the stream's last picture on its timeline, in ticks.

        ``rung`` gives the name of the rendition that goes out, ``limit`` what keeps it from a better one;
        ``on_uncovered`` is called when a black picture is due and there is none yet.
        """
        self.session = session
        self.seat = seat
        self._covers = covers
        self._clock = clock
        self._newest = newest
        self._rung = rung
        self._limit = limit
        self._on_uncovered = on_uncovered
        self._shown = Shown("none", False)
        self._cap: RateCap | None = None
        self._covered_ns: int | None = None
        self._last_ticks: int | None = None
        session.withhold(_EVERYTHING)

    # --- what the registry asks for -----------------------------------------------------------------------------------

    def show(self, shown: Shown) -> None:
        """From now on this is what it may send; a black picture goes out at once."""
        was, self._shown = self._shown, shown
        withheld: set[Kind] = set()
        if shown.picture != "live":
            withheld.add("video")
        if not shown.sound:
            withheld.add("audio")
        self.session.withhold(frozenset(withheld))
        self.session.priority = shown.priority
        if self._cap is None or self._cap.rate_bps != shown.cap_bps:
            self._cap = None if shown.cap_bps is None else RateCap(shown.cap_bps)
            self.session.cap_bps = shown.cap_bps
        if shown.picture == "black" and was.picture != "black":
            self._covered_ns = None
            self.cover()

    @property
    def is_capped(self) -> bool:
        """Whether it counts what goes to it."""
        return self._cap is not None

    @property
    def may_have_records(self) -> bool:
        """Whether anything of the stream may go to it now."""
        return self._shown.picture == "live" or self._shown.sound

    def close(self, reason: str) -> None:
        """Ends the session."""
        self.session.close(reason)

    def stats(self) -> LinkStats:
        """What its receiver reports tell (RFC 3550 section 6.4.1)."""
        streams = self.session.streams
        stream = streams.get("video") or next(iter(streams.values()))
        block, round_trip_ns = stream.last_report, self.session.round_trip_ns
        return LinkStats(
            sent_bytes=self.session.sent_bytes,
            loss=block.fraction_lost / 256 if block is not None else None,
            rtt_ms=round_trip_ns / 1e6 if round_trip_ns else None,
            rung=self._rung(),
            limit=self._limit(),
        )

    # --- what the stream's pictures meet ------------------------------------------------------------------------------

    def offer(self, picture: Picture, size: int, *, now_ns: int) -> int | None:
        """The position on the timeline at which a picture of ``size`` bytes goes to this viewer, None if not."""
        session, cap = self.session, self._cap
        if cap is None or session.choice is None or session.choice.rung != picture.rung:
            return session.offer(picture)
        if cap.passes(is_keyframe=picture.is_keyframe, now_ns=now_ns):
            ticks = session.offer(picture)
            if ticks is not None:
                cap.spend(size)
            return ticks
        if cap.is_holding:
            session.awaits_keyframe = True
            if cap.wants_keyframe:
                session.ask_keyframe()
        return None

    def cover(self) -> None:
        """Sends the black picture, if it is due."""
        if self._shown.picture != "black" or not self.session.connected:
            return
        now_ns = self._clock.now_ns()
        if self._covered_ns is not None and now_ns - self._covered_ns < COVER_NS:
            return
        payloads = self._covers.get()
        if payloads is None:
            self._on_uncovered()
            return
        self._covered_ns = now_ns
        # Between the last picture of the stream and its next one, and after the last black one.
        ticks = (self._newest() or 0) + 1
        if self._last_ticks is not None:
            ticks = max(ticks, self._last_ticks + 1)
        self._last_ticks = ticks
        if payloads:
            self.session.send_cover(payloads, ticks=ticks, now_ns=now_ns)
