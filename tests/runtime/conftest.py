"""A blocking call in the event loop fails the test that makes it."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Looks at the runtime's own code; what a test itself does with files is its business."""
    with blockbuster_ctx(scanned_modules=["flowstream.runtime"]):
        yield
