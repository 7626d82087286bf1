"""The checks when a node class is made: each mistake with its exact words."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowstream import (
    AudioFrame,
    Config,
    Context,
    Emit,
    EncodedPacket,
    Input,
    KeyframeRequest,
    Need,
    Node,
    Output,
    Record,
    Sink,
    Source,
    Transform,
    VideoCaps,
    VideoFrame,
    field,
    live,
)
from flowstream.node.base import base_of
from flowstream.testing import Harness, make_frame, make_sound


class GainConfig(Config):
    """Settings."""

    gain: float = live(default=1.0, description="Factor.")


class Reserved(Config):
    """Settings with a word of the language."""

    label: str = field(default="", description="Clashes.")


def bad_id() -> None:
    class Bad(Source, type="Bad Id"):
        """Doc."""

        out = Output(VideoFrame)

        def capture(self) -> None: ...


def no_docstring() -> None:
    class Silent(Source, type="x"):
        out = Output(VideoFrame)

        def capture(self) -> None: ...


def reserved_field() -> None:
    class Bad(Source[Reserved], type="x"):
        """Doc."""

        out = Output(VideoFrame)

        def capture(self) -> None: ...


def two_mains() -> None:
    class Bad(Source, type="x"):
        """Doc."""

        one = Output(VideoFrame, main=True)
        two = Output(VideoFrame, main=True)

        def capture(self) -> None: ...


def upper_case_port() -> None:
    class Bad(Source, type="x"):
        """Doc."""

        Out = Output(VideoFrame)

        def capture(self) -> None: ...


def source_with_input() -> None:
    class Bad(Source, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        out = Output(VideoFrame)

        def capture(self) -> None: ...


def source_without_life() -> None:
    class Bad(Source, type="x"):
        """Doc."""

        out = Output(VideoFrame)


def node_without_run() -> None:
    class Bad(Node, type="x"):
        """Doc."""

        video = Input(VideoFrame)


def transform_without_input() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        out = Output(VideoFrame)

        def process(self, payload: Any) -> None: ...


def transform_without_output() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame)

        def process(self, frame: VideoFrame) -> None: ...


def transform_without_process() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        out = Output(VideoFrame)


def transform_with_many() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame, many=True)
        out = Output(VideoFrame)

        def process(self, frame: VideoFrame) -> None: ...


def input_without_handler() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        audio = Input(AudioFrame)
        out = Output(VideoFrame)

        @video.handler
        def on_video(self, frame: VideoFrame) -> None: ...


def wrong_payload() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        out = Output(VideoFrame)

        def process(self, packet: EncodedPacket) -> None: ...


def half_of_a_union() -> None:
    class Bad(Sink, type="x"):
        """Doc."""

        media = Input(VideoFrame, AudioFrame)

        def consume(self, frame: VideoFrame) -> None: ...


def handler_of_two() -> None:
    class Bad(Sink, type="x"):
        """Doc."""

        video = Input(VideoFrame)

        def consume(self, frame: VideoFrame, extra: int) -> None: ...  # type: ignore[override]


def async_transform() -> None:
    class Bad(Transform, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        out = Output(VideoFrame)

        async def process(self, frame: VideoFrame) -> None: ...  # type: ignore[override]


def sink_with_media_output() -> None:
    class Bad(Sink, type="x"):
        """Doc."""

        video = Input(VideoFrame)
        out = Output(VideoFrame)

        def consume(self, frame: VideoFrame) -> None: ...


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (bad_id, "a type id is lower case words with hyphens, with a namespace for a pack's own: 'acme/blur'"),
        (no_docstring, "it has no docstring; the first line is what `flowstream nodes` shows"),
        (reserved_field, "config field 'label' is a word of the graph language; choose another name"),
        (two_mains, "only one output can be the main one"),
        (upper_case_port, "port 'Out' needs a lower case name that starts with a letter"),
        (source_with_input, "a Source has no inputs, but 'video' is one; make it a Transform or a Node"),
        (source_without_life, "a Source overrides capture() or run()"),
        (node_without_run, "a Node overrides run(); a plain source, transform or sink has a base of its own"),
        (transform_without_input, "a Transform has an input"),
        (transform_without_output, "a Transform has an output; without one it is a Sink"),
        (transform_without_process, "it overrides neither process() nor marks a handler for input 'video'"),
        (transform_with_many, "input 'video' takes many edges; that needs a Node with run()"),
        (input_without_handler, "input 'audio' has no handler; mark a method with @audio.handler"),
        (wrong_payload, "process() is annotated for EncodedPacket, but input 'video' carries VideoFrame"),
        (half_of_a_union, "consume() is annotated for VideoFrame, but input 'media' carries AudioFrame"),
        (handler_of_two, "consume() takes one payload, not 2"),
        (async_transform, "process() is async; a Transform is synchronous (thread = True where it blocks)"),
        (sink_with_media_output, "a Sink gives no media, but 'out' does; make it a Transform or a Node"),
    ],
)
def test_mistakes_are_refused_when_the_class_is_made(declare: Callable[[], None], problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        declare()
    head, _, said = str(caught.value).partition("): ")
    assert said == problem
    assert head.startswith("node type '")
    assert f"{__name__}.{declare.__name__}.<locals>." in head, "the class is named, so that it is found"


def test_a_name_is_either_input_or_output() -> None:
    class Base(Sink):
        video = Input(VideoFrame)

    with pytest.raises(TypeError, match="'video' is the name of both an input and an output"):
        type("Bad", (Base,), {"__doc__": "Doc.", "video": Output(VideoFrame)}, type="x")


def test_ports_name_their_payload() -> None:
    with pytest.raises(TypeError, match=r"an Input names the payload it takes: Input\(VideoFrame\)"):
        Input()
    with pytest.raises(TypeError, match=r"an Output names the payload it gives: Output\(VideoFrame\), or Outp"):
        Output()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="'VideoFrame' is no payload class"):
        Input("VideoFrame")  # type: ignore[arg-type]


class Mixer(Transform[GainConfig], type="acme/mixer"):
    """Takes two inputs."""

    thread = True
    needs = (Need("cv2", "opencv-python"), Need("numpy"))

    video = Input(VideoFrame, caps=VideoCaps(format="bgr24"), follows={"size"})
    audio = Input(AudioFrame, optional=True)
    targets = Input(Record[int], feedback=True)
    out = Output(like=video, main=True)
    notes = Output(Record[str])

    @video.handler
    def on_video(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        yield self.out(frame)

    @audio.handler
    def on_audio(self, frame: AudioFrame) -> Iterator[Emit[Record[str]]]:
        yield self.notes(Record("heard", frame.time_ns))

    @targets.handler
    def on_target(self, target: Record[int]) -> None:
        pass


def test_what_a_declaration_is_read_as() -> None:
    assert Mixer.type_id == "acme/mixer"
    assert Mixer.config_class is GainConfig
    assert list(Mixer.inputs) == ["video", "audio", "targets"]
    assert list(Mixer.outputs) == ["out", "notes"]
    assert Mixer.handlers == {"video": "on_video", "audio": "on_audio", "targets": "on_target"}
    assert (Mixer.video.name, Mixer.video.owner, Mixer.video.payloads) == ("video", Mixer, (VideoFrame,))
    assert (Mixer.audio.optional, Mixer.targets.optional, Mixer.targets.feedback) == (True, True, True)
    assert Mixer.targets.payloads == (Record,)
    assert (Mixer.out.payloads, Mixer.out.like, Mixer.out.main) == ((VideoFrame,), Mixer.video, True)
    assert repr(Mixer.video) == "<Input Mixer.video>"
    assert base_of(Mixer) is Transform
    assert [need.install for need in Mixer.needs] == ["opencv-python", "numpy"]


def test_process_goes_with_a_handler_for_feedback() -> None:
    class Steered(Transform, type="acme/steered"):
        """Takes pictures, and is told how many."""

        video = Input(VideoFrame)
        targets = Input(Record[int], feedback=True)
        out = Output(like=video)

        def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
            yield self.out(frame)

        @targets.handler
        def on_target(self, target: Record[int]) -> None:
            pass

    assert Steered.handlers == {"targets": "on_target", "video": "process"}
    with pytest.raises(TypeError, match="overrides neither process"):

        class Forgetful(Transform, type="acme/forgetful"):
            """Takes pictures and does nothing with them."""

            video = Input(VideoFrame)
            targets = Input(Record[int], feedback=True)
            out = Output(like=video)

            @targets.handler
            def on_target(self, target: Record[int]) -> None:
                pass


def test_a_subclass_inherits_ports_handlers_and_config() -> None:
    class Louder(Mixer, type="acme/louder"):
        """The same, louder."""

    assert list(Louder.inputs) == list(Mixer.inputs)
    assert Louder.handlers == Mixer.handlers
    assert Louder.config_class is GainConfig
    with Harness(Louder) as node:
        frame = make_frame()
        assert node.push(frame, "video") == [frame]


def test_handlers_are_called_for_their_port() -> None:
    frame, sound = make_frame(), make_sound()
    with Harness(Mixer) as mixer:
        assert mixer.push(frame, "video") == [frame]
        assert mixer.push(sound, Mixer.audio) == [Record("heard", sound.time_ns)]
        assert mixer.payloads("notes") == [Record("heard", sound.time_ns)]


def test_requests_go_up_every_connected_media_input() -> None:
    with Harness(Mixer, connected={"video", "out"}) as mixer:
        mixer.request("out", KeyframeRequest("why not"))
        assert mixer.requests == [("video", KeyframeRequest("why not"))]


def test_a_union_takes_each_of_its_payloads() -> None:
    media = Input(VideoFrame, AudioFrame, EncodedPacket, Record)
    assert all(media.takes(each) for each in (VideoFrame, AudioFrame, EncodedPacket, Record))
    assert not Input(VideoFrame).takes(AudioFrame)
    assert Output(like=media).payloads == media.payloads


def test_an_emit_says_where_it_goes() -> None:
    emit = Mixer.out(make_frame())
    assert emit.output is Mixer.out
    assert repr(emit).startswith("Emit(out, VideoFrame(")


def test_a_node_without_config_is_made_without() -> None:
    class Plain(Sink, type="acme/plain"):
        """Nothing to set."""

        video = Input(VideoFrame)

        async def consume(self, frame: VideoFrame) -> None:
            pass

    assert Plain().config.model_dump() == {}


def test_a_class_without_a_type_id_is_a_base_for_others() -> None:
    class Half(Transform[GainConfig]):
        video = Input(VideoFrame)

    assert Half.type_id == ""
    assert list(Half.inputs) == ["video"]


def test_a_node_may_have_any_ports() -> None:
    class Switch(Node, type="acme/switch"):
        """Any of many."""

        sources = Input(VideoFrame, many=True)
        out = Output(VideoFrame)

        async def run(self, ctx: Context) -> None:
            async for frame in ctx.stream(self.sources):
                await ctx.emit(self.out(frame))

    frame = make_frame()
    with Harness(Switch) as switch:
        assert switch.push(frame) == [frame]
