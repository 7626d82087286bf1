"""Changing a running graph: set, saved, gone back to, and what is said of the difference to the file."""

import socket
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest

from flowstream.control.files import GraphFile
from flowstream.control.run import Run
from flowstream.control.state import History
from flowstream.errors import GraphError
from flowstream.runtime.events import Applied, Event
from tests.control.running import ODD, TICKS, Opened, in_run

PART = "inputs: {all: end}\nvars: {often: 5}\nnodes:\n  end: {type: odd/page}\n"


def test_a_setting_is_set_over_the_file_and_taken_back(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        node = there.run.engine.runners["ticks"]
        done = await there.post("/set", target="ticks.every_ms", value="7")
        assert done["patch"]["changes"][0] == {
            "node": "ticks", "action": "update", "effect": "changed in place", "causes": ["every_ms 5 -> 7"],
            "fields": ["every_ms"], "was": None, "felt_by": [], "at_most_seconds": None,
            "breaks": [], "gap_seconds": None, "reaction": None,
        }  # fmt: skip
        assert done["difference"] == "ticks.every_ms is 7 (the file says 5), set while it runs"
        assert there.run.engine.runners["ticks"] is node
        assert there.every_ms() == 7
        revision = (await there.get("/status"))["revision"]
        assert revision["running"] != revision["file"]
        assert revision["overrides"] == [{"target": "ticks.every_ms", "value": "7", "file": "5"}]
        assert there.file.read_text() == TICKS
        done = await there.post("/clear", target="ticks.every_ms")
        assert (there.every_ms(), done["difference"]) == (5, None)
        assert done["revision"] == revision["file"]

    in_run(tmp_path, main)


def test_what_is_not_live_replaces_the_node(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        node = there.run.engine.runners["ticks"]
        done = await there.post("/set", target="ticks.count", value="100000")
        assert done["patch"]["changes"][0]["action"] == "replace"
        assert there.run.engine.runners["ticks"] is not node

    in_run(tmp_path, main)


def test_a_save_that_leaves_it_alone_keeps_it_and_one_that_changes_it_wins(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        await there.post("/set", target="ticks.every_ms", value="7")
        there.file.write_text(TICKS.replace("discard", "probe"))
        done = await there.post("/reload")
        assert [each["action"] for each in done["patch"]["changes"]] == ["keep", "replace"]
        assert there.every_ms() == 7
        assert "ticks.every_ms is 7 (the file says 5)" in done["difference"]
        there.file.write_text(TICKS.replace("every_ms: 5", "every_ms: 9"))
        done = await there.post("/reload")
        assert (there.every_ms(), done["difference"]) == (9, None)

    in_run(tmp_path, main)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"target": "ticks.every_ms", "value": "often"}, "1 finding in the graph"),
        ({"target": "tocks.every_ms", "value": "7"}, "1 finding in the graph"),
        ({"target": "ticks", "value": "7"}, "'ticks' is not NODE.FIELD, such as encode.bitrate"),
        ({"target": "ticks.type", "value": "7"}, "type belongs to the graph language"),
        ({"target": "ticks.every_ms", "value": "$(env:HOME)"}, "values are taken as they are here"),
    ],
)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, body: dict[str, str], said: str) -> None:
    async def main(there: Opened) -> None:
        await there.kept(1)
        before = await there.get("/status")
        answer = await there.post("/set", 422, **body)
        assert said in answer["error"]
        for each in answer.get("diagnostics", ()):
            assert (each["file"], each["line"]) == ("set", 1)
        assert (await there.get("/status"))["revision"] == before["revision"]

    in_run(tmp_path, main)


