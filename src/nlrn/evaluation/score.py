"""PSNR and SSIM of an image in a file or an array, whatever its type, on the scale of 8 bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files.images import to_float
from .metrics import SSIM_WINDOW, psnr, ssim


@dataclass(frozen=True)
class Score:
    """The likeness of an image to another one.

    Args:
        psnr: dB, infinite for identical images.
        ssim: structural similarity; `None` for images with too few pixels a side.
    """

    psnr: float
    ssim: float | None

    def text(self) -> str:
        """Both figures for people."""
        if math.isinf(self.psnr):
            return "identical"
        ratio = f"PSNR {self.psnr:.2f} dB"
        return ratio if self.ssim is None else f"{ratio}, SSIM {self.ssim:.4f}"

    def as_json(self) -> dict[str, Any]:
        """Both figures for programs; a PSNR that is infinite is null."""
        identical = math.isinf(self.psnr)
        return {"psnr": None if identical else self.psnr, "ssim": self.ssim, "identical": identical}


def score(
    image: np.ndarray, reference: np.ndarray, data_range: float | tuple[float, float] | None = None
) -> Score:
    """PSNR and SSIM of an image against a reference; each has the white of its type, unless one is given.

    Args:
        image: `H x W` or `H x W x C`.
        reference: the clean image, of the same shape.
        data_range: the value of white, or `(black, white)`.

    Raises:
        ValueError: shapes that differ, a type without a white, or values that are not in its range.
    """
    first, second = (_grey_levels(pixels, data_range) for pixels in (image, reference))
    similarity = ssim(first, second) if min(first.shape[:2]) >= SSIM_WINDOW else None
    return Score(psnr(first, second), similarity)


def _grey_levels(pixels: np.ndarray, data_range: float | tuple[float, float] | None) -> np.ndarray:
    if isinstance(data_range, tuple | list):
        low, high = data_range
        return (pixels.astype(np.float64) - low) / (high - low) * 255
    return 255 * to_float(pixels.astype(np.float64) if pixels.dtype.kind == "f" else pixels, data_range)
