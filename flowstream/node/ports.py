"""Ports: typed attachment points, declared as class attributes; the attribute's name is the port's name in YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from flowstream.errors import NegotiationError
from flowstream.media.caps import AudioCaps, Caps, CapsConflict, VideoCaps, spoken

P = TypeVar("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
P_co = TypeVar("P_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

_new = object.__new__


class Emit(Generic[P_co]):
    """A payload on its way out of an output. Made by calling the output: ``self.out(frame)``."""

    __slots__ = ("output", "payload")

    def __init__(self, output: Output[Any], payload: P_co) -> None:
        self.output: Output[Any] = output
        self.payload: P_co = payload

    def __repr__(self) -> str:
        return f"Emit({self.output.name}, {self.payload!r})"


class Port:
    """What inputs and outputs have in common."""

    name: str = ""
    owner: type | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.owner = owner

    def __repr__(self) -> str:
        owner = f"{self.owner.__name__}." if self.owner else ""
        return f"<{type(self).__name__} {owner}{self.name}>"


class Input(Port, Generic[P]):
    """Where payloads of the given class, or of one of several, come in.

    ``caps`` narrows what is taken. An ``optional`` input may be left unconnected. A ``many`` input takes any number of
    edges. A ``feedback`` input may close a loop: it holds the latest value only, never blocks and carries no end of
    stream. ``follows`` names what of the caps may change in band without anybody noticing (``size``, ``format``,
    ``codec``, ``rate``, ``layout``, ``extradata``); ``otherwise`` is what the node does when anything else changes, for
    the plan to say: "begin a new file". ``items`` is how many payloads wait here at most on a live graph, unless the
    graph says so itself: 1 where what is dropped is to be dropped before a node that takes long.
    """

    @overload
    def __init__(
        self: Input[A],
        payload: type[A],
        /,
        *,
        caps: Caps | None = None,
        optional: bool = False,
        feedback: bool = False,
        many: bool = False,
        follows: Iterable[str] = (),
        otherwise: str = "",
        items: int | None = None,
        doc: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self: Input[A | B],
        payload: type[A],
        second: type[B],
        /,
        *,
        caps: Caps | None = None,
        optional: bool = False,
        feedback: bool = False,
        many: bool = False,
        follows: Iterable[str] = (),
        otherwise: str = "",
        items: int | None = None,
        doc: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self: Input[A | B | C],
        payload: type[A],
        second: type[B],
        third: type[C],
        /,
        *,
        caps: Caps | None = None,
        optional: bool = False,
        feedback: bool = False,
        many: bool = False,
        follows: Iterable[str] = (),
        otherwise: str = "",
        items: int | None = None,
        doc: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self: Input[Any],
        /,
        *payloads: type[Any],
        caps: Caps | None = None,
        optional: bool = False,
        feedback: bool = False,
        many: bool = False,
        follows: Iterable[str] = (),
        otherwise: str = "",
        items: int | None = None,
        doc: str = "",
    ) -> None: ...
    def __init__(
        self,
        /,
        *payloads: type[Any],
        caps: Caps | None = None,
        optional: bool = False,
        feedback: bool = False,
        many: bool = False,
        follows: Iterable[str] = (),
        otherwise: str = "",
        items: int | None = None,
        doc: str = "",
    ) -> None:
        if not payloads:
            raise TypeError("an Input names the payload it takes: Input(VideoFrame)")
        self.declared: tuple[Any, ...] = payloads  # as written: Record[Targets]
        self.payloads: tuple[type[Any], ...] = tuple(_payload_class(p) for p in payloads)
        self.caps = caps
        self.optional: bool = optional or feedback
        self.feedback = feedback
        self.many = many
        self.follows: frozenset[str] = frozenset(follows)
        self.otherwise = otherwise
        self.items = items
        self.doc = doc

    def handler(self, function: F) -> F:
        """Marks the method that takes what comes in here, for nodes with several inputs."""
        function.__flowstream_input__ = self  # type: ignore[attr-defined]
        return function

    def takes(self, payload: type[Any]) -> bool:
        """Whether payloads of this class may come in."""
        return issubclass(payload, self.payloads)

    def require(self, caps: Any, *, taker: str, giver: str, is_change: bool = False) -> None:
        """Raises NegotiationError when payloads with these caps cannot come in.

        The text names what conflicts and both sides: ``taker`` is this input and ``giver`` the output that the payload
        came from, as a graph writes them. ``is_change`` says that payloads with other caps came before.
        """
        if self.caps is None or type(caps) is not type(self.caps):
            return
        try:
            caps.intersect(self.caps)
        except CapsConflict as error:
            gives = "now gives" if is_change else "gives"
            raise NegotiationError(
                f"{taker} takes {error.field} {spoken(error.accepted)}, but {giver} {gives} {spoken(error.offered)}",
                hint=_way_out(self.caps),
            ) from error


def _way_out(caps: Caps) -> str:
    """What to do about payloads that an input with these caps cannot take."""
    if isinstance(caps, VideoCaps | AudioCaps):
        converter = "convert" if isinstance(caps, VideoCaps) else "resample"
        return f"take `convert: never` out, or put a node of type {converter} between them"
    return "put a node of type decode and an encoder between them"


class Output(Port, Generic[P]):
    """Where payloads of the given class go out.

    ``like`` makes it carry what that input carries. ``main`` makes it the one that a bare node name means, so that
    outputs added later never make it ambiguous. Calling it makes an Emit.
    """

    @overload
    def __init__(
        self: Output[A], payload: type[A], /, *, like: Input[Any] | None = None, caps: Caps | None = None,
        main: bool = False, doc: str = "",
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Output[A], /, *, like: Input[A], caps: Caps | None = None, main: bool = False, doc: str = ""
    ) -> None: ...
    def __init__(
        self,
        payload: type[Any] | None = None,
        /,
        *,
        like: Input[Any] | None = None,
        caps: Caps | None = None,
        main: bool = False,
        doc: str = "",
    ) -> None:
        if payload is None and like is None:
            raise TypeError("an Output names the payload it gives: Output(VideoFrame), or Output(like=an_input)")
        given = (_payload_class(payload),) if payload is not None else like.payloads if like else ()
        self.declared: tuple[Any, ...] = (payload,) if payload is not None else like.declared if like else ()
        self.payloads: tuple[type[Any], ...] = given
        self.like = like
        self.caps = caps
        self.main = main
        self.doc = doc

    def __call__(self, payload: P, /) -> Emit[P]:
        emit: Emit[P] = _new(Emit)  # for every payload there is: calling the class takes twice as long
        emit.output = self
        emit.payload = payload
        return emit


def _payload_class(payload: Any) -> type[Any]:
    """The class behind a payload declaration: ``Record[Targets]`` is a Record."""
    origin = getattr(payload, "__origin__", payload)
    if not isinstance(origin, type):
        raise TypeError(f"{payload!r} is no payload class")
    return origin
