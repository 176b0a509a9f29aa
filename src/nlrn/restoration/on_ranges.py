"""Images in their own units, by way of ranges of values that models know."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..inference import Progress, part_of
from ..ops.resize import bicubic_resize
from .combined import Combined
from .enlargement import Enlargement
from .hot_pixels import repaired
from .levels import Levels, known_or_auto
from .options import Options
from .report import Report, joined
from .shared import Shared
from .unit import UnitRestorer
from .unit_image import UnitImage
from .value_range import level_of, range_of, too_strong, type_white, unit_sigma, widest


def restore_on_ranges(
    restore_unit: UnitRestorer | Combined,
    color: Tensor,
    levels: Levels,
    progress: Progress,
    enlargement: Enlargement | None,
    options: Options,
    *,
    hidden: Tensor | None,
    grey_levels: bool,
    shared: Shared,
    quality: int | None,
) -> tuple[Tensor, Report]:
    """Restores `[B, C, H, W]` in its own units; images of one range go through a model together.

    Args:
        restore_unit: restores images in units of [0, 1].
        color: the images without alpha.
        levels: of their noise, in their units.
        progress: called with the fraction done.
        enlargement: how large results are.
        options: those of the restorer.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        grey_levels: whether the noise levels are in 8-bit grey levels.
        shared: the properties of a stack of which this is a plane.
        quality: of the JPEG file from which the image is.
    """
    given, notes = options.data_range, tuple[str, ...]()
    if options.hot_pixels:
        color, notes = repaired(color, hidden, options, shared.faults)
    of_type = type_white(color.dtype) if grey_levels and given is None else None
    if levels.strongest is not None:
        strongest = level_of(color.dtype, levels.strongest, given, grey_levels)
        levels = dataclasses.replace(levels, strongest=strongest)
    if shared.values is not None:
        ranges = [shared.values.around(one, given is not None) for one in color]
    else:
        from_data = options.handling.from_data
        ranges = [
            range_of(one[None], given, known_or_auto(levels.of(index)), from_data=from_data)
            for index, one in enumerate(color)
        ]
    parts = [(one[None], values) for one, values in zip(color, ranges, strict=True)]
    if len({(values.low, values.high) for values in ranges}) == 1:
        parts = [(color, widest(ranges))]
    results, reports = [], []
    for index, (part, values) in enumerate(parts):
        own = levels.of(index, len(part))
        level = unit = own.strongest
        if level is not None and not (grey_levels and of_type is None):
            unit = unit_sigma(level, values)
        share = part_of(progress, index, len(parts))
        mask = None if hidden is None else hidden[index : index + len(part)]
        image = UnitImage(
            values.to_unit(part),
            unit,
            mask,
            shared.estimate,
            quality,
            shared.plan,
            shares=own.shares,
        )
        result, report = restore_unit(image, share, enlargement)
        excess = values.excess(part) if enlargement is not None else None
        if excess is not None:
            result += bicubic_resize(excess, *result.shape[2:])
        results.append(values.from_unit(result, part))
        report = report.on(values, of_type)
        if of_type is not None and isinstance(level, float):
            report = dataclasses.replace(
                report, warnings=(*report.warnings, *too_strong(level, values, of_type))
            )
        reports.append(report)
    report = joined(reports)
    return torch.cat(results), dataclasses.replace(report, notes=(*notes, *report.notes))
