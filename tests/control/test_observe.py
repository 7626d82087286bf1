"""Asking a run how it is doing, over HTTP: causes, numbers, and what goes over an edge."""

import io
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from flowstream.control import observe
from flowstream.control.observe import routes
from flowstream.control.records import pack, unpack
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine
from flowstream.runtime.log import Secrets
from flowstream.runtime.stalls import Stalls
from flowstream.runtime.stats import Statistics
from flowstream.testing.clock import VirtualClock, run_virtual
from tests.runtime.flows import flow

NODES: dict[str, tuple[Any, ...]] = {
    "screen": ("test/pictures", {}),
    "encode": ("test/relay", {}),
    "out": ("test/taker", {}),
}
WIRES = {"encode.video": "screen.out", "out.video": "encode.out"}
Ask = Callable[[str], Awaitable[httpx.Response]]


def asked(plan: Plan, main: Callable[[Ask, Engine], Awaitable[None]], secrets: dict[str, str] | None = None) -> None:
    """Runs a plan and gives a way to ask it."""

    async def call(clock: VirtualClock) -> None:
        async with Engine.open(clock=clock) as engine, anyio.create_task_group() as tasks:
            stalls = Stalls(Statistics(engine))
            hidden = Secrets()
            hidden.update(secrets or {})
            app = Starlette(routes=[*routes(stalls, hidden)])
            await engine.start(plan)
            tasks.start_soon(stalls.run)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://run") as client:
                await main(client.get, engine)
            await engine.stop(drain_seconds=0)
            tasks.cancel_scope.cancel()

    run_virtual(call)


def records(answer: httpx.Response) -> list[tuple[dict[str, Any], bytes]]:
    read = io.BytesIO(answer.content).read
    found = []
    while (record := unpack(read)) is not None:
        found.append(record)
    return found


def test_why() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        await anyio.sleep(3)
        assert (await ask("/why")).json() == {
            "healthy": True,
            "verdict": ["all is well: 3 nodes work and nothing waits for long"],
            "causes": [],
        }
        await anyio.sleep(7)
        answer = (await ask("/why?node=encode")).json()
        (cause,) = answer["causes"]
        assert answer["healthy"] is False
        assert answer["verdict"] == [cause["sentence"]]
        assert (cause["node"], cause["kind"], cause["chain"]) == (
            "screen",
            "silent-source",
            ["out", "encode", "screen"],
        )
        assert cause["for_seconds"] == pytest.approx(6, abs=0.1)
        assert cause["since"] == "2026-01-01T00:00:04Z"
        wrong = await ask("/why?node=encod")
        assert (wrong.status_code, wrong.json()) == (
            422, {"error": "there is no node 'encod'; did you mean encode?"},
        )  # fmt: skip
        assert (await ask("/why?node=zzz")).json()["error"].endswith("there is screen, encode, out")

    asked(flow({**NODES, "screen": ("test/pictures", {"pause_at": 200})}, WIRES), main)


