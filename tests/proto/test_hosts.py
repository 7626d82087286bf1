"""What the name or number of a host says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.proto.hosts import read_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("2001:DB8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65_535)),
    ],
)
def test_an_address_has_a_port_or_none(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", "a.example", "192.0.2.1:", "192.0.2.1:65536", "[::1]x", "[::1", "192.0.2.1:x"])
def test_what_is_no_address_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no IP address.*write it as 192\.0\.2\.1:5000 or \[2001:db8::1\]:5000"):
        read_address(text)


@given(st.text(max_size=30) | st.ip_addresses().map(str) | st.from_regex(r"\[?[0-9a-f:.]{1,20}\]?:?[0-9]{0,6}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        host, port = read_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65_535
