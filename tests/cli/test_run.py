"""run: from the first line to the exit status."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from flowstream.cli.graphs import shipped_graphs
from flowstream.cli.launch import launch
from flowstream.control.client import ask, choose, runs
from flowstream.control.door import bind
from flowstream.control.files import GraphFile
from flowstream.graph.plan import Serve
from tests.cli.calling import ODD, TICKS, Call, Running, running

ENDLESS = TICKS.replace("count: 5, ", "")


def graph(here: Path, text: str) -> Path:
    path = here / "it.yaml"
    path.write_text(text)
    return path


def odd(node: str, **more: str) -> str:
    """A graph that feeds one of the odd node types."""
    settings = "".join(f", {key}: {value}" for key, value in more.items())
    return f"flowstream: 1\nnodes:\n  ticks: {{type: odd/ticks}}\n  it: {{type: odd/{node}, from: ticks{settings}}}\n"


# --- in this process ----------------------------------------------------------------------------------------------


def test_a_graph_that_ends_by_itself_exits_0(call: Call, here: Path) -> None:
    graph(here, TICKS)
    called = call("run", "it.yaml", "--nodes", ODD)
    assert called.status == 0
    assert called.err == ""
    lines = called.out.splitlines()
    assert lines[:3] == [
        "it: 2 nodes, 1 edge, live",
        "  ticks  odd/ticks",
        "  end    discard    anything from ticks.out",
    ]
    assert lines[3].endswith(" running; edit it.yaml to change it, Ctrl-C ends it")
    assert "\033" not in called.out


def test_every_line_for_machines_is_json_with_the_same_keys(call: Call, here: Path) -> None:
    graph(here, TICKS)
    called = call("run", "it.yaml", "--nodes", ODD, "--log", "json")
    assert called.status == 0
    assert [line["event"] for line in called.lines] == ["plan", "running"]
    for line in called.lines:
        assert list(line)[:4] == ["time", "level", "event", "message"]
        assert line["time"].endswith("Z")
    assert called.lines[0]["nodes"] == {"ticks": "odd/ticks", "end": "discard"}


def test_the_graph_says_how_it_logs(call: Call, here: Path) -> None:
    graph(here, TICKS + "log: {format: json}\n")
    assert call("run", "it.yaml", "--nodes", ODD).lines[0]["event"] == "plan"
    assert call("run", "it.yaml", "--nodes", ODD, "--log", "text").out.startswith("it: 2 nodes")


def test_what_cannot_run_is_said_in_full(call: Call, here: Path) -> None:
    graph(here, TICKS.replace("count", "cuont").replace("discard", "discrad"))
    called = call("run", "it.yaml", "--nodes", ODD)
    assert (called.status, called.out) == (1, "")
    assert "it.yaml:3:28: FS206 unknown setting" in called.err
    assert "did you mean discard?" in called.err
    assert called.err.rstrip().endswith("2 errors")
    line = call("run", "it.yaml", "--nodes", ODD, "--log", "json").lines[0]
    assert (line["event"], line["message"], len(line["diagnostics"])) == ("error", "2 errors", 2)


def test_warnings_do_not_keep_it_from_running(call: Call, here: Path) -> None:
    graph(here, TICKS + "vars: {spare: 1}\n")
    called = call("run", "it.yaml", "--nodes", ODD)
    assert called.status == 0
    assert "FS124 warning: unused variable" in called.out


def test_a_node_that_fails(call: Call, here: Path) -> None:
    graph(here, odd("bug") + "  end: {type: discard, from: it}\n")
    with_end = (here / "it.yaml").read_text().replace("{type: odd/ticks}", "{type: odd/ticks, count: 9, every_ms: 1}")
    graph(here, with_end)
    called = call("run", "it.yaml", "--nodes", ODD)
    assert called.status == 1
    assert "it.yaml:4:3: it (odd/bug): LookupError: no such thing" in called.out
    assert "it stays down until it is changed in the graph; end takes from it" in called.out
    assert 'raise LookupError("no such thing")' in called.out, "the traceback of a bug"
    lines = call("run", "it.yaml", "--nodes", ODD, "--log", "json").lines
    failed = next(line for line in lines if line["event"] == "node-failed")
    assert (failed["node"], failed["dependents"], failed["retry_in_seconds"]) == ("it", ["end"], None)


def test_a_failure_that_is_expected_has_no_traceback(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter22")
    text = odd("login", address='"rtsp://me:$(env:PASSWORD)@host"').replace("odd/ticks}", "odd/ticks, count: 9}")
    graph(here, text)
    called = call("run", "it.yaml", "--nodes", ODD)
    assert called.status == 1
    assert "it.yaml:4:3: it (odd/login): 401 from rtsp://me:$(env:PASSWORD)@host" in called.out
    assert "warning: it: cannot log in at rtsp://me:$(env:PASSWORD)@host" in called.out
    assert "Traceback" not in called.out
    assert "hunter22" not in called.out
    assert "hunter22" not in call("run", "it.yaml", "--nodes", ODD, "--log", "json").out


def test_a_node_that_cannot_start(call: Call, here: Path) -> None:
    graph(
        here, "flowstream: 1\nnodes:\n  film: {type: file, path: gone.mp4}\n  end: {type: discard, from: film.video}\n"
    )
    called = call("run", "it.yaml")
    assert called.status == 1
    assert "it.yaml:3:3: film (file): there is no file gone.mp4" in called.out
    assert "Traceback" not in called.out
    assert "running" not in called.out
    line = call("run", "it.yaml", "--log", "json").lines[-1]
    assert (line["event"], line["node"], line["place"]) == ("error", "film", "it.yaml:3:3")
    assert line["hint"] == f"looked in {here}"


def test_an_address_that_is_taken(call: Call, here: Path) -> None:
    with bind(Serve("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        graph(here, TICKS + f'serve: {{listen: "127.0.0.1:{port}"}}\n')
        called = call("run", "it.yaml", "--nodes", ODD)
    assert called.status == 1
    assert f"serve: 127.0.0.1:{port} is taken by " in called.out
    assert "hint: stop it, or serve elsewhere" in called.out


def test_a_control_socket_that_cannot_be(call: Call, here: Path) -> None:
    graph(here, TICKS)
    (here / "notes.txt").write_text("dear diary")
    called = call("run", "it.yaml", "--nodes", ODD, "--control", "notes.txt")
    assert called.status == 1
    assert "notes.txt is there already and is no socket" in called.out


def test_its_log_level(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter22")
    text = odd("login", address="$(env:PASSWORD)").replace("odd/ticks}", "odd/ticks, count: 2}")
    graph(here, text)
    assert "cannot log in at $(env:PASSWORD)" in call("run", "it.yaml", "--nodes", ODD).out
    assert "cannot log in" not in call("run", "it.yaml", "--nodes", ODD, "--log-level", "error").out


def test_signal_handlers_and_loggers_are_those_of_before(call: Call, here: Path) -> None:
    graph(here, TICKS)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    call("run", "it.yaml", "--nodes", ODD)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_without_a_graph_it_runs_hello(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    asked = []

    def record(path: str, **options: object) -> int:
        asked.append((path, options))
        return 0

    monkeypatch.setattr("flowstream.cli.launch.launch", record)
    assert call("run").status == 0
    ((path, options),) = asked
    assert Path(path).name == "hello.yaml"
    assert Path(path).is_file()
    assert options["watch"] == "auto"


def test_the_graphs_that_ship_are_those_that_the_help_names(call: Call) -> None:
    help_text = " ".join(call("run", "--help").out.split())
    assert "(hello, rooms, ladder, adaptive, viewers, data, desk, camera, file)" in help_text
    assert set(shipped_graphs()) == {
        "hello",
        "rooms",
        "ladder",
        "adaptive",
        "viewers",
        "data",
        "desk",
        "camera",
        "file",
    }


# --- in a process of its own ----------------------------------------------------------------------------------------


def test_a_graph_that_ends_is_not_held_up_by_its_watching(here: Path) -> None:
    with running(graph(here, TICKS.replace("every_ms: 1", "every_ms: 100"))) as run:
        run.wait_for("running")
        began = time.monotonic()
        assert run.ended() == 0
        assert time.monotonic() - began < 4


def test_ctrl_c_drains_and_exits_0(here: Path) -> None:
    with running(graph(here, ENDLESS)) as run:
        run.wait_for("running")
        run.interrupt()
        assert run.ended() == 0
        assert run.events == ["plan", "running", "draining"]
    assert not list((here / ".run").rglob("*.sock"))


def test_terminate_drains_too(here: Path) -> None:
    with running(graph(here, ENDLESS)) as run:
        run.wait_for("running")
        run.interrupt(signal.SIGTERM)
        assert run.ended() == 0


def test_twice_stops_at_once(here: Path) -> None:
    with running(graph(here, odd("hangs"))) as run:
        run.wait_for("log")
        run.interrupt()
        run.wait_for("draining")
        run.interrupt()
        assert run.ended() == 130
        assert run.lines[-1]["event"] == "stuck"
        assert run.lines[-1]["message"] == "left behind what did not end in time: it (odd/hangs)"


@pytest.mark.parametrize("stuck", ["hangs", "blocks"])
def test_told_once_to_stop_it_ends_in_bounded_time_whatever_is_stuck(here: Path, stuck: str) -> None:
    code = (
        "import sys; from flowstream.cli import outcome, session; session.GIVE_UP_SECONDS = 0.3; "
        "sys.exit(outcome(sys.argv[1:]))"
    )
    path = graph(here, odd(stuck))
    command = [sys.executable, "-c", code, "run", path, "--nodes", ODD, "--log", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        run = Running(process)
        run.wait_for("log")
        run.interrupt(signal.SIGTERM)
        assert run.ended() == 1
    assert run.lines[-1]["event"] == "stuck"
    assert f"it (odd/{stuck})" in run.lines[-1]["message"]


def test_a_node_that_blocks_the_loop_is_named(here: Path) -> None:
    with running(graph(here, odd("blocks"))) as run:
        run.wait_for("log")
        run.interrupt()
        run.interrupt(signal.SIGTERM)
        assert run.ended() == 130
        assert run.lines[-1]["message"].endswith("it (odd/blocks), which blocks the event loop")


def test_a_node_that_holds_up_the_others_is_told_of_with_its_place_and_the_remedy(here: Path) -> None:
    with running(graph(here, odd("spins"))) as run:
        line = run.wait_for("node-slow")
        assert line["node"] == "it"
        assert line["place"].endswith("it.yaml:4:3")
        assert line["held_seconds"] > 0.02
        assert "needs thread = True" in line["message"]
        run.interrupt()
        assert run.ended() == 0


def test_inline_a_thread_is_no_thread(call: Call, here: Path) -> None:
    text = TICKS.replace("end: {type: discard, from: ticks}", "it: {type: odd/where, from: ticks}")
    assert "odd/where" in text
    graph(here, text)
    for options, name in ((), "flowstream it"), (("--inline",), "MainThread"):
        called = call("run", "it.yaml", "--nodes", ODD, "--log", "json", *options)
        assert called.status == 0
        assert [line["message"] for line in called.lines if line["event"] == "log"] == [f"on {name}"]


def test_interrupted_while_it_starts(here: Path) -> None:
    with running(graph(here, odd("slow"))) as run:
        run.wait_for("plan")
        while not runs():  # from here on it handles signals
            pass
        run.interrupt()
        assert run.ended() == 130
        assert run.lines[-1]["message"] == "stopped before it was running"


def test_status_of_a_run(here: Path, call: Call) -> None:
    text = odd("login", address="$(env:PASSWORD)").replace("it:", "door:")
    with running(graph(here, text), PASSWORD="hunter22") as run:
        run.wait_for("node-failed")
        called = call("status", "--format", "json")
        assert called.status == 0
        assert "hunter22" not in called.out
        status = called.json
        assert list(status)[:5] == ["graph", "file", "state", "revision", "nodes"]
        assert (status["graph"], status["state"]) == ("it", "degraded")
        assert list(status["revision"])[:3] == ["running", "file", "refused"]
        assert status["revision"]["running"] == status["revision"]["file"]
        assert status["revision"]["refused"] is None
        assert list(status["nodes"]["door"])[:4] == ["type", "state", "config", "restarts"]
        door = status["nodes"]["door"]
        assert (door["type"], door["state"], door["config"]) == ("odd/login", "failed", {"address": "$(env:PASSWORD)"})
        assert door["error"] == "401 from $(env:PASSWORD)"
        text = call("status").out
        assert text.splitlines()[0] == "it: degraded"
        assert "door   odd/login  failed   address=$(env:PASSWORD)  401 from $(env:PASSWORD)" in text
        path = choose().socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        run.interrupt()
        assert run.ended() == 1
    assert call("status").err == "no graph is running\n  hint: start one: flowstream run GRAPH\n"
    assert call("status", "--run", "desk").status == 1


def test_a_control_socket_of_ones_own(here: Path, call: Call) -> None:
    with running(graph(here, ENDLESS), "--control", "my.sock") as run:
        run.wait_for("running")
        assert call("status").status == 1
        assert "it: running" in call("status", "--control", "my.sock").out
        run.interrupt()
        assert run.ended() == 0
    assert not (here / "my.sock").exists()


def test_several_runs_of_a_graph(here: Path, call: Call) -> None:
    path = graph(here, ENDLESS)
    with running(path) as first, running(path) as second:
        first.wait_for("running")
        second.wait_for("running")
        assert len(runs()) == 2
        called = call("status")
        assert called.status == 1
        assert "2 graphs are running; choose one by --run NAME:" in called.err
        name = next(run.name for run in runs() if run.name != "it")
        assert call("status", "--run", name).status == 0
        for run in (first, second):
            run.interrupt()
            assert run.ended() == 0


def test_a_save_is_applied_or_refused(here: Path, call: Call) -> None:
    path = graph(here, ENDLESS)
    with running(path) as run:
        run.wait_for("running")
        path.write_text(ENDLESS.replace("every_ms: 1", "every_ms: 2"))
        applied = run.wait_for("applied")
        assert applied["changes"]["ticks"] == {
            "action": "update",
            "effect": "changed in place",
            "causes": ["every_ms 1 -> 2"],
            "at_most_seconds": None,
            "gap_seconds": None,
        }
        assert applied["changes"]["end"]["action"] == "keep"
        path.write_text(ENDLESS.replace("every_ms: 1", "evry_ms: 2"))
        refused = run.wait_for("refused")
        assert refused["diagnostics"][0]["code"] == "FS206"
        revision = call("status", "--format", "json").json["revision"]
        assert revision["running"] == applied["revision"]
        assert revision["file"] != revision["running"]
        assert revision["refused"] == refused["message"] == "1 finding in the file"
        said = call("status").out
        assert ": 1 finding in the file; " in said
        run.interrupt()
        assert run.ended() == 0


def test_a_save_may_be_ignored(here: Path) -> None:
    path = graph(here, TICKS.replace("count: 5, every_ms: 1", "count: 100"))
    with running(path, "--no-watch") as run:
        run.wait_for("running")
        path.write_text("nodes: {}")
        assert run.ended() == 0
        assert run.events == ["plan", "running"]


def test_a_page_that_is_added_later_gets_a_door(here: Path) -> None:
    path = graph(here, ENDLESS)
    with running(path) as run:
        run.wait_for("running")
        path.write_text(ENDLESS + "  hello: {type: odd/page, from: ticks}\n")
        url = run.wait_for("page")["url"]
        answer = httpx.get(url, follow_redirects=True)
        assert answer.text == "hello from hello"
        run.interrupt()
        assert run.ended() == 0


def test_served_to_others_it_warns_and_prints_an_address_they_can_reach(here: Path) -> None:
    page = "  hello: {type: odd/page, from: ticks}\nserve: {listen: '0.0.0.0:0', tls: off}\n"
    with running(graph(here, ENDLESS + page)) as run:
        assert "0.0.0.0" not in run.wait_for("page")["url"]
        warning = run.wait_for("open")
        assert warning["level"] == "warning"
        assert "without TLS" in warning["message"]
        run.interrupt()
        assert run.ended() == 0


def test_several_pages_have_a_link_each(here: Path) -> None:
    pages = "  one: {type: odd/page, from: ticks}\n  two: {type: odd/page, from: ticks}\n"
    with running(graph(here, ENDLESS + pages)) as run:
        urls = [run.wait_for("page")["url"] for _ in range(2)]
        assert [url.rpartition(":")[2].partition("/")[2] for url in urls] == ["one/", "two/"]
        assert httpx.get(urls[1]).text == "hello from two"
        run.interrupt()
        assert run.ended() == 0


def test_a_closed_output_does_not_keep_it_from_running(here: Path) -> None:
    graph(here, TICKS)
    command = f"{sys.executable} -m flowstream run it.yaml --nodes {ODD} >&-"
    assert subprocess.run(command, shell=True, check=False).returncode == 0


def test_a_node_type_that_is_edited_is_taken_in(here: Path) -> None:
    folder = here / "mine"
    folder.mkdir()
    source = (ODD / "nodes.py").read_text().replace("odd/", "mine/")
    (folder / "nodes.py").write_text(source)
    path = graph(here, "flowstream: 1\nnodes:\n  t: {type: mine/ticks}\n  it: {type: mine/page, from: t}\n")
    with running(path, "--nodes", folder) as run:
        url = run.wait_for("page")["url"]
        (folder / "nodes.py").write_text(source.replace("hello from", "good morning from"))
        applied = run.wait_for("applied")
        assert applied["changes"]["it"]["causes"] == ["its code changed"]
        assert httpx.get(url, follow_redirects=True).text == "good morning from it"
        run.interrupt()
        assert run.ended() == 0


def test_a_reader_that_has_gone_does_not_end_it(here: Path) -> None:
    with running(graph(here, ENDLESS)) as run:
        run.wait_for("running")
        assert run.process.stdout is not None
        run.process.stdout.close()
        (path,) = [run.socket for run in runs()]
        (here / "it.yaml").write_text("nodes: [")  # something to say
        while ask(path, "/status")["revision"]["refused"] is None:
            pass
        run.interrupt()
        assert run.process.wait() == 0


def test_a_run_by_hand_gives_its_status(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(graph(here, ENDLESS))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    status = launch(
        path, layers=(), folders=(ODD,), sets={}, log_format="json", log_level=None, control=None, watch="off"
    )
    timer.join()
    assert status == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "draining"


def test_recordings_keep_their_name_over_a_reload(here: Path) -> None:
    file = GraphFile(str(graph(here, TICKS)), (ODD,))
    assert file.compile() == file.compile()
    assert file.began.tzinfo is not None


def test_what_a_save_would_do_to_a_run(here: Path, call: Call) -> None:
    """``plan FILE`` asks the run of that file; the file need not be saved in its place."""
    path = graph(here, ENDLESS)
    (here / "over.yaml").write_text("nodes: {ticks: {every_ms: 20}}\n")
    (here / "other.yaml").write_text(ENDLESS.replace("type: discard", "type: probe"))
    (here / "broken.yaml").write_text(ENDLESS.replace("odd/ticks", "odd/tocks"))
    with running(path, "--no-watch") as run:
        run.wait_for("running")
        assert call("plan", path).out.splitlines()[0] == "saved now, this would change the run it:"
        layered = call("plan", path, "--layer", here / "over.yaml")
        assert "  ticks  changed in place  (every_ms" in layered.out
        other = call("plan", here / "other.yaml", "--run", "it", "--format", "json")
        assert other.status == 0
        (change,) = [each for each in other.json["changes"] if each["action"] != "keep"]
        assert (change["node"], change["action"], change["causes"]) == ("end", "replace", ["type discard -> probe"])
        broken = call("plan", here / "broken.yaml", "--run", "it")
        assert broken.status == 1
        assert "FS203 unknown node type" in broken.err
        assert "did you mean odd/ticks?" in broken.err
        assert call("plan", path, "--fresh", "--nodes", ODD).out.startswith("it: 2 nodes, 1 edge")
        assert "--run and --fresh are about one" in call("plan", path, path, "--fresh").err
        run.interrupt()
        assert run.ended() == 0
    assert call("plan", path, "--nodes", ODD).out.startswith("it: 2 nodes, 1 edge")


def test_a_run_of_several_files(here: Path) -> None:
    """Layers, includes and subgraphs are watched like the graph itself."""
    path = graph(here, "include: parts/ticks.yaml\nnodes:\n  end: {use: parts/end.yaml, from: ticks}\n")
    (here / "parts").mkdir()
    (here / "parts" / "ticks.yaml").write_text("nodes: {ticks: {type: odd/ticks, every_ms: 10}}\n")
    (here / "parts" / "end.yaml").write_text("inputs: {all: end}\nnodes: {end: {type: discard}}\n")
    (here / "over.yaml").write_text("nodes: {ticks: {every_ms: 5}}\n")
    with running(path, "over.yaml") as run:
        run.wait_for("running")
        (here / "over.yaml").write_text("nodes: {ticks: {every_ms: 6}}\n")
        assert run.wait_for("applied")["changes"]["ticks"]["causes"] == ["every_ms 5 -> 6"]
        (here / "parts" / "end.yaml").write_text("inputs: {all: end}\nnodes: {end: {type: probe}}\n")
        assert run.wait_for("applied")["changes"]["end/end"]["action"] == "replace"
        (here / "parts" / "end.yaml").write_text("inputs: {all: end}\nnodes: {end: {type: prob}}\n")
        refused = run.wait_for("refused")
        assert refused["diagnostics"][0]["file"] == str(here / "parts" / "end.yaml")
        run.interrupt()
        assert run.ended() == 0
