"""A kit for node authors: drive one node without an engine, make media, check the rules, find leaks.

Names are loaded on first use: pytest loads the plugin in every project of an environment.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstream.proto.barcode import Counter
    from flowstream.testing.barcode import read_counter
    from flowstream.testing.clock import VirtualClock, run_virtual
    from flowstream.testing.conformance import ConformanceError, check_node, graph_of
    from flowstream.testing.context import FakeContext, Mount
    from flowstream.testing.encoded import encode_pictures, encode_sound, units_of
    from flowstream.testing.fake_clock import FakeClock
    from flowstream.testing.harness import Harness
    from flowstream.testing.leaks import Open
    from flowstream.testing.link import Change, Delivery, Link, LinkConditions
    from flowstream.testing.media import make_frame, make_frames, make_packet, make_packets, make_sound, make_sounds
    from flowstream.testing.recordings import assert_recorded, gives, payloads_of, record_graph
    from flowstream.testing.relay import UdpLink, udp_link
    from flowstream.testing.script import Emission, End, Expect, Give, Reconfigure, Replace, Request, Step

__all__ = [
    "Change",
    "ConformanceError",
    "Counter",
    "Delivery",
    "Emission",
    "End",
    "Expect",
    "FakeClock",
    "FakeContext",
    "Give",
    "Harness",
    "Link",
    "LinkConditions",
    "Mount",
    "Open",
    "Reconfigure",
    "Replace",
    "Request",
    "Step",
    "UdpLink",
    "VirtualClock",
    "assert_recorded",
    "check_node",
    "encode_pictures",
    "encode_sound",
    "gives",
    "graph_of",
    "make_frame",
    "make_frames",
    "make_packet",
    "make_packets",
    "make_sound",
    "make_sounds",
    "payloads_of",
    "read_counter",
    "record_graph",
    "run_virtual",
    "udp_link",
    "units_of",
]

_HOMES = {
    "flowstream.proto.barcode": "Counter",
    "flowstream.testing.barcode": "read_counter",
    "flowstream.testing.clock": "VirtualClock run_virtual",
    "flowstream.testing.conformance": "ConformanceError check_node graph_of",
    "flowstream.testing.context": "FakeContext Mount",
    "flowstream.testing.encoded": "encode_pictures encode_sound units_of",
    "flowstream.testing.fake_clock": "FakeClock",
    "flowstream.testing.harness": "Harness",
    "flowstream.testing.leaks": "Open",
    "flowstream.testing.link": "Change Delivery Link LinkConditions",
    "flowstream.testing.media": "make_frame make_frames make_packet make_packets make_sound make_sounds",
    "flowstream.testing.recordings": "assert_recorded gives payloads_of record_graph",
    "flowstream.testing.relay": "UdpLink udp_link",
    "flowstream.testing.script": "Emission End Expect Give Reconfigure Replace Request Step",
}

if not TYPE_CHECKING:  # a checker that saw it would take any name
    _MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
