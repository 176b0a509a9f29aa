"""Hot and dead pixels of an image: found at the level of its noise, and replaced before it is restored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.anscombe import SensorNoise
from ..ops.hot_pixels import hot_pixels, without_hot_pixels
from .choice import noise_of
from .options import DataRange
from .value_range import range_of

# A sensor of which more pixels are faulty does not exist: what is found is of the picture.
MOST = 0.02


def repaired(
    color: Tensor, hidden: Tensor | None, data_range: DataRange | None, noise: SensorNoise | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """An image without its hot pixels, and a note on their number.

    Args:
        color: `[B, C, H, W]` of any real type.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        data_range: as `range_of` takes it.
        noise: of a sensor, in the units of the image; by default white noise whose level is measured.
    """
    found = torch.cat([_found(one[None], _mask(hidden, i), data_range, noise) for i, one in enumerate(color)])
    if hidden is not None:
        found &= ~hidden
    count, share = int(found.sum()), float(found.double().mean())
    if share > MOST:
        note = f"{100 * share:.1f}% of the values look like hot pixels, too many for faults: they stay as they were"
        return color, (note,)
    if not count:
        return color, ("no hot pixels were found",)
    pixels = "1 hot or dead pixel is" if count == 1 else f"{count} hot or dead pixels are"
    return without_hot_pixels(color, found), (f"{pixels} replaced by the median of the neighbours",)


def _mask(hidden: Tensor | None, index: int) -> Tensor | None:
    return None if hidden is None else hidden[index : index + 1]


def _found(
    image: Tensor, hidden: Tensor | None, data_range: DataRange | None, noise: SensorNoise | None
) -> Tensor:
    """The mask of one image `[1, C, H, W]`."""
    if noise is not None:
        return hot_pixels(image, noise.gain, noise.intercept)
    values = range_of(image, data_range)
    estimate = noise_of(values.to_unit(image), hidden)
    level = 0.0 if estimate is None else estimate.sigma * values.span
    return hot_pixels(image, 0.0, level**2)
