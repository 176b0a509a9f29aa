"""A picture of PSNR against seconds: every model that a benchmark measured on one set at one level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.zoo import CLASSICAL
from .benchmark import Result
from .chart import Axis
from .series_chart import Series, series_chart
from .tables import TASKS, published

LEARNED, CLASSIC = (31, 119, 180), (214, 39, 40)


def tradeoff_plot(results: Sequence[Result]) -> np.ndarray | None:
    """Charts below each other, one for each set and level of which there are several results.

    Networks are blue, and the results of one after several numbers of steps are joined; methods without weights are
    red; dashed lines are figures of the literature.

    Returns:
        uint8 `H x 720 x 3`; `None` where there is nothing to compare.
    """
    groups: dict[tuple[str, float | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.level), []).append(result)
    charts = [_chart(group) for group in groups.values() if len(group) > 1]
    return np.concatenate(charts) if charts else None


def _chart(results: list[Result]) -> np.ndarray:
    first = results[0]
    lines = published(first.task, first.dataset, first.level)
    times = [_seconds(result) for result in results]
    heights = [*(result.psnr for result in results), *lines.values()]
    series = []
    for name in dict.fromkeys(result.model for result in results):
        points = sorted((_seconds(r), r.psnr) for r in results if r.model == name)
        series.append(Series(name, points, CLASSIC if name in CLASSICAL else LEARNED))
    level = "" if first.level is None else f", {TASKS[first.task].level} {first.level:g}"
    return series_chart(
        f"{first.dataset}{level}",
        Axis.powers_of_ten("seconds an image", min(times), max(times)),
        Axis.linear("PSNR, dB", min(heights), max(heights)),
        series,
        {f"{name}, published": psnr for name, psnr in lines.items()},
    )


def _seconds(result: Result) -> float:
    """Seconds an image, never zero: the axis is logarithmic."""
    return max(result.seconds / len(result.images), 1e-4)
