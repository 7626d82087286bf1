"""Pytest plugin: a test that leaves a thread, a task, a socket or a file behind fails.

In ``conftest.py``: ``pytest_plugins = ["flowstream.testing.pytest_plugin"]``. What a fixture of a wider scope opens is
its own business; a test that must leave something says why: ``@pytest.mark.leaves("the browser stays")``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstream.testing.leaks import Open


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", "leaves(reason): the test may leave threads, tasks, sockets or files open")


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves something open."""
    if request.node.get_closest_marker("leaves") is not None:
        yield
        return
    before = Open.now()
    yield
    if left := before.left():
        pytest.fail("the test leaves open: " + "; ".join(left), pytrace=False)
