"""Alpha as large as its image: edges through the network, all else bicubic; and colours multiplied with alpha.

Bicubic enlargement blurs the edges of a cut-out and rings beside them, and is as good as exact where alpha is soft. The
two are told apart by making the bicubic result small again: at edges that is not what was enlarged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files.image import Image
from ..inference import Progress, part_of
from ..ops.resize import bicubic_resize
from .enlargement import Target
from .options import DataRange
from .value_range import ValueRange

# At an edge the bicubic result made small again is off by so much of the range from white to black; beside an edge that
# a Gaussian of 3 pixels blurred it is off by 3.2 / 255 at most when enlarged by 3, beside a sharp one by 25 and more.
EDGE = 8 / 255
# Pixels beside an edge that are the network's too, and half a window that is constant where it never is.
BESIDE, CONSTANT = 2, 2

# Enlarges `[1, 1, H, W]` in units of [0, 1] by the network.
Network = Callable[[Tensor, Progress], Tensor]


def enlarge_alpha(
    alpha: Tensor, target: Target, network: Network, data_range: DataRange | None, progress: Progress
) -> tuple[Tensor, Progress]:
    """Alpha `[B, 1, H, W]` of any type, enlarged with its image; what is constant stays exactly that.

    What is opaque follows from an integer's type, whatever its image's white.

    Args:
        alpha: as it was given.
        target: of its image.
        network: for the images that have edges; not called where there are none.
        data_range: of the image, for floats, by default 0 to 1. Alpha that leaves it keeps its own extremes.
        progress: called with the fraction done of alpha and its image.

    Returns:
        Alpha, and the progress that is left for the image.

    Raises:
        ValueError: NaN or infinite values.
    """
    if not torch.isfinite(alpha.double()).all():
        raise ValueError("alpha has NaN or infinite values")
    low, high = (extreme.item() for extreme in alpha.double().aminmax())
    if alpha.is_floating_point():
        white = data_range[1] if isinstance(data_range, tuple) else data_range
        opaque = max(1.0 if white is None else white, high)
    else:
        opaque = float(torch.iinfo(alpha.dtype).max)
    values = ValueRange(0.0, opaque)
    unit = values.to_unit(alpha)
    large = target.resize(unit)
    edges = _edges(unit, large)
    found = edges.any(3).any(2).any(1).nonzero().flatten().tolist()
    for count, index in enumerate(found):
        one, part = slice(index, index + 1), part_of(part_of(progress, 0, 2), count, len(found))
        at = F.interpolate(edges[one].float(), target.size) > 0
        large[one] = torch.where(at, network(unit[one], part).to(large.device), large[one])
    left = part_of(progress, 1, 2) if found else progress
    return values.from_unit(large.clamp(min(0.0, low / opaque), 1), alpha), left


def within_alpha(restored: Image, given: Image) -> Image:
    """The restored image with no colour beyond its alpha, where colours are multiplied with it and none was."""
    if not given.premultiplied or given.alpha is None or restored.alpha is None:
        return restored
    if (given.pixels > _beside(given.alpha, given.pixels)).any():
        return restored  # light of its own, as in renderings
    pixels = np.minimum(restored.pixels, _beside(restored.alpha, restored.pixels))
    return dataclasses.replace(restored, pixels=pixels)


def _beside(alpha: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Alpha with the axes of `pixels`."""
    return alpha if pixels.ndim == 2 else alpha[..., None]


def _edges(alpha: Tensor, large: Tensor) -> Tensor:
    """True for the pixels `[B, 1, H, W]` that a bicubic enlargement does not keep, and for those beside them."""
    off = (bicubic_resize(large, *alpha.shape[2:]) - alpha).abs()
    near = F.max_pool2d(off, 2 * BESIDE + 1, 1, BESIDE) > EDGE
    size = 2 * CONSTANT + 1
    constant = F.max_pool2d(alpha, size, 1, CONSTANT) == -F.max_pool2d(-alpha, size, 1, CONSTANT)
    return near & ~constant
