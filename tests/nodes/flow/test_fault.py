"""fault: breaks as told, the same way each time."""

import pytest

from flowstream import KeyframeRequest, PeerError
from flowstream.testing import Harness, check_node, make_packets
from flowstream_nodes.flow.fault import DeliberateFault, Fault


def test_conformance() -> None:
    check_node(Fault, breaking=("fail_after",))


def passed(count: int = 200, **config: object) -> list[int]:
    with Harness(Fault, config) as fault:
        for packet in make_packets(count, size=50):
            fault.push(packet)
        fault.finish()
        return [packet.time_ns for packet in fault.payloads()]


def test_by_default_everything_passes() -> None:
    packets = list(make_packets(5))
    with Harness(Fault) as fault:
        for packet in packets:
            assert fault.push(packet) == [packet]
        fault.finish()
        assert not fault.is_running


def test_losses_are_about_as_many_as_asked_for_and_the_same_each_time() -> None:
    first = passed(drop=0.25, seed=7)
    assert 130 <= len(first) <= 170
    assert passed(drop=0.25, seed=7) == first
    assert passed(drop=0.25, seed=8) != first
    assert passed(drop=1.0) == []


def test_losses_are_counted() -> None:
    with Harness(Fault, {"drop": 1.0}) as fault:
        for packet in make_packets(3):
            fault.push(packet)
        assert fault.facts == {"dropped": 3}


def test_it_fails_as_by_a_bug() -> None:
    with Harness(Fault, {"fail_after": 2}) as fault:
        first, second, third = make_packets(3)
        assert fault.push(first) == [first]
        assert fault.push(second) == [second]
        with pytest.raises(DeliberateFault, match="failed on purpose after 2 payloads"):
            fault.push(third)


def test_the_other_side_leaves() -> None:
    with Harness(Fault, {"leave_after": 1}) as fault:
        first, second = make_packets(2)
        fault.push(first)
        with pytest.raises(PeerError, match="the other side left on purpose after 1 payloads"):
            fault.push(second)


def test_it_stalls_for_ever_but_can_be_ended() -> None:
    with Harness(Fault, {"stall_after": 1}) as fault:
        for packet in make_packets(5):
            fault.push(packet)
        fault.run(duration_ns=3600 * 10**9)
        assert len(fault.payloads()) == 1
        assert fault.facts == {"stalled": "yes"}


def test_delay_holds_up_one_after_the_other() -> None:
    with Harness(Fault, {"delay": "100ms"}) as fault:
        for packet in make_packets(3):
            assert fault.push(packet) == []
        assert len(fault.run(duration_ns=250_000_000)) == 2
        assert len(fault.run(duration_ns=100_000_000)) == 1


def test_what_goes_wrong_can_be_changed_while_it_runs() -> None:
    with Harness(Fault) as fault:
        first, second = make_packets(2)
        assert fault.push(first) == [first]
        fault.reconfigure(drop=1.0)
        assert fault.push(second) == []


def test_requests_go_on_upstream() -> None:
    with Harness(Fault) as fault:
        fault.settle()
        fault.request("passed", KeyframeRequest("a viewer joined"))
        assert fault.requests == [("anything", KeyframeRequest("a viewer joined"))]
