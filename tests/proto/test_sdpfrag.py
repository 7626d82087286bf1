"""Fragments of ICE: what is read, what is refused and why, what is written."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstream.proto.candidates import host_candidates
from flowstream.proto.sdp import SdpError, Transport, agree, parse_offer
from flowstream.proto.sdpfrag import MAX_CANDIDATES, parse_fragment, write_fragment

FRAGMENTS = Path(__file__).parent / "fragments"
CORPUS = {path.stem: path.read_text() for path in sorted(FRAGMENTS.glob("*.sdpfrag"))}
OFFERS = Path(__file__).parent / "offers"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("chromium", ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1", 4)),
        ("firefox", ("b5f4a1c2", "", 1)),
        ("restart", ("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k", 1)),
        ("no-more", ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1", 0)),
    ],
)
def test_what_players_send_is_read(name: str, found: tuple[str, str, int]) -> None:
    for text in (CORPUS[name], CORPUS[name].replace("\n", "\r\n")):
        read = parse_fragment(text)
        assert (read.ufrag, read.password, len(read.candidates)) == found
        assert all(f"a=candidate:{each}\n" in CORPUS[name] for each in read.candidates)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1: '' is not of the form a=... or m=..."),
        ("v=0", "line 1: 'v=0' is not of the form a=... or m=..."),
        ("a=mid:0\nnonsense", "line 2: 'nonsense' is not of the form a=... or m=..."),
        ("a=mid:\0", r"line 1: 'a=mid:\\x00' is not of the form a=... or m=..."),
        ("a=ice-ufrag:x", r"line 1: a=ice-ufrag is not 4 to 256 letters, digits, \+ or /"),
        ("a=ice-ufrag:with space", r"line 1: a=ice-ufrag is not 4 to 256 letters, digits, \+ or /"),
        ("a=ice-pwd:short", r"line 1: a=ice-pwd is not 22 to 256 letters, digits, \+ or /"),
        ("a=ice-ufrag:aaaa\na=ice-ufrag:bbbb", "line 2: a second a=ice-ufrag that differs"),
        ("a=candidate:1 1 udp 1 192.0.2.1 9", "line 1: 'a=candidate:1 1 udp 1 192.0.2.1 9' is no candidate"),
        ("a=candidate:1 1 udp 1 192.0.2.1 9 host typ", "is no candidate"),
        ("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\n" * (MAX_CANDIDATES + 1), "more than 256 candidates"),
    ],
)
def test_what_is_no_fragment_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(SdpError, match=why):
        parse_fragment(text)


def test_the_answer_to_a_restart_names_the_section_that_the_others_are_bundled_with() -> None:
    agreement = agree(parse_offer((OFFERS / "chromium.sdp").read_text()), needed={"video"})
    transport = Transport("ours", "x" * 32, ("sha-256", ""), host_candidates([("192.0.2.1", 5000), ("::1", 5001)]))
    assert write_fragment(agreement, transport).split("\r\n") == [
        "a=ice-lite",
        "a=group:BUNDLE 0 1",
        "m=video 9 UDP/TLS/RTP/SAVPF 108",
        "a=mid:0",
        "a=ice-ufrag:ours",
        f"a=ice-pwd:{'x' * 32}",
        "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
        "a=candidate:2 1 udp 2130706175 ::1 5001 typ host",
        "a=end-of-candidates",
        "",
    ]


@given(st.data())
def test_a_damaged_fragment_is_read_or_refused(data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(sorted(CORPUS.values()))).split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(lines) - 1))
        line = lines[position]
        cut = data.draw(st.integers(0, len(line)))
        lines[position] = line[:cut] + data.draw(st.text(max_size=6)) + line[cut + data.draw(st.integers(0, 6)) :]
    try:
        found = parse_fragment("\n".join(lines))
    except SdpError:
        return
    assert 0 <= len(found.candidates) <= len(lines)
    assert found.ufrag.isascii()


@given(st.text(max_size=200) | st.text(max_size=60).map(lambda tail: "a=candidate:" + tail))
@example("a=candidate:\r")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_fragment(text)
    except SdpError:
        pass
