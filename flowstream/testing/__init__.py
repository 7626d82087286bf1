"""A kit for node authors: drive one node without an engine, make media, check the rules, find leaks."""

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
    "check_node",
    "encode_pictures",
    "encode_sound",
    "graph_of",
    "make_frame",
    "make_frames",
    "make_packet",
    "make_packets",
    "make_sound",
    "make_sounds",
    "read_counter",
    "run_virtual",
    "udp_link",
    "units_of",
]
