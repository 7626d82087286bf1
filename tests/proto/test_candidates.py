"""Candidates: what is read of those that peers tell, what is written, and in which order they are tried."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.candidates import (
    Candidate,
    can_reach,
    can_relay,
    candidate_lines,
    host_candidates,
    is_candidate,
    priority_of,
    read_candidates,
)

FRAGMENTS = Path(__file__).parent / "fragments"


def values(text: str) -> list[str]:
    return [line.removeprefix("a=candidate:") for line in text.splitlines() if line.startswith("a=candidate:")]


def test_priorities_are_those_of_the_standard() -> None:
    # RFC 8445 section 5.1.2: 2^24 times the type preference, 2^8 times the local one, 256 less the component.
    assert priority_of("host", 0) == 2**24 * 126 + 2**8 * 65_535 + 255 == 2_130_706_431
    assert priority_of("prflx", 0) > priority_of("srflx", 0) > priority_of("relay", 0) > priority_of("relay", 1) > 0
    assert priority_of("relay", 10**9) == 255


def test_lines_are_written_with_what_a_candidate_stands_for() -> None:
    inside, seen = ("192.168.1.2", 8080), ("203.0.113.5", 8080)
    given = [*host_candidates([inside]), Candidate("srflx", seen, priority_of("srflx", 0), inside)]
    assert candidate_lines(given) == [
        "a=candidate:1 1 udp 2130706431 192.168.1.2 8080 typ host",
        "a=candidate:2 1 udp 1694498815 203.0.113.5 8080 typ srflx raddr 192.168.1.2 rport 8080",
        "a=end-of-candidates",
    ]


def test_what_is_written_is_read() -> None:
    written = [Candidate("relay", ("2001:db8::1", 9), 7), *host_candidates([("192.0.2.1", 80), ("::1", 81)])]
    assert read_candidates(values("\n".join(candidate_lines(written))), most=9) == tuple(written)
    assert read_candidates(values("\n".join(candidate_lines(written))), most=2) == tuple(written[:2])


@pytest.mark.parametrize("name", ["chromium", "firefox", "restart"])
def test_of_what_browsers_tell_the_addresses_on_udp_are_kept(name: str) -> None:
    told = values((FRAGMENTS / f"{name}.sdpfrag").read_text())
    assert all(is_candidate(value) for value in told if value)  # an empty one ends them
    for candidate in read_candidates(told, most=99):
        assert any(f" {candidate.address[0]} {candidate.address[1]} typ {candidate.kind}" in value for value in told)


@pytest.mark.parametrize(
    "value",
    [
        "1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
        "1 2 udp 1 192.0.2.1 9 typ host",
        "1 1 udp 1 1f4712db-ea17-4bcf-a596-105139dfd8bf.local 9 typ host",
        "1 1 udp 1 ::ffff:192.0.2.1 9 typ host",
        "1 1 udp 1 fe80::1%eth0 9 typ host",
        "1 1 udp 1 192.0.2.1 0 typ host",
        "1 1 udp 1 192.0.2.1 65536 typ host",
        "1 1 udp 0 192.0.2.1 9 typ host",
        "1 1 udp 4294967296 192.0.2.1 9 typ host",
        "1 1 udp ² 192.0.2.1 9 typ host",
        "1 1 udp 1 192.0.2.1 9 typ sky",
        "1 1 udp 1 192.0.2.1 9 host typ",
        "",
    ],
)
def test_what_cannot_be_used_is_left_out(value: str) -> None:
    assert read_candidates([value], most=9) == ()


@pytest.mark.parametrize(
    ("local", "remote", "makes_sense"),
    [
        ("192.168.1.2", "203.0.113.7", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("192.168.1.2", "2001:db8::2", False),
        ("192.168.1.2", "127.0.0.1", False),
        ("127.0.0.1", "192.168.1.2", False),
        ("192.168.1.2", "255.255.255.255", False),
        ("192.168.1.2", "239.1.1.1", False),
        ("192.168.1.2", "0.0.0.0", False),
        ("192.168.1.2", "a name", False),
    ],
)
def test_which_addresses_are_worth_a_try(local: str, remote: str, makes_sense: bool) -> None:
    assert can_reach(local, remote) is makes_sense


def test_a_relay_on_the_internet_is_not_asked_to_send_to_private_networks() -> None:
    assert can_relay("9.9.9.9", "8.8.8.8")
    assert not can_relay("9.9.9.9", "10.0.0.7")
    assert can_reach("9.9.9.9", "10.0.0.7")
    assert can_relay("10.0.0.1", "10.0.0.7"), "one on the same network is"
    assert not can_relay("9.9.9.9", "2606:4700::1111")


@given(st.lists(st.text(max_size=60) | st.from_regex(r"1 1 udp \d{1,11} \S{1,20} \d{1,6} typ host"), max_size=5))
def test_any_text_is_read_or_left_out(lines: list[str]) -> None:
    for candidate in read_candidates(lines, most=3):
        assert 1 <= candidate.address[1] <= 65_535
        assert candidate.priority < 2**32
