"""A WHEP player with data channels, by aiortc's SCTP, for tests and measurements."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from tests.nodes.webrtc.player import LoopbackViewer


class DataViewer(LoopbackViewer):
    """A player of a few lines that opens the channel ``flowstream`` and hears what comes on any."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[dict[str, Any]] = []
        """What came over ``flowstream``."""
        self.records: list[dict[str, Any]] = []
        self.given: list[RTCDataChannel] = []
        """The channels that the server opened."""
        self.lose_dtls: Callable[[int], bool] = lambda number: False
        self._dtls_count = 0

    def offer_data(self, *, more: str = "a=sctp-port:5000\na=max-message-size:65536\n", audio: bool = True) -> str:
        """An offer with a section for data channels."""
        text = self.offer(numbers=True, audio=audio)
        group = "a=group:BUNDLE 0 1" if audio else "a=group:BUNDLE 0"
        digest = next(f.value for f in self.certificate.getFingerprints() if f.algorithm == "sha-256")
        return (
            text.replace(group, f"{group} d")
            + f"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:d\na=ice-ufrag:{self.ufrag}\n"
            + f"a=ice-pwd:{self.password}\na=fingerprint:sha-256 {digest}\na=setup:actpass\n{more}"
        )

    async def start(self) -> None:
        """Opens the association and the channel ``flowstream``; after `connect`."""
        self.sctp = RTCSctpTransport(self.dtls, 5000)
        self.sctp.on("datachannel", self._given)
        await self.sctp.start(RTCSctpCapabilities(maxMessageSize=4096), 5000)
        self.control = self.open("flowstream")
        self.control.on("message", self._heard)

    def open(self, label: str) -> RTCDataChannel:
        """One more channel."""
        return RTCDataChannel(self.sctp, RTCDataChannelParameters(label=label))

    def say(self, **message: Any) -> None:
        """Says something over ``flowstream``."""
        self.control.send(json.dumps(message))

    def heard(self, type: str) -> list[dict[str, Any]]:
        """What came of a type."""
        return [each for each in self.said if each["type"] == type]

    async def leave(self) -> None:
        if hasattr(self, "sctp"):
            await self.sctp.stop()
        await super().leave()

    async def _recv(self) -> bytes:
        while True:
            data = await super()._recv()
            self._dtls_count += 1
            if not self.lose_dtls(self._dtls_count):
                return data

    def _heard(self, text: str) -> None:
        self.said.append(json.loads(text))
        self._news.set()

    def _given(self, channel: RTCDataChannel) -> None:
        self.given.append(channel)

        def took(text: str) -> None:
            self.records.append(json.loads(text))
            self._news.set()

        channel.on("message", took)
        self._news.set()
