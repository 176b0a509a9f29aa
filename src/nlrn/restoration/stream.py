"""Streams: frames of one kind whose number nobody knows, restored alike in the memory of a few of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from ..files.image import Image
from .kinds import planes_of
from .levels import AnySigma
from .report import Report
from .restorer import Restorer
from .shared import Shared, common_estimate, common_faults, common_plan
from .stack import Per, is_estimated
from .value_range import range_of, type_white

# So many frames are looked at for the noise of all of them, and for hot pixels.
FIRST = 8


def restored_stream(
    restorer: Restorer, frames: Iterable[Image], sigma: AnySigma | None = None, *, estimate: Per = "stack"
) -> Iterator[tuple[Image, Report]]:
    """Frames, each restored when it is asked for, with the report on it.

    The range of their values is that of their type, since no frame may leave what the first ones show.

    Args:
        restorer: restores every frame.
        frames: of one size and type.
        sigma: noise level in 8-bit grey levels, `"auto"`, or `None` where nlrn chooses.
        estimate: `"stack"` for one estimate of the noise, or the steps that most need, from the first eight frames;
            `"page"` for those of each frame.

    Raises:
        ValueError: another `estimate`, and as `Restorer.image`.
    """
    left = iter(frames)
    estimated = is_estimated(restorer, sigma, estimate)
    first, failure = list[Image](), None
    try:
        for frame in itertools.islice(
            left, FIRST if estimated or restorer.options.hot_pixels == "stack" else 1
        ):
            first.append(frame)
    except Exception as error:  # ends the stream after the frames before it
        failure = error
    if first:
        shared = _shared_by(restorer, first, estimated)
        for frame in itertools.chain(first, left):
            yield restorer.image(frame, sigma, None, shared)
    if failure is not None:
        raise failure


def _shared_by(restorer: Restorer, first: Sequence[Image], estimated: bool) -> Shared:
    """The properties that frames share, by the first of them."""
    faults = common_faults(first.__getitem__, range(len(first)), restorer.options)
    if restorer.options.noise is not None:  # a sensor's noise is that of each frame
        return Shared(faults=faults)
    color, given = planes_of(first[0]).color, restorer.options.data_range
    values = range_of(color, type_white(color.dtype) if given is None else given)
    if not estimated:
        return Shared(values, faults=faults)
    drawings = restorer.options.handling.drawings
    if restorer.combined is not None:
        plan = common_plan(first.__getitem__, range(len(first)), values, restorer.combined.plan)
        return Shared(values, plan=plan)
    estimate = common_estimate(first.__getitem__, range(len(first)), values, drawings=drawings)
    return Shared(values, estimate, faults=faults)
