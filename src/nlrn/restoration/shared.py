"""The properties that the pages of a stack share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..inference.noise_level import NoiseEstimate
from .choice import noise_of
from .hidden import fill_hidden, hidden_pixels
from .hot_pixels import Faults, check_faults, faults_of
from .kinds import Kind, planes_of
from .options import DataRange, Options
from .plan import Plan
from .unit_image import UnitImage
from .value_range import Sigma, ValueRange, range_of

# As many values of a stack and pages as its range follows from at most, and pages from which its noise, its steps and
# its hot pixels follow.
SAMPLES, PAGES, ESTIMATES, PLANS, FAULTS = 1 << 22, 1000, 16, 5, 32


@dataclass(frozen=True)
class Shared:
    """The properties that the pages of a stack have in common; what is `None` each page has for itself.

    Args:
        values: range of values.
        estimate: noise, in units of that range.
        plan: steps of a restoration.
        faults: hot and dead pixels that they have in the same place.
    """

    values: ValueRange | None = None
    estimate: NoiseEstimate | None = None
    plan: Plan | None = None
    faults: Faults | None = None


# Of an image that is no page of a stack.
ALONE = Shared()


def common_range(
    page: Callable[[int], Kind],
    indices: Sequence[int],
    data_range: DataRange | None,
    level_of: Callable[[Tensor], Sigma],
    from_data: bool,
) -> ValueRange | None:
    """The range of values of pages of one size and type, from rows of all of them.

    Args:
        page: the page of an index.
        indices: the pages.
        data_range: as `range_of` has it.
        level_of: noise level in the units of a page's values.
        from_data: as `range_of` has it.

    Returns:
        The range; `None` where the pages are hidden as a whole.
    """
    rows: list[Tensor] = []
    level: Sigma = "auto"
    step = 1
    for index in spread(indices, PAGES):
        color, _ = visible(page(index))
        if color is None:
            continue
        if not rows:
            if color.dtype is torch.uint8 and data_range is None and not from_data:
                return range_of(color, None)
            level = level_of(color)
            step = max(1, -(-color[0, 0].numel() * min(len(indices), PAGES) // SAMPLES))
        # Other rows of each page, so that together they cover the picture.
        rows.append(color[..., len(rows) % min(step, color.shape[-2]) :: step, :].clone())
    return range_of(torch.cat(rows, -2), data_range, level, from_data=from_data) if rows else None


def common_estimate(
    page: Callable[[int], Kind], indices: Sequence[int], values: ValueRange, *, drawings: bool
) -> NoiseEstimate | None:
    """The noise of pages, in units of their range: the median of those of some of them that show noise.

    `drawings` is that of `noise_of`.
    """
    found = []
    for index in spread(indices, ESTIMATES):
        color, hidden = visible(page(index))
        estimate = None if color is None else noise_of(values.to_unit(color), hidden, drawings=drawings)
        if estimate is not None:
            found.append(estimate)
    return median_of(found)


def common_plan(
    page: Callable[[int], Kind],
    indices: Sequence[int],
    values: ValueRange,
    plan: Callable[[UnitImage], Plan],
) -> Plan | None:
    """The steps that most of some pages need; `None` where these are hidden as a whole.

    Args:
        page: the page of an index.
        indices: the pages.
        values: their range.
        plan: the steps for an image in units of that range.
    """
    found: list[Plan] = []
    for index in spread(indices, PLANS):
        color, hidden = visible(page(index))
        if color is not None:
            found.append(plan(UnitImage(values.to_unit(color), hidden=hidden)))
    if not found:
        return None
    (steps, _), *_ = Counter(one.steps for one in found).most_common(1)
    return next(one for one in found if one.steps == steps)


def common_faults(page: Callable[[int], Kind], indices: Sequence[int], options: Options) -> Faults | None:
    """The hot and dead pixels that pages of one size and type have in the same place, from up to 32 of them.

    Args:
        page: the page of an index.
        indices: the pages.
        options: of the restorer.

    Returns:
        The faults; `None` where `options.hot_pixels` does not ask for those of a stack.

    Raises:
        NoiseUnknown: the noise of a sensor is not known, and a page does not tell.
        ValueError: fewer pages than show it.
    """
    if options.hot_pixels != "stack":
        return None
    check_faults(options, len(indices))
    seen = (visible(page(index)) for index in spread(indices, FAULTS))
    return faults_of(((color, hidden) for color, hidden in seen if color is not None), options)


def median_of(found: Sequence[NoiseEstimate]) -> NoiseEstimate | None:
    """The noise of pages by the estimates of each: the median of those that show noise; `None` without pages."""
    telling = [one for one in found if one.used > 0 and not one.drawing]
    if not telling:
        return found[0] if found else None
    return NoiseEstimate(
        sigma=float(np.median([one.sigma for one in telling])),
        clipped=float(np.mean([one.clipped for one in telling])),
        whiteness=_median(one.whiteness for one in telling),
        color_whiteness=_median(one.color_whiteness for one in telling),
        used=float(np.mean([one.used for one in telling])),
    )


def _median(values: Iterable[float | None]) -> float | None:
    """The median of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most `count` of the indices, evenly spread, the first and the last among them."""
    if len(indices) <= count:
        return list(indices)
    return [indices[round(place)] for place in np.linspace(0, len(indices) - 1, count)]


def visible(image: Kind) -> tuple[Tensor | None, Tensor | None]:
    """The color planes of a page with hidden pixels filled, and those; `None` where all are hidden."""
    planes = planes_of(image)
    hidden = hidden_pixels(planes)
    if hidden is None:
        return planes.color, None
    return (None, None) if hidden.all() else (fill_hidden(planes.color, hidden), hidden)
