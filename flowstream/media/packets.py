"""Encoded media on an edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstream.media.caps import EncodedCaps

if TYPE_CHECKING:
    from av.packet import Packet as AvPacket


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """One access unit or one audio packet: at least one byte, never modified.

    ``time_ns`` is its presentation time on the graph's timeline, ``decode_ns`` its decoding time (the same when
    None: no reordering). ``capture_ns`` is the now at which the picture or sound was captured, carried through the
    encoder; None where nobody captured it. ``keyframe`` is true when it can be decoded on its own.
    h264 and hevc are Annex B with parameter sets before every keyframe. ``temporal_layer`` is 0 for a picture that all
    later ones may build on; those of a higher layer can be left out, with all above it, and the rest still decodes.
    None where the stream has no layers.
    """

    caps: EncodedCaps
    data: bytes
    time_ns: int
    keyframe: bool = True
    decode_ns: int | None = None
    duration_ns: int | None = None
    capture_ns: int | None = None
    temporal_layer: int | None = None

    @property
    def is_droppable(self) -> bool:
        """Whether no picture of a lower temporal layer builds on this one."""
        return bool(self.temporal_layer)

    @property
    def size_bytes(self) -> int:
        """Bytes of payload, for limits."""
        return len(self.data)

    @property
    def is_video(self) -> bool:
        """Whether this is a picture."""
        return self.caps.is_video

    def to_av(self) -> AvPacket[Any]:
        """A PyAV packet of the same bytes; pts and dts in nanoseconds. Raises ImportError without PyAV."""
        from flowstream.media import pyav

        return pyav.packet_to_av(self)

    @classmethod
    def from_av(
        cls,
        packet: Any,
        *,
        caps: EncodedCaps,
        time_ns: int,
        decode_ns: int | None = None,
        capture_ns: int | None = None,
    ) -> EncodedPacket:
        """The bytes and keyframe flag of a PyAV packet, at ``time_ns``."""
        from flowstream.media import pyav

        return pyav.packet_from_av(packet, caps=caps, time_ns=time_ns, decode_ns=decode_ns, capture_ns=capture_ns)
