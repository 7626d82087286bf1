"""An encoder on a thread of its own, so that one that never answers is left behind and not waited for.

Libraries hang, and drivers of devices that are gone. SVT-AV1 4.1 does, whatever it is told, when a picture comes right
after the packet of the one before, on a busy machine once in some thousand: for low delay it has the fewest
reference buffers that will do. When one is given back a moment late, its picture decision waits for that, what gives
it back waits for the next picture, and ``svt_av1_enc_get_packet`` waits for all of them. Left alone for a moment after
each picture it does so far more seldom. A node that calls such an encoder itself hangs with it, and so does everybody
who watches.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

from flowstream_nodes.codec.encoders import OpenEncoder

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame as AvVideoFrame

R = TypeVar("R")

PATIENCE_S = 10.0
"""How long an encoder may take to open, and to come to its end."""

PICTURE_PATIENCE_S = 4.0
"""How long it may take for one picture; an encoder that takes longer is of no use for live pictures."""

MOST_HANGING = 5
"""How many may hang in one process before none is opened in the place of another."""

_Job = Callable[[], object]
_Answer = tuple[Any, Exception | None]


_hanging: list[threading.Thread] = []


def hanging() -> int:
    """How many encoders of this process hang now."""
    _hanging[:] = [thread for thread in _hanging if thread.is_alive()]
    return len(_hanging)


class SilentError(ValueError):
    """Raised when an encoder has not answered in time. It is not used again; its thread stays where it is."""


class GuardedEncoder:
    """An encoder whose every call, opening and closing included, is made on a thread of its own.

    ``open`` opens it. ``rest_s`` is how long it is left alone after each call, so that its own threads come to rest.
    Raises what ``open`` raises, and SilentError when it does not answer.
    """

    def __init__(self, name: str, open: Callable[[], OpenEncoder], *, rest_s: float = 0.0) -> None:
        self.name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        self._is_silent = False
        self._thread = threading.Thread(
            target=_work, args=(self._jobs, self._answers, rest_s), name=f"flowstream {name}", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None)  # also of one that nobody closes
        self._encoder: OpenEncoder | None = None
        self.interval_ns: int | None = None
        self.nominal_ns = 0
        self.is_outgrown = False
        try:
            self._encoder = self._answer(open)
        except BaseException:
            self.close()
            raise
        self._look()

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        """As of the encoder, or SilentError."""
        return self._answer(lambda: self._at_work.set_bitrate(bitrate_bps), patience_s=PICTURE_PATIENCE_S)

    def encode(
        self, picture: AvVideoFrame, tag: Any, /, *, time_ns: int, keyframe: bool
    ) -> list[tuple[Packet[Any], Any]]:
        """As of the encoder, or SilentError."""
        try:
            return self._answer(
                lambda: self._at_work.encode(picture, tag, time_ns=time_ns, keyframe=keyframe),
                patience_s=PICTURE_PATIENCE_S,
            )
        finally:
            self._look()

    def flush(self) -> list[tuple[Packet[Any], Any]]:
        """As of the encoder, or SilentError."""
        return self._answer(self._at_work.flush)

    def close(self) -> bool:
        """Gives the encoder back; False when that does not come to an end. One that is silent is not waited for."""
        if self._is_silent:
            return True
        self._encoder = None
        self._jobs.put(None)
        self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def _look(self) -> None:
        """What it says of itself is known also when it is closed, or hangs."""
        encoder = self._at_work
        self.interval_ns, self.nominal_ns = encoder.interval_ns, encoder.nominal_ns
        self.is_outgrown = encoder.is_outgrown

    @property
    def _at_work(self) -> OpenEncoder:
        assert self._encoder is not None
        return self._encoder

    def _answer(self, job: Callable[[], R], *, patience_s: float | None = None) -> R:
        if self._is_silent:  # what it says now would be the answer to something else
            raise SilentError(f"{self.name} does not answer")
        patience_s = PATIENCE_S if patience_s is None else patience_s
        self._jobs.put(job)
        del job
        try:
            result, error = self._answers.get(timeout=patience_s)
        except Empty:
            self._is_silent = True
            self._jobs.put(None)  # for when it comes back after all
            _hanging.append(self._thread)
            raise SilentError(f"{self.name} has not answered for {patience_s:g} s and is left behind") from None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle with this frame
        answered: R = result
        return answered


def _work(jobs: SimpleQueue[_Job | None], answers: SimpleQueue[_Answer], rest_s: float) -> None:
    """Does jobs one after the other. Keeps hold of what was opened, so that it is closed on this thread, too."""
    opened: object = None
    while (job := jobs.get()) is not None:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits for the answer
            answers.put((None, error))
        else:
            opened = opened or result
            answers.put((result, None))
            del result
        del job
        if rest_s:
            sleep(rest_s)
    del opened
