"""Addresses of STUN and TURN servers, and what lets somebody in."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.ice_servers import LOGIN_S, IceServer, ServerUrl, ServerUrlError


@pytest.mark.parametrize(
    ("text", "host", "port", "transport", "lends"),
    [
        ("stun:a.example", "a.example", 3478, "udp", False),
        ("stuns:a.example", "a.example", 5349, "tls", False),
        ("turn:192.0.2.1:80", "192.0.2.1", 80, "udp", True),
        ("turn:a.example?transport=tcp", "a.example", 3478, "tcp", True),
        ("turns:[2001:db8::1]:443?transport=tcp", "2001:db8::1", 443, "tls", True),
    ],
)
def test_an_address_says_where_and_how(text: str, host: str, port: int, transport: str, lends: bool) -> None:
    found = ServerUrl.parse(text)
    assert (found.text, found.host, found.port, found.transport, found.lends) == (text, host, port, transport, lends)


@pytest.mark.parametrize(
    "text",
    ["", "turn:", "http://a.example", "turn:a.example:0", "turn:a.example:65536", "turn:a b", "stun:a.example?x=y"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ServerUrlError, match="is no address of a STUN or TURN server"):
        ServerUrl.parse(text)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda rest: "turn:" + rest))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = ServerUrl.parse(text)
    except ServerUrlError:
        return
    assert 1 <= found.port <= 65_535
    assert found.host


def test_a_secret_makes_a_login_that_ends_after_a_day() -> None:
    server = IceServer(("turn:a.example",), secret="north")
    told = server.login("viewer", wallclock_ns=1_700_000_000_500_000_000)
    assert told.secret is None
    assert told.username == f"{1_700_000_000 + LOGIN_S}:viewer"
    digest = hmac.new(b"north", told.username.encode(), "sha1").digest()
    assert told.credential == base64.b64encode(digest).decode()
    assert told.urls == server.urls


def test_a_login_that_is_given_is_told_as_it_is() -> None:
    server = IceServer(("turn:a.example",), "viewer", "a password")
    assert server.login("other", wallclock_ns=0) is server
