"""Pixel formats by what is done with them. Imports nothing: node types ask here before any library is loaded."""

PLANAR = ("yuv420p", "nv12")
"""Planes of 4:2:0; as arrays where both sides are even."""

PACKED = ("bgr24", "rgb24", "bgra", "rgba", "bgr0", "gray")
"""One array."""

BYTES = {"yuv420p": 1.5, "nv12": 1.5, "bgr24": 3, "rgb24": 3, "bgra": 4, "rgba": 4, "bgr0": 4, "gray": 1}
"""Of a pixel, in formats with plain arrays."""

RGB_ORDER = {"bgr24": (2, 1, 0), "bgra": (2, 1, 0), "rgb24": (0, 1, 2), "rgba": (0, 1, 2)}
"""Where red, green and blue are, in packed formats that are drawn on as they are."""


def has_arrays(format: object, width: object, height: object) -> bool | None:
    """Whether pictures of this format and size have plain arrays; None where size or format are not known."""
    if not isinstance(format, str):
        return None
    if format not in PLANAR:
        return format in PACKED
    if not isinstance(width, int) or not isinstance(height, int):
        return None
    return width % 2 == 0 and height % 2 == 0


def with_arrays(width: object, height: object) -> str | None:
    """The format that pictures without plain arrays are made into; None where their size is not known."""
    if not isinstance(width, int) or not isinstance(height, int):
        return None
    return "bgr24" if width % 2 or height % 2 else "yuv420p"
