"""Patches of colour with transparency, made once and blended into the planes of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flowstream import FlowstreamError, VideoFrame
from flowstream_nodes.video import _planes
from flowstream_nodes.video._formats import RGB_ORDER, with_arrays

Array = np.ndarray[Any, Any]
Rgb = tuple[int, int, int]

_WEIGHT = 500  # of the strokes of a variable font: between regular and semibold


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What to blend, for each plane of one pixel format: premultiplied colour, and what is left of the background.

    Even in width and height. Both are uint8 of shape (h, w) or (h, w, 3); ``rest`` is 255 less coverage.
    """

    width: int
    height: int
    planes: tuple[tuple[Array, Array], ...]


def read_image(path: str) -> Array:
    """(h, w, 4) uint8, red green blue alpha. Raises FlowstreamError when there is no picture to be read."""
    try:
        with open(path, "rb") as file:
            data = np.frombuffer(file.read(), np.uint8)
    except FileNotFoundError as error:
        hint = None if path.startswith("/") else "a path is looked up from the folder that flowstream was started in"
        raise FlowstreamError(f"there is no image {path}", hint=hint) from error
    except OSError as error:
        raise FlowstreamError(f"cannot read the image {path}: {error.strerror}") from error
    image: Array | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise FlowstreamError(f"{path} is not a picture that OpenCV can read", hint="PNG, JPEG and WebP are")
    if image.dtype != np.uint8:
        image = (image.astype(np.uint16) >> 8).astype(np.uint8)
    code = {2: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
    rgba: Array = cv2.cvtColor(image, code[2 if image.ndim == 2 else image.shape[2]])
    return rgba


def _patch(rgb: Array | Rgb, share: Array, alpha: Array, frame: VideoFrame) -> Patch:
    """Colour on black for the pixel format of ``frame``.

    ``rgb`` (h, w, 3), or one colour, in 0..255; ``share`` (h, w) how much of the result is that colour and ``alpha``
    (h, w) how much is covered at all, in 0..1. Even in size.
    """
    height, width = alpha.shape
    colours = np.asarray(rgb, np.float32)
    if frame.format in RGB_ORDER:
        colour = colours[..., RGB_ORDER[frame.format]] * share[..., None]
        return Patch(width, height, (_weighed(colour, np.repeat(alpha[..., None], 3, axis=2)),))
    r, g, b = colours[..., 0] / 255, colours[..., 1] / 255, colours[..., 2] / 255
    # ITU-R BT.601-7 section 2.5 or BT.709-6 section 3, each in its range.
    kr, kb = (0.2126, 0.0722) if frame.caps.matrix == "bt709" else (0.299, 0.114)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    foot, span, swing = (0, 255, 255) if frame.caps.full_range else (16, 219, 224)
    small = _halved(alpha)
    blue = _halved(share * (swing * (b - luma) / (2 * (1 - kb))))
    red = _halved(share * (swing * (r - luma) / (2 * (1 - kr))))
    return Patch(
        width,
        height,
        (
            _weighed(foot * alpha + share * (span * luma), alpha),
            _weighed(128 * small + blue, small),
            _weighed(128 * small + red, small),
        ),
    )


def _halved(plane: Array) -> Array:
    halved: Array = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return halved


def _weighed(colour: Array, cover: Array) -> tuple[Array, Array]:
    return cv2.convertScaleAbs(colour), cv2.convertScaleAbs(cover, alpha=-255, beta=255)


class Label:
    """A line or several of text on a box; drawn anew only when something of it changes."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._patch: Patch | None = None
        self._font = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None

    def patch(self, text: str, height: float, colour: Rgb, box: float, frame: VideoFrame) -> Patch:
        """The text, ``height`` pixels a line, on a box of that opacity (0..1), for pictures like ``frame``."""
        key = (text, height, colour, box, frame.format, frame.caps.matrix, frame.caps.full_range)
        if self._patch is None or key != self._key:
            self._patch = self._draw(text, max(8, round(height)), colour, box, frame)
            self._key = key
        return self._patch

    def _draw(self, text: str, height: int, colour: Rgb, box: float, frame: VideoFrame) -> Patch:
        lines = text.splitlines() or [""]
        pad = max(2, round(height * 0.3))
        size = height * 0.82
        widths = [self._width(line, size) for line in lines]
        width = (max(widths) + 2 * pad + 1) // 2 * 2
        tall = (height * len(lines) + pad + 1) // 2 * 2
        ink = np.zeros((tall, width), np.uint8)
        for row, line in enumerate(lines):
            self._write(ink, line, pad, round(pad / 2 + row * height + size * 0.86), size)
        shape = np.zeros_like(ink)
        _rounded_rectangle(shape, pad)
        if box:
            dark = shape.astype(np.float32) * np.float32(box / 255)
        else:  # a soft dark rim keeps the text readable on anything
            halo = cv2.GaussianBlur(cv2.dilate(ink, np.ones((3, 3), np.uint8)), (0, 0), max(0.8, size / 24))
            dark = np.minimum(halo.astype(np.float32) * np.float32(1.2 / 255), np.float32(0.75))
        letters = ink.astype(np.float32) / np.float32(255)
        return _patch(colour, letters, letters + (1 - letters) * dark, frame)

    def _width(self, line: str, size: float) -> int:
        if self._font is None:
            (width, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_DUPLEX, size / 30, max(1, round(size / 16)))
            return int(width)
        # Digits differ in width: a clock would tremble if it were measured as it reads.
        wide = "".join("0" if c.isdigit() else c for c in line)
        x, _, width, _ = cv2.getTextSize((0, 0), wide + ".", (0, 0), self._font, round(size), _WEIGHT)
        _, _, dot, _ = cv2.getTextSize((0, 0), ".", (0, 0), self._font, round(size), _WEIGHT)
        return int(x + width - dot)

    def _write(self, ink: Array, line: str, x: int, baseline: int, size: float) -> None:
        if self._font is None:
            width = max(1, round(size / 16))
            cv2.putText(ink, line, (x, baseline), cv2.FONT_HERSHEY_DUPLEX, size / 30, (255,), width, cv2.LINE_AA)
        else:
            cv2.putText(ink, line, (x, baseline), (255,), self._font, round(size), _WEIGHT)


def _rounded_rectangle(shape: Array, radius: int) -> None:
    height, width = shape.shape
    radius = min(radius, height // 2 - 1, width // 2 - 1)
    corners = [
        (x, y) for x in (radius, width - 1 - radius) for y in (radius, height - 1 - radius)
    ]  # fmt: skip
    cv2.rectangle(shape, (radius, 0), (width - 1 - radius, height - 1), (255,), -1)
    cv2.rectangle(shape, (0, radius), (width - 1, height - 1 - radius), (255,), -1)
    for corner in corners:
        cv2.circle(shape, corner, radius, (255,), -1, cv2.LINE_AA)


class Sprite:
    """An image, scaled anew only when its size, its opacity or the pixel format changes."""

    def __init__(self, rgba: Array) -> None:
        self._rgba = rgba
        self._key: tuple[object, ...] = ()
        self._patch: Patch | None = None

    def patch(self, height: float, opacity: float, frame: VideoFrame) -> Patch:
        """The image, ``height`` pixels tall, for pictures like ``frame``; never wider than they are."""
        rows, columns = self._rgba.shape[:2]
        factor = min(height / rows, frame.width / columns)
        tall, wide = (max(2, round(side * factor / 2) * 2) for side in (rows, columns))
        key = (tall, wide, opacity, frame.format, frame.caps.matrix, frame.caps.full_range)
        if self._patch is None or key != self._key:
            alpha: Array = self._rgba[..., 3].astype(np.float32) / 255
            weighed: Array = self._rgba[..., :3].astype(np.float32) * alpha[..., None]
            way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
            alpha = cv2.resize(alpha, (wide, tall), interpolation=way)
            weighed = cv2.resize(weighed, (wide, tall), interpolation=way)
            cover = alpha[..., None]
            rgb = np.divide(weighed, cover, out=np.zeros_like(weighed), where=cover > 0)
            self._patch = _patch(rgb, alpha * opacity, alpha * opacity, frame)
            self._key = key
        return self._patch


class Canvas:
    """A private copy of a frame to put patches on."""

    def __init__(self, frame: VideoFrame) -> None:
        native = frame.format in RGB_ORDER
        self.frame = frame.writable(frame.format if native else with_arrays(frame.width, frame.height))
        self._planes = _planes.views(self.frame.array(), self.frame.format)

    def put(self, patch: Patch, position: str, margin: int) -> None:
        """Blends a patch in at one of nine positions; what does not fit is cut off."""
        left = _place(position, ("left", "right"), self.frame.width, patch.width, margin)
        top = _place(position, ("top", "bottom"), self.frame.height, patch.height, margin)
        for index, (plane, (colour, rest)) in enumerate(zip(self._planes, patch.planes, strict=True)):
            step = 2 if index else 1
            y, x = top // step, left // step
            region = plane[y : y + colour.shape[0], x : x + colour.shape[1], ...]
            if colour.ndim == 3:
                region = region[..., :3]
            colour = colour[: region.shape[0], : region.shape[1]]
            rest = rest[: region.shape[0], : region.shape[1]]
            region[...] = cv2.add(colour, cv2.multiply(region, rest, scale=1 / 255))


def _place(position: str, ends: tuple[str, str], whole: int, part: int, margin: int) -> int:
    """Where a part begins in the whole, even and not below 0."""
    words = position.split("-")
    at = margin if ends[0] in words else whole - part - margin if ends[1] in words else (whole - part) // 2
    return max(0, at) // 2 * 2
