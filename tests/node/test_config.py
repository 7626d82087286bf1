"""Config: closed, frozen, strict; and which fields a reload may change."""

from typing import Any

import pytest
from pydantic import ValidationError

from flowstream import Config, field, live
from flowstream.node.config import NoConfig, is_live, unit_of


class Blur(Config):
    """Settings of a blur."""

    radius: int = live(default=5, ge=1, le=99, description="Radius, in pixels.", unit="pixels")
    kernel: str = field(default="gauss", description="Shape of the kernel.", pattern="gauss|box")
    tags: list[str] = field(default_factory=list, description="Words to go with it.", max_length=2)
    name: str = field(description="What it is called.")


def problem(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Blur.model_validate({"name": "x", **values})
    return caught.value.errors()[0]["msg"]


def test_defaults_and_what_is_required() -> None:
    assert Blur(name="x").model_dump() == {"radius": 5, "kernel": "gauss", "tags": [], "name": "x"}
    with pytest.raises(ValidationError, match="Field required"):
        Blur.model_validate({})


def test_live_and_replacing_fields() -> None:
    fields = Blur.model_fields
    assert {name: is_live(info) for name, info in fields.items()} == {
        "radius": True, "kernel": False, "tags": False, "name": False,
    }  # fmt: skip
    assert unit_of(fields["radius"]) == "pixels"
    assert unit_of(fields["kernel"]) is None


def test_a_plain_field_is_neither() -> None:
    class Plain(Config):
        a: int = 3

    assert not is_live(Plain.model_fields["a"])
    assert unit_of(Plain.model_fields["a"]) is None


def test_the_schema_carries_description_bounds_and_liveness() -> None:
    schema = Blur.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["radius"] == {
        "default": 5, "description": "Radius, in pixels.", "maximum": 99, "minimum": 1, "title": "Radius",
        "type": "integer", "x-live": True, "x-unit": "pixels",
    }  # fmt: skip
    assert schema["required"] == ["name"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius": 100}, "Input should be less than or equal to 99"),
        ({"radius": "5"}, "Input should be a valid integer"),
        ({"radius": True}, "Input should be a valid integer"),
        ({"radius": 5.0}, "Input should be a valid integer"),
        ({"kernel": "round"}, "String should match pattern 'gauss|box'"),
        ({"tags": ["a", "b", "c"]}, "List should have at most 2 items after validation, not 3"),
        ({"color": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    assert problem(**values) == message


def test_it_cannot_be_changed() -> None:
    made = Blur(name="x")
    with pytest.raises(ValidationError, match="frozen"):
        made.radius = 6  # type: ignore[misc]


def test_a_default_that_breaks_its_own_rule_is_found() -> None:
    class Wrong(Config):
        radius: int = live(default=0, ge=1, description="Radius, in pixels.")

    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Wrong()


def test_no_config_takes_nothing() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        NoConfig.model_validate({"a": 1})
