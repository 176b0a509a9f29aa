"""Blocks of JPEG compression in the pixels of an image, whatever its file says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops.color import GRAY

BLOCK = 8
# A step counts up to so many grey levels: edges of the picture would hide those of blocks.
LARGEST_STEP = 8.0
# Pixels a side below which there are too few seams.
SMALLEST_SIDE = 24


@dataclass(frozen=True)
class Blocking:
    """The seams between the blocks of an image.

    Args:
        height: by how much the values step more at seams than elsewhere, in 8-bit grey levels, rows and columns added.
        certainty: by how many standard errors the seams stand out from the next best place for them.
        origin: row and column of the first pixel of a block.
    """

    height: float
    certainty: float
    origin: tuple[int, int]


def find_blocks(image: Tensor) -> Blocking | None:
    """Finds the grid of 8 by 8 pixels at which values step.

    Steps between neighbours, less those beside them, are averaged for each of the eight places that a grid can have.

    Args:
        image: `[B, C, H, W]` in units of [0, 1], C = 1 or 3.

    Returns:
        The strongest grid; `None` for fewer than 24 pixels a side.
    """
    if min(image.shape[2:]) < SMALLEST_SIDE:
        return None
    down, across = (_seams(plane) for plane in (luma_levels(image), luma_levels(image).mT))
    return Blocking(down[0] + across[0], (down[1] + across[1]) / math.sqrt(2), (across[2], down[2]))


def luma_levels(image: Tensor) -> Tensor:
    """Luma `[B, H, W]` in 8-bit grey levels."""
    if image.shape[1] == 1:
        return 255 * image[:, 0]
    weights = torch.as_tensor(GRAY / GRAY.sum(), dtype=image.dtype, device=image.device)
    return 255 * torch.einsum("c,bchw->bhw", weights, image)


def _seams(plane: Tensor) -> tuple[float, float, int]:
    """Height, certainty and first column of the grid that stands out most, of `[B, H, W]`."""
    steps = plane.diff(dim=2).abs()
    excess = (steps[..., 1:-1] - (steps[..., 2:] + steps[..., :-2]) / 2).clamp(-LARGEST_STEP, LARGEST_STEP)
    count = excess.shape[2] // BLOCK
    means = excess[..., : count * BLOCK].reshape(*excess.shape[:2], count, BLOCK).double().mean((0, 1, 2))
    error = float(excess.double().std()) / math.sqrt(excess.shape[0] * excess.shape[1] * count)
    best = int(means.argmax())
    others = torch.cat([means[:best], means[best + 1 :]])
    height, lead = float(means[best] - others.mean()), float(means[best] - others.max())
    # The first of `excess` is the step from the second pixel to the third.
    return height, lead / error if error else 0.0, (best + 2) % BLOCK
