"""The viewers of a graph that a program runs: who is there, who comes in, and links that let in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from flowstream.control.viewers import INVITATION_SECONDS, Desk, Invitation
from flowstream.control.viewing import cap_of
from flowstream.runtime.audience import View, Viewer


class Caller(Protocol):
    """Calls functions on the loop of a run, for other threads."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls one there and waits for what it gives."""
        ...


class Viewers:
    """Who watches, and what they may; `Run.viewers`. To be used on the loop of the run; nothing here blocks.

    Iterates over those who are there. Viewers are named by their ids, as in `ViewerWaiting` and the other events;
    ``node`` tells apart two outputs whose viewers have the same one. What cannot be done raises `ViewerError`.
    """

    _desk: Desk

    @classmethod
    def _of(cls, desk: Desk) -> Viewers:
        made = cls()
        made._desk = desk
        return made

    def __iter__(self) -> Iterator[Viewer]:
        return (each for each in self._desk.viewers() if each.state not in ("gone", "rejected"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def known(self) -> tuple[Viewer, ...]:
        """Everybody who is there, or was and may come back."""
        return self._desk.viewers()

    @property
    def views(self) -> tuple[View, ...]:
        """The outputs, each as its viewers find it."""
        return self._desk.views()

    def approve(self, viewer: str, node: str | None = None) -> Viewer:
        """Lets somebody in who waits, or takes back that it was sent away."""
        return self._desk.registry_of(viewer, node).approve(viewer)

    def reject(self, viewer: str, node: str | None = None) -> Viewer:
        """Does not let somebody in."""
        return self._desk.registry_of(viewer, node).reject(viewer)

    def kick(self, viewer: str, node: str | None = None) -> Viewer:
        """Sends somebody away for good; newcomers of its network wait to be let in for ten minutes."""
        return self._desk.registry_of(viewer, node).kick(viewer)

    def pause(self, viewer: str, node: str | None = None) -> Viewer:
        """Shows somebody a black picture in silence."""
        return self._desk.registry_of(viewer, node).pause(viewer)

    def resume(self, viewer: str, node: str | None = None) -> Viewer:
        """Shows somebody the stream again."""
        return self._desk.registry_of(viewer, node).resume(viewer)

    def permit(
        self, viewer: str, *, video: bool | None = None, audio: bool | None = None, node: str | None = None
    ) -> Viewer:
        """Says what somebody may see and hear; None leaves it as it is."""
        return self._desk.registry_of(viewer, node).permit(viewer, video=video, audio=audio)

    def cap(self, viewer: str, bitrate: str | None, node: str | None = None) -> Viewer:
        """Bounds what is sent to somebody, such as ``"600k"`` bits per second; None takes the bound away."""
        return self._desk.registry_of(viewer, node).cap(viewer, cap_of(bitrate))

    def prioritize(self, viewer: str, priority: int, node: str | None = None) -> Viewer:
        """Says who comes first where the uplink is short: a higher priority, from -100 to 100; it is 0 at first."""
        return self._desk.registry_of(viewer, node).prioritize(viewer, priority)

    def pause_view(self, node: str | None = None) -> list[str]:
        """Shows everybody a black picture in silence, at one output or all; gives those where that is new."""
        return self._desk.pause_view(node)

    def resume_view(self, node: str | None = None) -> list[str]:
        """Shows everybody the stream again."""
        return self._desk.resume_view(node)

    def invite(
        self, node: str | None = None, *, name: str | None = None, seconds: float = INVITATION_SECONDS
    ) -> Invitation:
        """A token for one output or all, with the links that carry it; it lets in also where you let people in."""
        return self._desk.invite(node, name=name, seconds=seconds)

    def revoke(self, invitation: str) -> int:
        """Takes an invitation back, by its id, and ends the sessions of those who came by it; gives how many."""
        return self._desk.revoke(invitation)


class SyncViewers:
    """`Viewers` for programs without async; see there for what each method does. For any thread but the run's own."""

    _viewers: Viewers
    _loop: Caller

    @classmethod
    def _of(cls, viewers: Viewers, loop: Caller) -> SyncViewers:
        made = cls()
        made._viewers, made._loop = viewers, loop
        return made

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self._call(lambda: tuple(self._viewers)))

    def __len__(self) -> int:
        return int(self._call(lambda: len(self._viewers)))

    @property
    def known(self) -> tuple[Viewer, ...]:
        """See `Viewers.known`."""
        return self._call(lambda: self._viewers.known)  # type: ignore[no-any-return]

    @property
    def views(self) -> tuple[View, ...]:
        """See `Viewers.views`."""
        return self._call(lambda: self._viewers.views)  # type: ignore[no-any-return]

    def approve(self, viewer: str, node: str | None = None) -> Viewer:
        """See `Viewers.approve`."""
        return self._call(lambda: self._viewers.approve(viewer, node))  # type: ignore[no-any-return]

    def reject(self, viewer: str, node: str | None = None) -> Viewer:
        """See `Viewers.reject`."""
        return self._call(lambda: self._viewers.reject(viewer, node))  # type: ignore[no-any-return]

    def kick(self, viewer: str, node: str | None = None) -> Viewer:
        """See `Viewers.kick`."""
        return self._call(lambda: self._viewers.kick(viewer, node))  # type: ignore[no-any-return]

    def pause(self, viewer: str, node: str | None = None) -> Viewer:
        """See `Viewers.pause`."""
        return self._call(lambda: self._viewers.pause(viewer, node))  # type: ignore[no-any-return]

    def resume(self, viewer: str, node: str | None = None) -> Viewer:
        """See `Viewers.resume`."""
        return self._call(lambda: self._viewers.resume(viewer, node))  # type: ignore[no-any-return]

    def permit(
        self, viewer: str, *, video: bool | None = None, audio: bool | None = None, node: str | None = None
    ) -> Viewer:
        """See `Viewers.permit`."""
        return self._call(  # type: ignore[no-any-return]
            lambda: self._viewers.permit(viewer, video=video, audio=audio, node=node)
        )

    def cap(self, viewer: str, bitrate: str | None, node: str | None = None) -> Viewer:
        """See `Viewers.cap`."""
        return self._call(lambda: self._viewers.cap(viewer, bitrate, node))  # type: ignore[no-any-return]

    def prioritize(self, viewer: str, priority: int, node: str | None = None) -> Viewer:
        """See `Viewers.prioritize`."""
        return self._call(lambda: self._viewers.prioritize(viewer, priority, node))  # type: ignore[no-any-return]

    def pause_view(self, node: str | None = None) -> list[str]:
        """See `Viewers.pause_view`."""
        return self._call(lambda: self._viewers.pause_view(node))  # type: ignore[no-any-return]

    def resume_view(self, node: str | None = None) -> list[str]:
        """See `Viewers.resume_view`."""
        return self._call(lambda: self._viewers.resume_view(node))  # type: ignore[no-any-return]

    def invite(
        self, node: str | None = None, *, name: str | None = None, seconds: float = INVITATION_SECONDS
    ) -> Invitation:
        """See `Viewers.invite`."""
        return self._call(  # type: ignore[no-any-return]
            lambda: self._viewers.invite(node, name=name, seconds=seconds)
        )

    def revoke(self, invitation: str) -> int:
        """See `Viewers.revoke`."""
        return int(self._call(lambda: self._viewers.revoke(invitation)))

    def _call(self, function: Callable[[], Any]) -> Any:
        return self._loop.call(function)
