"""What this machine encodes and decodes with."""

from __future__ import annotations

from collections.abc import Iterator

from flowstream import Capability, FlowstreamError
from flowstream_nodes.codec._decoders import ACCELERATIONS, decoder_name, hardware_decoder, software_decoder
from flowstream_nodes.codec.encoders import CANDIDATES
from flowstream_nodes.codec.probing import cache_file, find

PICTURES = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg")
SOUND = ("opus", "aac", "mp3")


def capabilities(afresh: bool) -> Iterator[Capability]:
    """Every encoder and decoder, whether it opens, and if not, why and what to do."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        yield Capability("encoders", "av", "broken", detail=str(error), advice="pip install av")
        return
    yield from _encoders(afresh)
    yield from _decoders()


def _encoders(afresh: bool) -> Iterator[Capability]:
    for found in find(CANDIDATES, cache=cache_file(), afresh=afresh):
        each = found.candidate
        where = "hardware" if each.is_hardware else "processor"
        if found.opens:
            yield Capability("encoders", each.name, "works", each.codec, where)
        else:
            is_elsewhere = found.reason == "not for this system"
            yield Capability(
                "encoders", each.name, "absent" if each.is_hardware else "broken", each.codec, found.reason,
                "" if is_elsewhere else each.advice,
            )  # fmt: skip
    yield _opus()


def _opus() -> Capability:
    import av

    works = "libopus" in av.codecs_available
    state, advice = ("works", "") if works else ("broken", "pip install av: its wheels have libopus")
    return Capability("encoders", "libopus", state, "opus", "processor" if works else "not in this build", advice)  # type: ignore[arg-type]


def _decoders() -> Iterator[Capability]:
    import av

    for codec in PICTURES:
        try:
            software_decoder(codec, threads=1)
        except FlowstreamError as error:
            yield Capability("decoders", decoder_name(codec), "broken", codec, str(error.message), "pip install av")
        else:
            yield Capability("decoders", decoder_name(codec), "works", codec, "processor")
    for codec in SOUND:
        works = decoder_name(codec) in av.codecs_available
        yield Capability(
            "decoders", decoder_name(codec), "works" if works else "broken", codec,
            "processor" if works else "not in this build of FFmpeg", "" if works else "pip install av",
        )  # fmt: skip
    for each in ACCELERATIONS:
        reason = each.absent
        if not reason:
            try:
                hardware_decoder("h264", each)
            except ValueError as error:
                reason = str(error)
        is_elsewhere = reason == "not for this system"
        yield Capability(
            "decoders", each.name, "absent" if reason else "works", "h264", reason or "hardware",
            each.advice if reason and not is_elsewhere else "",
        )  # fmt: skip
