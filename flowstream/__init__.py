"""Live video as a graph: what programs that run graphs need, and what node authors need.

Names are loaded on first use: the command line starts without the libraries behind them.
"""

# ruff: noqa: TC004 - the imports are for checkers, which then know every name; at run time they are made on first use

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstream.api.blocking import SyncEvents, SyncFrames, SyncRun, open_sync
    from flowstream.api.events import Events, EventsMissed
    from flowstream.api.running import Authorize, Frames, Run, open
    from flowstream.api.sharing import share
    from flowstream.api.status import NodeStatus, Reason, Status, Verdict
    from flowstream.api.viewers import SyncViewers, Viewers
    from flowstream.control.door import ServeError
    from flowstream.control.socket import ControlError
    from flowstream.control.viewers import Invitation
    from flowstream.errors import (
        Diagnostic,
        EndedError,
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
    from flowstream.graph.ladder import RENDITIONS, Rendition, ladder
    from flowstream.graph.patch import Change, Patch
    from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
    from flowstream.media.encoder_stats import EncoderStats
    from flowstream.media.frames import AudioFrame, Plane, VideoFrame
    from flowstream.media.packets import EncodedPacket
    from flowstream.media.pyav import AvHeaders
    from flowstream.media.records import Record
    from flowstream.media.reports import ContentStats, ViewerReport, ViewerReports
    from flowstream.media.signals import EndOfStream, KeyframeRequest
    from flowstream.media.size import Size
    from flowstream.media.targets import Target, Targets
    from flowstream.media.time import NS_PER_S, period_ns, ticks_of, time_of
    from flowstream.node.base import Need, Node, Sink, Snapshot, Source, Transform
    from flowstream.node.capability import Capability
    from flowstream.node.config import Config, field, live
    from flowstream.node.context import AsgiApp, Context, EndOfInput, Holding, Origin
    from flowstream.node.folders import cache_folder
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
    from flowstream.runtime.audience import Caller, DoorClosed, Limit, LinkStats, Shown, View, Viewer, ViewerError
    from flowstream.runtime.cause import Cause
    from flowstream.runtime.engine import ReloadError
    from flowstream.runtime.events import (
        Applied,
        CallLeftBehind,
        Event,
        NodeFailed,
        NodeRestarted,
        NodeSlow,
        Recovered,
        Refused,
        Stalled,
        ViewerChanged,
        ViewerJoined,
        ViewerLeft,
        ViewerWaiting,
        ViewPaused,
        ViewResumed,
    )
    from flowstream.runtime.program import PROGRAM, Delivery, ProgramInput, ProgramOutput
    from flowstream.runtime.stats import EdgeStats, Fill, Latency, NodeStats, RunStats
    from flowstream.runtime.viewers import VIEWERS, Seat, ViewerRegistry

__version__ = "0.1.0"

__all__ = [
    "NS_PER_S",
    "PROGRAM",
    "RENDITIONS",
    "VIEWERS",
    "Applied",
    "AsgiApp",
    "AspectRatio",
    "AudioCaps",
    "AudioFrame",
    "Authorize",
    "AvHeaders",
    "Bitrate",
    "ByteSize",
    "CallLeftBehind",
    "Caller",
    "Capability",
    "Caps",
    "CapsConflict",
    "Cause",
    "Change",
    "Config",
    "ContentStats",
    "Context",
    "ControlError",
    "Delivery",
    "Diagnostic",
    "DoorClosed",
    "Duration",
    "EdgeStats",
    "Emit",
    "EncodedCaps",
    "EncodedPacket",
    "EncoderStats",
    "EndOfInput",
    "EndOfStream",
    "EndedError",
    "Event",
    "Events",
    "EventsMissed",
    "Fill",
    "FlowstreamError",
    "Frames",
    "FunctionNode",
    "Graph",
    "GraphEdge",
    "GraphError",
    "GraphNode",
    "GraphPort",
    "Holding",
    "Input",
    "Invitation",
    "KeyframeRequest",
    "Latency",
    "Limit",
    "LinkStats",
    "Need",
    "NegotiationError",
    "Node",
    "NodeError",
    "NodeFailed",
    "NodeRestarted",
    "NodeSlow",
    "NodeStats",
    "NodeStatus",
    "Origin",
    "Output",
    "PackError",
    "Patch",
    "PeerError",
    "Percentage",
    "PictureSize",
    "Place",
    "Plane",
    "ProgramInput",
    "ProgramOutput",
    "Reason",
    "Record",
    "Recovered",
    "Refused",
    "ReloadError",
    "Rendition",
    "ResourceBusy",
    "Run",
    "RunStats",
    "Seat",
    "ServeError",
    "Shown",
    "Sink",
    "Size",
    "Snapshot",
    "Source",
    "Stalled",
    "Status",
    "SyncEvents",
    "SyncFrames",
    "SyncRun",
    "SyncViewers",
    "Target",
    "Targets",
    "Transform",
    "Verdict",
    "VideoCaps",
    "VideoFrame",
    "View",
    "ViewPaused",
    "ViewResumed",
    "Viewer",
    "ViewerChanged",
    "ViewerError",
    "ViewerJoined",
    "ViewerLeft",
    "ViewerRegistry",
    "ViewerReport",
    "ViewerReports",
    "ViewerWaiting",
    "Viewers",
    "__version__",
    "cache_folder",
    "edge",
    "field",
    "format_aspect",
    "format_bitrate",
    "format_bytes",
    "format_duration",
    "format_percentage",
    "ladder",
    "live",
    "node",
    "open",
    "open_sync",
    "period_ns",
    "share",
    "ticks_of",
    "time_of",
]

_HOMES = {
    "flowstream.api.blocking": "SyncEvents SyncFrames SyncRun open_sync",
    "flowstream.api.events": "Events EventsMissed",
    "flowstream.api.running": "Authorize Frames Run open",
    "flowstream.api.sharing": "share",
    "flowstream.api.viewers": "SyncViewers Viewers",
    "flowstream.api.status": "NodeStatus Reason Status Verdict",
    "flowstream.control.door": "ServeError",
    "flowstream.control.socket": "ControlError",
    "flowstream.control.viewers": "Invitation",
    "flowstream.errors": "Diagnostic EndedError FlowstreamError GraphError NegotiationError NodeError "
    "PackError PeerError Place ResourceBusy",
    "flowstream.graph.builder": "Graph GraphEdge GraphNode GraphPort edge",
    "flowstream.graph.ladder": "RENDITIONS Rendition ladder",
    "flowstream.graph.patch": "Change Patch",
    "flowstream.media.caps": "AudioCaps Caps CapsConflict EncodedCaps VideoCaps",
    "flowstream.media.encoder_stats": "EncoderStats",
    "flowstream.media.frames": "AudioFrame Plane VideoFrame",
    "flowstream.media.packets": "EncodedPacket",
    "flowstream.media.pyav": "AvHeaders",
    "flowstream.media.records": "Record",
    "flowstream.media.reports": "ContentStats ViewerReport ViewerReports",
    "flowstream.media.signals": "EndOfStream KeyframeRequest",
    "flowstream.media.size": "Size",
    "flowstream.media.targets": "Target Targets",
    "flowstream.media.time": "NS_PER_S period_ns ticks_of time_of",
    "flowstream.node.base": "Need Node Sink Snapshot Source Transform",
    "flowstream.node.capability": "Capability",
    "flowstream.node.config": "Config field live",
    "flowstream.node.context": "AsgiApp Context EndOfInput Holding Origin",
    "flowstream.node.folders": "cache_folder",
    "flowstream.node.function": "FunctionNode node",
    "flowstream.node.ports": "Emit Input Output",
    "flowstream.node.quantities": "AspectRatio Bitrate ByteSize Duration Percentage PictureSize "
    "format_aspect format_bitrate format_bytes format_duration format_percentage",
    "flowstream.runtime.engine": "ReloadError",
    "flowstream.runtime.audience": "Caller DoorClosed Limit LinkStats Shown View Viewer ViewerError",
    "flowstream.runtime.viewers": "VIEWERS Seat ViewerRegistry",
    "flowstream.runtime.events": "Applied CallLeftBehind Event NodeFailed NodeRestarted NodeSlow Recovered Refused "
    "Stalled ViewPaused ViewResumed ViewerChanged ViewerJoined ViewerLeft ViewerWaiting",
    "flowstream.runtime.program": "PROGRAM Delivery ProgramInput ProgramOutput",
    "flowstream.runtime.stats": "EdgeStats Fill Latency NodeStats RunStats",
    "flowstream.runtime.cause": "Cause",
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
