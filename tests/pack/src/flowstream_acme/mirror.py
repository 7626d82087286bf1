"""Mirror a picture: a node type as a class."""

from collections.abc import Iterator
from typing import Literal

from flowstream import Config, Emit, Input, Output, Transform, VideoFrame, live


class MirrorConfig(Config):
    """What is settable on ``acme/mirror``."""

    axis: Literal["horizontal", "vertical"] = live(
        default="horizontal",
        description="Which way to mirror: horizontal swaps left and right, vertical top and bottom.",
    )


class Mirror(Transform[MirrorConfig], type="acme/mirror"):
    """Mirror each picture.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      mirror: {type: acme/mirror, from: pattern, axis: horizontal}
      end: {type: discard, from: mirror}
    ```
    """

    frames = Input(VideoFrame)
    mirrored = Output(VideoFrame, like=frames)

    def process(self, frame: VideoFrame) -> Iterator[Emit[VideoFrame]]:
        """Give one picture for each."""
        pixels = frame.array(format="bgr24")
        turned = pixels[:, ::-1] if self.config.axis == "horizontal" else pixels[::-1]
        yield self.mirrored(VideoFrame.from_array(turned, like=frame))
