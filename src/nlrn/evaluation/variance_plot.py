"""A picture of variance against mean, with the line that was fitted to it."""

from __future__ import annotations

import numpy as np

from ..inference.sensor_noise import SensorNoiseEstimate
from .chart import LEFT, Axis, Chart

POINT, LINE = (31, 119, 180), (214, 39, 40)


def variance_plot(estimate: SensorNoiseEstimate) -> np.ndarray:
    """Points for groups of blocks of a picture, and the line of the estimate.

    Args:
        estimate: of at least one group.

    Returns:
        uint8 `480 x 720 x 3`.
    """
    means, variances, noise = estimate.means, estimate.variances, estimate.noise
    across = Axis.linear("mean of a block", min(means), max(means))
    highest = max(max(variances), noise.gain * across.ticks[-1] + noise.intercept)
    chart = Chart(across, Axis.linear("variance", 0.0, highest))
    ends = np.linspace(across.ticks[0], across.ticks[-1], 200)
    chart.line([(x, max(0.0, noise.gain * x + noise.intercept)) for x in ends], LINE)
    for mean, variance in zip(means, variances, strict=True):
        chart.dot(mean, variance, POINT)
    chart.text((LEFT, 12), f"variance = {line_of(estimate)}", LINE)
    return chart.pixels()


def line_of(estimate: SensorNoiseEstimate) -> str:
    """The variance as a formula, such as `2.02 x - 181`."""
    b = estimate.noise.intercept
    return f"{estimate.noise.gain:.4g} x {'-' if b < 0 else '+'} {abs(b):.4g}"
