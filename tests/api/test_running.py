"""A graph within an async program: opened, asked, changed, ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import av
import httpx
import pytest

import flowstream
from flowstream import (
    Applied,
    ControlError,
    EndedError,
    Events,
    EventsMissed,
    FlowstreamError,
    Graph,
    GraphError,
    NodeError,
    NodeFailed,
    Refused,
    ReloadError,
    ServeError,
)
from tests.api.graphs import PATIENCE_S, picture, save, shown, through, ticking, until, until_received

pytestmark = pytest.mark.anyio

TEXT = "nodes:\n  pattern: {type: test-pattern, size: 160x90, fps: $(fps)}\n  end: {type: discard, from: pattern}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text("vars: {fps: 50}\n" + TEXT)
    return path


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_file_runs_while_the_block_lasts(file: Path) -> None:
    async with flowstream.open(str(file)) as run:
        await until_received(run, "end")
        status = run.status()
        assert (status.graph, status.state, status.refused) == ("graph", "running", None)
        assert status.running == status.file
        assert status.nodes["pattern"].config["fps"] == 50
        assert (run.links, run.control) == ((), None)
    assert run.status().state == "ended"


async def test_a_path_variables_layers_and_folders_of_node_types(file: Path, tmp_path: Path) -> None:
    save(tmp_path / "over.yaml", "nodes: {end: {type: acme/count, from: pattern}}\n")
    (tmp_path / "acme").mkdir()
    save(
        tmp_path / "acme" / "count.py",
        "from flowstream import VideoFrame, node\n\n\n"
        '@node("acme/count")\ndef count(frame: VideoFrame) -> None:\n    """Count."""\n',
    )
    async with flowstream.open(
        file, sets={"fps": 12.5}, layers=[tmp_path / "over.yaml"], nodes=[tmp_path / "acme"]
    ) as run:
        await until_received(run, "end")
        assert run.status().nodes["pattern"].config["fps"] == 12.5
        assert run.status().nodes["end"].type == "acme/count"


async def test_a_graph_made_by_code_needs_no_file() -> None:
    async with flowstream.open(ticking()) as run:
        await until_received(run, "nowhere")


async def test_two_graphs_in_one_process_know_nothing_of_each_other() -> None:
    async with flowstream.open(shown()) as one, flowstream.open(shown()) as two:
        assert len({*one.links, *two.links}) == 2
        await one.set("encode.bitrate", "500k")
        assert one.status().nodes["encode"].config["bitrate"] == "500k"
        assert two.status().nodes["encode"].config["bitrate"] == "300k"
        await one.stop(drain=0)
        await until_received(two, "out")
        assert (one.status().state, two.status().state) == ("ended", "running")


async def test_mistakes_in_a_graph_are_raised_with_their_places(file: Path) -> None:
    save(file, "nodes: {end: {type: discard, from: nobody}}\n")
    with pytest.raises(GraphError, match=r"graph\.yaml:1:36: FS301") as raised:
        async with flowstream.open(file):
            pytest.fail("it runs")
    assert [each.code for each in raised.value.diagnostics] == ["FS301"]


async def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="there is no such file"):
        async with flowstream.open(tmp_path / "missing.yaml"):
            pytest.fail("it runs")


async def test_a_node_that_does_not_start_is_raised_as_it_is(tmp_path: Path) -> None:
    graph = Graph()
    graph.add("discard", from_=graph.add("file", path=str(tmp_path / "missing.mp4")))
    with pytest.raises(NodeError, match=r"missing\.mp4") as raised:
        async with flowstream.open(graph):
            pytest.fail("it runs")
    assert raised.value.node == "file"


async def test_an_address_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServeError, match=f"{at} is taken"):
            async with flowstream.open(shown(), serve=at):
                pytest.fail("it runs")


async def test_a_control_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(ControlError, match="there is there already"):
        async with flowstream.open(ticking(), control=tmp_path / "there"):
            pytest.fail("it runs")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((3,), TypeError, "a graph is the path of a file or a Graph, not 3"),
        (("a.yaml", {"layers": "b.yaml"}), TypeError, "take lists of paths"),
        (("a.yaml", {"nodes": "acme"}), TypeError, "take lists of paths"),
        (("a.yaml", {"serve": "8080"}), ValueError, "serve= takes HOST:PORT, such as '127.0.0.1:8080', not '8080'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: Any, error: type[Exception], said: str) -> None:
    graph, *more = arguments
    with pytest.raises(error, match=said):
        flowstream.open(graph, **(more[0] if more else {}))


async def test_it_is_served_where_it_is_told_and_found_by_its_control_socket(tmp_path: Path) -> None:
    path = tmp_path / "run.sock"
    async with flowstream.open(shown(), serve="127.0.0.1:0", control=path) as run:
        assert run.control == path
        (link,) = run.links
        assert run.status().links == (link,)
        async with httpx.AsyncClient() as http:
            assert (await http.get(link, follow_redirects=True)).status_code == 200
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://run") as http:
            assert (await http.get("/status")).json()["state"] == "running"
    assert not path.exists()


async def test_nothing_of_the_process_is_touched() -> None:
    names = (None, "flowstream", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

    def state() -> list[Any]:
        loggers = [logging.getLogger(name) for name in names]
        return [
            *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
            *((each.level, list(each.handlers), each.propagate, each.disabled) for each in loggers),
        ]

    access = logging.getLogger("uvicorn.access")
    access.addHandler(handler := logging.NullHandler())
    try:
        before = state()
        async with flowstream.open(shown(), control=True):
            assert state() == before
        assert state() == before
    finally:
        access.removeHandler(handler)


# --- the end --------------------------------------------------------------------------------------------------------


async def test_wait_returns_when_the_graph_has_ended_by_itself() -> None:
    async with flowstream.open(ticking(duration="100ms")) as run:
        with anyio.fail_after(PATIENCE_S):
            await run.wait()
        assert run.status().state == "ended"
        assert await run.stop()


async def test_wait_raises_what_a_node_failed_with() -> None:
    graph = ticking(duration="1s")
    graph.add("discard", from_=graph.add("fault", from_="pattern", fail_after=3))
    told: list[NodeFailed] = []
    async with flowstream.open(graph) as run:
        run.on(NodeFailed, told.append)
        with pytest.raises(NodeError, match=r"fault .*failed on purpose after 3 payloads"):
            await run.wait()
    assert [each.node for each in told] == ["fault"]


async def test_leaving_the_block_drains(tmp_path: Path) -> None:
    graph = through(size="160x90", fps=10)
    encode = graph.add("hw-encode", from_="in", bitrate="300k")
    graph.add("recorder", id="tape", from_=encode, path=str(tmp_path / "tape.mp4"))
    async with flowstream.open(graph) as run:
        frames = run.frames("out")
        for count in range(5):
            await run.push("in", picture(count))
            await anext(frames)

    with av.open(str(tmp_path / "tape.mp4")) as tape:
        assert sum(1 for _ in tape.decode(video=0)) == 5


async def test_an_exception_in_the_block_comes_out_as_it_is() -> None:
    class Mine(Exception):  # noqa: N818
        pass

    with pytest.raises(Mine):  # noqa: PT012
        async with flowstream.open(ticking()) as run:
            await until_received(run, "nowhere")
            raise Mine
    assert run.status().state == "ended"


async def test_a_group_that_the_block_raises_is_not_taken_apart() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with flowstream.open(ticking()):
            raise ExceptionGroup("two", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])
    assert [type(each) for each in raised.value.exceptions] == [ValueError, ExceptionGroup]


async def test_cancelled_in_the_block_it_ends() -> None:
    with anyio.move_on_after(PATIENCE_S) as scope:
        async with flowstream.open(ticking()) as run:
            await until_received(run, "nowhere")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.status().state == "ended"


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30])
async def test_cancelled_while_it_is_opened_it_leaves_nothing(turns: int) -> None:
    entered = asyncio.Event()

    async def program() -> None:
        async with flowstream.open(shown(), control=True):
            entered.set()
            await anyio.sleep_forever()

    task = asyncio.ensure_future(program())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not entered.is_set()


STUCK = '''
from anyio import sleep_forever
from flowstream import Context, Node, Input, VideoFrame


class Stuck(Node, type="acme/stuck"):
    """Is never ready."""

    video = Input(VideoFrame)

    async def run(self, ctx: Context) -> None:
        print("starting")
        await sleep_forever()
'''


async def test_cancelled_while_nodes_start_it_ends_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "acme").mkdir()
    save(tmp_path / "acme" / "stuck.py", STUCK)
    graph = shown()
    graph.add("acme/stuck", from_="pattern")
    async with anyio.create_task_group() as tasks:

        async def program() -> None:
            async with flowstream.open(graph, nodes=[tmp_path / "acme"]):
                pytest.fail("it runs")

        tasks.start_soon(program)
        await until(lambda: "starting" in capsys.readouterr().out)
        tasks.cancel_scope.cancel()


async def test_cancelled_while_it_is_drained_it_ends_at_once() -> None:
    async with flowstream.open(through()) as run:
        graph_ends = anyio.Event()

        async def stop() -> None:
            with anyio.move_on_after(0.05):
                await run.stop(drain=1000)
            graph_ends.set()

        frames = run.frames("out")  # which nobody reads, so that there is something to wait for
        async with anyio.create_task_group() as tasks:
            await run.push("in", picture())
            tasks.start_soon(stop)
            with anyio.fail_after(PATIENCE_S):
                await graph_ends.wait()
        frames.close()


async def test_stopped_within_the_block_the_rest_says_so() -> None:
    async with flowstream.open(ticking()) as run:
        assert await run.stop()
        await run.wait()
        with pytest.raises(ReloadError, match="the graph is not running"):
            await run.reload()
        with pytest.raises(EndedError):
            run.frames("out") and await run.push("out", None)  # type: ignore[arg-type]


# --- on trio --------------------------------------------------------------------------------------------------------


def test_a_program_on_trio_has_frames_changes_events_and_files(file: Path) -> None:
    async def main() -> None:
        async with flowstream.open(through()) as run:
            await run.push("in", picture(7))
            await run.end("in")
            assert [int(frame.array("gray")[0, 0]) async for frame in run.frames("out")] == [7]
            await run.wait()
        async with flowstream.open(file, watch=True) as run:
            events = run.events()
            await until_received(run, "end")
            await run.set("pattern.fps", 25)
            save(file, "vars: {fps: 40}\n" + TEXT)
            await until(lambda: run.status().nodes["pattern"].config["fps"] == 40)
            assert (await run.why()).is_healthy
            assert {node.id for node in (await run.stats()).nodes} == {"pattern", "end"}
        assert [type(event) async for event in events] == [Applied, Applied]

    anyio.run(main, backend="trio")


@pytest.mark.parametrize(
    ("graph", "arguments", "error", "said"),
    [
        (ticking, {"control": True}, ControlError, "the control socket needs asyncio, but the program runs on trio"),
        (shown, {}, ServeError, "pages and endpoints need asyncio, but the program runs on trio"),
        (shown, {"serve": False}, NodeError, "out (webrtc-out): this node type needs asyncio"),
    ],
)
def test_what_needs_asyncio_is_refused_on_trio_in_a_sentence(
    graph: Any, arguments: Any, error: type[Exception], said: str
) -> None:
    async def main() -> None:
        async with flowstream.open(graph(), **arguments):
            pass

    with pytest.raises(error) as raised:
        anyio.run(main, backend="trio")
    assert said in str(raised.value)


def test_within_a_trio_program_a_run_on_a_thread_of_its_own_can_do_everything() -> None:
    async def main() -> None:
        run = await anyio.to_thread.run_sync(lambda: flowstream.open_sync(shown(), serve="127.0.0.1:0"))
        try:
            (link,) = await anyio.to_thread.run_sync(lambda: run.links)
            async with httpx.AsyncClient(follow_redirects=True) as client:
                assert "<!doctype html>" in (await client.get(link)).text
        finally:
            await anyio.to_thread.run_sync(run.close)

    anyio.run(main, backend="trio")


# --- changing it ----------------------------------------------------------------------------------------------------


async def test_set_changes_a_live_setting_in_place_and_stays_over_the_files(file: Path) -> None:
    async with flowstream.open(file) as run:
        patch = await run.set("pattern.fps", 25)
        assert {each.node: each.action for each in patch.changes} == {"pattern": "update", "end": "keep"}
        assert run.status().nodes["pattern"].config["fps"] == 25
        save(file, "vars: {fps: 50}\n" + TEXT.replace("160x90", "320x180"))
        assert (await run.reload()).of("pattern").action == "replace"
        config = run.status().nodes["pattern"].config
        assert (config["size"], config["fps"]) == ("320x180", 25)


async def test_what_is_set_is_told_as_a_difference_until_it_is_taken_back_or_edited(file: Path) -> None:
    async with flowstream.open(file) as run:
        assert (run.status().difference, run.status().overrides) == (None, {})
        await run.set("pattern.fps", 25)
        status = run.status()
        assert status.difference == "pattern.fps is 25 (the file says 50), set while it runs"
        assert status.overrides == {"pattern.fps": "25"}
        assert status.running != status.file
        assert (await run.clear("pattern.fps")).of("pattern").action == "update"
        assert run.status().difference is None
        assert run.status().running == status.file
        assert (await run.clear()).is_empty
        with pytest.raises(FlowstreamError, match=r"pattern\.fps is not set"):
            await run.clear("pattern.fps")
        await run.set("pattern.fps", 25)
        save(file, "vars: {fps: 40}\n" + TEXT)
        await run.reload()
        assert run.status().nodes["pattern"].config["fps"] == 40
        assert run.status().difference is None


async def test_a_node_within_a_subgraph_is_set_by_its_full_name(tmp_path: Path) -> None:
    save(tmp_path / "part.yaml", "outputs: {video: pattern}\nnodes:\n  pattern: {type: test-pattern, size: 160x90}\n")
    save(
        tmp_path / "whole.yaml",
        "nodes:\n  left: {use: part.yaml}\n  right: {use: part.yaml}\n"
        "  one: {type: discard, from: left}\n  two: {type: discard, from: right}\n",
    )

    def fps() -> list[Any]:
        return [run.status().nodes[f"{side}/pattern"].config["fps"] for side in ("left", "right")]

    async with flowstream.open(tmp_path / "whole.yaml") as run:
        patch = await run.set("left/pattern.fps", 12.5)
        assert {each.node for each in patch.changes if each.action != "keep"} == {"left/pattern"}
        assert fps() == [12.5, 30]
        with pytest.raises(FlowstreamError, match=r"no node left/patern \(did you mean left/pattern\?\)"):
            await run.set("left/patern.fps", 25)
        await run.reload()
        assert fps() == [12.5, 30]


async def test_set_can_write_the_value_into_the_file_where_it_belongs(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    save(file, TEXT.replace("$(fps)", "50"))
    async with flowstream.open(file) as run:
        await run.set("pattern.fps", 25, save=True)
        assert file.read_text() == TEXT.replace("$(fps)", "25")
        assert run.status().nodes["pattern"].config["fps"] == 25
        assert run.status().difference is None
        assert (await run.reload()).is_empty
        save(file, TEXT.replace("$(fps)", "25").replace("160x90", "320x180"))
        await run.set("pattern.fps", 20, save=True)
        assert file.read_text() == TEXT.replace("$(fps)", "20").replace("160x90", "320x180")
        config = run.status().nodes["pattern"].config
        assert (config["size"], config["fps"]) == ("160x90", 20), "what else was saved waits for a reload"
        assert (await run.reload()).of("pattern").action == "replace"
        assert run.status().difference is None
    async with flowstream.open(Graph.from_yaml(file)) as run:
        with pytest.raises(FlowstreamError, match=r"pattern\.fps stands in no file: a program made the graph"):
            await run.set("pattern.fps", 25, save=True)
        assert run.status().nodes["pattern"].config["fps"] == 20


async def test_none_takes_the_default_and_text_stays_text() -> None:
    async with flowstream.open(shown(), serve=False) as run:
        for text in ("25", "true", "a: b # c", "Zürich\n", "{x}", "~", "- "):
            await run.set("out.title", text)
            assert run.status().nodes["out"].config["title"] == text
    async with flowstream.open(ticking()) as run:
        await run.set("pattern.fps", None)
        assert run.status().nodes["pattern"].config["fps"] == 30


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fps", 25, "'fps' is not NODE.FIELD, such as encode.bitrate"),
        ("pattern.type", "tone", "type belongs to the graph language"),
        ("patern.fps", 25, "patern.fps: there is no node patern (did you mean pattern?)"),
        ("pattern.fsp", 25, "pattern.fsp: test-pattern has no setting fsp (did you mean fps?)"),
        ("pattern.size", "320x180", "pattern.size cannot change in place: pattern would be replaced"),
        ("pattern.fps", "fast", "fps takes a number"),
        ("pattern.fps", "$(env:HOME)", "values are taken as they are here"),
    ],
)
async def test_what_cannot_be_set_is_refused_and_nothing_changes(file: Path, name: str, value: Any, said: str) -> None:
    async with flowstream.open(file) as run:
        before = run.status().nodes["pattern"].config
        with pytest.raises(FlowstreamError) as raised:
            await run.set(name, value)
        assert said in str(raised.value)
        assert run.status().nodes["pattern"].config == before
        await run.reload()
        assert run.status().nodes["pattern"].config == before


async def test_a_nested_setting_is_set_by_its_path() -> None:
    async with flowstream.open(shown(viewers={"max": 2}), serve=False) as run:
        assert (await run.set("out.viewers.max", 3)).of("out").action == "update"
        assert run.status().nodes["out"].config["viewers"]["max"] == 3


async def test_reload_applies_the_file_or_refuses_it(file: Path) -> None:
    async with flowstream.open(file) as run:
        assert (await run.reload()).is_empty
        save(file, "vars: {fps: 20}\n" + TEXT)
        assert (await run.reload()).of("pattern").action == "update"
        before = run.status()
        save(file, "vars: {fps: 20}\n" + TEXT + "  more: {type: discard, from: nobody}\n")
        with pytest.raises(GraphError, match="FS301"):
            await run.reload()
        assert run.status().running == before.running
        assert set(run.status().nodes) == {"pattern", "end"}


async def test_reload_takes_another_graph(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    save(other, "vars: {fps: 20}\n" + TEXT + "  more: {type: discard, from: pattern}\n")
    async with flowstream.open(file, sets={"fps": 40}) as run:
        patch = await run.reload(other)
        assert {each.node: each.action for each in patch.changes} == {
            "pattern": "keep",
            "end": "keep",
            "more": "add",
        }
        await until_received(run, "more")
        graph = Graph.from_yaml(other)
        graph.add("discard", id="last", from_="pattern")
        await run.reload(graph)
        await until_received(run, "last")
        assert run.status().running == run.status().file


async def test_what_was_set_stays_over_another_graph_that_says_the_same_there(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    save(other, "vars: {fps: 50}\n" + TEXT + "  more: {type: discard, from: pattern}\n")
    async with flowstream.open(file) as run:
        await run.set("pattern.fps", 25)
        await run.reload(other)
        assert run.status().overrides == {"pattern.fps": "25"}
        assert set(run.status().nodes) == {"pattern", "end", "more"}
        with pytest.raises(GraphError, match="FS301"):
            await run.reload(Graph.from_yaml(broken(tmp_path)))
        assert run.status().refused is None, "it is no file that was refused"
        save(other, "vars: {fps: 10}\n" + TEXT)
        await run.reload()
        assert run.status().nodes["pattern"].config["fps"] == 10
        assert (run.status().overrides, run.status().difference) == ({}, None)


def broken(folder: Path) -> Path:
    path = folder / "broken.yaml"
    save(path, "nodes:\n  end: {type: discard, from: nobody}\n")
    return path


async def test_watched_files_are_applied_and_so_are_those_of_another_graph(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "other.yaml"
    save(other, "vars: {fps: 20}\n" + TEXT)

    def fps() -> Any:
        return run.status().nodes["pattern"].config["fps"]

    async with flowstream.open(file, watch=True) as run:
        events = run.events()
        save(file, "vars: {fps: 30}\n" + TEXT)
        await until(lambda: fps() == 30)
        save(file, "vars: {fps: fast}\n" + TEXT)
        await until(lambda: run.status().refused is not None)
        assert run.status().running != run.status().file
        await run.reload(other)
        assert fps() == 20
        assert run.status().refused is None
        save(other, "vars: {fps: 10}\n" + TEXT)
        await until(lambda: fps() == 10)
    assert [type(each) async for each in events] == [Applied, Refused, Applied, Applied]


async def test_watching_begins_with_the_first_graph_that_has_a_file(file: Path) -> None:
    async with flowstream.open(ticking(), watch=True) as run:
        await run.reload(file)
        save(file, "vars: {fps: 30}\n" + TEXT)
        await until(lambda: run.status().nodes["pattern"].config["fps"] == 30)


@pytest.mark.parametrize("turns", [0, 1, 2, 4, 8, 16, 32])
async def test_a_change_that_is_cancelled_was_made_or_was_not(turns: int) -> None:
    async with flowstream.open(ticking()) as run:
        before = run.status()
        task = asyncio.ensure_future(run.set("pattern.fps", 50))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        after = run.status()
        is_made = after.nodes["pattern"].config["fps"] == 50
        assert (after.running != before.running) is is_made
        await run.set("pattern.fps", 60)
        assert run.status().nodes["pattern"].config["fps"] == 60


async def test_changes_at_the_same_time_are_made_one_after_the_other() -> None:
    async with flowstream.open(ticking()) as run:
        async with anyio.create_task_group() as tasks:
            for fps in range(50, 56):
                tasks.start_soon(run.set, "pattern.fps", fps)
            tasks.start_soon(run.reload)
        assert run.status().nodes["pattern"].config["fps"] == 55
        assert run.status().difference == "pattern.fps is 55 (the file says 100), set while it runs"


# --- events ---------------------------------------------------------------------------------------------------------


async def test_events_are_iterated_from_when_they_were_asked_for_to_the_end_of_the_run() -> None:
    async with flowstream.open(ticking()) as run:
        await run.set("pattern.fps", 50)
        events = run.events()
        await run.set("pattern.fps", 60)
        first = await anext(events)
        assert isinstance(first, Applied)
        assert first.patch.of("pattern").fields == ("fps",)
        assert first.revision == run.status().running
    assert [each async for each in events] == []
    assert [each async for each in run.events()] == []


async def test_events_that_nobody_took_in_time_are_counted() -> None:
    async with flowstream.open(ticking()) as run:
        events = run.events(limit=2)
        for fps in range(50, 55):
            await run.set("pattern.fps", fps)
    missed, *rest = [each async for each in events]
    assert missed == EventsMissed(3)
    assert [type(each) for each in rest] == [Applied, Applied]


async def test_who_waits_for_an_event_is_woken_by_it_and_by_the_end() -> None:
    seen: list[type[Any]] = []

    async def listen(events: Events) -> None:
        seen.extend([type(event) async for event in events])

    async with anyio.create_task_group() as tasks, flowstream.open(ticking()) as run:
        tasks.start_soon(listen, run.events())
        await anyio.lowlevel.checkpoint()
        await run.set("pattern.fps", 50)
    assert seen == [Applied]


async def test_callbacks_are_called_for_their_kind_until_they_are_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    async with flowstream.open(ticking()) as run:
        run.on(Applied, lambda event: 1 / 0)
        forget = run.on(Applied, lambda event: seen.append(event.revision))
        run.on(Refused, lambda event: seen.append("refused"))
        await run.set("pattern.fps", 50)
        forget()
        await run.set("pattern.fps", 60)
    assert len(seen) == 1
    assert "a callback for Applied failed" in caplog.text
