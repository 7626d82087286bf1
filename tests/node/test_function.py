"""The function form: what a signature is made into, and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from flowstream import AudioFrame, EncodedPacket, FunctionNode, Need, Record, Sink, Transform, VideoFrame, live, node
from flowstream.testing import Harness, check_node, make_frame, make_sound


@node("acme/flip", needs=[Need("cv2", "opencv-python")])
def flip(
    frame: VideoFrame, *, sideways: bool = live(True, description="Whether left and right are swapped.")
) -> VideoFrame:
    """Turns the picture over.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern}
      flipped: {type: acme/flip, from: pattern}
      nowhere: {type: discard, from: flipped}
    ```
    """
    return VideoFrame.from_array(frame.array("bgr24")[:, :: -1 if sideways else 1], like=frame)


@node("acme/twice", thread=False)
def twice(sound: AudioFrame) -> Iterator[AudioFrame]:
    """Gives every sound two times."""
    yield sound
    yield sound


@node("acme/bright")
def bright(frame: VideoFrame, *, least: float = live(128.0, description="Mean, in levels.")) -> VideoFrame | None:
    """Passes bright pictures."""
    return frame if frame.array("gray").mean() >= least else None


@node("acme/note")
def note(packet: EncodedPacket) -> Record[int]:
    """Says how large packets are."""
    return Record(packet.size_bytes, packet.time_ns)


seen: list[Any] = []


@node("acme/look")
def look(thing: VideoFrame | AudioFrame) -> None:
    """Looks at everything."""
    seen.append(thing)


def test_the_signature_is_the_declaration() -> None:
    kind = flip.node_type
    assert isinstance(flip, FunctionNode)
    assert issubclass(kind, Transform)
    assert (kind.type_id, kind.thread, kind.__doc__) == ("acme/flip", True, flip.__doc__)
    assert (list(kind.inputs), list(kind.outputs)) == (["frame"], ["out"])
    assert kind.needs == (Need("cv2", "opencv-python"),)
    assert list(kind.config_class.model_fields) == ["sideways"]
    assert kind.config_class.model_json_schema()["properties"]["sideways"]["x-live"] is True
    assert kind.__module__ == __name__
    assert repr(flip) == "<node type acme/flip flip()>"


def test_it_passes_the_rules_of_every_node() -> None:
    check_node(flip)


def test_calling_it_calls_the_function_with_its_defaults() -> None:
    frame = make_frame()
    assert (flip(frame).array() == frame.array()[:, ::-1]).all()
    assert (flip(frame, sideways=False).array() == frame.array()).all()
    with pytest.raises(ValidationError, match="Input should be a valid boolean"):
        flip(frame, sideways="yes")  # type: ignore[arg-type]


def test_it_runs_as_a_node_and_its_settings_are_live() -> None:
    frame = make_frame()
    with Harness(flip) as harness:
        assert (harness.push(frame)[0].array() == frame.array()[:, ::-1]).all()
        harness.reconfigure(sideways=False)
        assert (harness.push(frame)[0].array() == frame.array()).all()


def test_a_generator_gives_several() -> None:
    sound = make_sound()
    assert not twice.node_type.thread
    with Harness(twice) as harness:
        assert harness.push(sound) == [sound, sound]


def test_none_is_nothing() -> None:
    with Harness(bright) as harness:
        assert harness.push(make_frame(format="gray").replace(planes=_plane(0))) == []
        assert len(harness.push(make_frame(format="gray").replace(planes=_plane(255)))) == 1


def _plane(value: int) -> Any:
    import numpy as np

    return VideoFrame.from_array(np.full((48, 64), value, np.uint8), time_ns=0).planes


def test_a_record_may_come_out_of_a_packet() -> None:
    assert note.node_type.outputs["out"].payloads == (Record,)


def test_without_a_result_it_is_a_sink() -> None:
    assert issubclass(look.node_type, Sink)
    assert look.node_type.inputs["thing"].payloads == (VideoFrame, AudioFrame)
    frame = make_frame()
    with Harness(look) as harness:
        assert harness.push(frame) == []
    assert seen == [frame]


def no_annotation(frame):  # type: ignore[no-untyped-def]
    """Doc."""


def no_result(frame: VideoFrame):  # type: ignore[no-untyped-def]
    """Doc."""


def two_inputs(frame: VideoFrame, sound: AudioFrame) -> VideoFrame:
    """Doc."""
    return frame


def star(*frames: VideoFrame) -> None:
    """Doc."""


def anything(frame: Any) -> VideoFrame:
    """Doc."""
    return frame  # type: ignore[no-any-return]


def yields_quietly(frame: VideoFrame) -> VideoFrame:
    """Doc."""
    yield frame  # type: ignore[misc]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (no_annotation, "annotate the payload and what is returned"),
        (no_result, "annotate the payload and what is returned"),
        (two_inputs, "a node function takes one payload and keyword-only settings; more than that is a class"),
        (star, "a node function takes one payload and keyword-only settings; more than that is a class"),
        (anything, "parameter 'frame' is annotated with something that is no payload class"),
        (yields_quietly, "it yields, so annotate it to return an Iterator of its payload"),
    ],
)
def test_signatures_that_do_not_fit(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        node("acme/bad")(function)
    assert str(caught.value) == f"node type 'acme/bad' ({__name__}.{function.__name__}): {problem}"


def test_a_function_without_a_docstring_is_refused() -> None:
    def silent(frame: VideoFrame) -> VideoFrame:
        return frame

    with pytest.raises(TypeError, match="it has no docstring"):
        node("acme/silent")(silent)


def test_a_setting_may_be_required() -> None:
    @node("acme/named")
    def named(frame: VideoFrame, *, name: str, size: int = 3) -> VideoFrame:
        """Needs a name."""
        return frame

    with pytest.raises(ValidationError, match="Field required"):
        named.node_type.config_class()
    assert named.node_type.config_class(name="x").model_dump() == {"name": "x", "size": 3}
    assert named(make_frame(), name="y").width == 64
