"""A kit for node authors: drive one node without an engine, make media, check the rules, find leaks."""

from flowstream.proto.barcode import Counter
from flowstream.testing.barcode import read_counter
from flowstream.testing.harness import FakeClock, FakeContext, Harness, Mount
from flowstream.testing.media import make_frame, make_frames, make_packet, make_packets, make_sound

__all__ = [
    "Counter",
    "FakeClock",
    "FakeContext",
    "Harness",
    "Mount",
    "make_frame",
    "make_frames",
    "make_packet",
    "make_packets",
    "make_sound",
    "read_counter",
]
