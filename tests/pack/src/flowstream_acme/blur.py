"""Blur a picture: a node type as a function."""

from flowstream import Need, VideoFrame, live, node


@node("acme/blur", needs=[Need("cv2", "opencv-python")])
def blur(frame: VideoFrame, *, radius: int = live(5, ge=1, le=99, description="Radius, in pixels.")) -> VideoFrame:
    """Blur each picture.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      blur: {type: acme/blur, from: pattern, radius: 5}
      end: {type: discard, from: blur}
    ```
    """
    import cv2

    side = 2 * radius + 1
    return VideoFrame.from_array(cv2.blur(frame.array(format="bgr24"), (side, side)), like=frame)
