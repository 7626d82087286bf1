"""The node types of this pack, with what flowstream gives to authors."""

import anyio
import pytest
from flowstream_acme import Mirror, blur

from flowstream.testing import Expect, Give, Reconfigure, check_node, make_frame


@pytest.mark.parametrize("node_type", [Mirror, blur])
def test_the_rules_of_node_types(node_type):
    check_node(node_type)


def test_a_mirrored_picture_is_mirrored(harness):
    mirror = harness(Mirror)
    frame = make_frame()
    mirror.play(
        Give("0s", frame),
        Expect("0s", emitted=1, last=lambda seen: (seen.array("bgr24") == frame.array("bgr24")[:, ::-1]).all()),
        Reconfigure("1s", axis="vertical"),
        Give("1s", frame),
        Expect("1s", emitted=2, last=lambda seen: (seen.array("bgr24") == frame.array("bgr24")[::-1]).all()),
    )


@pytest.mark.virtual
async def test_an_hour_passes(virtual_clock):
    begin_ns = virtual_clock.now_ns()
    await anyio.sleep(3600)
    assert virtual_clock.now_ns() == begin_ns + 3600 * 10**9