def test_stats_and_metrics() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        await anyio.sleep(12.5)
        stats = (await ask("/stats?over=5")).json()
        assert stats["span_ns"] == 5_000_000_000
        assert stats["nodes"]["encode"]["rate_in"] == 50
        assert stats["edges"]["out.video"]["latency"]["p95_ns"] == 3_000_000
        for wrong in ("over=x", "over=0", "over=1e9", "over=nan"):
            answer = await ask(f"/stats?{wrong}")
            assert answer.status_code == 422
            assert answer.json()["error"] == "over= is a number of seconds from 1 to 3600"
        answer = await ask("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name for family in text_string_to_metric_families(answer.text)}
        assert {"flowstream_edge_delivered", "flowstream_edge_latency_seconds"} <= families

    asked(flow(NODES, WIRES), main)


def test_what_is_secret_is_not_told() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        await anyio.sleep(10)
        assert "$(env:PASSWORD)" in (await ask("/why")).text
        for path in ("/why", "/stats", "/metrics"):
            assert "connection" not in (await ask(path)).text

    nodes = {**NODES, "screen": ("test/pictures", {"fail_after": 100}), "other": ("test/pictures", {})}
    plan = flow({**nodes, "ear": ("test/taker", {})}, {**WIRES, "ear.video": "other.out"})
    asked(plan, main, {"PASSWORD": "the X server closed the connection"})


def test_a_tap_tells_what_goes_by_and_ends() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        await anyio.sleep(1.01)
        head, *payloads, end = records(await ask("/tap?edge=out.video&frames=5"))
        assert head == ({"edge": "out.video", "producer": "encode", "output": "out"}, b"")
        assert end == ({"end": "5 came", "missed": 0}, b"")
        first = payloads[0][0]
        assert first["kind"] == "EncodedPacket"
        assert (first["size_bytes"], first["latency_ns"], first["keyframe"]) == (100, 3_000_000, True)
        assert first["caps"] == "codec h264, width 64, height 64"
        times = [payload["time_ns"] for payload, _ in payloads]
        assert [b - a for a, b in itertools.pairwise(times)] == [20_000_000] * 4
        assert all(body == b"" for _, body in payloads)
        _, *payloads, _ = records(await ask("/tap?edge=out&frames=2&data=raw"))
        assert [body for _, body in payloads] == [bytes(100)] * 2
        assert engine.runners["encode"].outlets["out"].feeds[1:] == (), "nobody is left behind"

    asked(flow(NODES, WIRES), main)


def test_a_tap_on_a_silent_edge_says_so_and_goes_on() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        await anyio.sleep(1)
        _, *payloads, _ = records(await ask("/tap?edge=encode.video&frames=60"))
        assert [head for head, _ in payloads].count({"waiting": 1.0, "missed": 0}) == 5

    asked(flow({**NODES, "screen": ("test/pictures", {"pause_at": 80, "pause": 5})}, WIRES), main)


def test_a_tap_ends_with_its_edge() -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        found = records(await ask("/tap?edge=out.video&frames=500"))
        assert found[-1][0] == {"end": "nothing comes on out.video any more: encode has ended", "missed": 0}
        assert len(found) == 102

    asked(flow({**NODES, "screen": ("test/pictures", {"count": 100})}, WIRES), main)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("edge=out.vido", "there is no edge or output 'out.vido'; an edge is named by its consumer and input, like "
                          "out.video, an output by its node, like camera.video (did you mean out.video?)"),
        ("edge=", "there is no edge or output ''; an edge is named by its consumer and input, like out.video, an "
                  "output by its node, like camera.video (there is encode.video and out.video)"),
        ("edge=out.video&frames=0", "frames= is a number from 1 to 1000000"),
        ("edge=out.video&frames=x", "frames= is a number from 1 to 1000000"),
        ("edge=out.video&data=all", "data= is none, raw or png"),
    ],
)  # fmt: skip
def test_a_tap_that_is_asked_for_wrongly(query: str, said: str) -> None:
    async def main(ask: Ask, engine: Engine) -> None:
        answer = await ask(f"/tap?{query}")
        assert (answer.status_code, answer.json()) == (422, {"error": said})

    asked(flow(NODES, WIRES), main)


def test_taps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "MOST_TAPS", 1)

    async def main(ask: Ask, engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "/tap?edge=out.video&frames=200")
            await anyio.sleep(1)
            answer = await ask("/tap?edge=out.video&frames=1")
            assert answer.json() == {"error": "1 edges are looked at already (end one of the others)"}
            tasks.cancel_scope.cancel()
        assert (await ask("/tap?edge=out.video&frames=1")).status_code == 200

    asked(flow(NODES, WIRES), main)


def test_records_are_read_as_they_were_written() -> None:
    stream = io.BytesIO(pack({"a": 1}) + pack({"b": "ö"}, b"body"))
    assert unpack(stream.read) == ({"a": 1}, b"")
    assert unpack(stream.read) == ({"b": "ö"}, b"body")
    assert unpack(stream.read) is None


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\0\0",
        b"\xff" * 8,
        pack({"a": 1}, b"body")[:-1],
        pack({"a": 1})[:-1],
        b"\0\0\0\1\0\0\0\0" + b"3",
        b"\0\0\0\1\0\0\0\0" + b"{",
    ],
)
def test_what_is_no_record_is_refused(rubbish: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(io.BytesIO(rubbish).read)
