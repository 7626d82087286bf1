"""Data channels of viewers: what the page is told and may ask, and the records that go to everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest

from flowstream import Caller, Record
from flowstream.proto.viewer_channel import LONGEST, MOST_AT_ONCE, MOST_REFUSED
from flowstream_nodes.webrtc._channels import LONGEST_RECORD, MOST_WAITING, Delivery
from flowstream_nodes.webrtc._viewers import TICK_S
from tests.nodes.webrtc.data_viewer import DataViewer

pytestmark = pytest.mark.anyio

ORDERED = Delivery("ordered", 64 * 1024)
LOSSY = Delivery("lossy", 64 * 1024)


@dataclass(frozen=True)
class Reading:
    """What a sensor gives."""

    degrees: float
    text: str = ""


@pytest.fixture
async def stage(stage_of: Callable[..., Any]) -> AsyncIterator[Any]:
    async with stage_of() as stage:
        stage.feeder.delivery = lambda: ORDERED
        yield stage


@asynccontextmanager
async def viewer_of(stage: Any) -> AsyncIterator[tuple[DataViewer, Any]]:
    """A player that is connected and was greeted, with its session."""
    viewer = DataViewer()
    admitted = stage.viewers.admit(viewer.offer_data(), Caller("127.0.0.1"))
    session = stage.viewers.sessions[admitted.session_id]
    try:
        with anyio.fail_after(20):
            await viewer.connect(admitted.answer)
            await viewer.start()
            await viewer.until(lambda: bool(viewer.said))
        yield viewer, session
    finally:
        await viewer.leave()
        viewer.vanish()


async def until(viewer: DataViewer, condition: Callable[[], bool], seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        await viewer.until(condition)


def give(stage: Any, number: int, node: str = "sensor", text: str = "") -> None:
    stage.viewers.send_record(Record(Reading(number / 10, text), stage.media_ns()), node)


# --- flowstream -------------------------------------------------------------------------------------------------------


async def test_a_viewer_is_told_how_it_stands_each_second(stage: Any) -> None:
    stage.tasks.start_soon(stage.play)
    async with viewer_of(stage) as (viewer, session):
        assert viewer.said[0] == {"type": "hello", "version": 1, "interval_ms": 1000}
        session.sender.dropped_pictures += 3
        await until(viewer, lambda: len(viewer.heard("stats")) >= 2)
        first, second = viewer.heard("stats")[:2]
        assert second["bitrate"] == pytest.approx(1_100_000, rel=0.5)
        assert second["rung"] == "video"
        assert 3 <= second["frames_dropped"] <= session.sender.dropped_pictures
        assert second["records_dropped"] == 0
        assert (first["loss"], first["rtt_ms"], first["estimate"]) == (None, None, None), "it has told nothing yet"
        assert first["capture"] is None, "the pictures do not say when they were captured"
        assert session.association.is_up


async def test_the_capture_time_of_a_picture_is_told_by_its_rtp_timestamp(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        captured_ns = stage.clock.now_ns() - 80_000_000
        stage.picture = tuple(replace(each, capture_ns=captured_ns) for each in stage.picture)
        stage.ask_keyframe()
        stage.send_picture()
        await until(viewer, lambda: bool(viewer.heard("stats")))
        capture = viewer.heard("stats")[0]["capture"]
        assert capture["rtp"] == viewer.rtp[-1].timestamp
        said_ns = capture["captured_ms"] * 1e6
        assert said_ns == pytest.approx(stage.clock.wallclock_ns() - (stage.clock.now_ns() - captured_ns), abs=5e6)


async def test_a_ping_gives_the_servers_clock(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        before_ms = stage.clock.wallclock_ns() / 1e6
        viewer.say(type="ping", id=7)
        await until(viewer, lambda: bool(viewer.heard("pong")))
        (pong,) = viewer.heard("pong")
        assert pong["id"] == 7
        assert before_ms - 1 <= pong["received_ms"] <= pong["sent_ms"] <= stage.clock.wallclock_ns() / 1e6


async def test_a_choice_is_acknowledged_and_one_that_there_is_not_is_explained(stage: Any) -> None:
    stage.feeder.rungs = lambda: {0: "high", 1: "low"}
    async with viewer_of(stage) as (viewer, session):
        viewer.say(type="quality", choose="low", id=1)
        viewer.say(type="quality", choose="huge", id=2)
        viewer.say(type="quality", choose="auto")
        await until(viewer, lambda: len(viewer.said) >= 4)
        told, wrong, auto = viewer.said[1:4]
        assert (told["type"], told["id"], told["chosen"]) == ("quality", 1, "low")
        assert [each["name"] for each in told["rungs"]] == ["high", "low"]
        assert wrong == {"type": "error", "text": "There is no quality 'huge', but auto, high, low", "id": 2}
        assert (auto["chosen"], "id" in auto, session.chosen) == ("auto", False, None)


async def test_what_makes_no_sense_is_refused_and_counted_and_then_enough(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, session):
        viewer.control.send("x" * (LONGEST + 1))
        viewer.control.send(b"\0")
        viewer.say(type="sing")
        await until(viewer, lambda: len(viewer.heard("error")) == 3)
        texts = [each["text"] for each in viewer.heard("error")]
        assert texts == [
            f"a message has at most {LONGEST} characters",
            "messages are text",
            "'type' is ping or quality",
        ]
        assert stage.viewers.channels.refused_messages == 3
        for number in range(MOST_AT_ONCE + MOST_REFUSED):
            viewer.say(type="ping", id=number)
        await until(viewer, lambda: viewer.control.readyState == "closed")
        assert len(viewer.heard("pong")) < MOST_AT_ONCE + 15
        assert viewer.said[-1]["text"] == "too many messages that make no sense, or too many at a time"
        assert stage.viewers.channels.refused_messages >= MOST_REFUSED
        again = viewer.open("flowstream")
        with anyio.fail_after(10):
            while again.readyState != "closed":
                await anyio.lowlevel.checkpoint()
        assert session.connected
    with anyio.fail_after(10):
        while stage.viewers.sessions:
            await anyio.lowlevel.checkpoint()
    assert stage.viewers.channels.refused_messages >= MOST_REFUSED, "also when it has gone"


async def test_other_channels_of_a_viewer_are_closed(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        other, second = viewer.open("chat"), viewer.open("flowstream")
        with anyio.fail_after(10):
            while (other.readyState, second.readyState) != ("closed", "closed"):
                await anyio.lowlevel.checkpoint()
        viewer.say(type="ping", id=1)
        await until(viewer, lambda: bool(viewer.heard("pong")))


# --- flowstream-data --------------------------------------------------------------------------------------------------


async def test_records_come_as_json_on_a_channel_of_their_own(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        time_ns, captured_ns = stage.media_ns(), stage.clock.now_ns() - 5_000_000
        now_ms = stage.clock.wallclock_ns() / 1e6
        stage.viewers.send_record(Record(Reading(21.5), time_ns, captured_ns), "sensor")
        give(stage, 1, "other")
        give(stage, 2)
        await until(viewer, lambda: len(viewer.records) == 3)
        first, other, third = viewer.records
        assert first["time_ms"] == pytest.approx(now_ms, abs=50)
        assert first["captured_ms"] == pytest.approx(now_ms - 5, abs=50)
        assert {key: first[key] for key in ("node", "type", "number", "value")} == {
            "node": "sensor", "type": "Reading", "number": 0, "value": {"degrees": 21.5, "text": ""}
        }  # fmt: skip
        assert (other["node"], other["number"], "captured_ms" in other) == ("other", 0, False)
        assert (third["node"], third["number"]) == ("sensor", 1)
        (channel,) = viewer.given
        assert (channel.label, channel.ordered, channel.maxRetransmits) == ("flowstream-data", True, None)


async def test_ordered_records_all_arrive_in_order_under_loss(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        viewer.lose_dtls = lambda number: number % 5 == 0
        for number in range(150):
            give(stage, number)
            await anyio.sleep(0.005)
        await until(viewer, lambda: len(viewer.records) == 150)
        assert [each["number"] for each in viewer.records] == list(range(150))
        assert stage.viewers.channels.dropped_records == 0


async def test_lossy_records_go_past_what_was_lost(stage: Any) -> None:
    stage.feeder.delivery = lambda: LOSSY
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        assert (viewer.given[0].ordered, viewer.given[0].maxRetransmits) == (False, 0)
        viewer.lose_dtls = lambda number: number % 5 == 0
        for number in range(150):
            give(stage, number)
            await anyio.sleep(0.005)
        await until(viewer, lambda: viewer.records[-1]["number"] >= 148)
        numbers = [each["number"] for each in viewer.records]
        assert 90 < len(numbers) < 145, "a fifth of all packets was lost"
        assert len(set(numbers)) == len(numbers)
        ages_ms = [each["value"]["degrees"] for each in viewer.records]
        assert ages_ms == sorted(ages_ms), "nothing came late"


async def test_another_delivery_is_another_channel_and_none_is_none(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        stage.feeder.delivery = lambda: Delivery("ordered", 1024)
        give(stage, 0)
        await until(viewer, lambda: len(viewer.records) == 1)
        assert len(viewer.given) == 1, "more or less may wait in the same one"
        stage.feeder.delivery = lambda: LOSSY
        await until(viewer, lambda: len(viewer.given) == 2)
        stage.feeder.delivery = lambda: None
        with anyio.fail_after(10):
            while {each.readyState for each in viewer.given} != {"closed"}:
                await anyio.lowlevel.checkpoint()


async def test_between_two_nodes_the_channel_stays(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        stage.viewers._feeders.clear()  # the old one has gone, the new one is not there yet
        await anyio.sleep(3 * TICK_S)
        stage.viewers._feeders.append(stage.feeder)
        give(stage, 0)
        await until(viewer, lambda: len(viewer.records) == 1)
        assert [each.readyState for each in viewer.given] == ["open"]


async def test_a_slow_viewer_loses_the_oldest_and_holds_up_nobody(stage: Any) -> None:
    async with viewer_of(stage) as (slow, session), viewer_of(stage) as (quick, _):
        await until(slow, lambda: bool(slow.given))
        await until(quick, lambda: bool(quick.given))
        slow.lose_dtls = lambda number: True
        count = 2 * MOST_WAITING
        for number in range(count):
            give(stage, number, text="x" * 200)
            await anyio.sleep(0.002)
        await until(quick, lambda: len(quick.records) == count)
        assert [each["number"] for each in quick.records] == list(range(count))
        dropped = stage.viewers.channels.dropped_records
        assert dropped > count - MOST_WAITING - 200
        slow.lose_dtls = lambda number: False
        await until(slow, lambda: bool(slow.records) and slow.records[-1]["number"] == count - 1)
        assert len(slow.records) == count - dropped
        assert session.connected


async def test_who_waits_or_is_paused_or_sent_away_gets_nothing(stage: Any) -> None:
    stage.approval = "manual"
    registry = stage.viewers.registry
    async with viewer_of(stage) as (viewer, session):
        await until(viewer, lambda: bool(viewer.given))
        id = stage.viewers.seat(session.id).viewer
        give(stage, 0)
        registry.approve(id)
        give(stage, 1)
        await until(viewer, lambda: len(viewer.records) == 1)
        registry.pause(id)
        give(stage, 2)
        registry.resume(id)
        registry.pause_view()
        give(stage, 3)
        registry.resume_view()
        registry.permit(id, video=False, audio=False)
        give(stage, 4)
        registry.permit(id, audio=True)
        give(stage, 5)
        await until(viewer, lambda: len(viewer.records) == 2)
        registry.kick(id)
        give(stage, 6)
        with anyio.fail_after(10):
            while stage.viewers.sessions:
                await anyio.lowlevel.checkpoint()
        assert [each["number"] for each in viewer.records] == [1, 5]
        assert stage.viewers.channels.dropped_records == 0, "what is withheld is not lost"


async def test_what_waits_for_somebody_is_withheld_from_the_moment_of_the_pause(stage: Any) -> None:
    async with viewer_of(stage) as (viewer, session):
        await until(viewer, lambda: bool(viewer.given))
        id = stage.viewers.seat(session.id).viewer
        give(stage, 0)
        await until(viewer, lambda: bool(viewer.records))
        for number in range(1, 200):
            give(stage, number, text="x" * 200)  # more than is handed over at once
        stage.viewers.registry.pause(id)
        await anyio.sleep(0.3)  # what was on its way arrives
        sent = len(viewer.records)
        assert 1 < sent < 100
        stage.viewers.registry.resume(id)
        give(stage, 200)
        await until(viewer, lambda: viewer.records[-1]["number"] == 200)
        assert len(viewer.records) == sent + 1


async def test_what_has_no_form_in_json_or_is_too_long_is_said_once(stage: Any, caplog: Any) -> None:
    async with viewer_of(stage) as (viewer, _):
        await until(viewer, lambda: bool(viewer.given))
        for _ in range(2):
            stage.viewers.send_record(Record(object(), 0), "odd")
            give(stage, 0, "long", "x" * LONGEST_RECORD)
        give(stage, 1)
        await until(viewer, lambda: len(viewer.records) == 1)
        assert stage.viewers.channels.dropped_records == 4
    texts = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(texts) == 2
    assert "a object of odd has no form in JSON" in texts[0]
    assert "a record of long has 16" in texts[1]


# --- offers -----------------------------------------------------------------------------------------------------------


async def test_a_viewer_without_data_channels_is_served_as_ever(stage: Any, make_viewer: Callable[[], Any]) -> None:
    viewer = make_viewer()
    admitted = stage.viewers.admit(viewer.offer(), Caller("127.0.0.1"))
    assert "m=application" not in admitted.answer
    with anyio.fail_after(10):
        await viewer.connect(admitted.answer)
        stage.tasks.start_soon(stage.play)
        await viewer.until(lambda: len(viewer.rtp) > 10)
    give(stage, 0)
    assert stage.viewers.sessions[admitted.session_id].association is None


async def test_a_viewer_that_opens_no_channel_is_served_too(stage: Any) -> None:
    viewer = DataViewer()
    admitted = stage.viewers.admit(viewer.offer_data(), Caller("127.0.0.1"))
    with anyio.fail_after(10):
        await viewer.connect(admitted.answer)
        stage.tasks.start_soon(stage.play)
        await viewer.until(lambda: len(viewer.rtp) > 10)
    await viewer.leave()
    viewer.vanish()
    with anyio.fail_after(10):
        while stage.viewers.sessions:
            await anyio.lowlevel.checkpoint()
