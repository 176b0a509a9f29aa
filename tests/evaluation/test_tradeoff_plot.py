"""The charts of PSNR against seconds: where points lie, what is joined, and names that cover nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.evaluation import series_chart as module
from nlrn.evaluation.benchmark import ImageResult, Result
from nlrn.evaluation.chart import HEIGHT, WIDTH, Axis, Chart
from nlrn.evaluation.series_chart import LEVEL
from nlrn.evaluation.tradeoff_plot import CLASSIC, LEARNED, tradeoff_plot


def result(model: str, psnr: float, seconds: float, level: float | None = 25, steps: int | None = None):
    images = [ImageResult("01.png", 20.0, psnr, 0.8, seconds)]
    return Result("Set12", "denoise", level, model, steps, images)


def pixels_of(plot: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((plot == color).all(2))


def test_points_lie_where_the_axes_say():
    chart = Chart(Axis.powers_of_ten("x", 0.02, 5), Axis.linear("y", 26.2, 30.4))
    assert chart.x.ticks == (0.01, 0.1, 1, 10)
    assert chart.y.ticks == (26, 27, 28, 29, 30, 31)
    chart.dot(0.1, 28, (1, 2, 3))
    (row, column), place = pixels_of(chart.pixels(), (1, 2, 3)).mean(0), chart.place(0.1, 28)
    assert (column, row) == pytest.approx(place, abs=0.6)
    left, right = chart.place(0.01, 26)[0], chart.place(10, 26)[0]
    assert place[0] == pytest.approx(left + (right - left) / 3)


def test_the_axes_of_one_value():
    assert Axis.linear("y", 30.0, 30.0).ticks[0] <= 30 < Axis.linear("y", 30.0, 30.0).ticks[-1]
    assert Axis.powers_of_ten("x", 1.0, 1.0).ticks == (1, 10)


def test_a_chart_for_each_set_and_level():
    results = [result("bm3d", 30, 1, level) for level in (15, 25, 50)] + [result("nlm", 28, 0.1, 25)]
    plot = tradeoff_plot(results)
    assert plot is not None
    assert plot.shape == (HEIGHT, WIDTH, 3)  # at the other levels there is nothing to compare
    assert tradeoff_plot([result("bm3d", 30, 1), result("nlm", 28, 0.1, 15)]) is None
    both = tradeoff_plot([*results, result("nlm", 29, 0.1, 15)])
    assert both is not None
    assert both.shape == (2 * HEIGHT, WIDTH, 3)


def test_networks_methods_and_the_literature_differ():
    plot = tradeoff_plot([result("nlrn-gray", 30.4, 0.5), result("wnnm", 30.1, 20)])
    assert plot is not None
    assert min(len(pixels_of(plot, color)) for color in (LEARNED, CLASSIC, LEVEL)) > 40
    unknown = tradeoff_plot([result("bm3d", 30, 1, 17), result("nlm", 28, 0.1, 17)])
    assert unknown is not None
    assert len(pixels_of(unknown, LEVEL)) < 20


def test_numbers_of_steps_are_joined(monkeypatch):
    monkeypatch.setattr(module, "_write", lambda *arguments: (0.0, 0.0, 0.0, 0.0))  # no names
    steps = [result("nlrn-gray", 29 + n / 6, n / 10, steps=n) for n in (2, 4, 6)]
    apart = [result(f"nlrn-{n}", 29 + n / 6, n / 10) for n in (2, 4, 6)]
    columns = []
    for plot in map(tradeoff_plot, (steps, apart)):
        assert plot is not None
        blue = pixels_of(plot, LEARNED)[:, 1]
        columns.append(set(range(blue.min(), blue.max())) - set(blue.tolist()))
    joined, separate = columns
    assert not joined  # no column without blue
    assert len(separate) > 20


def test_names_cover_neither_points_nor_each_other(monkeypatch):
    boxes = []
    write = module._write

    def record(*arguments):
        boxes.append(write(*arguments))
        return boxes[-1]

    monkeypatch.setattr(module, "_write", record)
    tradeoff_plot([result(f"model-{n}", 30 + 0.02 * n, 3 + 0.1 * n) for n in range(4)])
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert len(boxes) == 6
    assert not any(module._overlap(a, b) for a, b in pairs)
