"""What the control API can be asked about viewers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from flowstream.control import models
from flowstream.control.openapi import Operation
from flowstream.control.viewers import Desk, invitation_to_json, viewer_to_json
from flowstream.node.quantities import parse_bitrate
from flowstream.runtime.audience import Viewer, ViewerError
from flowstream.runtime.viewers import ViewerRegistry

if TYPE_CHECKING:
    from flowstream.control.run import Run

_Change = Callable[[ViewerRegistry, str], Viewer]


class ViewerOperations:
    """Looking after the viewers of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def _desk(self) -> Desk:
        return self._run.desk

    def all(self) -> list[Operation]:
        """The operations, each with its path."""
        one = (models.AskViewer, models.ViewerChangedNow)
        return [
            Operation("GET", "/viewers", "Who watches, and who waits", self.viewers, answers=models.ViewersNow),
            Operation("POST", "/viewers/approve", "Let a viewer in", self._one(ViewerRegistry.approve), *one),
            Operation("POST", "/viewers/reject", "Do not let a viewer in", self._one(ViewerRegistry.reject), *one),
            Operation("POST", "/viewers/kick", "Send a viewer away", self._one(ViewerRegistry.kick), *one),
            Operation("POST", "/viewers/pause", "Show a viewer nothing", self._one(ViewerRegistry.pause), *one),
            Operation("POST", "/viewers/resume", "Show it to a viewer again", self._one(ViewerRegistry.resume), *one),
            Operation("POST", "/viewers/permit", "Say what a viewer may be shown", self.permit, models.AskPermit,
                      models.ViewerChangedNow),
            Operation("POST", "/viewers/cap", "Bound what is sent to a viewer", self.cap, models.AskCap,
                      models.ViewerChangedNow),
            Operation("POST", "/viewers/prioritize", "Say who comes first", self.prioritize, models.AskPriority,
                      models.ViewerChangedNow),
            Operation("POST", "/viewers/invite", "Make links that let in", self.invite, models.AskInvite,
                      models.Invited),
            Operation("POST", "/viewers/revoke", "Take an invitation back", self.revoke, models.AskRevoke,
                      models.InvitationRevoked),
            Operation("POST", "/view/pause", "Show nobody anything", self.pause_view, models.AskView,
                      models.ViewsChanged),
            Operation("POST", "/view/resume", "Show it again", self.resume_view, models.AskView, models.ViewsChanged),
        ]  # fmt: skip

    async def viewers(self, _: Request, __: Any) -> Any:
        """Everybody."""
        views, viewers = self._desk.views(), self._desk.viewers()
        return {"views": [asdict(each) for each in views], "viewers": [viewer_to_json(each) for each in viewers]}

    def _one(self, change: _Change) -> Callable[[Request, Any], Awaitable[Any]]:
        async def carry_out(_: Request, asked: models.AskViewer) -> Any:
            registry = self._desk.registry_of(asked.viewer, asked.node)
            return {"viewer": viewer_to_json(change(registry, asked.viewer))}

        return carry_out

    async def permit(self, _: Request, asked: models.AskPermit) -> Any:
        """What it may see and hear."""
        registry = self._desk.registry_of(asked.viewer, asked.node)
        return {"viewer": viewer_to_json(registry.permit(asked.viewer, video=asked.video, audio=asked.audio))}

    async def cap(self, _: Request, asked: models.AskCap) -> Any:
        """How much it is sent."""
        registry = self._desk.registry_of(asked.viewer, asked.node)
        return {"viewer": viewer_to_json(registry.cap(asked.viewer, cap_of(asked.bitrate)))}

    async def prioritize(self, _: Request, asked: models.AskPriority) -> Any:
        """Who comes first where the uplink is short."""
        registry = self._desk.registry_of(asked.viewer, asked.node)
        return {"viewer": viewer_to_json(registry.prioritize(asked.viewer, asked.priority))}

    async def invite(self, _: Request, asked: models.AskInvite) -> Any:
        """Links with a token."""
        return invitation_to_json(self._desk.invite(asked.node, name=asked.name, seconds=asked.seconds))

    async def revoke(self, _: Request, asked: models.AskRevoke) -> Any:
        """One that counts no more."""
        return {"ended": self._desk.revoke(asked.id)}

    async def pause_view(self, _: Request, asked: models.AskView) -> Any:
        """Black for everybody."""
        return {"nodes": self._desk.pause_view(asked.node)}

    async def resume_view(self, _: Request, asked: models.AskView) -> Any:
        """The stream again."""
        return {"nodes": self._desk.resume_view(asked.node)}


def cap_of(bitrate: str | None) -> int | None:
    """A bound as people write it, in bits per second. Raises ViewerError for none."""
    if bitrate is None:
        return None
    try:
        found = parse_bitrate(bitrate)
    except ValueError as error:
        raise ViewerError(str(error)) from error
    if found < 1000:
        raise ViewerError(f"a bound of {bitrate} carries nothing", hint="pause the viewer instead")
    return found
