"""A guard for areas that the networks do not know: flat areas of saturated colour, and what is exactly constant.

Photographs, from which the networks learned, hardly have them, and there a restoration shifts colours by several
levels. Two properties of a right restoration are put back where it lacks them:

    mean     noise has none, so a flat area keeps its mean: what a restoration adds to it is taken off
    size     what is removed near a flat area is not much stronger than the noise in it

A screenshot, which somebody must name so, has more that stays as it was: all that is constant, and what lies between.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .purpose import HANDLINGS, Handling

# Half a window within which an area is flat; how far around a flat area its noise is that of the picture.
RADIUS, REACH = 2, 6
# Half a window within which the same value everywhere is no accident, as it is in the blocks of a JPEG file.
CONSTANT_RADIUS = 8
# Of a saturated colour the channels lie so far apart, and one of them so near to the end of the range.
SPREAD, END = 0.35, 0.1
LEVEL = 1 / 255
# As many times the noise level may be removed from a pixel.
STRONGEST = 4.0
# The mean of noise that is cut off at its own mean, in noise levels.
CUT_OFF = 0.4
# The mean of n pixels may be so many times noise / sqrt(n) by chance.
CERTAIN = 1.5
# Below this share of an image nobody sees the difference, and photographs have it by chance.
SMALLEST_SHARE = 0.002
# Offsets of the pixels over which a mean is taken, and how far apart the colours of one area may lie.
TAPS, SAME_AREA = tuple(range(-12, 13, 3)), 12 * LEVEL
# Half a window that is constant in a screenshot, and half a square that has one everywhere but in pictures.
STILL_RADIUS, BETWEEN = 1, 8
# Rows for which means are taken at once, so that they stay in the cache.
BAND = 32


@dataclass(frozen=True, eq=False)
class Guarded:
    """A restored image, the share of its pixels that the guard changed, and of those that it left as they were."""

    image: Tensor
    share: float
    still: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, if something changed."""
        found = []
        if self.share:
            found.append(
                f"flat areas and their edges, {100 * self.share:.0f}% of the picture, kept their colours"
            )
        if self.still:
            found.append(f"{100 * self.still:.0f}% of the picture have no noise and stay bit for bit")
        return tuple(found)


def guard(
    image: Tensor, restored: Tensor, noise: float | Tensor, handling: Handling = HANDLINGS[None]
) -> Guarded:
    """The restored image with the areas that a handling guards near to what they were.

    Args:
        image: `[B, C, H, W]` in units of [0, 1], before the restoration.
        restored: of the same shape, after it.
        noise: noise level of the image in the same units, or that of each pixel, `[B, 1, H, W]`, by which an area may
            be uneven and yet flat.
        handling: of this kind of picture.

    Returns:
        The image; `restored` itself where there is nothing to guard.
    """
    if handling.guard == "none":
        return Guarded(restored, 0.0)
    guarded = _flat_areas(image, restored, noise, handling.guard == "any")
    if not handling.still:
        return guarded
    still = _still(image)
    return Guarded(torch.where(still, image, guarded.image), guarded.share, float(still.float().mean()))


def _flat_areas(image: Tensor, restored: Tensor, noise: float | Tensor, any_color: bool) -> Guarded:
    """The restored image with flat areas of saturated or of any colour near to what they were.

    Args:
        image, restored, noise: as `guard` has them.
        any_color: whether all flat areas count, in grey images too.
    """
    if (image.shape[1] != 3 and not any_color) or min(image.shape[2:]) <= 2 * RADIUS:
        return Guarded(restored, 0.0)
    mean, spread = box_mean(image, RADIUS), _spread(image)
    # Exactly constant, whatever its colour.
    flat = _largest(image, CONSTANT_RADIUS).sub(-_largest(-image, CONSTANT_RADIUS)).amax(1, keepdim=True) == 0
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    saturated = (high - low > SPREAD) & ((low < END) | (high > 1 - END))
    flat |= (saturated | any_color) & (spread <= 1.5 * noise + LEVEL)
    if flat.float().mean() < SMALLEST_SHARE:
        return Guarded(restored, 0.0)
    # The noise of the nearest flat area; far from all of them anything may be removed.
    local = -_largest(-torch.where(flat, spread, torch.inf), REACH)
    near = torch.isfinite(local)
    removed = restored - image
    shift, count = area_mean(removed, restored, near)
    # Noise that is cut off at black or white has a mean, which a restoration rightly takes off, and so has noise in few
    # pixels.
    right = noise * (CERTAIN / count.sqrt()).clamp(min=CUT_OFF)
    removed = removed - (shift - shift.clamp(-right, right))
    limit = STRONGEST * local.clamp(min=noise)
    removed = torch.maximum(torch.minimum(removed, limit), -limit)
    return Guarded(torch.where(near, image + removed, restored), float(near.float().mean()))


