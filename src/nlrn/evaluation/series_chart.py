"""Charts of named series: points that are joined, with the name of each where it covers least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from .chart import LEFT, RIGHT, TOP, WIDTH, Axis, Chart, Color

LEVEL = (120, 120, 120)
GAP = 8  # pixels between a point and its name
# Where a name may stand beside its point: the direction, and the anchor of the text.
SIDES = (((1, 0), "lm"), ((-1, 0), "rm"), ((0, -1), "mb"), ((0, 1), "mt"))

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Series:
    """Points of one colour that are joined in their order; the name stands beside the last."""

    name: str
    points: Sequence[tuple[float, float]]
    color: Color


def series_chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], levels: Mapping[str, float] | None = None
) -> np.ndarray:
    """A chart of series.

    Args:
        title: stands above it.
        x, y: the axes.
        series: what is drawn.
        levels: values of y, each a dashed line across the chart with its name.

    Returns:
        uint8 `480 x 720 x 3`.
    """
    chart = Chart(x, y)
    chart.text((LEFT, 12), title, (0, 0, 0))
    taken: list[Box] = []
    for name, level in (levels or {}).items():
        chart.dashed(level, LEVEL)
        _, height = chart.place(x.ticks[0], level)
        taken.append(_write(chart, (LEFT + 4, height - 2), name, LEVEL, "lb"))
    for one in series:
        for point in one.points:
            across, up = chart.place(*point)
            taken.append((across - 5, up - 5, across + 5, up + 5))
    for one in series:
        if len(one.points) > 1:
            chart.line(list(one.points), one.color)
        for point in one.points:
            chart.dot(*point, one.color)
        taken.append(_name(chart, one, taken))
    return chart.pixels()


def _name(chart: Chart, series: Series, taken: list[Box]) -> Box:
    """Writes a name beside the last point where it covers least of what stands there, and returns its box."""
    x, y = chart.place(*series.points[-1])
    best: tuple[float, tuple[float, float], str] | None = None
    for distance, ((right, down), anchor) in product(range(1, 8), SIDES):
        place = (x + right * distance * GAP, y + down * distance * GAP)
        box = chart.extent(place, series.name, anchor)
        outside = box[0] < LEFT or box[2] > WIDTH - RIGHT or box[1] < TOP - 20
        covered = 100 * sum(_overlap(box, other) for other in taken) + 1e6 * outside + distance
        if best is None or covered < best[0]:
            best = (covered, place, anchor)
    assert best is not None
    return _write(chart, best[1], series.name, series.color, best[2])


def _write(chart: Chart, place: tuple[float, float], text: str, color: Color, anchor: str) -> Box:
    chart.text(place, text, color, anchor)
    return chart.extent(place, text, anchor)


def _overlap(a: Box, b: Box) -> float:
    """Pixels that two boxes share."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)
