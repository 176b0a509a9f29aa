"""The strength of a restoration: the share of what it takes away that really goes."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..ops.color import GRAY

# Of everything, or of luma and of color apart.
Strength = float | tuple[float, float]


def check_strength(strength: Any, task: str) -> tuple[float, float]:
    """The strengths of luma and color.

    Raises:
        ValueError: not within 0..1, or another strength than 1 for enlarging, where there is nothing to go back to.
    """
    both = strength if isinstance(strength, list | tuple) else (strength, strength)
    if len(both) != 2 or not all(
        isinstance(x, Real) and not isinstance(x, bool) and 0 <= float(x) <= 1 for x in both
    ):
        raise ValueError(f"strength must be a number from 0 to 1, or two (luma, colour), got {strength!r}")
    luma, color = map(float, both)
    if task == "upscale" and (luma, color) != (1, 1):
        raise ValueError(f"strength is for denoise, dejpeg and restore, not for upscale, got {strength!r}")
    return luma, color


def partly(image: Tensor, restored: Tensor, strength: tuple[float, float]) -> Tensor:
    """`image` with a part of what changes it to `restored`: `image + s_luma Y(d) + s_color (d - Y(d))`, d the change.

    Args:
        image: `[B, C, H, W]`, C = 1 or 3.
        restored: the same image, restored.
        strength: of luma and color; an image of one channel has luma only.
    """
    of_luma, of_color = strength
    if of_luma == of_color or image.shape[1] == 1:
        return restored if of_luma == 1 else torch.lerp(image, restored, of_luma)
    change = restored - image
    weights = torch.as_tensor(GRAY / GRAY.sum(), dtype=image.dtype, device=image.device)
    luma = (change * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
    return image + of_luma * luma + of_color * (change - luma)
