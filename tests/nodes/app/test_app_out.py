"""app-out: what a program reads; most of it is in tests/api, where there is a program."""

from flowstream import Record
from flowstream.testing import Harness, check_node, make_frame, make_packet, make_sound
from flowstream_nodes.app.app_out import AppOut


def test_conformance() -> None:
    check_node(AppOut)


def test_without_a_program_it_takes_anything_and_keeps_nothing() -> None:
    with Harness(AppOut) as out:
        for payload in (make_frame(width=10, height=10), make_packet(size=100), make_sound(samples=10), Record(1, 0)):
            assert out.push(payload) == []
        out.finish()
        assert out.facts == {"unread": 4}
