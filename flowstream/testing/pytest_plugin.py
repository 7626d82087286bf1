"""Pytest plugin for node authors; pytest finds it by itself where flowstream is installed.

Fixtures:

- ``harness(node_type, config, **options)`` gives an open Harness, which is closed after the test.
- ``virtual_clock`` is the clock of a test marked ``virtual``: an ``async def`` that runs in virtual time, an hour in
  milliseconds, on asyncio; marked ``virtual(backend="trio")`` on trio.

A test that leaves a thread, a task, a socket or a file behind fails when it is marked ``no_leaks``, or all do with
``flowstream_leaks = true`` in pytest's settings. What a fixture of a wider scope opens is its own business; a test that
must leave something says why: ``@pytest.mark.leaves("the browser stays")``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowstream.testing.clock import Backend, VirtualClock
    from flowstream.testing.harness import Harness

MakeHarness = Callable[..., "Harness[Any]"]
"""What the fixture ``harness`` is: takes what Harness takes, gives one that is open."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Makes the setting known."""
    parser.addini("flowstream_leaks", "every test that leaves a thread, task, socket or file fails", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the markers known."""
    for line in (
        "leaves(reason): the test may leave threads, tasks, sockets or files open",
        "no_leaks: the test fails when it leaves a thread, a task, a socket or a file open",
        "virtual(backend='asyncio'): the test is an async function that runs in virtual time, on asyncio or trio",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves something open, where that is asked for."""
    is_asked = request.config.getini("flowstream_leaks") or request.node.get_closest_marker("no_leaks") is not None
    if not is_asked or request.node.get_closest_marker("leaves") is not None:
        yield
        return
    from flowstream.testing.leaks import Open

    before = Open.now()
    yield
    if left := before.left():
        pytest.fail("the test leaves open: " + "; ".join(left), pytrace=False)


@pytest.fixture
def harness(nothing_is_left: None) -> Iterator[MakeHarness]:
    """Makes harnesses that are open, and closes them after the test."""
    from flowstream.testing.harness import Harness

    with ExitStack() as stack:

        def make(node_type: Any, config: Any = None, **options: Any) -> Harness[Any]:
            return stack.enter_context(Harness(node_type, config, **options))

        yield make


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> VirtualClock:
    """The clock of a test that is marked ``virtual``."""
    from flowstream.testing.clock import clock_for

    return clock_for(_backend(request.node) or "asyncio")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is marked ``virtual`` on a virtual loop."""
    backend = _backend(pyfuncitem)
    if backend is None:
        return None
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        pytest.fail("a test marked virtual is an async function", pytrace=False)
    from flowstream.testing.clock import clock_for, run_on

    given = pyfuncitem.funcargs
    try:
        clock: Any = given.get("virtual_clock") or clock_for(backend)
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    arguments = {name: given[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_on(clock, lambda: function(**arguments), backend=backend)
    return True


def _backend(item: pytest.Item) -> Backend | None:
    """On which kind of event loop a test runs in virtual time, if it does."""
    marker = item.get_closest_marker("virtual")
    backend: Backend | None = None if marker is None else marker.kwargs.get("backend", "asyncio")
    return backend
