"""discard: takes anything, counts it."""

from flowstream import Record
from flowstream.testing import Harness, check_node, make_frame, make_packet, make_sound
from flowstream_nodes.flow.discard import Discard


def test_conformance() -> None:
    check_node(Discard)


def test_it_takes_anything_and_counts() -> None:
    with Harness(Discard) as discard:
        for payload in (make_frame(width=10, height=10), make_packet(size=100), make_sound(samples=10), Record(1, 0)):
            assert discard.push(payload) == []
        discard.finish()
        assert discard.facts == {"payloads": 4, "bytes": 300 + 100 + 80}


def test_it_reports_once_a_second() -> None:
    with Harness(Discard) as discard:
        seen = []
        for _ in range(25):
            discard.push(make_packet(size=100))
            seen.append(discard.facts["payloads"])
            discard.clock.step(100_000_000)
        assert sorted(set(seen)) == [1, 11, 21]
