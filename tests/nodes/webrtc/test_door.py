"""Who may watch, as sessions keep to it: the waiting room, sent away, paused, bounded; and what the door answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import av
import httpx
import pytest

from flowstream import (
    Caller,
    DoorClosed,
    ViewerChanged,
    ViewerError,
    ViewerJoined,
    ViewerLeft,
    ViewerWaiting,
    ViewPaused,
)
from flowstream.proto.h264 import split_annex_b
from flowstream.proto.rtcp import Nack, PictureLossIndication
from flowstream.runtime.audience import Grant
from flowstream_nodes.webrtc._cover import black_keyframe

pytestmark = pytest.mark.anyio

MakeViewer = Callable[[], Any]
HERE = Caller("127.0.0.1")
SDP = {"Content-Type": "application/sdp"}


async def join(stage: Any, viewer: Any, caller: Caller = HERE) -> Any:
    """Connects a viewer, and gives its seat."""
    admitted = stage.viewers.admit(viewer.offer(), caller)
    await viewer.connect(admitted.answer)
    session = stage.viewers.sessions[admitted.session_id]
    with anyio.fail_after(10):
        while not session.connected:
            await anyio.lowlevel.checkpoint()
    return stage.viewers.seat(admitted.session_id)


async def until(viewer: Any, condition: Callable[[], Any]) -> None:
    """Waits until what has arrived at a viewer fulfils a condition."""
    with anyio.fail_after(20):
        await viewer.until(condition)


async def gone(stage: Any) -> None:
    """Waits until every session has ended."""
    with anyio.fail_after(10):
        while stage.viewers.sessions:
            await anyio.lowlevel.checkpoint()


def is_whole(packets: list[Any]) -> bool:
    """Whether sequence numbers go on one by one."""
    return all((b.sequence_number - a.sequence_number) & 0xFFFF == 1 for a, b in pairwise(packets))


def video(viewer: Any) -> list[Any]:
    return [packet for packet in viewer.rtp if packet.payload_type == 96]


def invitation(stage: Any, *, seconds: float = 600, **given: Any) -> str:
    grant = Grant(given.pop("id", "abc"), stage.clock.wallclock_ns() + round(seconds * 1e9), **given)
    return str(stage.tokens.issue(grant))


def picture_of(viewer: Any) -> Any:
    """The picture that came last, decoded from the packets as they came."""
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    unit = b""
    for packet in video(viewer):
        kind = packet.payload[0] & 0x1F
        if kind == 28:  # a fragment
            if packet.payload[1] & 0x80:
                unit += b"\0\0\0\1" + bytes([packet.payload[0] & 0xE0 | packet.payload[1] & 0x1F])
            unit += packet.payload[2:]
        elif kind == 24:  # several in one
            at = 1
            while at < len(packet.payload):
                size = int.from_bytes(packet.payload[at : at + 2], "big")
                unit += b"\0\0\0\1" + packet.payload[at + 2 : at + 2 + size]
                at += 2 + size
        else:
            unit += b"\0\0\0\1" + packet.payload
        if packet.marker:
            frames += decoder.decode(av.Packet(unit))
            unit = b""
    frames += decoder.decode(None)
    return frames[-1].to_ndarray(format="gray")


# --- the waiting room -----------------------------------------------------------------------------------------------


async def test_who_waits_is_sent_nothing_until_it_is_let_in(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        stage.approval = "manual"
        viewer, watching = make_viewer(), make_viewer()
        seat = await join(stage, viewer, Caller("192.0.2.7", name="Ann"))
        assert stage.events == [ViewerWaiting("out", seat.viewer, "Ann", "192.0.2.7")]
        stage.viewers.registry.approve((await join(stage, watching)).viewer)
        stage.tasks.start_soon(stage.play)
        await until(watching, lambda: len(video(watching)) > 20)
        asked = len(stage.requests)
        viewer.send_rtcp(PictureLossIndication(1, viewer.ssrcs[0]))
        await until(watching, lambda: len(video(watching)) > 60)
        assert viewer.rtp == []
        assert len(stage.requests) == asked
        assert (stage.viewers.registry.waiting, stage.viewers.registry.watching) == (1, 1)
        stage.viewers.registry.approve(seat.viewer)
        await until(viewer, lambda: len(video(viewer)) > 10)
        assert len(stage.requests) > asked
        assert stage.events[-1] == ViewerJoined("out", seat.viewer, "Ann", "192.0.2.7")


async def test_who_is_rejected_hears_goodbye_and_is_not_let_in_again(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        stage.approval = "manual"
        viewer = make_viewer()
        seat = await join(stage, viewer)
        passed = seat.told()["pass"]
        stage.viewers.registry.reject(seat.viewer)
        await gone(stage)
        assert stage.events[-1] == ViewerLeft("out", seat.viewer, None, "127.0.0.1", "its owner did not let it in")
        with pytest.raises(DoorClosed, match="the owner has ended this for you"):
            stage.viewers.admit(make_viewer().offer(), Caller("127.0.0.1", passed))


async def test_a_kick_ends_the_session_and_newcomers_of_its_network_wait(
    stage_of: Any, make_viewer: MakeViewer
) -> None:
    async with stage_of() as stage:
        viewer, other = make_viewer(), make_viewer()
        seat = await join(stage, viewer)
        stage.tasks.start_soon(stage.play)
        await until(viewer, lambda: video(viewer))
        passed = seat.told()["pass"]
        stage.viewers.registry.kick(seat.viewer)
        await gone(stage)
        with pytest.raises(DoorClosed) as refused:
            stage.viewers.admit(other.offer(), Caller("127.0.0.1", passed))
        assert refused.value.kind == "barred"
        again = await join(stage, other)
        assert not again.is_admitted
        stage.viewers.registry.approve(again.viewer)
        await until(other, lambda: video(other))


async def test_others_watch_on_when_one_is_kicked(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        first, second = make_viewer(), make_viewer()
        seat = await join(stage, first)
        await join(stage, second, Caller("192.0.2.9"))
        stage.tasks.start_soon(stage.play)
        await until(second, lambda: video(second))
        stage.viewers.registry.kick(seat.viewer)
        count = len(video(second))
        await until(second, lambda: len(video(second)) > count + 20)
        assert is_whole(video(second))


# --- pausing --------------------------------------------------------------------------------------------------------


async def test_a_paused_view_is_black_at_once_and_silent(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        seat = await join(stage, viewer)
        stage.tasks.start_soon(stage.play)
        await until(viewer, lambda: len(video(viewer)) > 30)
        assert picture_of(viewer).mean() > 30
        stage.viewers.registry.pause_view()
        count = len(viewer.rtp)
        await until(viewer, lambda: picture_of(viewer).max() < 24)
        shown = len(video(viewer))
        await until(viewer, lambda: len(video(viewer)) >= shown + 2)  # two seconds
        late = viewer.rtp[count:]
        assert len([packet for packet in late if packet.payload_type == 111]) < 10
        assert len(late) < 40  # a picture a second, not thirty
        assert seat.told()["state"] == "paused"
        assert stage.events[-1] == ViewPaused("out")
        stage.viewers.registry.resume_view()
        await until(viewer, lambda: picture_of(viewer).mean() > 30)
        assert is_whole(video(viewer))
        times = [packet.timestamp for packet in video(viewer) if packet.marker]
        assert all(0 < (b - a) & 0xFFFFFFFF < 1 << 31 for a, b in pairwise(times))


async def test_what_was_sent_before_a_pause_is_not_sent_again(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        await join(stage, viewer)
        stage.send_picture()
        await until(viewer, lambda: any(packet.marker for packet in video(viewer)))
        number = video(viewer)[0].sequence_number
        stage.viewers.registry.pause_view()
        (session,) = stage.viewers.sessions.values()
        await until(viewer, lambda: picture_of(viewer).max() < 24)
        sent, asked = session.streams["video"].packets_resent, len(stage.requests)
        now_ns = stage.clock.now_ns()
        session._handle_feedback(Nack(1, session.streams["video"].ssrc, (number,)), now_ns)
        session._handle_feedback(PictureLossIndication(1, session.streams["video"].ssrc), now_ns)
        assert session.streams["video"].packets_resent == sent
        assert len(stage.requests) == asked


async def test_one_viewer_can_be_paused_and_the_others_watch(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        first, second = make_viewer(), make_viewer()
        seat = await join(stage, first)
        await join(stage, second)
        stage.tasks.start_soon(stage.play)
        await until(second, lambda: len(video(second)) > 10)
        stage.viewers.registry.pause(seat.viewer)
        await until(first, lambda: picture_of(first).max() < 24)
        count = len(video(second))
        await until(second, lambda: len(video(second)) > count + 20)
        assert picture_of(second).mean() > 30
        stage.viewers.registry.resume(seat.viewer)
        await until(first, lambda: picture_of(first).mean() > 30)


async def test_who_comes_while_the_view_is_paused_sees_black(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        stage.viewers.registry.pause_view()
        stage.tasks.start_soon(stage.play)
        viewer = make_viewer()
        await join(stage, viewer)
        await until(viewer, lambda: any(packet.marker for packet in video(viewer)))
        assert picture_of(viewer).max() < 24


async def test_a_viewer_who_may_only_hear_sees_black(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer = make_viewer()
        seat = await join(stage, viewer)
        stage.viewers.registry.permit(seat.viewer, video=False)
        stage.tasks.start_soon(stage.play)
        await until(viewer, lambda: len([each for each in viewer.rtp if each.payload_type == 111]) > 10)
        await until(viewer, lambda: any(packet.marker for packet in video(viewer)))
        assert picture_of(viewer).max() < 24
        stage.viewers.registry.permit(seat.viewer, video=True, audio=False)
        await until(viewer, lambda: picture_of(viewer).mean() > 30)
        assert stage.events[-1] == ViewerChanged("out", seat.viewer, None, "127.0.0.1", "permitted", "picture")


async def test_a_cap_bounds_what_is_sent(stage_of: Any, make_viewer: MakeViewer) -> None:
    async with stage_of() as stage:
        viewer, free = make_viewer(), make_viewer()
        seat = await join(stage, viewer)
        await join(stage, free)
        stage.tasks.start_soon(stage.play)
        await until(viewer, lambda: len(video(viewer)) > 10)
        stage.viewers.registry.cap(seat.viewer, 1000)
        before, other = len(video(viewer)), len(video(free))
        await until(free, lambda: len(video(free)) > other + 150)
        assert len(video(viewer)) - before < 50  # the picture that overdrew it, and what was under way
        stage.viewers.registry.cap(seat.viewer, None)
        await until(viewer, lambda: len(video(viewer)) > before + 100)


@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (322, 182)])
def test_the_black_picture_is_a_keyframe_by_itself(size: tuple[int, int]) -> None:
    data = black_keyframe(*size)
    kinds = [unit[0] & 0x1F for unit in split_annex_b(data)]
    assert {7, 8, 5} <= set(kinds)
    decoder = av.CodecContext.create("h264", "r")
    (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    assert (frame.width, frame.height) == size
    assert frame.to_ndarray(format="gray").max() < 24
    assert len(data) < 8000


# --- the door -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(stage_of: Any) -> Any:
    async with stage_of() as stage:
        yield stage


@pytest.fixture
async def http(stage: Any) -> Any:
    async with httpx.AsyncClient(base_url=stage.url) as client:
        yield client


def shown(token: str) -> dict[str, str]:
    return {**SDP, "Authorization": f"Bearer {token}"}


async def test_a_token_is_asked_for_and_taken_from_the_header_or_the_link(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    stage.approval = "token"
    offer = make_viewer().offer()
    answer = await http.post("/whep", content=offer, headers=SDP)
    assert (answer.status_code, answer.text) == (401, "This needs a link with a token.\n")
    assert answer.headers["www-authenticate"] == 'Bearer realm="flowstream"'
    assert (await http.get("/about")).status_code == 401
    assert (await http.get("/")).status_code == 200  # the page itself is no secret
    token = invitation(stage)
    assert (await http.get("/about", headers={"Authorization": f"Bearer {token}"})).status_code == 200
    assert (await http.post("/whep", content=offer, headers=shown(token))).status_code == 201
    assert (await http.post(f"/whep?token={token}", content=make_viewer().offer(), headers=SDP)).status_code == 201


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"seconds": -1}, "The token has ended.\n"),
        ({"nodes": ("other",)}, "The token is for something else.\n"),
    ],
)
async def test_a_token_that_does_not_count_is_told_why(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer, given: dict[str, Any], text: str
) -> None:
    stage.approval = "token"
    answer = await http.post("/whep", content=make_viewer().offer(), headers=shown(invitation(stage, **given)))
    assert (answer.status_code, answer.text) == (401, text)


@pytest.mark.parametrize("token", ["x", "e30.e30.", "a.b.c", "ü".encode().decode("latin-1"), "a" * 5000])
async def test_what_is_no_token_is_refused_also_where_none_is_needed(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer, token: str
) -> None:
    answer = await http.post(
        "/whep",
        content=make_viewer().offer(),
        headers=httpx.Headers([*SDP.items(), ("Authorization", f"Bearer {token}")], encoding="latin-1"),
    )
    assert (answer.status_code, answer.text) == (401, "This is no token of this stream.\n")


async def test_an_invitation_that_was_taken_back_ends_what_came_by_it(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    stage.approval = "token"
    viewer = make_viewer()
    token = invitation(stage, name="Ann")
    seat = await join(stage, viewer, Caller("127.0.0.1", token))
    passed = seat.told()["pass"]
    assert seat.told()["name"] == "Ann"
    stage.tokens.revoke("abc")
    assert stage.viewers.registry.revoke("abc") == 1
    await gone(stage)
    for shown_token in (token, passed):
        answer = await http.post("/whep", content=make_viewer().offer(), headers=shown(shown_token))
        assert (answer.status_code, answer.text) == (403, "The owner has ended this for you.\n")


async def test_a_session_ends_with_its_token(stage: Any, make_viewer: MakeViewer) -> None:
    stage.approval = "token"
    viewer = make_viewer()
    seat = await join(stage, viewer, Caller("127.0.0.1", invitation(stage, seconds=100)))
    stage.clock.skip(20)
    stage.viewers.registry.tick()
    assert seat.told()["state"] == "watching"
    stage.clock.skip(81)
    stage.viewers.registry.tick()
    await gone(stage)
    assert stage.events[-1].reason == "its token has ended"


async def test_who_comes_back_is_known_and_keeps_what_it_was_given(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    stage.approval = "manual"
    viewer = make_viewer()
    seat = await join(stage, viewer)
    stage.viewers.registry.approve(seat.viewer)
    stage.viewers.registry.pause(seat.viewer)
    passed = seat.told()["pass"]
    for session in list(stage.viewers.sessions):
        stage.viewers.dismiss(session)
    await gone(stage)
    (left,) = stage.viewers.registry.viewers
    assert left.state == "gone"
    again = await join(stage, make_viewer(), Caller("198.51.100.1", passed))
    assert (again.viewer, again.is_admitted, again.told()["state"]) == (seat.viewer, True, "paused")


async def test_who_said_goodbye_may_be_back_before_its_session_has_ended(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    seat = await join(stage, make_viewer())
    passed = seat.told()["pass"]
    (session,) = stage.viewers.sessions
    assert (await http.delete(f"/whep/{session}")).status_code == 200
    assert session in stage.viewers.sessions
    (left,) = stage.viewers.registry.viewers
    assert left.state == "gone"
    again = await join(stage, make_viewer(), Caller("127.0.0.1", passed))
    assert again.viewer == seat.viewer
    assert [type(each).__name__ for each in stage.events if each.viewer == seat.viewer] == [
        "ViewerJoined",
        "ViewerLeft",
        "ViewerJoined",
    ]


async def test_the_state_of_a_session_is_told_to_who_knows_its_path(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    stage.approval = "manual"
    answer = await http.post("/whep", content=make_viewer().offer(), headers=SDP)
    path = f"{answer.headers['location']}/state"
    told = (await http.get(path)).json()
    assert (told["state"], told["name"]) == ("connecting", None)
    text = {"Content-Type": "text/plain"}
    told = (await http.post(path, content="  Ann \x1b[31m\u202e " + "x" * 100, headers=text)).json()
    assert told["name"] == "Ann [31m " + "x" * 31
    assert (await http.post(path, content="x" * 300, headers=text)).status_code == 413
    assert (await http.post(path, content="{}", headers={"Content-Type": "application/json"})).status_code == 415
    assert (await http.get("/whep/nobody/state")).status_code == 404
    assert (await http.get(path, headers={"Origin": "https://elsewhere.example"})).status_code == 403


async def test_one_network_may_not_come_as_often_as_it_likes(
    stage: Any, http: httpx.AsyncClient, make_viewer: MakeViewer
) -> None:
    stage.most = 0
    statuses = []
    for _ in range(60):
        answer = await http.post("/whep", content=make_viewer().offer(), headers=SDP)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            break
    assert statuses[:40] == [503] * 40
    assert statuses[-1] == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.text == "Too many came from this network; try again in 1 s.\n"


async def test_only_so_many_wait(stage: Any, make_viewer: MakeViewer) -> None:
    stage.approval = "manual"
    for _ in range(8):
        stage.viewers.admit(make_viewer().offer(), Caller("2001:db8::1"))
    with pytest.raises(DoorClosed) as refused:
        stage.viewers.admit(make_viewer().offer(), Caller("2001:db8::2"))
    assert refused.value.kind == "crowded"
    stage.viewers.admit(make_viewer().offer(), Caller("2001:db8:1::1"))
    for index in range(23):
        stage.viewers.admit(make_viewer().offer(), Caller(f"192.0.2.{index}"))
    with pytest.raises(DoorClosed):
        stage.viewers.admit(make_viewer().offer(), Caller("198.51.100.1"))


async def test_waiting_viewers_take_no_place_of_those_who_watch(stage: Any, make_viewer: MakeViewer) -> None:
    stage.approval, stage.most = "manual", 1
    waiting = await join(stage, make_viewer())
    second = await join(stage, make_viewer())
    stage.viewers.registry.approve(waiting.viewer)
    with pytest.raises(ViewerError, match="the only place is taken"):
        stage.viewers.registry.approve(second.viewer)
    stage.most = 2
    stage.viewers.registry.approve(second.viewer)
    assert stage.viewers.registry.watching == 2


async def test_who_waits_comes_in_when_nobody_has_to_wait_any_more(stage: Any, make_viewer: MakeViewer) -> None:
    stage.approval = "manual"
    seat = await join(stage, make_viewer())
    stage.approval = "none"
    stage.viewers.registry.settings_changed()
    assert seat.is_admitted


async def test_links_are_measured_and_what_is_not_known_is_none(stage: Any, make_viewer: MakeViewer) -> None:
    viewer = make_viewer()
    await join(stage, viewer)
    (seen,) = stage.viewers.registry.viewers
    assert (seen.bitrate_bps, seen.loss, seen.rung, seen.quality) == (None, None, None, None)
    stage.tasks.start_soon(stage.play)
    await until(viewer, lambda: (stage.viewers.registry.viewers[0].bitrate_bps or 0) > 100_000)
