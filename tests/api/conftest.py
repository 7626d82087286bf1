"""What the tests of the Python API share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
