"""The four bases of node types, and the checks on a declaration when its class is made.

One lane per instance: ``open``, the handlers, ``requested``, ``reconfigured``, ``caps_changed``, ``finish`` and
``close`` never overlap, and ``config`` changes between calls only. With ``thread = True`` all of them run on one
thread that belongs to the instance, for its whole life.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from flowstream.media.caps import Caps
from flowstream.media.signals import KeyframeRequest
from flowstream.node.config import RESERVED, Config, NoConfig
from flowstream.node.context import Context
from flowstream.node.ports import Emit, Input, Output

C = TypeVar("C", bound=Config, default=NoConfig)

TYPE_ID = re.compile(r"[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)?")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Need:
    """A library that a node type imports when it runs: the module's name and the distribution that brings it.

    One that is ``optional`` is loaded where it is installed, and does not keep the node from running where it is not or
    does not load. Named here, it is loaded before the node opens and while the rest of the graph goes on.
    """

    module: str
    package: str = ""
    optional: bool = False

    @property
    def install(self) -> str:
        """What to install to get it."""
        return self.package or self.module


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Plain state that an instance leaves to its replacement at a reload.

    ``values`` are numbers, text, lists and maps of them; ``version`` numbers their form, so that the code of next week
    does not take what the code of today wrote for something else.
    """

    version: int
    values: Mapping[str, Any]


