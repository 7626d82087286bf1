"""Tokens of viewers: what they say, who can make them, and that they are kept and taken back."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.control.state import StateError
from flowstream.control.tokens import FILE_NAME, MOST_REVOKED, TokenStore
from flowstream.runtime.audience import Grant, TokenError, TokenRevoked

NOW_NS = 1_800_000_000 * 10**9
LATER_NS = NOW_NS + 60 * 10**9

words = st.text(min_size=1, max_size=20)
grants = st.builds(
    Grant,
    id=words,
    ends_ns=st.integers(NOW_NS // 10**9 + 1, 2**33).map(lambda seconds: seconds * 10**9),
    nodes=st.none() | st.lists(words, max_size=3).map(tuple),
    name=st.none() | words,
)


def store(folder: Path | None = None, now_ns: int = NOW_NS) -> TokenStore:
    return TokenStore(folder, lambda: now_ns)


@given(grants)
def test_what_was_issued_is_read_again(grant: Grant) -> None:
    tokens = store()
    assert tokens.read(tokens.issue(grant)) == grant


def test_a_pass_says_by_what_its_viewer_came() -> None:
    tokens = store()
    grant = Grant("p", LATER_NS, ("out",), "Ann", "k3fq", True, "inv", LATER_NS)
    token = tokens.issue(grant)
    assert tokens.read(token) == grant
    tokens.revoke("inv")
    with pytest.raises(TokenRevoked):
        tokens.read(token)


def test_a_token_ends() -> None:
    tokens = store()
    token = tokens.issue(Grant("a", LATER_NS))
    tokens._wallclock_ns = lambda: LATER_NS
    with pytest.raises(TokenError, match="has ended"):
        tokens.read(token)


def test_nobody_else_can_make_one() -> None:
    tokens = store()
    claims = {"aud": "flowstream", "jti": "a", "exp": LATER_NS // 10**9}
    own = tokens.issue(Grant("a", LATER_NS))
    head, body, signature = own.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    other = base64.urlsafe_b64encode(b'{"alg":"HS384","typ":"JWT"}').rstrip(b"=").decode()
    other_body = base64.urlsafe_b64encode(json.dumps(claims | {"adm": True}).encode()).rstrip(b"=").decode()
    for forged in (
        jwt.encode(claims, "k" * 32, "HS256"),
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{other_body}.{signature}",
        own[:-1],
        f"{other}.{body}.{signature}",
        jwt.encode(claims | {"aud": "other"}, tokens._key, "HS256"),
        jwt.encode({"aud": "flowstream", "jti": "a"}, tokens._key, "HS256"),
        jwt.encode({"aud": "flowstream", "exp": 2**40}, tokens._key, "HS256"),
        jwt.encode(claims | {"exp": "soon"}, tokens._key, "HS256"),
        jwt.encode(claims | {"until": "late"}, tokens._key, "HS256"),
    ):
        with pytest.raises(TokenError, match="this is no token of this stream"):
            tokens.read(forged)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
def test_whatever_comes_is_no_token(text: str) -> None:
    with pytest.raises(TokenError):
        store().read(text)


def test_the_key_and_what_was_taken_back_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    first = store(tmp_path / "state")
    one, two = first.issue(Grant("one", LATER_NS)), first.issue(Grant("two", LATER_NS))
    first.revoke("one")
    first.revoke("two")
    first.restore("two")
    first.save()
    path = tmp_path / "state" / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = store(tmp_path / "state")
    assert again.read(two).id == "two"
    with pytest.raises(TokenRevoked):
        again.read(one)
    assert one not in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == [FILE_NAME]


def test_only_so_many_are_remembered() -> None:
    tokens = store()
    for index in range(MOST_REVOKED + 10):
        tokens.revoke(str(index))
    assert len(tokens._revoked) == MOST_REVOKED


@pytest.mark.parametrize("content", ["", "{}", '{"key": "00", "revoked": {}}', '{"key": 5, "revoked": []}', "\x00"])
def test_a_damaged_file_is_replaced_and_said(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    token = store(tmp_path).issue(Grant("a", LATER_NS))
    assert "links that were given to viewers do not count any more" in caplog.text
    assert store(tmp_path).read(token).id == "a"


def test_without_a_folder_that_can_be_used_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot read .*viewers\.json"):
        store(tmp_path / "file" / "state")