def _still(image: Tensor) -> Tensor:
    """True for constant windows and for what lies between them, `[B, 1, H, W]`.

    A larger part of the picture without such windows is none of text or lines: it may have noise.
    """
    constant = _largest(image, STILL_RADIUS).sub(-_largest(-image, STILL_RADIUS)).amax(1, keepdim=True) == 0
    other = (_largest(constant.float(), STILL_RADIUS) == 0).float()
    # Its opening: what squares cover that lie within it.
    return _largest(-_largest(-other, BETWEEN), BETWEEN) == 0


def box_mean(image: Tensor, radius: int) -> Tensor:
    """The mean over `2 radius + 1` pixels a side, at the border over those that exist."""
    size = 2 * radius + 1
    return F.avg_pool2d(image, size, 1, radius, count_include_pad=False)


def _spread(image: Tensor) -> Tensor:
    """The largest standard deviation of a channel within RADIUS, `[B, 1, H, W]`."""
    mean = box_mean(image, RADIUS)
    return (box_mean(image * image, RADIUS) - mean * mean).clamp_(min=0).sqrt_().amax(1, keepdim=True)


def area_mean(values: Tensor, guide: Tensor, needed: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of values over the pixels around each that have its colour in the guide, and their number.

    Args:
        values, guide: `[B, C, H, W]`.
        needed: `[B, 1, H, W]`; bands of rows without a needed pixel have 0 and 1.
    """
    reach, (height, width) = TAPS[-1], values.shape[2:]
    padded = [F.pad(x, [reach] * 4, mode="replicate") for x in (values, guide)]
    mean, weight = torch.zeros_like(values), torch.ones_like(values[:, :1])
    for top in range(0, height, BAND):
        band = slice(top, min(top + BAND, height))
        if not needed[:, :, band].any():
            continue
        own, total = guide[:, :, band], torch.zeros_like(values[:, :, band])
        # Memory that is asked for at every tap costs more than the arithmetic.
        count, same, difference = (
            torch.zeros_like(total[:, :1]),
            torch.empty_like(total[:, :1]),
            torch.empty_like(own),
        )
        for down, across in itertools.product(TAPS, TAPS):
            rows = slice(reach + down + band.start, reach + down + band.stop)
            columns = slice(reach + across, reach + across + width)
            value, color = (x[:, :, rows, columns] for x in padded)
            torch.sub(color, own, out=difference).abs_()
            torch.amax(difference, 1, keepdim=True, out=same).lt_(SAME_AREA)
            total.addcmul_(same, value)
            count += same
        mean[:, :, band], weight[:, :, band] = total / count, count
    return mean, weight


def _largest(values: Tensor, radius: int) -> Tensor:
    """The largest value within a radius: of each column first, then of those."""
    for axis in (2, 3):
        margins = [0, 0, radius, radius] if axis == 2 else [radius, radius]
        values, size = F.pad(values, margins, value=-torch.inf), 1
        # Of 2, 4, 8 values, and at last of two such windows that overlap.
        while size < 2 * radius + 1:
            step = min(size, 2 * radius + 1 - size)
            count = values.shape[axis] - step
            values = torch.maximum(values.narrow(axis, 0, count), values.narrow(axis, step, count))
            size += step
    return values