class Node(Generic[C]):
    """A node type with any ports and a life of its own: it overrides ``run``.

    Class attributes: ``thread`` runs its calls on a thread of its own (one that gives way to others, if the node is no
    source and works on pictures), ``needs`` names libraries it imports when it runs, ``is_live`` is for sources that
    cannot be slowed down, ``serves`` for nodes that mount an application, so that the graph has an address,
    ``restores`` are the versions of a snapshot that ``restore`` knows, ``asyncio_only`` is for nodes that use asyncio
    themselves and so cannot run on trio. A node object lives for one run.
    """

    type_id: ClassVar[str] = ""
    config_class: ClassVar[type[Config]] = NoConfig
    inputs: ClassVar[dict[str, Input[Any]]] = {}
    outputs: ClassVar[dict[str, Output[Any]]] = {}
    handlers: ClassVar[dict[str, str]] = {}  # input name -> method name

    thread: ClassVar[bool] = False
    is_live: ClassVar[bool] = False
    serves: ClassVar[bool] = False
    asyncio_only: ClassVar[bool] = False
    needs: ClassVar[tuple[Need, ...]] = ()
    restores: ClassVar[tuple[int, ...]] = ()

    config: C
    ctx: Context

    def __init__(self, config: C | None = None) -> None:
        self.config = config if config is not None else typing.cast("C", self.config_class())

    def __init_subclass__(cls, *, type: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:  # the bases themselves declare nothing
            return
        cls.config_class = _config_of(cls)
        cls.inputs = _ports(cls, Input)
        cls.outputs = _ports(cls, Output)
        cls.handlers = _handlers(cls)
        if type:
            cls.type_id = type
            _check_declaration(cls)

    # Hooks. Each may be left out.

    def open(self) -> Awaitable[None] | None:
        """Opens what the node needs; the node is ready when it returns. ``self.ctx`` and ``self.config`` are set."""

    def close(self) -> Awaitable[None] | None:
        """Gives back what ``open`` took. Called once when ``open`` was begun, whatever happened in between."""

    def reconfigured(self, old: C, /) -> Awaitable[None] | None:
        """``self.config`` has been replaced and only live fields differ from ``old``."""

    def accepts(self, config: C, /) -> None:
        """Raises ValueError for live values that this instance cannot take in place, with the reason.

        Asked before a reload is applied; the node is then replaced instead.
        """

    @classmethod
    def live_with(cls, config: Any, /) -> bool:
        """Whether a node so configured cannot be slowed down; ``is_live`` unless the configuration decides."""
        return cls.is_live

    @classmethod
    def updates_in_place(cls, opened: Any, new: Any, /) -> bool | str:
        """Whether a change of live fields is applied in place, or why not: the plan then says that and replaces it.

        ``opened`` is the configuration that the running instance was opened with. For what both configurations tell
        by themselves; ``accepts`` decides on what only the running node knows.
        """
        return True

    @classmethod
    def negotiate(cls, config: Any, incoming: Mapping[str, Caps], /) -> Mapping[str, Caps]:
        """What comes out, as far as it can be known before the start: caps by the name of the output.

        ``incoming`` has the caps of each connected input for which something is known. What is not told here is as
        declared; an output that is ``like`` an input gives what comes in there. For example: a node that scales says
        what size it gives.
        """
        return {}

    @classmethod
    def exclusive(cls, config: Any, /) -> str | None:
        """What only one instance can have open at a time, by a name that says which: ``camera /dev/video0``.

        A reload ends the running instance before it starts a replacement that needs the same; the plan then says
        ``break-before-make`` and how long that takes. Not for what is held (``ctx.hold``), which passes on without a
        gap.
        """
        return None

    def snapshot(self) -> Snapshot | None:
        """Plain state for the instance of the same type that replaces this one at a reload; None for none.

        Called last but for ``close``, when everything that came in before the switch has been worked off.
        """

    def restore(self, snapshot: Snapshot, /) -> None:
        """Takes what the replaced instance left, before the first payload; with a ``run`` of its own, while it waits.

        Called only with a version that ``restores`` names; any other is dropped, with a line in the log.
        """

    def caps_changed(self, port: str, caps: Caps, /) -> None:
        """The payloads of an input have other caps from the next one on; also called before the first payload."""

    def requested(self, port: str, signal: KeyframeRequest, /) -> None:
        """Somebody downstream of an output asked for something. By default it is passed on through every input."""
        for each in self.inputs.values():
            if not each.feedback and self.ctx.is_connected(each):
                self.ctx.request(each, signal)

    async def run(self, ctx: Context) -> None:
        """The node's life, for those that are not a plain source, transform or sink. Cancelled to stop it."""
        raise NotImplementedError  # pragma: no cover - the declaration check refuses a Node without run


class Source(Node[C]):
    """Captures or makes payloads; no inputs but feedback.

    Overrides ``capture``, called again and again on the node's own thread, or ``run``.
    """

    def capture(self) -> Iterable[Emit[Any]] | None:
        """Blocks for the next payload and gives it; None when there will be no more. Raises PeerError on a loss."""
        raise NotImplementedError  # pragma: no cover - the declaration check refuses a Source with neither

    async def run(self, ctx: Context) -> None:
        """Emits what ``capture`` gives until it gives None."""
        while (emits := await ctx.in_thread(self.capture)) is not None:
            for each in emits:
                await ctx.emit(each)


class Transform(Node[C]):
    """Takes payloads and gives payloads, synchronously: ``process`` for one input, handlers for several.

    A feedback input may have a handler beside ``process``; what comes there is handled in the node's lane too.
    """

    def process(self, payload: Any, /) -> Iterable[Emit[Any]] | None:
        """What comes of one payload; a generator, a list, or None for nothing."""
        raise NotImplementedError  # pragma: no cover - the declaration check refuses a Transform with neither

    def finish(self) -> Iterable[Emit[Any]] | None:
        """The inputs have ended: what is still inside."""


class Sink(Node[C]):
    """Takes payloads and gives none (records about them are fine): ``consume`` for one input, handlers for several."""

    def consume(self, payload: Any, /) -> Awaitable[None] | Iterable[Emit[Any]] | None:
        """Takes one payload; may be ``async``."""
        raise NotImplementedError  # pragma: no cover - the declaration check refuses a Sink with neither

    def finish(self) -> Iterable[Emit[Any]] | None:
        """The inputs have ended."""


_BASES: tuple[type[Node[Any]], ...] = (Source, Transform, Sink, Node)


def base_of(cls: type[Node[Any]]) -> type[Node[Any]]:
    """Which of the four bases a node type stands on."""
    return next(base for base in _BASES if issubclass(cls, base))


def _config_of(cls: type[Node[Any]]) -> type[Config]:
    for base in getattr(cls, "__orig_bases__", ()):
        for argument in typing.get_args(base):
            if isinstance(argument, type) and issubclass(argument, Config):
                return argument
    return cls.config_class


def _ports(cls: type, kind: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        found.update({name: port for name, port in vars(owner).items() if isinstance(port, kind)})
    return found


def _handlers(cls: type[Node[Any]]) -> dict[str, str]:
    handlers: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        for name, member in vars(owner).items():
            port = getattr(member, "__flowstream_input__", None)
            if isinstance(port, Input):
                handlers[port.name] = name
    sugars: dict[type[Node[Any]], str] = {Transform: "process", Sink: "consume"}
    sugar = sugars.get(base_of(cls))
    media = [name for name, port in cls.inputs.items() if not port.feedback]
    if sugar and len(media) == 1 and media[0] not in handlers:
        handlers[media[0]] = sugar
    return handlers


def _check_declaration(cls: type[Node[Any]]) -> None:
    """What type checkers cannot see. Raises TypeError with the class, what is wrong and how to mend it."""

    def refuse(problem: str) -> typing.NoReturn:
        raise TypeError(f"node type {cls.type_id!r} ({cls.__module__}.{cls.__qualname__}): {problem}")

    if not TYPE_ID.fullmatch(cls.type_id):
        refuse("a type id is lower case words with hyphens, with a namespace for a pack's own: 'acme/blur'")
    if not (cls.__doc__ or "").strip():
        refuse("it has no docstring; the first line is what `flowstream nodes` shows")
    clashes = sorted(RESERVED.intersection(cls.config_class.model_fields))
    if clashes:
        refuse(f"config field {clashes[0]!r} is a word of the graph language; choose another name")
    both = sorted(set(cls.inputs) & set(cls.outputs))
    if both:
        refuse(f"{both[0]!r} is the name of both an input and an output")
    for name in (*cls.inputs, *cls.outputs):
        if not NAME.fullmatch(name):
            refuse(f"port {name!r} needs a lower case name that starts with a letter")
    if sum(port.main for port in cls.outputs.values()) > 1:
        refuse("only one output can be the main one")
    base = base_of(cls)
    media = {name: port for name, port in cls.inputs.items() if not port.feedback}
    if base is Source:
        if media:
            refuse(f"a Source has no inputs, but {next(iter(media))!r} is one; make it a Transform or a Node")
        if getattr(cls, "capture", None) is Source.capture and cls.run is Source.run:
            refuse("a Source overrides capture() or run()")
    if base is Node and cls.run is Node.run:
        refuse("a Node overrides run(); a plain source, transform or sink has a base of its own")
    if base in (Transform, Sink):
        sugar = "process" if base is Transform else "consume"
        if not media:
            refuse(f"a {base.__name__} has an input")
        if many := [name for name, port in media.items() if port.many]:
            refuse(f"input {many[0]!r} takes many edges; that needs a Node with run()")
        if base is Transform and not cls.outputs:
            refuse("a Transform has an output; without one it is a Sink")
        missing = [name for name in media if name not in cls.handlers]
        if missing:
            refuse(f"input {missing[0]!r} has no handler; mark a method with @{missing[0]}.handler")
        for name, method in cls.handlers.items():
            function = getattr(cls, method)
            if function is getattr(base, sugar, None):
                refuse(f"it overrides neither {sugar}() nor marks a handler for input {name!r}")
            _check_handler(cls.inputs[name], function, refuse)
            if base is Transform and inspect.iscoroutinefunction(function):
                refuse(f"{method}() is async; a Transform is synchronous (thread = True where it blocks)")
    if base is Sink:
        from flowstream.media.records import Record

        media_out = [name for name, port in cls.outputs.items() if not issubclass(port.payloads[0], Record)]
        if media_out:
            refuse(f"a Sink gives no media, but {media_out[0]!r} does; make it a Transform or a Node")


def _check_handler(port: Input[Any], function: Callable[..., Any], refuse: Callable[[str], typing.NoReturn]) -> None:
    """A handler annotated for a payload that its input never carries is a mistake."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # an annotation that exists for type checkers only, who have checked it
        return
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    if len(parameters) != 1:
        refuse(f"{function.__name__}() takes one payload, not {len(parameters)}")
    hint = hints.get(parameters[0], Any)
    wanted = payload_classes(hint)
    missed = [p.__name__ for p in port.payloads if wanted is not None and not issubclass(p, wanted)]
    if missed:
        refuse(f"{function.__name__}() is annotated for {_spoken(hint)}, but input {port.name!r} carries {missed[0]}")


def _spoken(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("flowstream.media.", "")


def payload_classes(hint: Any) -> tuple[type[Any], ...] | None:
    """The classes an annotation allows (``A | B``, ``Record[T]``, ``A``); None when it allows anything."""
    if hint is Any:
        return None
    origin = typing.get_origin(hint)
    alternatives = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    classes = tuple(typing.get_origin(each) or each for each in alternatives)
    return classes if all(isinstance(each, type) for each in classes) else None
