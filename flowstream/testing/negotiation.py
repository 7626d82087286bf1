"""Whether what a node type's negotiate() says can be said, and whether what comes out then is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from flowstream.errors import FlowstreamError
from flowstream.media.caps import AudioCaps, Caps, CapsConflict, EncodedCaps, VideoCaps
from flowstream.media.frames import AudioFrame, VideoFrame
from flowstream.media.packets import EncodedPacket
from flowstream.node.base import Node, Source
from flowstream.node.config import Config
from flowstream.testing.encoded import encode_pictures, encode_sound
from flowstream.testing.harness import Harness
from flowstream.testing.media import make_frame, make_sound

_CAPS: dict[type[Any], type[Caps]] = {VideoFrame: VideoCaps, AudioFrame: AudioCaps, EncodedPacket: EncodedCaps}
_VIDEO = ("yuv420p", "bgr24")
_SOUND = (("fltp", 48_000, "stereo"), ("s16", 44_100, "mono"))
_ENCODED = (
    EncodedCaps(codec="h264", width=64, height=48, profile="high"),
    EncodedCaps(codec="opus", rate=48_000, layout="stereo"),
)


def usual_inputs(node_type: type[Node[Any]]) -> Iterator[Mapping[str, Caps]]:
    """What might be known of a node's inputs: nothing, or one of a few usual formats that they take."""
    yield {}
    usual: tuple[Caps, ...] = (
        *(VideoCaps(format=format, width=64, height=48, fps=30.0) for format in _VIDEO),
        VideoCaps(),
        *(AudioCaps(format=format, rate=rate, layout=layout) for format, rate, layout in _SOUND),
        *_ENCODED,
    )
    for caps in usual:
        taken = {
            name: caps
            for name, port in node_type.inputs.items()
            if not port.feedback and any(_CAPS.get(payload) is type(caps) for payload in port.payloads)
        }
        if taken:
            yield taken


def tells_caps(node_type: type[Node[Any]]) -> bool:
    return getattr(node_type.negotiate, "__func__", None) is not getattr(Node.negotiate, "__func__", None)


def configured(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Config | None:
    """The configuration to check with; None when it takes values that nobody gave."""
    if isinstance(config, Config):
        return config
    try:
        return node_type.config_class.model_validate(dict(config or {}))
    except ValidationError:
        return None


def what_is_told(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    made = configured(node_type, config)
    if made is None or not tells_caps(node_type):
        return
    for incoming in usual_inputs(node_type):
        known = ", ".join(f"{name}: {caps}" for name, caps in incoming.items()) or "nothing"
        try:
            told = node_type.negotiate(made, incoming)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a finding
            yield f"negotiate() raises {type(error).__name__} when {known} is known to come in: {error}"
            continue
        for name, caps in told.items():
            output = node_type.outputs.get(name)
            if output is None:
                yield f"negotiate() tells of {name!r}, which is not one of its outputs"
                continue
            wanted = [_CAPS[payload] for payload in output.payloads if payload in _CAPS]
            if not isinstance(caps, tuple(wanted)):
                names = " or ".join(each.__name__ for each in wanted) or "no caps"
                yield f"negotiate() gives {type(caps).__name__} for {name!r}, which has {names}"
            elif output.caps is not None and type(output.caps) is type(caps):
                try:
                    caps.intersect(output.caps)
                except CapsConflict as error:
                    yield f"negotiate() contradicts what output {name!r} declares: {error}"


def what_is_kept(node_type: type[Node[Any]], config: Config | Mapping[str, Any] | None) -> Iterator[str]:
    """Whether what comes out is what negotiate said, where a plain picture or a plain sound brings it out."""
    made = configured(node_type, config)
    if made is None or not tells_caps(node_type):
        return
    runs: list[Mapping[str, Caps]] = (
        [{}] if issubclass(node_type, Source) else [each for each in usual_inputs(node_type) if payload_of(each)]
    )
    for incoming in runs:
        told = node_type.negotiate(made, incoming)
        with Harness(node_type, made, threads=node_type.thread) as harness:
            try:
                if issubclass(node_type, Source):
                    harness.run(emissions=1)
                else:
                    for name in incoming:
                        harness.push(payload_of(incoming), name)
                    harness.finish()
            except (AssertionError, FlowstreamError):
                pass  # it needs more than this to run; what it gave so far counts
            emits = list(harness.emits)
        for emit in emits:
            caps, said = getattr(emit.payload, "caps", None), told.get(emit.output.name)
            if isinstance(caps, Caps) and said is not None and type(said) is type(caps):
                try:
                    caps.intersect(said)
                except CapsConflict as error:
                    known = ", ".join(map(str, incoming.values())) or "nothing"
                    yield (
                        f"from {known}, output {emit.output.name!r} gives {error.field} {error.offered}, "
                        f"but negotiate() said {error.accepted}"
                    )
                    break


def payload_of(incoming: Mapping[str, Caps]) -> VideoFrame | AudioFrame | EncodedPacket | None:
    """A payload with such caps; None for what cannot be made of nothing."""
    for caps in incoming.values():
        if isinstance(caps, VideoCaps) and isinstance(caps.format, str):
            return make_frame(width=64, height=48, format=caps.format)
        if isinstance(caps, AudioCaps):
            return make_sound(rate=caps.rate, layout=caps.layout, format=caps.format)  # type: ignore[arg-type]
        if isinstance(caps, EncodedCaps):
            return encode_pictures(2)[0] if caps.codec == "h264" else encode_sound(2)[0]
    return None
