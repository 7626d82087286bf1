"""Encoders that never answer: a stand-in that hangs where it is told to, and what becomes of pictures and viewers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowstream import EncodedPacket, FlowstreamError, Record, Target, Targets, VideoFrame, open_sync
from flowstream.testing import Harness
from flowstream_nodes.codec import _choice, _guarded, probing
from flowstream_nodes.codec._ffmpeg import open_encoder
from flowstream_nodes.codec._guarded import GuardedEncoder, SilentError
from flowstream_nodes.codec.encoders import CANDIDATES, Candidate, EncoderSettings, OpenEncoder
from flowstream_nodes.codec.hw_encode import HwEncode

FRAME_NS = 33_333_333
X264 = next(each for each in CANDIDATES if each.name == "libx264")


class Hanging:
    """An encoder whose calls hang from the picture ``at`` on, or in one of its other calls, until the gate opens."""

    gate = threading.Event()
    threads: list[threading.Thread] = []

    def __init__(self, settings: EncoderSettings, *, at: int = 1 << 30, call: str = "encode") -> None:
        Hanging.threads.append(threading.current_thread())
        self._call = call
        self._left = at
        self._hang("open")
        self._real = open_encoder(X264, settings)

    @property
    def interval_ns(self) -> int | None:
        return self._real.interval_ns

    @property
    def nominal_ns(self) -> int:
        return self._real.nominal_ns

    @property
    def is_outgrown(self) -> bool:
        return False

    def set_bitrate(self, bitrate_bps: int, /) -> bool:
        self._hang("set_bitrate")
        return self._real.set_bitrate(bitrate_bps)

    def encode(self, picture: Any, tag: Any, /, *, time_ns: int, keyframe: bool) -> list[tuple[Any, Any]]:
        assert threading.current_thread() is Hanging.threads[-1], "all calls of one encoder are made on one thread"
        self._left -= 1
        if self._left < 0:
            self._hang("encode")
        return self._real.encode(picture, tag, time_ns=time_ns, keyframe=keyframe)

    def flush(self) -> list[tuple[Any, Any]]:
        self._hang("flush")
        return []

    def _hang(self, call: str) -> None:
        if call == self._call:
            assert Hanging.gate.wait(60)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Candidate]]:
    """The public list, put back afterwards; patience is short, and what hangs comes back at the end."""
    monkeypatch.setattr(_guarded, "PATIENCE_S", 0.5)
    monkeypatch.setattr(_guarded, "PICTURE_PATIENCE_S", 0.4)
    monkeypatch.setattr(_choice, "MOST_HANGING", 3)
    before = list(CANDIDATES)
    _choice._said.clear()
    Hanging.gate.clear()
    Hanging.threads.clear()
    yield CANDIDATES
    CANDIDATES[:] = before
    _choice._said.clear()
    Hanging.gate.set()
    for thread in Hanging.threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread ends when its call comes back"
    assert _guarded.hanging() == 0


def hangs(opened: Callable[[EncoderSettings], OpenEncoder]) -> Candidate:
    return Candidate("sleeper", "h264", may_hang=True, open=opened)


def give(encode: Harness[Any], index: int) -> list[EncodedPacket]:
    array = np.full((48, 64, 3), 40 + index % 50, np.uint8)
    frame = VideoFrame.from_array(array, time_ns=index * FRAME_NS, capture_ns=7_000 + index, duration_ns=FRAME_NS)
    return [each for each in encode.push(frame, "video") if isinstance(each, EncodedPacket)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_one_that_hangs_over_a_picture_is_left_behind_and_the_next_codes_that_picture(
    listed: list[Candidate], caplog: pytest.LogCaptureFixture
) -> None:
    listed.insert(0, hangs(lambda settings: Hanging(settings, at=5)))
    with Harness(HwEncode, {"keyframe_interval": "60s"}, name="encode") as encode:
        for index in range(12):
            (packet,) = give(encode, index)
            assert (packet.capture_ns, packet.keyframe) == (7_000 + index, index in (0, 5))
            assert encode.facts["encoder"] == ("sleeper" if index < 5 else "libx264")
    assert warnings(caplog) == ["sleeper has not answered for 0.4 s and is left behind; going on with libx264"]
    assert Hanging.threads[0].is_alive()


def test_the_only_one_is_opened_anew_until_too_many_hang(
    listed: list[Candidate], caplog: pytest.LogCaptureFixture
) -> None:
    listed[:] = [hangs(lambda settings: Hanging(settings, at=2))]
    with Harness(HwEncode, {"keyframe_interval": "60s"}, name="encode") as encode:
        keyframes = [give(encode, index)[0].keyframe for index in range(6)]
        assert keyframes == [True, False] * 3, "each begins with a keyframe, and no picture is lost"
        assert encode.facts["hanging"] == 2
        with pytest.raises(FlowstreamError, match="encode cannot encode h264: sleeper has not answered") as end:
            give(encode, 6)
        assert end.value.hint == "3 encoders hang; see to the device or the library, then restart flowstream"
    assert warnings(caplog) == 2 * ["sleeper has not answered for 0.4 s and is left behind; it is opened anew"]
    assert [each.is_alive() for each in Hanging.threads] == [True] * 3


def test_one_that_hangs_while_it_is_opened_is_passed_over(listed: list[Candidate]) -> None:
    listed.insert(0, hangs(lambda settings: Hanging(settings, call="open")))
    with Harness(HwEncode, name="encode") as encode:
        assert give(encode, 0)[0].keyframe
        assert encode.facts["encoder"] == "libx264"


def test_one_that_hangs_at_its_end_does_not_hold_up_the_end(
    listed: list[Candidate], caplog: pytest.LogCaptureFixture
) -> None:
    listed.insert(0, hangs(lambda settings: Hanging(settings, call="flush")))
    with Harness(HwEncode, name="encode") as encode:
        give(encode, 0)
        assert encode.finish() == []
    assert warnings(caplog) == ["sleeper has not answered for 0.5 s and is left behind; what it still had is lost"]


def test_one_that_hangs_over_a_change_of_its_rate_is_replaced_at_the_next_picture(listed: list[Candidate]) -> None:
    opened: list[int] = []

    def once(settings: EncoderSettings) -> OpenEncoder:
        opened.append(settings.bitrate_bps)
        return Hanging(settings, call="set_bitrate" if len(opened) == 1 else "nothing")

    listed[:] = [hangs(once)]
    with Harness(HwEncode, {"bitrate": "1M", "keyframe_interval": "60s"}, name="encode") as encode:
        give(encode, 0)
        encode.push(Record(Targets({"encode": Target(300_000)}), 0), "targets")
        assert [give(encode, index)[0].keyframe for index in (1, 2)] == [True, False]
    assert opened == [1_000_000, 300_000]


def test_hardware_is_guarded_and_so_is_the_one_known_to_hang() -> None:
    by_name = {each.name: each for each in CANDIDATES}
    kinds = {name: each.is_hardware or each.may_hang for name, each in by_name.items()}
    assert {name for name, each in by_name.items() if each.rest_s} == {"libsvtav1"}
    assert {name for name, is_guarded in kinds.items() if not is_guarded} == {
        "libx264", "libx265", "libvpx", "libvpx-vp9",
    }  # fmt: skip
    with Harness(HwEncode, {"codec": "av1"}, name="encode") as encode:
        encode.push(VideoFrame.from_array(np.zeros((96, 128, 3), np.uint8), time_ns=0), "video")
        node = encode.node
        assert isinstance(node, HwEncode)
        assert node._opened is not None
        assert isinstance(node._opened.encoder, GuardedEncoder)


def test_one_is_left_alone_for_a_moment_after_each_call(
    listed: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[object] = []
    monkeypatch.setattr(_guarded, "sleep", did.append)

    class Notes(Hanging):
        def encode(self, *picture: Any, **more: Any) -> list[tuple[Any, Any]]:
            did.append("picture")
            return super().encode(*picture, **more)

    listed[:] = [Candidate("sleeper", "h264", may_hang=True, rest_s=0.25, open=Notes)]
    with Harness(HwEncode, name="encode") as encode:
        for index in range(3):
            assert len(give(encode, index)) == 1
    assert did == [0.25, "picture", 0.25, "picture", 0.25, "picture", 0.25, 0.25]  # after open and flush, too


def test_a_trial_of_one_that_hangs_says_so(listed: list[Candidate]) -> None:
    assert (
        probing.trial(hangs(lambda settings: Hanging(settings, at=1)))
        == "sleeper has not answered for 0.4 s and is left behind"
    )


def test_one_that_nobody_closed_leaves_no_thread_and_a_silent_one_is_asked_nothing_more(
    listed: list[Candidate],
) -> None:
    class Still(Hanging):
        def __init__(self) -> None:
            Hanging.threads.append(threading.current_thread())
            self._call = "flush"

        interval_ns = None  # type: ignore[assignment]
        nominal_ns = 5  # type: ignore[assignment]

    guarded = GuardedEncoder("still", Still)
    assert guarded.nominal_ns == 5
    for _ in range(2):
        with pytest.raises(SilentError, match="still"):
            guarded.flush()
    again = GuardedEncoder("still", Still)
    (thread,) = {Hanging.threads[-1]}
    assert thread.is_alive()
    del again
    thread.join(20)
    assert not thread.is_alive()


GRAPH = """
flowstream: 1
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 30}
  encode: {type: hw-encode, from: pattern, keyframe_interval: 60s}
  end: {type: app-out, from: encode}
"""


@pytest.mark.alone
def test_a_graph_goes_on_with_the_node_and_its_viewers_in_place(listed: list[Candidate], tmp_path: Path) -> None:
    listed.insert(0, hangs(lambda settings: Hanging(settings, at=10)))
    file = tmp_path / "graph.yaml"
    file.write_text(GRAPH)
    with open_sync(file) as run:
        packets = run.frames("end", EncodedPacket)
        got = [next(packets) for _ in range(20)]
        status = run.status().nodes["encode"]
    assert [index for index, packet in enumerate(got) if packet.keyframe] == [0, 10]
    assert (status.state, status.restarts, status.facts["encoder"]) == ("running", 0, "libx264")
