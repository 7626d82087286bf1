"""Which encoder a node uses, and which next when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream import Context, FlowstreamError
from flowstream_nodes.codec._ffmpeg import open_encoder
from flowstream_nodes.codec._guarded import MOST_HANGING, GuardedEncoder, SilentError, hanging
from flowstream_nodes.codec.encoders import Candidate, EncoderSettings, OpenEncoder, candidates_for

if TYPE_CHECKING:
    from av.packet import Packet

_said: set[str] = set()  # what was passed over and why, once for a process


class Choice:
    """The encoders that a node may still take, the preferred one first; for the node's thread.

    ``encoder`` is what the configuration says: ``auto``, or the name of the only one. ``codec`` and ``layers`` are what
    it has to make.
    """

    def __init__(self, ctx: Context, *, encoder: str, codec: str, layers: int) -> None:
        self._ctx = ctx
        self._codec = codec
        candidates = candidates_for(codec, layers=layers)
        if encoder == "auto":
            self._left = self._working(candidates)
        else:
            self._left = [each for each in candidates if each.name == encoder]

    @property
    def first(self) -> Candidate:
        """The one to open."""
        return self._left[0]

    def open(self, settings: EncoderSettings) -> OpenEncoder | None:
        """The first at work; None when it did not open, and another one is the first now, or it once more.

        Raises FlowstreamError when there is no other.
        """
        candidate = self.first
        try:
            return open_encoder(candidate, settings)
        except ValueError as error:
            self.failed(candidate, error)
            return None

    def failed(self, candidate: Candidate, error: ValueError) -> None:
        """Passes over a candidate that did not open or failed; the last one is opened again when it only hangs.

        Raises FlowstreamError when there is no other.
        """
        left = [each for each in self._left if each is not candidate]
        if isinstance(error, SilentError):
            self._ctx.report(hanging=hanging())
        if not left and isinstance(error, SilentError) and hanging() < MOST_HANGING:
            self._ctx.log.warning("%s; it is opened anew", error)
            return
        if not left:
            raise FlowstreamError(
                f"{self._ctx.name} cannot encode {self._codec}: {error}",
                hint=f"{hanging()} encoders hang; see to the device or the library, then restart flowstream"
                if hanging() >= MOST_HANGING
                else "flowstream doctor shows the encoders of this machine; encoder: auto takes any of them",
            ) from error
        self._left = left
        self._say_once(f"{error}; going on with {left[0].name}", is_warning=True)

    def rest_of(self, encoder: OpenEncoder) -> list[tuple[Packet[Any], Any]]:
        """What an encoder that is not used any more still has inside, and lets it go."""
        try:
            return encoder.flush()
        except ValueError as error:
            self._ctx.log.warning("%s; what it still had is lost", error)
            return []
        finally:
            self.let_go(encoder)

    def let_go(self, encoder: OpenEncoder) -> None:
        """Gives an encoder back."""
        if isinstance(encoder, GuardedEncoder) and not encoder.close():
            self._ctx.log.warning("%s does not come to its end; its thread is left behind", encoder.name)

    def _working(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those whose hardware was found to work, and those that need none."""
        from flowstream_nodes.codec.probing import ELSEWHERE, cache_file, find

        hardware = find([each for each in candidates if each.is_hardware], cache=cache_file())
        works = {found.candidate.name: found.reason for found in hardware}
        usable = [each for each in candidates if not works.get(each.name)]
        reasons = "; ".join(f"{name}: {reason}" for name, reason in works.items() if reason not in ("", ELSEWHERE))
        if reasons and usable and not usable[0].is_hardware:
            self._say_once(f"{self._codec} is encoded by {usable[0].name}, on the processor ({reasons})")
        return usable

    def _say_once(self, text: str, *, is_warning: bool = False) -> None:
        if text not in _said:
            _said.add(text)
            (self._ctx.log.warning if is_warning else self._ctx.log.info)("%s", text)
