"""The orientation of EXIF data: pictures that are stored lying or mirrored, as viewers show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import exif
from .image import Image


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and flipped as an EXIF orientation (1 to 8) asks; a view."""
    pixels = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def upright(image: Image) -> Image:
    """The picture as viewers show it, without its EXIF data."""
    orientation = exif.parse(image.exif or b"").orientation
    alpha = None if image.alpha is None else np.ascontiguousarray(turned(image.alpha, orientation))
    pixels = np.ascontiguousarray(turned(image.pixels, orientation))
    return replace(image, pixels=pixels, alpha=alpha, exif=None)
