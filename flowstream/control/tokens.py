"""Tokens of viewers: signed, for some nodes of one graph, and with an end (JWT, RFC 7519)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowstream.control.state import StateError, private_folder
from flowstream.runtime.audience import Grant, TokenError, TokenRevoked

_logger = logging.getLogger("flowstream.control")

AUDIENCE = "flowstream"
ALGORITHM = "HS256"
KEY_BYTES = 32  # as many as the hash has (RFC 7518 section 3.2)
MAX_TOKEN = 2048
"""How many characters of a token are looked at."""

MOST_REVOKED = 4096
FILE_NAME = "viewers.json"


class TokenStore:
    """Makes tokens and reads them, with a key that is kept in a folder, and so are those that were taken back.

    Without a folder both are forgotten with the run. ``wallclock_ns`` is UTC. ``keep`` is called when there is
    something to save: it calls ``save``, which blocks, on a thread.
    """

    def __init__(
        self, folder: Path | None, wallclock_ns: Callable[[], int], keep: Callable[[], object] = lambda: None
    ) -> None:
        """Blocking. Raises StateError when the folder cannot be used."""
        import jwt

        self._jwt = jwt
        self._folder = folder
        self._wallclock_ns = wallclock_ns
        self._keep = keep
        self._key, self._revoked = secrets.token_bytes(KEY_BYTES), dict[str, int]()
        if folder is not None and not self._load():
            self.save()

    def issue(self, grant: Grant) -> str:
        """A token that says so."""
        claims: dict[str, Any] = {"aud": AUDIENCE, "jti": grant.id, "exp": -(-grant.ends_ns // 1_000_000_000)}
        if grant.nodes is not None:
            claims["nodes"] = list(grant.nodes)
        if grant.name is not None:
            claims["name"] = grant.name
        if grant.viewer is not None:
            claims |= {"sub": grant.viewer, "adm": grant.is_admitted}
            if grant.invitation is not None:
                claims["by"] = grant.invitation
            if grant.until_ns is not None:
                claims["until"] = grant.until_ns // 1_000_000_000
        return self._jwt.encode(claims, self._key, ALGORITHM)

    def read(self, text: str) -> Grant:
        """What a token says. Raises TokenError; TokenRevoked when it, or what it came by, was taken back."""
        if len(text) > MAX_TOKEN:
            raise TokenError("this is no token of this stream")
        try:
            # The clock is ours, so the end is looked at here.
            claims = self._jwt.decode(
                text, self._key, [ALGORITHM], audience=AUDIENCE,
                options={"require": ["exp", "aud", "jti"], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
            nodes = claims.get("nodes")
            grant = Grant(
                id=str(claims["jti"]),
                ends_ns=int(claims["exp"]) * 1_000_000_000,
                nodes=tuple(map(str, nodes)) if isinstance(nodes, list) else None,
                name=_text(claims.get("name")),
                viewer=_text(claims.get("sub")),
                is_admitted=claims.get("adm") is True,
                invitation=_text(claims.get("by")),
                until_ns=int(claims["until"]) * 1_000_000_000 if "until" in claims else None,
            )
        except (self._jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise TokenError("this is no token of this stream") from None
        if grant.id in self._revoked or grant.invitation in self._revoked:
            raise TokenRevoked("the token was taken back")
        if self._wallclock_ns() >= grant.ends_ns:
            raise TokenError("the token has ended")
        return grant

    def revoke(self, id: str) -> None:
        """A token does not count any more, nor passes of those who came by it."""
        self._revoked.pop(id, None)
        self._revoked[id] = self._wallclock_ns()
        while len(self._revoked) > MOST_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        self._keep()

    def restore(self, id: str) -> None:
        """A token that was revoked counts again."""
        if self._revoked.pop(id, None) is not None:
            self._keep()

    def save(self) -> None:
        """Writes what is kept. Blocking. Raises StateError."""
        if self._folder is None:
            return
        content = {"key": self._key.hex(), "revoked": self._revoked}
        try:
            folder = private_folder(self._folder)
            temporary = folder / f".{FILE_NAME}.{os.getpid()}-{secrets.token_hex(4)}"
            try:
                with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, folder / FILE_NAME)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"cannot keep the key of viewers' tokens in {self._folder}: {error.strerror or error}",
                             hint="set XDG_STATE_HOME to a folder that can be written") from error  # fmt: skip

    def _load(self) -> bool:
        assert self._folder is not None
        path = self._folder / FILE_NAME
        with contextlib.suppress(FileNotFoundError):
            try:
                kept = json.loads(private_folder(self._folder).joinpath(FILE_NAME).read_bytes())
                key = bytes.fromhex(kept["key"])
                if len(key) != KEY_BYTES:
                    raise ValueError("a key of another length")
                self._key, self._revoked = key, {str(id): int(at) for id, at in kept["revoked"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                _logger.warning("%s is damaged: links that were given to viewers do not count any more", path)
                return False
            except FileNotFoundError:
                raise
            except OSError as error:
                raise StateError(f"cannot read {path}: {error.strerror or error}") from error
            return True
        return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
