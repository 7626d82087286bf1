"""The viewers of a run, for its owner: who is there, who comes in, and links that let in."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from flowstream.control import door
from flowstream.control.state import StateError, utc_text
from flowstream.control.tokens import TokenStore
from flowstream.graph.diagnostics import did_you_mean, listed
from flowstream.graph.plan import Plan
from flowstream.runtime.audience import Grant, View, Viewer, ViewerError, tidy_name
from flowstream.runtime.engine import Engine
from flowstream.runtime.mounts import path_of
from flowstream.runtime.viewers import VIEWERS, ViewerRegistry

_logger = logging.getLogger("flowstream.control")

LINK_SECONDS = 7 * 24 * 3600.0
"""For how long the token holds that is in the links of a run."""

INVITATION_SECONDS = 24 * 3600.0
MOST_SECONDS = 366 * 24 * 3600.0
"""How long an invitation holds unless it is said, and at most."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token in links, one for each address and page. ``id`` is what takes it back, ``ends_ns`` UTC in nanoseconds."""

    id: str
    ends_ns: int
    name: str | None
    token: str
    links: tuple[str, ...]


class Desk:
    """Where the owner of a run looks after its viewers. For the event loop.

    ``base`` is where the pages are for viewers, when somebody else serves them. Viewers are named by their ids;
    ``node`` tells apart two outputs whose viewers have the same one. Whatever there is no viewer, or no output for, is
    raised as ViewerError.
    """

    def __init__(self, engine: Engine, tasks: TaskGroup) -> None:
        self._engine = engine
        self._tasks = tasks
        self._tokens: TokenStore | None = None
        self._saving = anyio.Lock()
        self._standing: Invitation | None = None
        self._is_paused = False
        self.base: str | None = None
        engine.greet(self._greet)

    def prepare(self, plan: Plan, folder: Path | None) -> None:
        """On a worker thread: has a key for tokens, once a plan has viewers. Without a folder it is for this time."""
        if self._tokens is not None or not door.serves(plan):
            return
        wallclock_ns = self._engine.clock.wallclock_ns
        try:
            self._tokens = TokenStore(folder, wallclock_ns, self._keep)
        except StateError as error:
            _logger.warning("links that are given to viewers end with this run: %s", error)
            self._tokens = TokenStore(None, wallclock_ns)

    def _greet(self, key: str, held: Any, node: Callable[[], str]) -> None:
        if key == VIEWERS and isinstance(held, ViewerRegistry):
            held.attend(node=node, tell=self._engine.tell, tokens=self._tokens)
            if self._is_paused:
                held.pause_view()

    def _keep(self) -> None:
        self._tasks.start_soon(self._save)

    async def _save(self) -> None:
        assert self._tokens is not None
        async with self._saving:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._tokens.save)
            except StateError as error:
                _logger.warning("what was taken back counts until this run ends: %s", error)

    # --- who is there -----------------------------------------------------------------------------------------------

    def registries(self, node: str | None = None) -> list[ViewerRegistry]:
        """Those of every output with viewers, or of one."""
        found = {id: self._engine.held(id, VIEWERS) for id in self._engine.runners}
        there = {id: held for id, held in found.items() if isinstance(held, ViewerRegistry)}
        if node is None:
            return list(there.values())
        if node not in there:
            close = did_you_mean(node, there)
            hint = f"did you mean {close}?" if close else f"{listed(there)} has" if there else "no node has"
            what = "has no viewers" if node in found else "is no node"
            raise ViewerError(f"{node} {what}", hint=hint)
        return [there[node]]

    def views(self, node: str | None = None) -> tuple[View, ...]:
        """Each output as its viewers find it."""
        return tuple(registry.view for registry in self.registries(node))

    def viewers(self, node: str | None = None) -> tuple[Viewer, ...]:
        """Everybody who is there or was, by output and in the order in which they came."""
        return tuple(viewer for registry in self.registries(node) for viewer in registry.viewers)

    def registry_of(self, viewer: str, node: str | None = None) -> ViewerRegistry:
        """The one that knows a viewer."""
        registries = self.registries(node)
        there = {registry: [each.id for each in registry.viewers] for registry in registries}
        found = [registry for registry, ids in there.items() if viewer in ids]
        if len(found) == 1:
            return found[0]
        if found:
            named = listed([registry.view.node for registry in found])
            raise ViewerError(f"{named} have a viewer {viewer}", hint="say which node is meant")
        ids = [id for ids in there.values() for id in ids]
        close = did_you_mean(viewer, ids)
        present = [each.id for each in self.viewers(node) if each.state not in ("gone", "rejected")]
        some = f"there is {listed(present[:10])}" if present else "nobody is there"
        raise ViewerError(f"there is no viewer {viewer[:40]}", hint=f"did you mean {close}?" if close else some)

    # --- links ------------------------------------------------------------------------------------------------------

    def links(self, *, with_tokens: bool = True) -> tuple[str, ...]:
        """The addresses of the pages that people open, with a token where one is needed."""
        asks = {path_of(view.node) for view in self.views() if with_tokens and view.approval == "token"}
        found = self._pages()
        return tuple(_with_token(url, self._standing_token()) if path in asks else url for path, url in found)

    def invite(
        self, node: str | None = None, *, name: str | None = None, seconds: float = INVITATION_SECONDS
    ) -> Invitation:
        """A token for an output, or all of them, in links to it. It lets in also where the owner lets people in."""
        if not 1 <= seconds <= MOST_SECONDS:
            raise ViewerError(f"an invitation holds for a second to {MOST_SECONDS / 86400:.0f} days")
        views = self.views(node)
        if self._tokens is None or not views:
            raise ViewerError("no output of the graph has viewers", hint="webrtc-out has")
        if name is not None and tidy_name(name) != name:
            raise ViewerError("a name is a short line of characters that print", hint="at most 40 of them")
        names = None if node is None else tuple(sorted(self.registries(node)[0].names))
        ends_ns = self._engine.clock.wallclock_ns() + round(seconds * 1e9)
        grant = Grant(secrets.token_urlsafe(6), ends_ns, names, name)
        token = self._tokens.issue(grant)
        paths = {path_of(view.node) for view in views}
        links = tuple(_with_token(url, token) for path, url in self._pages() if path in paths)
        return Invitation(grant.id, ends_ns, name, token, links)

    def revoke(self, invitation: str) -> int:
        """Takes an invitation back; gives how many were sent away because of it."""
        if self._tokens is None:
            raise ViewerError("no output of the graph has viewers")
        if not 1 <= len(invitation) <= 64:
            raise ViewerError("this is no id of an invitation")
        if self._standing is not None and self._standing.id == invitation:
            self._standing = None
        self._tokens.revoke(invitation)
        return sum(registry.revoke(invitation) for registry in self.registries())

    def _pages(self) -> list[tuple[str, str]]:
        """The path and the URLs of every page."""
        mounts = self._engine.mounts
        if self.base is not None:
            return [(path, f"{self.base}{path}") for path in mounts.pages]
        return list(door.links(mounts)) if mounts.listen is not None and mounts.listen[1] else []

    def _standing_token(self) -> str:
        half_way_ns = round(LINK_SECONDS / 2 * 1e9)
        standing = self._standing
        if standing is None or standing.ends_ns - self._engine.clock.wallclock_ns() < half_way_ns:
            standing = self._standing = self.invite(seconds=LINK_SECONDS)
        return standing.token

    # --- the view ---------------------------------------------------------------------------------------------------

    def pause_view(self, node: str | None = None) -> list[str]:
        """Everybody sees a black picture in silence; without a node at every output, also at those that come."""
        registries = self.registries(node)
        self._is_paused = self._is_paused or node is None
        return [registry.view.node for registry in registries if registry.pause_view()]

    def resume_view(self, node: str | None = None) -> list[str]:
        """Everybody sees the stream again. Gives the outputs where that is new, as does pausing."""
        registries = self.registries(node)
        self._is_paused = False
        return [registry.view.node for registry in registries if registry.resume_view()]


def _with_token(url: str, token: str) -> str:
    return f"{url}?token={token}"


def viewer_to_json(viewer: Viewer) -> dict[str, Any]:
    """A viewer as JSON values."""
    told = asdict(viewer)
    told["joined"] = utc_text(told.pop("joined_ns"))
    return told


def invitation_to_json(invitation: Invitation) -> dict[str, Any]:
    """An invitation as JSON values."""
    ends = utc_text(invitation.ends_ns)
    return {"id": invitation.id, "name": invitation.name, "ends": ends, "links": list(invitation.links)}
