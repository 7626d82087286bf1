"""Which pictures of which rung go to one viewer: changes rungs at keyframes, leaves out temporal layers.

What is forwarded can always be decoded: no picture goes out that needs one that did not. Timestamps rise whatever the
rungs do. Sequence numbers are given by who sends, to what is sent, so that they have no gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LAYERS: Final = 8
"""Temporal layers that are told apart; those above count as the highest."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture of a rung, as far as it matters here.

    ``number`` counts the pictures of the rung, one by one: a gap is a picture that was lost on the way. ``ticks`` is
    its position on the timeline that all rungs share. A picture of a layer needs only pictures of its own layer and
    below. ``is_switch_up`` says that neither it nor a later picture needs one of its layer or above from before it;
    ``is_droppable`` that no picture needs it.
    """

    rung: str
    number: int
    ticks: int
    is_keyframe: bool = False
    temporal_id: int = 0
    is_switch_up: bool = False
    is_droppable: bool = False


class RungSwitch:
    """One viewer's choice of pictures. `offer` is called for every picture of every rung, in the order of each rung."""

    def __init__(self, *, wanted: str | None = None, most_temporal_id: int = LAYERS - 1) -> None:
        self.most_temporal_id: int = most_temporal_id
        """Layers above this one are left out."""
        self.switches: int = 0
        self._wanted = wanted
        self._current: str | None = None
        self._is_whole = [False] * LAYERS  # whether a layer misses nothing that its later pictures may need
        self._next_number: int | None = None
        self._last_ticks: int | None = None

    @property
    def current(self) -> str | None:
        """The rung whose pictures go out; None before the first keyframe and while nothing is wanted."""
        return self._current

    @property
    def needs_keyframe(self) -> str | None:
        """The rung that a keyframe is needed of: to change to it, to begin, or to go on after a loss."""
        if self._wanted is None:
            return None
        return None if self._wanted == self._current and self._is_whole[0] else self._wanted

    def want(self, rung: str | None) -> None:
        """Pictures of this rung are wanted from its next keyframe on, until then those of the last one; None: none."""
        self._wanted = rung
        if rung is None:
            self._current = None

    def offer(self, picture: Picture) -> int | None:
        """Whether a picture goes out, and with which timestamp (not wrapped): None if it does not.

        Timestamps rise by one at least: when the wanted rung lags behind, its keyframe comes right after the last
        picture.
        """
        if (
            picture.number == self._next_number
            and picture.rung == self._current
            and self._is_whole[0]
            and not picture.temporal_id
            and not picture.is_keyframe
        ):
            self._next_number = picture.number + 1  # nearly always: the next one of the lowest layer
            return self._next_ticks(picture.ticks)
        if picture.is_keyframe and picture.rung == self._wanted:
            if self._current != picture.rung:
                self.switches += self._current is not None
                self._current = picture.rung
            self._is_whole = [True] * LAYERS
        elif picture.rung != self._current:
            return None
        elif picture.is_keyframe:
            self._is_whole = [True] * LAYERS
        elif self._next_number is not None and picture.number != self._next_number:
            self._is_whole = [False] * LAYERS
        self._next_number = picture.number + 1
        layer = min(picture.temporal_id, LAYERS - 1)
        is_decodable = picture.is_keyframe or (
            all(self._is_whole[:layer]) and (self._is_whole[layer] or (picture.is_switch_up and layer > 0))
        )
        if not is_decodable or (layer > self.most_temporal_id and not picture.is_keyframe):
            self._miss(layer, picture.is_droppable)
            return None
        self._is_whole[layer] = True
        return self._next_ticks(picture.ticks)

    def _next_ticks(self, ticks: int) -> int:
        last = self._last_ticks
        self._last_ticks = ticks if last is None or ticks > last else last + 1
        return self._last_ticks

    def is_next(self, rung: str, number: int, *, after_ticks: int) -> bool:
        """Whether picture ``number`` of a rung goes out, if it is of the lowest layer, and with its own timestamp, if
        that is above ``after_ticks``."""
        is_due = rung == self._current and number == self._next_number and self._is_whole[0]
        return is_due and (self._last_ticks is None or self._last_ticks <= after_ticks)

    def passed(self, picture: Picture, *, count: int) -> None:
        """As if `offer` had been called for ``count`` pictures of which the first `is_next`, up to this one."""
        assert self._next_number is not None
        assert picture.number == self._next_number + count - 1
        self._next_number = picture.number + 1
        self._last_ticks = picture.ticks

    def dropped(self, picture: Picture) -> None:
        """A picture that `offer` had let out was not sent after all, and neither was any after it that needs it."""
        if picture.rung == self._current:
            self._miss(min(picture.temporal_id, LAYERS - 1), picture.is_droppable)

    def _miss(self, layer: int, is_droppable: bool) -> None:
        if not is_droppable:
            for above in range(layer, LAYERS):
                self._is_whole[above] = False
