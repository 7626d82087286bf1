"""The function form of a node type: one input, one output, live keyword arguments."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar

from pydantic.fields import FieldInfo

from flowstream.node.base import Need, Node, Sink, Transform, payload_classes
from flowstream.node.config import Config
from flowstream.node.ports import Emit, Input, Output

X = ParamSpec("X")
R = TypeVar("R")

_STREAMS = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)


class FunctionNode(Generic[X, R]):
    """A function that is a node type too. Calling it calls the function, with ``live()`` defaults resolved."""

    def __init__(self, function: Callable[X, R], node_type: type[Node[Any]]) -> None:
        self.function = function
        self.node_type = node_type
        self.__name__: str = function.__name__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__

    def __call__(self, *args: X.args, **kwargs: X.kwargs) -> R:
        settings = self.node_type.config_class(**kwargs)
        return self.function(*args, **{name: getattr(settings, name) for name in type(settings).model_fields})

    def __repr__(self) -> str:
        return f"<node type {self.node_type.type_id} {self.__name__}()>"


def node(
    type_id: str, *, thread: bool = True, needs: Iterable[Need] = ()
) -> Callable[[Callable[X, R]], FunctionNode[X, R]]:
    """Makes a node type of a function that takes one payload and gives one.

    The parameter is the input and gives it its name; the output is ``out``; keyword-only parameters are the config,
    live where their default is ``live(...)``. It may return None for nothing, or be a generator for several payloads;
    one that is annotated to return None is a sink. It runs in a worker thread unless ``thread=False``. Raises
    TypeError, naming the function, for a signature that does not fit; more than this is a class.
    """

    def decorate(function: Callable[X, R]) -> FunctionNode[X, R]:
        return FunctionNode(function, _node_type(function, type_id, thread, tuple(needs)))

    return decorate


def _node_type(function: Callable[..., Any], type_id: str, thread: bool, needs: tuple[Need, ...]) -> type[Node[Any]]:
    def refuse(problem: str) -> typing.NoReturn:
        raise TypeError(f"node type {type_id!r} ({function.__module__}.{function.__qualname__}): {problem}")

    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    inputs = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    settings = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
    if len(inputs) != 1 or len(inputs) + len(settings) != len(list(parameters)):
        refuse("a node function takes one payload and keyword-only settings; more than that is a class")
    if "return" not in hints or inputs[0].name not in hints:
        refuse("annotate the payload and what is returned")
    takes = payload_classes(hints[inputs[0].name])
    if takes is None:
        refuse(f"parameter {inputs[0].name!r} is annotated with something that is no payload class")
    returned, many = hints["return"], False
    if typing.get_origin(returned) in _STREAMS:
        returned, many = typing.get_args(returned)[0], True
    gives = tuple(c for c in payload_classes(returned) or () if c is not types.NoneType)
    if inspect.isgeneratorfunction(function) and not many:
        refuse("it yields, so annotate it to return an Iterator of its payload")

    config = _config_type(function, settings, hints)
    port: Input[Any] = Input(*takes)
    names = [p.name for p in settings]
    body: dict[str, Any] = {
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        inputs[0].name: port,
        "thread": thread,
        "needs": needs,
    }

    def call(self: Node[Any], payload: Any) -> Any:
        return function(payload, **{name: getattr(self.config, name) for name in names})

    base: Any
    if gives:
        out: Output[Any] = Output(gives[0]) if len(gives) == 1 else Output(like=port)

        def process(self: Node[Any], payload: Any) -> Iterable[Emit[Any]] | None:
            given = call(self, payload)
            if many:
                return (out(each) for each in given)
            return None if given is None else (out(given),)

        body |= {"out": out, "process": process}
        base = Transform
    else:
        if returned not in (None, types.NoneType):
            refuse(f"it returns {returned!r}, which is no payload class")

        def consume(self: Node[Any], payload: Any) -> None:
            call(self, payload)

        body |= {"consume": consume}
        base = Sink

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body)

    return types.new_class(function.__name__, (base[config],), {"type": type_id}, fill)


def _config_type(
    function: Callable[..., Any], settings: list[inspect.Parameter], hints: dict[str, Any]
) -> type[Config]:
    namespace: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": f"{function.__name__}.Config",
        "__annotations__": {p.name: hints.get(p.name, Any) for p in settings},
        "__doc__": f"Settings of {function.__name__}.",
    }
    for parameter in settings:
        if isinstance(parameter.default, FieldInfo) or parameter.default is not parameter.empty:
            namespace[parameter.name] = parameter.default
    return types.new_class(f"{function.__name__.title()}Config", (Config,), {}, lambda body: body.update(namespace))
