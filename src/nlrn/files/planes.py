"""Clean 8-bit images, as models are trained and measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..ops.color import GRAY, rgb_to_y
from .images import ImageError, read_image

Luma = Literal["gray", "y"]


def read_planes(path: Path, channels: int, luma: Luma = "gray") -> np.ndarray:
    """A clean 8-bit image as uint8 `H x W` (1 channel) or `H x W x 3`.

    Args:
        path: file of the image.
        channels: 1 for grey, 3 for RGB.
        luma: conversion of RGB to grey: MATLAB's `rgb2gray`, or `"y"`, Y of its `rgb2ycbcr`; rounded.

    Raises:
        ImageError: not 8 bit, or a grey image where RGB is needed.
    """
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path}: 8-bit images are needed here, got {pixels.dtype}")
    if channels == 1 and pixels.ndim == 3:
        gray = pixels @ GRAY if luma == "gray" else 255 * rgb_to_y(pixels / 255)
        return np.asarray(np.rint(gray), np.uint8)
    if channels == 3 and pixels.ndim == 2:
        raise ImageError(f"{path} is grey; this model needs RGB images")
    return pixels
