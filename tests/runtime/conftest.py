"""A blocking call in the event loop fails the test that makes it; scenarios run on both kinds of event loop."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

from tests.runtime.parts import Loop


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Looks at the runtime's own code; what a test itself does with files is its business."""
    with blockbuster_ctx(scanned_modules=["flowstream.runtime"]):
        yield


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs ``parts.run`` and ``parts.run_real`` on each; scenario modules use it for all that they have."""
    monkeypatch.setattr(Loop, "backend", request.param)
    return str(request.param)
