"""Hot and dead pixels of an image or a stack: found at the level of its noise, and replaced before it is restored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.sensor_noise import Known, estimate_sensor_noise
from ..ops.anscombe import SensorNoise
from ..ops.hot_pixels import FEWEST, Page, hot_pixels, hot_pixels_of_stack, without_hot_pixels
from .choice import noise_of
from .options import DataRange, Options
from .value_range import range_of

# A sensor of which more pixels are faulty does not exist: what is found is of the picture.
MOST = 0.02


@dataclass(frozen=True, eq=False)
class Faults:
    """The hot and dead pixels that the pages of a stack have in the same place.

    Args:
        mask: `[1, C, H, W]`; `None` where no page shows anything.
        pages: number of the pages that were looked at.
    """

    mask: Tensor | None
    pages: int


def repaired(
    color: Tensor,
    hidden: Tensor | None,
    options: Options,
    faults: Faults | None = None,
    noise: SensorNoise | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """An image without its hot pixels, and a note on their number.

    Args:
        color: `[B, C, H, W]` of any real type.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        options: whether they are those of the image or of the stack of which it is a page, and the range of values.
        faults: those of the stack.
        noise: of a sensor, in the units of the image; by default white noise whose level is measured.

    Raises:
        ValueError: those of a stack are asked for, and the image is no page of one.
    """
    if options.hot_pixels == "stack" and faults is None:
        check_faults(options, 1)
    if faults is None:
        each = enumerate(color)
        found = torch.cat([_found(one[None], _mask(hidden, i), options.data_range, noise) for i, one in each])
    elif faults.mask is None:
        found = torch.zeros_like(color, dtype=torch.bool)
    else:
        found = faults.mask.to(color.device).expand_as(color)
    if hidden is not None and faults is None:
        found &= ~hidden
    count, share = int(found.sum()), float(found.double().mean())
    if share > MOST:
        note = f"{100 * share:.1f}% of the values look like hot pixels, too many for faults: they stay as they were"
        return color, (note,)
    where = "" if faults is None else f" in the same place in most of {faults.pages} pages"
    if not count:
        return color, (f"no hot pixels were found{where}",)
    pixels = "1 hot or dead pixel" if count == 1 else f"{count} hot or dead pixels"
    verb = "is" if count == 1 else "are"
    return without_hot_pixels(color, found), (
        f"{pixels}{where} {verb} replaced by the median of the neighbours",
    )


def faults_of(pages: Iterable[tuple[Tensor, Tensor | None]], options: Options) -> Faults:
    """The hot and dead pixels of the pages of a stack `[1, C, H, W]`, which may have hidden pixels `[1, 1, H, W]`.

    Raises:
        NoiseUnknown: the noise of a sensor is not known, and a page does not tell.
    """
    count = 0

    def looked_at() -> Iterable[Page]:
        nonlocal count
        for image, hidden in pages:
            seen = image if hidden is None else image[~hidden.expand_as(image)]
            low, high = seen.double().aminmax()
            if low < high:  # a constant page shows nothing
                count += 1
                yield Page(image, *_variance(image, hidden, options), hidden)

    mask = hot_pixels_of_stack(looked_at())
    return Faults(mask, count)


def check_faults(options: Options, count: int) -> None:
    """Raises `ValueError` for a stack of too few pages to show its hot pixels, if they are asked for."""
    if options.hot_pixels == "stack" and count < FEWEST:
        pages = "a single page" if count == 1 else f"{count}"
        raise ValueError(
            f"hot_pixels='stack' needs {FEWEST} pages or more of one channel, size and type, got {pages}; "
            "hot_pixels='frame' finds those of each page"
        )


def _mask(hidden: Tensor | None, index: int) -> Tensor | None:
    return None if hidden is None else hidden[index : index + 1]


def _found(
    image: Tensor, hidden: Tensor | None, data_range: DataRange | None, noise: SensorNoise | None
) -> Tensor:
    """The mask of one image `[1, C, H, W]`."""
    if noise is not None:
        return hot_pixels(image, noise.gain, noise.intercept)
    return hot_pixels(image, 0.0, _white(image, hidden, data_range))


def _variance(image: Tensor, hidden: Tensor | None, options: Options) -> tuple[float, float]:
    """Slope and intercept of the variance of a page's noise."""
    if options.noise is None:
        return 0.0, _white(image, hidden, options.data_range)
    given = (options.gain, options.read_noise, options.offset)
    known = Known(*(None if number is None else float(number) for number in given))
    noise = known.complete or estimate_sensor_noise(image, hidden, known).noise
    return noise.gain, noise.intercept


def _white(image: Tensor, hidden: Tensor | None, data_range: DataRange | None) -> float:
    """The variance of white noise in an image."""
    values = range_of(image, data_range)
    estimate = noise_of(values.to_unit(image), hidden)
    return 0.0 if estimate is None else (estimate.sigma * values.span) ** 2
