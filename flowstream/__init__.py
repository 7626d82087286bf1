"""Live video as a graph: everything that a node author needs, and nothing else."""

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

__version__ = "0.1.0"

__all__ = [
    "NS_PER_S",
    "AsgiApp",
    "AudioCaps",
    "AudioFrame",
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
