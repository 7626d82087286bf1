"""A viewer's data channels: aiortc's SCTP over the session's DTLS, bounded in what it keeps and in what it costs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from flowstream.proto.sctp import MOST_STREAMS, Inbound, SctpError, examine
from flowstream.proto.sdpdata import PORT, DataSection

MOST_CHUNKS_A_SECOND: Final = 600
"""What is looked at of a viewer, and as much in one burst; the rest is as good as lost, and SCTP slows down."""

ROOM: Final = 32 * 1024
"""Bytes of messages that are not complete; also what the peer is told (RFC 9260 section 3.3.2)."""

MOST_CHANNELS: Final = 8

FIRST_STREAM: Final = 33
"""Of the channels that are opened here. Odd, as for a DTLS server (RFC 8832 section 6), and beyond those that a player
takes which counts from 0 or 1 whatever its role is."""


class Association:
    """The SCTP association of one viewer, from its DTLS handshake to its end. `ended_because` says why it ended.

    It stands between aiortc's two halves: its DTLS gives what arrives to this, which gives on what it lets pass; and
    what its SCTP sends comes by this too, so that a session that has ended is silent, and not an error. Whatever a peer
    provokes ends its data channels at most.
    """

    _role = "server"
    state = "connected"

    def __init__(
        self,
        dtls: Any,
        section: DataSection,
        *,
        now_ns: Callable[[], int],
        log: logging.LoggerAdapter[logging.Logger],
        viewer: str,
    ) -> None:
        """``dtls`` is the session's aiortc RTCDtlsTransport, ``section`` what the offer says."""
        self.ended_because: str | None = None
        self.ignored_packets: int = 0
        self.on_channel: Callable[[RTCDataChannel], None] = lambda channel: channel.close()
        """Called with each channel that the viewer opens."""
        self._dtls = dtls
        self._section = section
        self._now_ns = now_ns
        self._log = log
        self._viewer = viewer
        self._left: float = MOST_CHUNKS_A_SECOND
        self._at_ns = 0
        self._sctp: RTCSctpTransport | None = None
        self._receiver: Any = None

    @property
    def is_up(self) -> bool:
        """Whether channels can be opened."""
        return self._sctp is not None and self.ended_because is None and self._sctp.state == "connected"

    @property
    def longest_message(self) -> int | None:
        """Bytes of the longest message that the viewer takes; None for any."""
        return self._section.longest_message or None

    async def start(self) -> None:
        """The handshake of DTLS is over."""
        sctp = self._sctp = RTCSctpTransport(self, PORT)  # type: ignore[arg-type]
        sctp._inbound_streams_max = sctp._outbound_streams_count = MOST_STREAMS
        sctp._advertised_rwnd = ROOM
        sctp.on("datachannel", self._opened)
        await sctp.start(RTCSctpCapabilities(maxMessageSize=self._section.longest_message), self._section.port)
        sctp._data_channel_id = FIRST_STREAM

    async def stop(self, reason: str) -> None:
        """Ends it, and tells the peer; the first reason counts."""
        sctp, self._sctp = self._sctp, None
        if sctp is not None:
            await sctp.stop()
        self.ended_because = self.ended_because or reason

    def open(self, label: str, *, is_ordered: bool) -> RTCDataChannel:
        """A new channel to the viewer, ordered and reliable, or one on which each message is sent once."""
        assert self._sctp is not None, "whoever opens one has asked is_up"
        parameters = RTCDataChannelParameters(label=label, ordered=is_ordered, maxRetransmits=None if is_ordered else 0)
        return RTCDataChannel(self._sctp, parameters)

    def _opened(self, channel: RTCDataChannel) -> None:
        assert self._sctp is not None, "it calls this"
        if len(self._sctp._data_channels) > MOST_CHANNELS:
            channel.close()
        else:
            self.on_channel(channel)

    def _may_cost(self, chunks: int) -> bool:
        now_ns = self._now_ns()
        most = MOST_CHUNKS_A_SECOND
        self._left = min(most, self._left + max(0, now_ns - self._at_ns) * most / 1e9)
        self._at_ns = now_ns
        if self._left < chunks:
            self.ignored_packets += 1
            return False
        self._left -= chunks
        return True

    # --- what aiortc calls --------------------------------------------------------------------------------------------

    def _register_data_receiver(self, receiver: Any) -> None:
        self._receiver = receiver
        self._dtls._register_data_receiver(self)

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self._dtls._unregister_data_receiver(self)

    async def _handle_data(self, data: bytes) -> None:
        sctp = self._sctp
        if sctp is None or self.ended_because is not None:
            return
        kept = sum(len(stream.reassembly) for stream in sctp._inbound_streams.values())
        try:
            cost = examine(data, Inbound(sctp._last_received_tsn, kept))
            if not self._may_cost(cost):
                return
            await self._receiver._handle_data(data)
            if sctp._advertised_rwnd < 0:
                raise SctpError(f"messages of more than {ROOM} bytes")
        except SctpError as error:
            await self._give_up(f"it sent {error}")
        except Exception as error:  # noqa: BLE001
            # aiortc asserts what an honest peer does.
            await self._give_up(f"it sent what makes no sense: {error!r}")
        else:
            if sctp.state == "closed":
                self.ended_because = "the viewer ended it"

    async def _give_up(self, reason: str) -> None:
        self._log.info("data channels of viewer %s end: %s", self._viewer, reason)
        await self.stop(reason)

    async def _send_data(self, data: bytes) -> None:
        if self.ended_because is not None:
            return
        try:
            await self._dtls._send_data(data)
        except Exception:  # noqa: BLE001
            # The session has ended, or its DTLS is broken, which the session notices by itself.
            self.ended_because = "the connection ended"
