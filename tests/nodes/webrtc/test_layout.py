"""What viewers of the same payloads share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream_nodes.webrtc._layout import Layouts, evens


@given(st.lists(st.integers(1, 5), max_size=30))
def test_what_is_cut_up_again_is_what_was_there(sizes: list[int]) -> None:
    found: list[int] = []
    position = 0
    for start, stop, size, packets in evens(sizes):
        assert start == position
        pieces = [min(size, stop - begin) for begin in range(start, stop, size)]
        assert len(pieces) == packets
        found += pieces
        position = stop
    assert found == sizes


def test_pieces_are_few() -> None:
    assert [each.packets for each in evens([9, 9, 9, 4, 9, 9, 10, 10])] == [4, 2, 2]


def test_a_layout_has_the_payloads_in_place_and_is_worked_out_once() -> None:
    layouts = Layouts()
    payloads = [b"aaaa", b"bbbb", b"cc"]
    layout = layouts.layout(payloads, 1, 3, header=3, trailer=2, overhead=28)
    assert layout.template == bytes(3) + b"bbbb" + bytes(2) + bytes(3) + b"cc" + bytes(2)
    assert (layout.offsets, layout.lengths, layout.on_the_wire) == ((0, 9), [7, 5], [37, 35])
    assert (layout.payloads, layout.payload_bytes) == ([b"bbbb", b"cc"], 6)
    assert layouts.layout(payloads, 1, 3, header=3, trailer=2, overhead=28) is layout
    assert layouts.layout(payloads, 1, 3, header=4, trailer=2, overhead=28) is not layout
    assert layouts.layout(list(payloads), 1, 3, header=3, trailer=2, overhead=28) is not layout
    assert layouts.sizes(payloads, 10) == ([14, 14, 12], 40)


def test_what_is_remembered_is_bounded_and_never_mistaken() -> None:
    layouts = Layouts()
    for number in range(1000):
        payloads = [bytes((number % 251,)) * (number % 7 + 1)]
        layout = layouts.layout(payloads, 0, 1, header=1, trailer=1, overhead=0)
        assert layout.template == b"\0" + payloads[0] + b"\0"
        assert layouts.sizes(payloads, 1)[1] == len(payloads[0]) + 1
    assert len(layouts._layouts) <= 64
