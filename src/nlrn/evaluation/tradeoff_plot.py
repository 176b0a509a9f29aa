"""A picture of PSNR against seconds: every model that a benchmark measured on one set at one level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from ..models.zoo import CLASSICAL
from .benchmark import Result
from .chart import LEFT, RIGHT, TOP, WIDTH, Axis, Chart, Color
from .tables import TASKS, published

LEARNED, CLASSIC, PUBLISHED = (31, 119, 180), (214, 39, 40), (120, 120, 120)
GAP = 8  # pixels between a point and its name
# Where a name may stand beside its point: the direction, and the anchor of the text.
SIDES = (((1, 0), "lm"), ((-1, 0), "rm"), ((0, -1), "mb"), ((0, 1), "mt"))

Box = tuple[float, float, float, float]


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
    chart = Chart(
        Axis.powers_of_ten("seconds an image", min(times), max(times)),
        Axis.linear("PSNR, dB", min(heights), max(heights)),
    )
    level = "" if first.level is None else f", {TASKS[first.task].level} {first.level:g}"
    chart.text((LEFT, 12), f"{first.dataset}{level}", (0, 0, 0))
    taken: list[Box] = []
    for name, psnr in lines.items():
        chart.dashed(psnr, PUBLISHED)
        _, height = chart.place(chart.x.ticks[0], psnr)
        taken.append(_write(chart, (LEFT + 4, height - 2), f"{name}, published", PUBLISHED, "lb"))
    for result in results:
        x, y = chart.place(_seconds(result), result.psnr)
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for name in dict.fromkeys(result.model for result in results):
        own = sorted((r for r in results if r.model == name), key=_seconds)
        color = CLASSIC if name in CLASSICAL else LEARNED
        points = [(_seconds(result), result.psnr) for result in own]
        if len(points) > 1:
            chart.line(points, color)
        for point in points:
            chart.dot(*point, color)
        taken.append(_name(chart, points[-1], name, color, taken))
    return chart.pixels()


def _seconds(result: Result) -> float:
    """Seconds an image, never zero: the axis is logarithmic."""
    return max(result.seconds / len(result.images), 1e-4)


def _name(chart: Chart, point: tuple[float, float], name: str, color: Color, taken: list[Box]) -> Box:
    """Writes a name beside its point where it covers least of what stands there, and returns its box."""
    x, y = chart.place(*point)
    best: tuple[float, tuple[float, float], str] | None = None
    for distance, ((right, down), anchor) in product(range(1, 8), SIDES):
        place = (x + right * distance * GAP, y + down * distance * GAP)
        box = chart.extent(place, name, anchor)
        outside = box[0] < LEFT or box[2] > WIDTH - RIGHT or box[1] < TOP - 20
        covered = 100 * sum(_overlap(box, other) for other in taken) + 1e6 * outside + distance
        if best is None or covered < best[0]:
            best = (covered, place, anchor)
    assert best is not None
    return _write(chart, best[1], name, color, best[2])


def _write(chart: Chart, place: tuple[float, float], text: str, color: Color, anchor: str) -> Box:
    chart.text(place, text, color, anchor)
    return chart.extent(place, text, anchor)


def _overlap(a: Box, b: Box) -> float:
    """Pixels that two boxes share."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)
