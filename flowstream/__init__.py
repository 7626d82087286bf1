"""Live video as a graph: everything that a node author needs, and nothing else."""

from typing import TYPE_CHECKING, Any

from flowstream.errors import (
    Diagnostic,
    FlowstreamError,
    GraphError,
    NegotiationError,
    NodeError,
    PackError,
    PeerError,
    Place,
    ResourceBusy,
)
from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, Plane, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.media.records import Record
from flowstream.media.signals import EndOfStream, KeyframeRequest
from flowstream.media.time import NS_PER_S, period_ns, ticks_of, time_of
from flowstream.node.base import Need, Node, Sink, Source, Transform
from flowstream.node.config import Config, field, live
from flowstream.node.context import AsgiApp, Context, EndOfInput, Holding
from flowstream.node.function import FunctionNode, node
from flowstream.node.ports import Emit, Input, Output
from flowstream.node.quantities import (
    Bitrate,
    ByteSize,
    Duration,
    PictureSize,
    Size,
    format_bitrate,
    format_bytes,
    format_duration,
)

if TYPE_CHECKING:
    from flowstream.media.pyav import AvHeaders

__version__ = "0.1.0"

__all__ = [
    "NS_PER_S",
    "AsgiApp",
    "AudioCaps",
    "AudioFrame",
    "AvHeaders",
    "Bitrate",
    "ByteSize",
    "Caps",
    "CapsConflict",
    "Config",
    "Context",
    "Diagnostic",
    "Duration",
    "Emit",
    "EncodedCaps",
    "EncodedPacket",
    "EndOfInput",
    "EndOfStream",
    "FlowstreamError",
    "FunctionNode",
    "GraphError",
    "Holding",
    "Input",
    "KeyframeRequest",
    "Need",
    "NegotiationError",
    "Node",
    "NodeError",
    "Output",
    "PackError",
    "PeerError",
    "PictureSize",
    "Place",
    "Plane",
    "Record",
    "ResourceBusy",
    "Sink",
    "Size",
    "Source",
    "Transform",
    "VideoCaps",
    "VideoFrame",
    "__version__",
    "field",
    "format_bitrate",
    "format_bytes",
    "format_duration",
    "live",
    "node",
    "period_ns",
    "ticks_of",
    "time_of",
]

if not TYPE_CHECKING:  # a checker that saw it would take any name

    def __getattr__(name: str) -> Any:
        if name == "AvHeaders":  # loads PyAV, so on first use only
            from flowstream.media.pyav import AvHeaders

            return AvHeaders
        raise AttributeError(f"module 'flowstream' has no attribute {name!r}")
