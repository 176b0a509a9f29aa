"""Hot and dead pixels: single pixels of a sensor that are far too bright or too dark.

A pixel x with the eight neighbours N and the median m of N is one if

    |x - m| > 6 max(deviation of the noise at m, spread of the 5x5 pixels)     it is no noise and no texture, and
    at most one of the 8 neighbours lies a quarter of the way from m to x      it is no star: these span several pixels,
    at most one of 24 lies half the way                                        and no end of a line

so that two faults side by side are still found. The spread is the median absolute deviation, for normal noise.

In a stack of pages of one sensor faults stay where they are. A pixel is one if it is one in most pages, or where

    sum over n pages of (x - m) / (deviation of the noise at m), each within -6..6, / sqrt(1.17 n)

whose noise is 1, has one, and the pixel lies on the same side in three quarters of the pages. In smooth parts a fault
shows from 6 sqrt(1.17 / n) deviations on. What passes by is in few pages.

Source: after the adaptive median filter of Hwang and Haddad, doi:10.1109/83.370679, with the noise level for its
extremes, and the contrast of Laplacian cosmic-ray identification (van Dokkum, doi:10.1086/323894).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRONG = 6.0
# Median absolute deviation of normal noise.
NORMAL_MEDIAN = 0.6744897501960817
REACH = 2
OFFSETS = [shift for shift in itertools.product(range(-REACH, REACH + 1), repeat=2) if shift != (0, 0)]
ADJACENT = [i for i, shift in enumerate(OFFSETS) if max(map(abs, shift)) == 1]
BESIDE = [OFFSETS[i] for i in ADJACENT]
# Of a stack: the variance of a pixel's difference from the median of its eight neighbours, in that of its noise; the
# share of the pages in which it lies on the same side; and the fewest pages.
DIFFERENCE, SAME_SIDE, FEWEST = 1.17, 0.75, 8
# So many values are compared with their neighbours at a time.
BAND = 1 << 20


class Page(NamedTuple):
    """A page of a stack `[1, C, H, W]`, the variance `slope x + intercept` of its noise, and its hidden pixels."""

    image: Tensor
    slope: float
    intercept: float
    hidden: Tensor | None = None


def hot_pixels(image: Tensor, slope: float, intercept: float) -> Tensor:
    """A mask of the pixels that are hot or dead, each channel by itself.

    Args:
        image: `[B, C, H, W]` of any real type and unit, of at least 3 pixels a side.
        slope: a of the variance `a x + b` of the noise; 0 for white noise.
        intercept: b, in squared units of the image.

    Returns:
        Booleans of the same shape.

    Source: as `nlrn.ops.hot_pixels` says.

    Example:
        >>> import torch
        >>> from nlrn.ops.hot_pixels import hot_pixels, without_hot_pixels
        >>> image = torch.full((1, 1, 9, 9), 10.0)
        >>> image[0, 0, 4, 5] = 99
        >>> mask = hot_pixels(image, slope=0.0, intercept=1.0)
        >>> int(mask.sum()), float(without_hot_pixels(image, mask).max())
        (1, 10.0)
    """
    mask = torch.zeros(image.shape, dtype=torch.bool, device=image.device)
    if min(image.shape[2:]) <= REACH:
        return mask
    planes = image.double()
    around = (9 * F.avg_pool2d(_padded(planes, 1), 3, 1) - planes) / 8
    # Only few pixels are worth a look at all their neighbours.
    deviation = (slope * around + intercept).clamp(min=0).sqrt()
    where = ((planes - around).abs() > STRONG / 2 * deviation).nonzero(as_tuple=True)
    mask[where] = _are_hot(planes[where], _neighbours(planes, where), slope, intercept)
    return mask


def hot_pixels_of_stack(pages: Iterable[Page]) -> Tensor | None:
    """A mask of the pixels that are hot or dead in most pages of a stack, each channel by itself.

    Pages are taken one after the other and not kept.

    Args:
        pages: of one size, of at least 3 pixels a side; hidden pixels `[1, 1, H, W]` do not count.

    Returns:
        Booleans `[1, C, H, W]`, false where fewer than 8 pages have a pixel; `None` without pages.

    Source: as `nlrn.ops.hot_pixels` says.

    Example:
        >>> import torch
        >>> from nlrn.ops.hot_pixels import Page, hot_pixels_of_stack
        >>> noise = torch.randn(16, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> noise[..., 9, 9] += 3
        >>> hot_pixels_of_stack(Page(one, 0.0, 1.0) for one in noise).nonzero().tolist()
        [[0, 0, 9, 9]]
    """
    total: Tensor | None = None
    for image, slope, intercept, hidden in pages:
        if min(image.shape[2:]) <= REACH:
            return torch.zeros(image.shape, dtype=torch.bool)
        out = _standing_out(image.double(), slope, intercept)
        if total is None:
            total, sides, alone, count = (torch.zeros_like(out) for _ in range(4))
        seen = torch.ones_like(out) if hidden is None else (~hidden).float()
        total += out * seen
        sides += out.sign() * seen
        alone += hot_pixels(image, slope, intercept) * seen
        count += seen
    if total is None:
        return None
    weak = hot_pixels(total / (DIFFERENCE * count.clamp(min=1)).sqrt(), 0.0, 1.0)
    weak &= sides.abs() >= (2 * SAME_SIDE - 1) * count
    return (weak | (alone > count / 2)) & (count >= FEWEST)


def without_hot_pixels(image: Tensor, mask: Tensor) -> Tensor:
    """The image with each pixel of a mask as the median of its eight neighbours that are not of the mask.

    Args:
        image: `[B, C, H, W]` of any real type; integers are rounded.
        mask: of the same shape.

    Returns:
        A tensor of the same shape and type; of 24 neighbours where all eight are of the mask.
    """
    if not mask.any():
        return image
    # Many types take no values at single places.
    where, repaired = mask.nonzero(as_tuple=True), image.to(torch.float64, copy=True)
    around = _neighbours(repaired.masked_fill(mask, torch.nan), where)
    middle = around[ADJACENT].nanquantile(0.5, 0)
    middle = torch.where(middle.isnan(), around.nanquantile(0.5, 0), middle)
    repaired[where] = middle if image.is_floating_point() else middle.round()
    return torch.where(mask, repaired.to(image.dtype), image)


def _are_hot(values: Tensor, around: Tensor, slope: float, intercept: float) -> Tensor:
    """Booleans `[K]` for values `[K]` with their neighbours `[24, K]`."""
    adjacent = around[ADJACENT]
    middle = _median(adjacent)
    spread = _median((around - middle).abs()) / NORMAL_MEDIAN
    # Where electrons are few their median may be 0 and their mean is not; a single electron is no fault.
    light = torch.maximum(middle, around.mean(0))
    deviation = torch.maximum((slope * light + intercept).clamp(min=0).sqrt(), spread)
    excess = values - middle
    strong = excess.abs() > STRONG * deviation + slope * STRONG**2 / 6
    sides, size = excess.sign(), excess.abs()
    few = ((adjacent - middle) * sides >= size / 4).sum(0) <= 1
    alone = ((around - middle) * sides >= size / 2).sum(0) <= 1
    return strong & few & alone


def _standing_out(planes: Tensor, slope: float, intercept: float) -> Tensor:
    """Differences from the median of the eight neighbours in deviations of the noise, within -6..6."""
    padded, (height, width) = _padded(planes, 1), planes.shape[2:]
    result = torch.empty(planes.shape, device=planes.device)
    step = max(1, BAND // (planes.shape[1] * width))
    for top in range(0, height, step):
        rows = planes[:, :, top : top + step]
        end = top + 1 + rows.shape[2]
        around = [padded[:, :, top + 1 + y : end + y, 1 + x : 1 + x + width] for y, x in BESIDE]
        middle = _median_of_8(around)
        # Where electrons are few their median may be 0 and their mean is not.
        variance = slope * torch.maximum(middle, torch.stack(around).mean(0)) + intercept
        result[:, :, top : top + step] = (rows - middle) / variance.clamp(min=0).sqrt()
    return result.nan_to_num_(0.0).clamp_(-STRONG, STRONG)


def _median_of_8(values: list[Tensor]) -> Tensor:
    """The mean of the fourth and the fifth of eight tensors, pixel by pixel; many times faster than sorting them."""
    low, high = _sorted_4(values[:4]), _sorted_4(values[4:])[::-1]
    fourth = torch.stack([torch.minimum(a, b) for a, b in zip(low, high, strict=True)]).amax(0)
    fifth = torch.stack([torch.maximum(a, b) for a, b in zip(low, high, strict=True)]).amin(0)
    return (fourth + fifth) / 2


def _sorted_4(values: list[Tensor]) -> list[Tensor]:
    """Four tensors, pixel by pixel in rising order."""
    found = list(values)
    for i, j in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        found[i], found[j] = torch.minimum(found[i], found[j]), torch.maximum(found[i], found[j])
    return found


def _neighbours(planes: Tensor, where: tuple[Tensor, ...]) -> Tensor:
    """The 24 values around each of K pixels of `[B, C, H, W]`, mirrored at the border: `[24, K]`."""
    padded, (batch, channel, row, column) = _padded(planes, REACH), where
    return torch.stack([padded[batch, channel, row + REACH + y, column + REACH + x] for y, x in OFFSETS])


def _padded(planes: Tensor, reach: int) -> Tensor:
    """Planes with as many mirrored pixels more on every side."""
    return F.pad(planes, [reach] * 4, mode="reflect")


def _median(values: Tensor) -> Tensor:
    """The median over the first axis, of an even number the mean of the middle two."""
    ordered, half = values.sort(0).values, len(values) // 2
    return (ordered[half - 1] + ordered[half]) / 2
