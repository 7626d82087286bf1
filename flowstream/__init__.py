"""Live video as a graph: everything that a node author needs, and nothing else.

Names are loaded on first use: the command line starts without the libraries behind them.
"""

# ruff: noqa: TC004 - the imports are for checkers, which then know every name; at run time they are made on first use

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from flowstream.graph.builder import Graph, GraphEdge, GraphNode, GraphPort, edge
    from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
    from flowstream.media.frames import AudioFrame, Plane, VideoFrame
    from flowstream.media.packets import EncodedPacket
    from flowstream.media.pyav import AvHeaders
    from flowstream.media.records import Record
    from flowstream.media.signals import EndOfStream, KeyframeRequest
    from flowstream.media.size import Size
    from flowstream.media.targets import Target, Targets
    from flowstream.media.time import NS_PER_S, period_ns, ticks_of, time_of
    from flowstream.node.base import Need, Node, Sink, Snapshot, Source, Transform
    from flowstream.node.config import Config, field, live
    from flowstream.node.context import AsgiApp, Context, EndOfInput, Holding
    from flowstream.node.function import FunctionNode, node
    from flowstream.node.ports import Emit, Input, Output
    from flowstream.node.quantities import (
        AspectRatio,
        Bitrate,
        ByteSize,
        Duration,
        Percentage,
        PictureSize,
        format_aspect,
        format_bitrate,
        format_bytes,
        format_duration,
        format_percentage,
    )

__version__ = "0.1.0"

__all__ = [
    "NS_PER_S",
    "AsgiApp",
    "AspectRatio",
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
    "Graph",
    "GraphEdge",
    "GraphError",
    "GraphNode",
    "GraphPort",
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
    "Percentage",
    "PictureSize",
    "Place",
    "Plane",
    "Record",
    "ResourceBusy",
    "Sink",
    "Size",
    "Snapshot",
    "Source",
    "Target",
    "Targets",
    "Transform",
    "VideoCaps",
    "VideoFrame",
    "__version__",
    "edge",
    "field",
    "format_aspect",
    "format_bitrate",
    "format_bytes",
    "format_duration",
    "format_percentage",
    "live",
    "node",
    "period_ns",
    "ticks_of",
    "time_of",
]

_HOMES = {
    "flowstream.errors": "Diagnostic FlowstreamError GraphError NegotiationError NodeError "
    "PackError PeerError Place ResourceBusy",
    "flowstream.graph.builder": "Graph GraphEdge GraphNode GraphPort edge",
    "flowstream.media.caps": "AudioCaps Caps CapsConflict EncodedCaps VideoCaps",
    "flowstream.media.frames": "AudioFrame Plane VideoFrame",
    "flowstream.media.packets": "EncodedPacket",
    "flowstream.media.pyav": "AvHeaders",
    "flowstream.media.records": "Record",
    "flowstream.media.signals": "EndOfStream KeyframeRequest",
    "flowstream.media.size": "Size",
    "flowstream.media.targets": "Target Targets",
    "flowstream.media.time": "NS_PER_S period_ns ticks_of time_of",
    "flowstream.node.base": "Need Node Sink Snapshot Source Transform",
    "flowstream.node.config": "Config field live",
    "flowstream.node.context": "AsgiApp Context EndOfInput Holding",
    "flowstream.node.function": "FunctionNode node",
    "flowstream.node.ports": "Emit Input Output",
    "flowstream.node.quantities": "AspectRatio Bitrate ByteSize Duration Percentage PictureSize "
    "format_aspect format_bitrate format_bytes format_duration format_percentage",
}


class _Package(ModuleType):
    """The package itself: resolves public names when they are asked for.

    The decorator ``node`` shares its name with the subpackage ``flowstream.node``, which importing that would put in
    its place.
    """

    _modules = {name: module for module, names in _HOMES.items() for name in names.split()}

    def __getattr__(self, name: str) -> Any:
        module = self._modules.get(name)
        if module is None:
            raise AttributeError(f"module 'flowstream' has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        vars(self)[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *__all__})

    @property
    def node(self) -> Any:
        return self.__getattr__("node")

    @node.setter
    def node(self, _: ModuleType) -> None:
        """The import system announces the subpackage; ``sys.modules`` has it all the same."""


if not TYPE_CHECKING:  # a checker that saw it would take any name
    sys.modules[__name__].__class__ = _Package