def test_taking_back_what_is_not_set(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        assert (await there.post("/clear"))["patch"] is None
        await there.post("/set", target="ticks.every_ms", value="7")
        answer = await there.post("/clear", 422, target="ticks.every_m")
        assert (answer["error"], answer["hint"]) == ("ticks.every_m is not set", "did you mean ticks.every_ms?")

    in_run(tmp_path, main)


def test_saved_at_its_place_and_nothing_else_changes(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        done = await there.post("/set", target="ticks.every_ms", value="7", save=True)
        assert done["saved"] == str(there.file)
        assert there.file.read_text() == TICKS.replace("every_ms: 5", "every_ms: 7")
        done = await there.post("/reload")
        assert (there.every_ms(), done["difference"]) == (7, None)
        await there.post("/set", target="ticks.count", value="1000000", save=True)
        assert "every_ms: 7, count: 1000000}  # often" in there.file.read_text()

    in_run(tmp_path, main)


def test_saved_into_the_file_that_is_included(tmp_path: Path) -> None:
    base = "nodes:\n  ticks:\n    type: odd/ticks\n    every_ms: 5   # as agreed\n"

    async def main(there: Opened) -> None:
        done = await there.post("/set", target="ticks.every_ms", value="7", save=True)
        assert done["saved"] == str(there.file.with_name("base.yaml"))
        assert (there.file.with_name("base.yaml")).read_text() == base.replace("5 ", "7 ")

    in_run(tmp_path, main, "include: base.yaml\nnodes:\n  end: {type: discard, from: ticks}\n", base=base)


def test_saved_into_a_subgraph_that_one_node_uses(tmp_path: Path) -> None:
    text = "nodes:\n  a: {use: part.yaml}\n  end: {type: discard, from: a}\n"
    part = "outputs: {out: ticks.out}\nnodes:\n  ticks: {type: odd/ticks, every_ms: 5}\n"

    async def main(there: Opened) -> None:
        await there.post("/set", target="a/ticks.every_ms", value="7", save=True)
        assert "every_ms: 7}" in there.file.with_name("part.yaml").read_text()
        there.file.write_text(text.replace("end:", "b: {use: part.yaml}\n  other: {type: discard, from: b}\n  end:"))
        await there.post("/reload")
        answer = await there.post("/set", 422, target="a/ticks.every_ms", value="8", save=True)
        assert "part.yaml, which a and b use" in answer["error"]
        assert "every_ms: 7}" in there.file.with_name("part.yaml").read_text()
        assert there.run.engine.status()["a/ticks"].config["every_ms"] == 7

    in_run(tmp_path, main, text, part=part)


def test_a_value_from_a_variable_is_not_saved_over(tmp_path: Path) -> None:
    text = "vars: {often: 5}\n" + TICKS.replace("every_ms: 5", "every_ms: $(often)")

    async def main(there: Opened) -> None:
        answer = await there.post("/set", 422, target="ticks.every_ms", value="7", save=True)
        assert answer["error"] == f"ticks.every_ms comes from a variable, {there.file}:1"
        assert answer["hint"] == "change it there: other values may hang on it"
        assert (there.file.read_text(), there.every_ms()) == (text, 5)

    in_run(tmp_path, main, text)


def test_a_file_that_is_broken_meanwhile_is_not_saved_over(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        there.file.write_text(TICKS.replace("discard", "discrad"))
        answer = await there.post("/set", 422, target="ticks.every_ms", value="7", save=True)
        assert answer["error"] == "there is 1 finding in the file as it is now"
        assert there.every_ms() == 5
        await there.post("/set", target="ticks.every_ms", value="7")
        assert there.every_ms() == 7

    in_run(tmp_path, main)


def test_a_refused_file_is_said_and_reload_says_why(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        there.file.write_text(TICKS.replace("discard", "discrad"))
        for _ in range(2):  # asked again it is refused again
            answer = await there.post("/reload", 422)
            assert answer["error"] == "1 finding in the graph"
            assert answer["diagnostics"][0]["hint"] == "did you mean discard?"
        revision = (await there.get("/status"))["revision"]
        assert revision["refused"] == "1 finding in the file"
        assert "which was refused: 1 finding in the file" in revision["difference"]
        there.file.write_text(TICKS)
        assert (await there.post("/reload"))["difference"] is None
        assert (await there.post("/reload"))["patch"] is None

    in_run(tmp_path, main)


def test_every_revision_is_kept_and_can_be_gone_back_to(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        first = (await there.kept(1))[0]
        assert (first["number"], first["cause"], first["is_running"]) == (1, "started", True)
        there.file.write_text(TICKS.replace("every_ms: 5", "every_ms: 9"))
        await there.post("/reload")
        await there.kept(2)
        await there.post("/set", target="ticks.every_ms", value="11")
        kept = await there.kept(3)
        assert [each["cause"] for each in kept] == ["started", "saved", "ticks.every_ms was set to 11"]
        assert any("every_ms 5 -> 9" in line for line in kept[1]["lines"])
        done = await there.post("/rollback", number=1)
        assert (there.every_ms(), done["revision"]) == (5, first["revision"])
        assert done["difference"] == "revision 1 was gone back to"
        assert "every_ms: 9" in there.file.read_text(), "the file is not touched"
        kept = await there.kept(4)
        assert kept[-1]["cause"] == "revision 1 was gone back to"
        await there.post("/rollback", number=3)  # with what was set then
        assert there.every_ms() == 11
        await there.kept(5)
        done = await there.post("/reload")
        assert there.every_ms() == 11, "what was set stays, for the file says what it said then"
        await there.post("/clear")
        assert there.every_ms() == 9

    in_run(tmp_path, main)


def test_the_one_before_and_the_one_before_that(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        for count, every_ms in enumerate((6, 7, 8), 2):
            there.file.write_text(TICKS.replace("every_ms: 5", f"every_ms: {every_ms}"))
            await there.post("/reload")
            await there.kept(count)
        for every_ms in (7, 6, 5):
            await there.post("/rollback")
            assert there.every_ms() == every_ms
        answer = await there.post("/rollback", 422)
        assert answer["error"] == "there is no revision before this one"
        answer = await there.post("/rollback", 422, number=77)
        assert answer["error"] == "there is no revision 77"
        assert answer["hint"].startswith("there are 1 to ")

    in_run(tmp_path, main)


def test_a_save_ends_a_rollback(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        there.file.write_text(TICKS.replace("every_ms: 5", "every_ms: 6"))
        await there.post("/reload")
        await there.kept(2)
        await there.post("/rollback")
        there.file.write_text(TICKS.replace("every_ms: 5", "every_ms: 8"))
        done = await there.post("/reload")
        assert (there.every_ms(), done["difference"]) == (8, None)

    in_run(tmp_path, main)


def test_subgraphs_and_node_types_are_gone_back_to_as_they_were(tmp_path: Path) -> None:
    from flowstream.control.files import GraphFile
    from flowstream.control.state import Revision
    from tests.control.running import ODD

    mine = tmp_path / "mine"
    mine.mkdir()
    source = (ODD / "nodes.py").read_text().replace("odd/", "mine/")
    (mine / "nodes.py").write_text(source)
    (tmp_path / "part.yaml").write_text("outputs: {out: ticks.out}\nnodes: {ticks: {type: mine/ticks}}\n")
    (tmp_path / "it.yaml").write_text("nodes:\n  a: {use: part.yaml}\n  end: {type: discard, from: a}\n")
    file = GraphFile(str(tmp_path / "it.yaml"), (mine,))
    plan = file.compile()
    assert file.snapshot is not None
    history = History(tmp_path / "state")
    kept = history.add(Revision(0, plan.revision, plan.content, "", "started", (), 0, file.snapshot))
    (mine / "nodes.py").write_text(source.replace("Time between ticks", "Time between two ticks"))
    (tmp_path / "part.yaml").unlink()
    with pytest.raises(GraphError):
        file.compile()
    stored = history.get(kept.number)
    again = file.of(stored.snapshot, folders=history.unpacked(stored, file.folders)).compile()
    assert again == plan
    assert again.nodes["a/ticks"].implementation == plan.nodes["a/ticks"].implementation


def test_two_changes_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(10, 20):
                tasks.start_soon(lambda n: there.post("/set", target="ticks.every_ms", value=str(n)), number)
            there.file.write_text(TICKS.replace("discard", "probe"))
            tasks.start_soon(lambda: there.post("/reload"))
        status = await there.get("/status")
        (given,) = status["revision"]["overrides"]
        assert given["value"] == str(there.every_ms())
        assert status["nodes"]["end"]["type"] == "probe"

    in_run(tmp_path, main)


def test_a_history_that_cannot_be_kept_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("no folder")

    async def main(there: Opened) -> None:
        while not any(each.name == "revision-lost" for each in there.run.events.after(0)[1]):
            await anyio.lowlevel.checkpoint()
        assert (await there.get("/revisions"))["revisions"] == []
        assert (await there.get("/status"))["revision"]["number"] is None
        await there.post("/set", target="ticks.every_ms", value="7")

    in_run(tmp_path, main)
    assert "cannot keep the revision in" in caplog.text


def test_what_was_saved_while_it_was_started_is_applied_when_it_runs(tmp_path: Path) -> None:
    """From when its files were read on; a part of it and the source of a node type too."""
    file, part, folder = tmp_path / "it.yaml", tmp_path / "part.yaml", tmp_path / "mine"
    folder.mkdir()
    spare = (ODD / "nodes.py").read_text().replace('"odd/', '"mine/').replace("mine/ticks", "mine/spare")
    before = {
        file: TICKS.replace("{type: discard, from: ticks}", "{use: part.yaml, from: ticks}"),
        part: PART.replace("nodes:", "nodes:\n  spare: {type: mine/spare}"),
        folder / "spare.py": spare,
    }
    after = {
        file: before[file].replace("every_ms: 5", "every_ms: 9"),
        part: before[part].replace("mine/spare}", "mine/spare, every_ms: 8}"),
        folder / "spare.py": spare + "\n# changed\n",
    }

    async def main() -> None:
        for changed, text in after.items():
            for path, content in before.items():
                path.write_text(content)
            graph = GraphFile(str(file), (ODD, folder))
            plan = await anyio.to_thread.run_sync(graph.compile)
            changed.write_text(text)
            async with Run.open(graph, plan, has_control=False) as run, anyio.create_task_group() as tasks:
                told = anyio.Event()
                events: list[Event] = []

                def hear(event: Event, told: anyio.Event = told, events: list[Event] = events) -> None:
                    events.append(event)
                    told.set()

                run.engine.listen(hear)
                await run.start()
                tasks.start_soon(run.follow)
                await told.wait()
                assert [type(event) for event in events] == [Applied], events
                tasks.cancel_scope.cancel()

    async def limited() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(limited)


def test_an_address_is_given_back_when_the_edit_that_asked_for_it_is_refused(tmp_path: Path) -> None:
    """And another one can be had then: nobody has been told of the first."""

    def ports(count: int) -> list[int]:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]

    async def main(there: Opened) -> None:
        first, second = ports(2)
        page = "  hello: {type: odd/page, from: ticks}\n"
        broken = "  film: {type: file, path: gone.mp4}\n  seen: {type: discard, from: film.video}\n"
        for port in (first, second, first):
            served = f'{TICKS}{page}serve: {{listen: "127.0.0.1:{port}"}}\n'
            there.file.write_text(served.replace("  hello", broken + "  hello"))
            refused = await there.client.post("/reload", json={})
            assert "there is no file gone.mp4" in refused.text
            assert there.run.mounts.listen is None
            assert there.run.links == ()
        there.file.write_text(served)
        await there.post("/reload")
        assert there.run.links == (f"http://127.0.0.1:{first}/",)
        async with httpx.AsyncClient(follow_redirects=True) as client:
            assert (await client.get(there.run.links[0])).text == "hello from hello"

    in_run(tmp_path, main)
