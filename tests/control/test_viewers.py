"""The viewers of a run over its API, and by commands at another terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream.cli import outcome
from flowstream.control import models
from flowstream.control.tokens import FILE_NAME
from flowstream.runtime.audience import Caller, DoorClosed, Limit
from flowstream.runtime.viewers import VIEWERS, ViewerRegistry
from tests.control.running import Opened, in_run
from tests.runtime.test_viewers import BLACK, LIVE, NOTHING, Session

GRAPH = """\
serve: {listen: "127.0.0.1:0"}
nodes:
  pattern: {type: test-pattern, size: 160x90, fps: 5}
  encode: {type: hw-encode, from: pattern, bitrate: 100k}
  out: {type: webrtc-out, from: encode, viewers: {approval: manual, max: 2}}
"""
TOKEN = GRAPH.replace("manual", "token")


def registry(there: Opened, node: str = "out") -> ViewerRegistry:
    held = there.run.engine.held(node, VIEWERS)
    assert isinstance(held, ViewerRegistry)
    return held


def come(there: Opened, address: str = "192.0.2.1", token: str | None = None, **more: Any) -> Session:
    """Somebody comes and is connected."""
    door = registry(there)
    seat = door.seat(door.knock(Caller(address, token, **more)))
    session = Session(seat)
    seat.sit(session)
    seat.connected()
    return session


def test_everything_that_can_be_asked_about_a_viewer(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        session = come(there, name="Ann")
        viewer = session.seat.viewer
        told = models.ViewersNow.model_validate(await there.get("/viewers"))
        assert told.views[0].model_dump() == {
            "node": "out", "approval": "manual", "most": 2, "watching": 0, "waiting": 1, "is_paused": False,
        }  # fmt: skip
        (seen,) = told.viewers
        assert (seen.id, seen.name, seen.is_verified, seen.state) == (viewer, "Ann", False, "waiting")
        assert seen.rung is None

        async def ask(verb: str, **more: Any) -> models.ViewerNow:
            answer = await there.post(f"/viewers/{verb}", viewer=viewer, **more)
            return models.ViewerChangedNow.model_validate(answer).viewer

        assert (await ask("approve")).state == "watching"
        assert session.shown == LIVE
        assert (await ask("pause", node="out")).state == "paused"
        assert session.shown == BLACK
        assert (await ask("resume")).state == "watching"
        assert (await ask("permit", audio=False)).audio is False
        assert (await ask("cap", bitrate="600k")).cap_bps == 600_000
        assert (await ask("cap")).cap_bps is None
        assert (await ask("prioritize", priority=2)).priority == 2
        assert await there.post("/view/pause") == {"nodes": ["out"]}
        assert session.shown == BLACK
        assert await there.post("/view/pause", node="out") == {"nodes": []}
        assert await there.post("/view/resume") == {"nodes": ["out"]}
        assert (await ask("kick")).state == "rejected"
        assert session.reason == "its owner sent it away"
        other = come(there, "198.51.100.1")
        viewer = other.seat.viewer
        assert (await ask("reject")).state == "rejected"

    in_run(tmp_path, main, GRAPH)


def test_what_happens_is_an_event(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        session = come(there, name="Ann")
        viewer = session.seat.viewer
        await there.post("/viewers/approve", viewer=viewer)
        await there.post("/viewers/cap", viewer=viewer, bitrate="1M")
        session.close("it said goodbye")
        await there.post("/view/pause")
        told = [json.loads(entry.data) for entry in there.run.events.after(0)[1]]
        told = [event for event in told if event["event"].startswith("view")]
        who = {"node": "out", "viewer": viewer, "name": "Ann", "address": "192.0.2.1"}
        assert [{key: value for key, value in event.items() if key != "time"} for event in told] == [
            {"event": "viewer-waiting", **who},
            {"event": "viewer-changed", **who, "what": "approved", "detail": ""},
            {"event": "viewer-joined", **who},
            {"event": "viewer-changed", **who, "what": "capped", "detail": "1000000"},
            {"event": "viewer-left", **who, "reason": "it said goodbye"},
            {"event": "view-paused", "node": "out"},
        ]

    in_run(tmp_path, main, GRAPH)


def test_who_gets_less_than_the_best_is_named_by_why_by_the_list_and_by_an_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main(there: Opened) -> None:
        session, door = come(there, name="Anna"), registry(there)
        viewer = session.seat.viewer
        await there.post("/viewers/approve", viewer=viewer)
        session.rung, session.limit = "low", Limit("uplink", 20_000_000, 7, "high", 2_500_000)
        now_ns = there.run.engine.clock.now_ns()

        def pass_seconds(first: int, last: int) -> None:
            for second in range(first, last):
                door._now_ns = lambda: now_ns + second * 10**9  # noqa: B023 - called here, or once more at its end
                door.tick()

        pass_seconds(2, 8)
        sentence = "viewer Anna is on low: the uplink of 20M is shared by 7 viewers"
        told = await there.get("/why?node=out")
        assert told["healthy"] is True
        assert told["verdict"][-1] == sentence
        (cause,) = told["causes"]
        assert (cause["kind"], cause["node"], cause["is_fault"]) == ("narrow-uplink", "out", False)
        (seen,) = models.ViewersNow.model_validate(await there.get("/viewers")).viewers
        assert seen.limit is not None
        assert (seen.limit.by, seen.limit.rate_bps, seen.limit.sharing) == ("uplink", 20_000_000, 7)
        assert (seen.limit.above, seen.limit.above_bps) == ("high", 2_500_000)
        capsys.readouterr()
        assert await anyio.to_thread.run_sync(outcome, ["viewers", "list", "--control", str(there.run.socket)]) == 0
        assert "rung low  limited by the uplink" in capsys.readouterr().out
        told = [json.loads(entry.data) for entry in there.run.events.after(0)[1] if entry.name == "viewer-changed"]
        assert (told[-1]["viewer"], told[-1]["what"], told[-1]["detail"]) == (viewer, "limited", sentence)
        session.rung = None
        session.limit = Limit("link", 90_000, 7, "low", 244_000)
        pass_seconds(8, 14)
        told = await there.get("/why?node=out")
        assert told["healthy"] is False
        assert told["verdict"] == ["viewer Anna gets no picture: its link carries 90k, and low needs 244k"]

    in_run(tmp_path, main, GRAPH)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("approve", {"viewer": "nobody"}, "there is no viewer nobody"),
        ("kick", {"viewer": "abcd", "node": "encode"}, "encode has no viewers"),
        ("kick", {"viewer": "abcd", "node": "oot"}, "oot is no node"),
        ("cap", {"viewer": "VIEWER", "bitrate": "fast"}, "'fast' is no bitrate; write 2.5M or 300k"),
        ("cap", {"viewer": "VIEWER", "bitrate": "0.5k"}, "a bound of 0.5k carries nothing"),
        ("invite", {"name": "a\nb"}, "a name is a short line of characters that print"),
        ("invite", {"node": "pattern"}, "pattern has no viewers"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, path: str, body: dict[str, Any], error: str) -> None:
    async def main(there: Opened) -> None:
        viewer = come(there).seat.viewer
        given = {key: viewer if value == "VIEWER" else value for key, value in body.items()}
        answer = await there.post(f"/viewers/{path}", 422, **given)
        assert answer["error"].startswith(error)

    in_run(tmp_path, main, GRAPH)


def test_an_invitation_lets_in_by_its_links_until_it_is_taken_back(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        told = models.Invited.model_validate(await there.post("/viewers/invite", name="Ann", seconds=60))
        assert told.links[0].startswith(f"{there.run.links[0]}?token=")
        token = told.links[0].split("token=")[1]
        session = come(there, token=token)
        assert session.shown == LIVE
        assert (await there.get("/viewers"))["viewers"][0]["name"] == "Ann"
        kept = (tmp_path / "state" / FILE_NAME).read_bytes()
        assert await there.post("/viewers/revoke", id=told.id) == {"ended": 1}
        assert session.reason == "its invitation was taken back"
        with pytest.raises(DoorClosed):
            come(there, token=token)
        path = tmp_path / "state" / FILE_NAME
        while told.id not in await anyio.to_thread.run_sync(path.read_text):
            await anyio.lowlevel.checkpoint()
        assert kept != path.read_bytes()
        for entry in there.run.events.after(0)[1]:
            assert token not in entry.data
        assert token not in json.dumps(await there.get("/status"))

    in_run(tmp_path, main, GRAPH)


def test_a_view_that_is_paused_everywhere_is_paused_for_outputs_that_come(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        await there.post("/view/pause")
        there.file.write_text(GRAPH + "  other: {type: webrtc-out, from: encode}\n")
        await there.post("/reload")
        told = await there.get("/viewers")
        assert [(view["node"], view["is_paused"]) for view in told["views"]] == [("out", True), ("other", True)]

    in_run(tmp_path, main, GRAPH)


def test_viewers_and_what_was_decided_outlive_a_reload_and_a_new_name(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        session = come(there)
        viewer = session.seat.viewer
        await there.post("/viewers/approve", viewer=viewer)
        await there.post("/viewers/pause", viewer=viewer)
        invited = await there.post("/viewers/invite", node="out")
        text = GRAPH.replace("  out: {type: webrtc-out,", "  shown: {type: webrtc-out, was: out,")
        there.file.write_text(text.replace("max: 2", "max: 3"))
        await there.post("/reload")
        (seen,) = (await there.get("/viewers"))["viewers"]
        assert (seen["node"], seen["id"], seen["state"]) == ("shown", viewer, "paused")
        assert session.shown == BLACK
        held = registry(there, "shown")
        assert held.view.most == 3
        held.knock(Caller("192.0.2.2", invited["links"][0].split("token=")[1]))

    in_run(tmp_path, main, GRAPH)


def test_a_change_of_approval_lets_in_who_waits(tmp_path: Path) -> None:
    async def main(there: Opened) -> None:
        session = come(there)
        assert session.shown == NOTHING
        there.file.write_text(GRAPH.replace("manual", "none"))
        patch = await there.post("/reload")
        assert "out" in str(patch)
        assert session.shown == LIVE

    in_run(tmp_path, main, GRAPH)


def test_where_its_key_cannot_be_kept_a_run_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("no folder")

    async def main(there: Opened) -> None:
        assert "links that are given to viewers end with this run" in caplog.text
        assert (await there.post("/viewers/invite"))["links"]

    in_run(tmp_path, main, TOKEN)


# --- commands -------------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main(there: Opened) -> None:
        control = str(there.run.socket)

        async def call(*words: str, status: int = 0) -> str:
            capsys.readouterr()
            got = await anyio.to_thread.run_sync(outcome, [*words, "--control", control])
            out, err = capsys.readouterr()
            assert got == status, out + err
            return out if status == 0 else err

        ann, bob = come(there, name="Ann"), come(there, "198.51.100.2")
        registry(there).tick()
        a, b = ann.seat.viewer, bob.seat.viewer
        listed = await call("viewers", "list")
        assert listed == (
            "out: 0 of 2 watching, 2 waiting, approval manual\n"
            f"  {a}  waiting  192.0.2.1     “Ann”  loss 25 %  rtt 40 ms\n"
            f"  {b}  waiting  198.51.100.2         loss 25 %  rtt 40 ms\n"
        )
        assert await call("viewers", "approve", a, b) == f"{a} (Ann) may watch\n{b} may watch\n"
        assert (ann.shown, bob.shown) == (LIVE, LIVE)
        assert await call("viewers", "cap", a, "600k") == f"{a} (Ann) gets at most 600 kbit/s\n"
        assert await call("viewers", "cap", a, "off") == f"{a} (Ann) gets as much as there is\n"
        assert await call("viewers", "prioritize", a, "2") == f"{a} (Ann) has priority 2\n"
        assert await call("viewers", "prioritize", a, "-3") == f"{a} (Ann) has priority -3\n"
        assert "priority -3" in await call("viewers", "list")
        assert await call("viewers", "permit", a, "--no-audio") == f"{a} (Ann) may see the picture\n"
        assert await call("viewers", "permit", a, "--no-video") == f"{a} (Ann) may neither see nor hear\n"
        assert "no picture  no sound" in await call("viewers", "list", "out")
        assert await call("viewers", "pause", b) == f"{b} sees a black picture\n"
        assert await call("viewers", "resume", b) == f"{b} sees the stream again\n"
        assert await call("pause-view") == "out: everybody sees a black picture\n"
        assert await call("pause-view", "out") == "everybody sees a black picture already\n"
        assert "paused: everybody sees black" in await call("viewers", "list")
        assert await call("resume-view") == "out: everybody sees the stream again\n"
        assert await call("viewers", "kick", b) == f"{b} is sent away\n"
        assert b not in await call("viewers", "list")
        assert f"{b}  rejected" in await call("viewers", "list", "--all")
        refused = await call("viewers", "reject", a, "nobody", status=1)
        assert refused.startswith(f"{a} (Ann) watches already\n  hint: flowstream viewers kick {a}\n")
        assert "there is no viewer nobody\n  hint: there is " in refused
        told = json.loads(await call("viewers", "list", "--format", "json"))
        assert [each["id"] for each in told["viewers"]] == [a]
        assert json.loads(await call("viewers", "pause", a, "--format", "json"))["viewers"][0]["state"] == "paused"
        link = (await call("viewers", "invite", "--name", "Cy", "--for", "1h")).strip()
        assert link.startswith(f"{there.run.links[0]}?token=")
        id_ = json.loads(await call("viewers", "invite", "out", "--format", "json"))["id"]
        assert await call("viewers", "revoke", id_) == f"{id_} does not count any more; nobody was sent away\n"
        assert "--for: " in await call("viewers", "invite", "--for", "long", status=2)
        assert "no viewers; webrtc-out has" in await call("viewers", "list", "encode", status=1)

    in_run(tmp_path, main, GRAPH)
