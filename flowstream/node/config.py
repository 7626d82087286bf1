"""The configuration of a node type: a closed, frozen pydantic model that says which fields may change while running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast, overload

from pydantic import BaseModel, ConfigDict
from pydantic import Field as _Field

# pydantic has no public door to its metaclass, and a checker needs a metaclass of our own to see that a field made
# by live() or field() without a default is required.
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.fields import FieldInfo
from typing_extensions import dataclass_transform

T = TypeVar("T")

RESERVED = frozenset(
    {"type", "use", "from", "inputs", "restart", "label", "enabled", "was", "convert", "placement", "needs"}
)
"""Keys that the graph language keeps on every node; no config field may have these names."""


def _describe(
    default: Any,
    *,
    default_factory: Callable[[], Any] | None,
    is_live: bool,
    description: str,
    unit: str | None,
    examples: list[Any] | None,
    **constraints: Any,
) -> Any:
    extra: dict[str, Any] = {"x-live": is_live}
    if unit:
        extra["x-unit"] = unit
    given = {name: value for name, value in constraints.items() if value is not None}
    if default_factory is not None:
        given["default_factory"] = default_factory
    elif default is not ...:
        given["default"] = default
    return _Field(description=description, examples=examples, json_schema_extra=cast("Any", extra), **given)


@overload
def live(
    *,
    description: str,
    default_factory: Callable[[], T],
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
@overload
def live(
    *,
    description: str,
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> Any: ...
@overload
def live(
    default: T,
    *,
    description: str,
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
def live(
    default: Any = ...,
    *,
    description: str,
    default_factory: Callable[[], Any] | None = None,
    unit: str | None = None,
    examples: list[Any] | None = None,
    **constraints: Any,
) -> Any:
    """A config field that a reload changes in place: the node gets ``reconfigured(old)`` and goes on.

    ``description`` says what the value does, with its unit; ``gt``, ``ge``, ``lt``, ``le`` bound it. Without a default
    the field is required. Type checkers see a default only when it is written as ``default=``; that matters where code
    makes such a Config, not where a graph does.
    """
    return _describe(
        default,
        default_factory=default_factory,
        is_live=True,
        description=description,
        unit=unit,
        examples=examples,
        **constraints,
    )


@overload
def field(
    *,
    description: str,
    default_factory: Callable[[], T],
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
@overload
def field(
    *,
    description: str,
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> Any: ...
@overload
def field(
    default: T,
    *,
    description: str,
    unit: str | None = None,
    examples: list[Any] | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
def field(
    default: Any = ...,
    *,
    description: str,
    default_factory: Callable[[], Any] | None = None,
    unit: str | None = None,
    examples: list[Any] | None = None,
    **constraints: Any,
) -> Any:
    """A config field whose change replaces the node; arguments as for ``live``."""
    return _describe(
        default,
        default_factory=default_factory,
        is_live=False,
        description=description,
        unit=unit,
        examples=examples,
        **constraints,
    )


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(_Field, FieldInfo, live, field))
class _ConfigMeta(ModelMetaclass):
    """Tells type checkers that ``live()`` and ``field()`` describe fields."""


class Config(BaseModel, metaclass=_ConfigMeta):
    """Base of every node type's configuration.

    Closed: an unknown key is an error. Frozen: it never changes under a node's feet. Strict: ``"30"`` is no number and
    ``on`` is no boolean.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, ser_json_inf_nan="strings"
    )


def is_live(info: FieldInfo) -> bool:
    """Whether a change of this field is applied in place."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("x-live"))


def unit_of(info: FieldInfo) -> str | None:
    """The unit that a field's declaration names."""
    extra = info.json_schema_extra
    unit = extra.get("x-unit") if isinstance(extra, dict) else None
    return unit if isinstance(unit, str) else None


class NoConfig(Config):
    """For node types without configuration."""
