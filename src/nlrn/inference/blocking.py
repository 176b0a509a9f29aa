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
# The standard error of the median of normal numbers, by the median of their distances from it and their count.
MEDIAN_ERROR = 1.2533 * 1.4826
# A picture of which so many steps within blocks are none was drawn of squares, or enlarged by whole numbers.
DRAWN = 0.95
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

    Steps between neighbours, less those beside them, are averaged along each column and row; of the eight places that a
    grid can have, the one with the highest median counts.

    Args:
        image: `[B, C, H, W]` in units of [0, 1], C = 1 or 3.

    Returns:
        The strongest grid; `None` for fewer than 24 pixels a side, and for squares of one value each, as in drawings.
    """
    if min(image.shape[2:]) < SMALLEST_SIDE:
        return None
    plane = luma_levels(image)
    # Of columns, and of rows as columns of the transposed plane.
    height, certainty, column, none = _seams(plane)
    other_height, other_certainty, row, other_none = _seams(plane.mT)
    if min(none, other_none) > DRAWN:
        return None
    return Blocking(height + other_height, (certainty + other_certainty) / math.sqrt(2), (row, column))


def luma_levels(image: Tensor) -> Tensor:
    """Luma `[B, H, W]` in 8-bit grey levels."""
    if image.shape[1] == 1:
        return 255 * image[:, 0]
    weights = torch.as_tensor(GRAY / GRAY.sum(), dtype=image.dtype, device=image.device)
    return 255 * torch.einsum("c,bchw->bhw", weights, image)


def _seams(plane: Tensor) -> tuple[float, float, int, float]:
    """Height, certainty and first column of the grid that stands out most, of `[B, H, W]`.

    And the share of the steps beside it that are none.
    """
    steps = plane.diff(dim=2).abs()
    excess = (steps[..., 1:-1] - (steps[..., 2:] + steps[..., :-2]) / 2).clamp(-LARGEST_STEP, LARGEST_STEP)
    count = excess.shape[2] // BLOCK
    # Columns by where they are in a grid: [count, 8].
    columns = excess.double().mean((0, 1))[: count * BLOCK].reshape(count, BLOCK)
    # The median, since blocks have seams at all their borders, and a frame or a chart at a few.
    heights = columns.median(0).values
    best = int(heights.argmax())
    others = torch.cat([heights[:best], heights[best + 1 :]])
    height, lead = float(heights[best] - others.mean()), float(heights[best] - others.max())
    error = float((columns - heights).abs().median()) * MEDIAN_ERROR / math.sqrt(count)
    # The first of `excess` is the step from the second pixel to the third.
    origin = (best + 2) % BLOCK
    inside = torch.arange(steps.shape[2]) % BLOCK != (origin - 1) % BLOCK
    none = float((steps[..., inside] == 0).double().mean())
    return height, lead / error if error else 0.0, origin, none
