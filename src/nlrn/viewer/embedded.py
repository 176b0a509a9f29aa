"""Pictures as PNG files for a browser: one to be shown and, where it differs, one with the numbers.

A browser shows 8 bits of a PNG file of 16, but the slider reads the file itself, so that the values under the pointer
are those of the picture. Floats, and integers of other types, have their bytes in a grey PNG file: in each row the
first byte of each number, then the second ones, and so on.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..files.image import Image, merge_alpha
from ..files.images import encode_image

# Bytes of numbers in a page. Beyond, browsers run short of memory.
MAX_BYTES = 256_000_000
WHITES = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Embedded:
    """A picture for a page.

    Args:
        width: pixels across.
        height: pixels down.
        shown: a PNG file that looks like the picture.
        values: a PNG file with its numbers, or `None` where `shown` has them.
        floats: the number of channels if `values` has the bytes of floats, else 0.
    """

    width: int
    height: int
    shown: bytes
    values: bytes | None = None
    floats: int = 0

    def described(self, name: str) -> dict[str, Any]:
        """Facts that the page needs to read the picture `name`."""
        return {"id": name, "width": self.width, "own": self.values is not None, "floats": self.floats}

    def encoded(self, name: str) -> dict[str, str]:
        """The files in base64, by the names of their elements."""
        files = {name: self.shown} | ({} if self.values is None else {f"{name}-values": self.values})
        return {id_: base64.b64encode(data).decode() for id_, data in files.items()}


def embedded_bytes(image: Image) -> int:
    """Bytes of the numbers that a page with this image has."""
    channels = 1 if image.pixels.ndim == 2 else image.pixels.shape[2]
    count = image.pixels.size // channels * (channels + (image.alpha is not None))
    return count * (image.pixels.itemsize if image.pixels.dtype.name in WHITES else 4)


def shown_png(image: Image, low: float, high: float) -> tuple[bytes, bool]:
    """A PNG file of a picture whose values from `low` to `high` are black to white; true if it has their numbers too.

    Args:
        image: an upright picture; its pixels may have any real type.
        low: the value of black.
        high: the value of white.
    """
    plain = _plain(image)
    white = WHITES.get(image.pixels.dtype.name)
    if white is not None and (low, high) == (0, white):
        return encode_image(plain, "PNG"), True
    alpha = image.alpha
    if alpha is not None:
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
        alpha = _to_8_bit(alpha, 0, opaque)
    mapped = replace(plain, pixels=_to_8_bit(image.pixels, low, high), alpha=alpha, premultiplied=False)
    return encode_image(mapped, "PNG"), False


def numbers_png(image: Image) -> tuple[bytes, int]:
    """A PNG file with the numbers of an upright picture, and their channels if they are the bytes of floats, else 0."""
    if image.pixels.dtype.name in WHITES:
        return encode_image(replace(_plain(image), icc=None, color_chunks=()), "PNG"), 0
    height, width = image.pixels.shape[:2]
    numbers = merge_alpha(image).reshape(height, -1).astype("<f4")
    in_planes = numbers.view(np.uint8).reshape(height, -1, 4).transpose(0, 2, 1).reshape(height, -1)
    return encode_image(Image(np.ascontiguousarray(in_planes)), "PNG"), numbers.shape[1] // width


def embed(image: Image, low: float, high: float) -> Embedded:
    """The files of a picture; arguments as for `shown_png`."""
    height, width = image.pixels.shape[:2]
    shown, exact = shown_png(image, low, high)
    return Embedded(width, height, shown, *((None, 0) if exact else numbers_png(image)))


def _plain(image: Image) -> Image:
    return replace(image, format="PNG", exif=None, xmp=None, resolution=None, imagej=None)


def _to_8_bit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    shares: np.ndarray = (values.astype(np.float64) - low) / (high - low)
    levels: np.ndarray = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return levels
