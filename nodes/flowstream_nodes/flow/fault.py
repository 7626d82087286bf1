"""Break on purpose."""

from __future__ import annotations

import random
from typing import Any

from flowstream import (
    AudioFrame,
    Config,
    Context,
    Duration,
    EncodedPacket,
    Input,
    Node,
    Output,
    PeerError,
    Percentage,
    Record,
    VideoFrame,
    field,
    live,
)

FOREVER_NS = 1 << 62


class FaultConfig(Config):
    """What goes wrong, and when."""

    drop: Percentage = live(default=0.0, le=1, description="How many of the payloads are lost, such as 5%.")
    delay: Duration = live(default=0, description="How long each payload is held up; the next waits behind it.")
    fail_after: int = live(
        default=0, ge=0, description="Number of payloads after which the node fails as by a bug; 0 never."
    )
    leave_after: int = live(
        default=0, ge=0, description="Number of payloads after which the other side is gone (restartable); 0 never."
    )
    stall_after: int = live(
        default=0, ge=0, description="Number of payloads after which nothing moves any more; 0 never."
    )  # fmt: skip
    seed: int = field(
        default=0, ge=0, description="Number that chance begins with: the same seed loses the same payloads."
    )


class DeliberateFault(RuntimeError):  # noqa: N818 - it is no error
    """What ``fault`` fails with: nobody's mistake."""


class Fault(Node[FaultConfig], type="fault"):
    """Passes payloads through and breaks as told: to see what a graph does about it.

    What it passed is counted anew after a restart.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      fault: {type: fault, from: pattern, drop: 10%, seed: 7}
      nowhere: {type: discard, from: fault}
    ```
    """

    anything = Input(VideoFrame, AudioFrame, EncodedPacket, Record, follows={"size", "extradata"}, doc="Any payload.")
    passed: Output[Any] = Output(like=anything, doc="What was not broken.")

    async def run(self, ctx: Context) -> None:
        """Passes, drops, delays, fails, leaves or stalls."""
        chance = random.Random(self.config.seed)
        ctx.ready()
        count = dropped = 0
        async for payload in ctx.stream(self.anything):
            config = self.config
            if config.fail_after and count >= config.fail_after:
                raise DeliberateFault(f"failed on purpose after {count} payloads")
            if config.leave_after and count >= config.leave_after:
                raise PeerError(f"the other side left on purpose after {count} payloads")
            if config.stall_after and count >= config.stall_after:
                ctx.report(stalled="yes")
                await ctx.sleep_until_ns(ctx.now_ns() + FOREVER_NS)
            count += 1
            if chance.random() < config.drop:
                dropped += 1
                ctx.report(dropped=dropped)
                continue
            if config.delay:
                await ctx.sleep_until_ns(ctx.now_ns() + config.delay)
            await ctx.emit(self.passed(payload))
