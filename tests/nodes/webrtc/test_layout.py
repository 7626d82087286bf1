"""What viewers of the same payloads share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowstream_nodes.webrtc._layout import AccessUnit, evens


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
    unit = AccessUnit([b"aaaa", b"bbbb", b"cc"], "h264")
    layout = unit.layout(1, 3, 3, 2, 28)
    assert layout.template == bytes(3) + b"bbbb" + bytes(2) + bytes(3) + b"cc" + bytes(2)
    assert (layout.offsets, layout.lengths, layout.on_the_wire) == ((0, 9), [7, 5], (37, 35))
    assert (layout.payloads, layout.payload_bytes) == ([b"bbbb", b"cc"], 6)
    assert unit.layout(1, 3, 3, 2, 28) is layout
    assert unit.layout(1, 3, 4, 2, 28) is not layout
    assert unit.sizes(10) == ([14, 14, 12], 40)


def test_what_is_remembered_is_bounded() -> None:
    unit = AccessUnit([bytes((number % 251,)) * (number % 7 + 1) for number in range(1000)], "vp8")
    for number, payload in enumerate(unit.payloads):
        assert unit.layout(number, number + 1, 1, 1, 0).template == b"\0" + payload + b"\0"
    assert len(unit._layouts) <= 64
