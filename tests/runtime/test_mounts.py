"""What nodes mount, through renames: the new path, the old one, and who is there when another instance comes."""

from dataclasses import replace
from typing import Any

import anyio
import pytest

from flowstream import Context, Input, Node, PeerError, Record
from flowstream.graph.plan import Plan
from flowstream.runtime.engine import Engine, ReloadError
from flowstream.runtime.events import Event
from flowstream.runtime.mounts import MOST_FORMER, Mounts
from flowstream.testing.clock import VirtualClock
from tests.runtime import parts
from tests.runtime.parts import HoldConfig, plan, run

pytestmark = pytest.mark.usefixtures("backend")


class Page(Node[HoldConfig], type="test/page"):
    """Mounts itself; lingers for half a second when its input has ended."""

    serves = True
    numbers = Input(Record)

    async def run(self, ctx: Context) -> None:
        async with ctx.mount(self.answer, page=True):
            if self.config.title == "bad":
                raise PeerError("no")
            ctx.ready()
            async for _ in ctx.stream(self.numbers):
                pass
            await anyio.sleep(0.5)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        """An application, to be recognised."""


@pytest.fixture(autouse=True)
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.TYPES, Page.type_id, Page)


def paged(**pages: tuple[str, str]) -> Plan:
    """A plan with pages: by id, title and former id."""
    made = plan(
        {"count": ("test/counter", {}), **{id: ("test/page", {"title": title}) for id, (title, _) in pages.items()}},
        {f"{id}.numbers": "count.out" for id in pages},
    )
    nodes = {id: replace(node, was=pages[id][1]) if id in pages else node for id, node in made.nodes.items()}
    return replace(made, nodes=nodes)


def at(engine: Engine, path: str) -> str | None:
    """Which node answers at a path, by the title and the path it has there; or where the path leads."""
    mount = engine.mounts.find(path)
    if mount is not None:
        page = mount.app.__wrapped__.__self__  # type: ignore[attr-defined]
        return f"{page.config.title} at {mount.path}"
    return engine.mounts.moved(path)


def test_a_renamed_node_takes_its_pages_along() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(paged(a=("one", "")))
        await anyio.sleep(0.05)
        await engine.apply(paged(b=("one", "a")))
        assert engine.mounts.pages == ("/b/",)
        assert (at(engine, "/a/x/y"), at(engine, "/a"), at(engine, "/b/x")) == ("/b/x/y", "/b/", "one at /b/")
        assert at(engine, "/abc/x") is None
        await engine.apply(paged(b=("one", "a"), a=("two", "")))
        assert (at(engine, "/a/x"), at(engine, "/b/x")) == ("two at /a/", "one at /b/")

    run(main)


def test_a_renamed_node_that_is_replaced_answers_at_once_under_both_names() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(paged(a=("one", "")))
        await anyio.sleep(0.05)
        old = engine.runners["a"]
        await engine.apply(paged(b=("two", "a")))
        assert not old.is_over
        assert (at(engine, "/b/x"), at(engine, "/a/x")) == ("two at /b/", "/b/x")
        await old.done.wait()
        assert (at(engine, "/b/x"), at(engine, "/a/x"), engine.mounts.pages) == ("two at /b/", "/b/x", ("/b/",))

    run(main)


def test_a_node_that_takes_a_former_name_and_does_not_come_up_leaves_it_as_it_was() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(paged(a=("one", "")))
        await engine.apply(paged(b=("one", "a")))
        with pytest.raises(ReloadError):
            await engine.apply(paged(b=("one", ""), a=("bad", "")))
        assert (at(engine, "/a/x"), at(engine, "/b/x")) == ("/b/x", "one at /b/")

    run(main)


def test_a_node_that_is_named_to_and_fro_leads_nobody_in_a_circle() -> None:
    async def main(engine: Engine, clock: VirtualClock, events: list[Event]) -> None:
        await engine.start(paged(a=("one", "")))
        for now, was in ("ba", "cb", "ac", "ba", "ab"):
            await engine.apply(paged(**{now: ("one", was)}))
        assert [at(engine, f"/{name}/x") for name in "abc"] == ["one at /a/", "/a/x", "/a/x"]

    run(main)


def test_no_more_former_names_are_known_than_a_run_can_keep() -> None:
    mounts = Mounts()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        """Is there."""

    with mounts.mount("/n0/", page, page=True):
        for number in range(MOST_FORMER + 10):
            mounts.rename(f"n{number}", f"n{number + 1}")
        last = f"/n{MOST_FORMER + 10}/x"
        assert mounts.moved("/n9/x") is None
        assert mounts.moved("/n10/x") == last
        assert mounts.moved(f"/n{MOST_FORMER + 9}/x") == last
