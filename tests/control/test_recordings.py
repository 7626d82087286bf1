"""Recording over the API: the answer is the file, and holds no secret."""

from __future__ import annotations

import io
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest
from openapi_spec_validator import validate

from flowstream.control import recordings
from flowstream.control.recordings import scrubbed
from flowstream.media.recording import Reader, contents
from flowstream.runtime.log import Secrets
from tests.control.running import TICKS, Opened, in_run

GRAPH = """\
nodes:
  pattern: {type: test-pattern, size: 320x180, fps: 30, duration: 60s}
  encode: {type: hw-encode, from: pattern, bitrate: 500k}
  end: {type: discard, from: encode}
"""


def test_the_answer_is_a_recording(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        answer = await there.client.get("/record?what=pattern&what=end.anything&seconds=1")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        found = contents(io.BytesIO(answer.content).read)
        assert found.problem == ""
        assert [each.stream.source for each in found.streams] == ["pattern.video", "encode.packets"]
        assert all(each.count for each in found.streams)
        assert found.header.files == {str(there.file): GRAPH}
        assert (found.header.graph, found.header.revision) == ("it", there.run.plan.revision)
        assert found.streams[0].stream.live
        runners = there.run.engine.runners
        assert [len(runners[id].outlets[o].feeds) for id, o in (("pattern", "video"), ("encode", "packets"))] == [1, 1]

    in_run(tmp_path, main, GRAPH)


def test_whoever_goes_away_ends_it(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        async with there.client.stream("GET", "/record?what=pattern") as answer:
            taken = b""
            async for data in answer.aiter_raw():
                taken += data
                if len(taken) > 500_000:
                    break
        outlet = there.run.engine.runners["pattern"].outlets["video"]
        while len(outlet.feeds) > 1:
            await anyio.lowlevel.checkpoint()
        reader = Reader(io.BytesIO(taken).read)
        assert len(list(reader)) >= 5
        assert "cut off" in reader.problem

    in_run(tmp_path, main, GRAPH)


@pytest.mark.parametrize(
    ("query", "said", "hint"),
    [
        ("", "nothing to record was named", "name an output like camera.video, an edge, or a node"),
        ("what=tiks", "there is no edge or output 'tiks'; an edge is named by its consumer and input, like out.video, "
                      "an output by its node, like camera.video", "did you mean ticks?"),
        ("what=ticks&seconds=0", "seconds= is a number above 0, and 86400 at most", None),
        ("what=ticks&seconds=soon", "seconds= is a number above 0, and 86400 at most", None),
        ("what=ticks&seconds=nan", "seconds= is a number above 0, and 86400 at most", None),
        ("what=ticks&bytes=-1", "bytes= is a number above 0, and 1099511627776 at most", None),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly(tmp_path: Path, query: str, said: str, hint: str | None) -> None:
    async def main(there: Opened) -> None:
        answer = await there.client.get(f"/record?{query}")
        assert (answer.status_code, answer.json()) == (422, {"error": said, "hint": hint})

    in_run(tmp_path, main, TICKS)


def test_recordings_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_RECORDINGS", 1)

    async def main(there: Opened) -> None:
        async with there.client.stream("GET", "/record?what=ticks") as first:
            await anext(first.aiter_raw())
            answer = await there.client.get("/record?what=ticks")
            assert answer.json() == {"error": "1 recordings are being made already", "hint": "end one of them"}
        answer = httpx.Response(422)
        while answer.status_code == 422:
            answer = await there.client.get("/record?what=ticks&seconds=0.1")

    in_run(tmp_path, main, TICKS)


def test_it_is_described(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        described = await there.get("/openapi.json")
        validate(described)
        assert described["paths"]["/record"]["get"]["summary"].startswith("A recording of outputs, edges or nodes")

    in_run(tmp_path, main, TICKS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("url: rtsp://me:geheim@camera/1", "url: rtsp://***:***@camera/1"),
        ("a: {url: 'rtsp://me:ge:heim@camera', x: 1}", "a: {url: 'rtsp://***:***@camera', x: 1}"),
        ("url: rtsp://camera:554/1", "url: rtsp://camera:554/1"),
        ("token: abc # mine", 'token: "***" # mine'),
        ("  password: hunter2", '  password: "***"'),
        ("a: {stream_key: xyz, size: 1x1}", 'a: {stream_key: "***", size: 1x1}'),
        ("a: {Secret: 'x, y', b: 2}", 'a: {Secret: "***", b: 2}'),
        ("password: $(env:PASSWORD)", "password: $(env:PASSWORD)"),
        ("keyframe_interval: 2s", "keyframe_interval: 2s"),
        ("token: a,b}c d#e # mine", 'token: "***" # mine'),
        ("{token: a b, password: 'c,d' , e: f}", '{token: "***", password: "***" , e: f}'),
        ("token: $ecret", 'token: "***"'),
        ("monkey-business: 2s", "monkey-business: 2s"),
        ("from-env: 0815abc", "from-env: $(env:PIN)"),
    ],
)
def test_secrets_stay_where_they_are(text: str, shown: str) -> None:
    secrets = Secrets()
    secrets.update({"PIN": "0815abc"})
    assert scrubbed(text, secrets) == shown
