"""A picture of variance against mean, with the line that was fitted to it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..inference.sensor_noise import SensorNoiseEstimate

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 40, 60
TICKS = 5
POINT, LINE, GRID = (31, 119, 180), (214, 39, 40), (225, 225, 225)


def variance_plot(estimate: SensorNoiseEstimate) -> np.ndarray:
    """Points for groups of blocks of a picture, and the line of the estimate.

    Args:
        estimate: of at least one group.

    Returns:
        uint8 `480 x 720 x 3`.
    """
    means, variances, noise = estimate.means, estimate.variances, estimate.noise
    across = _axis(min(means), max(means))
    up = _axis(0.0, max(max(variances), noise.gain * across[-1] + noise.intercept))
    plot = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(plot), ImageFont.load_default(14)

    def place(mean: float, variance: float) -> tuple[float, float]:
        x = LEFT + (mean - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (variance - up[0]) / (up[-1] - up[0]) * (HEIGHT - TOP - BOTTOM)
        return x, y

    for mean in across:
        draw.line([place(mean, up[0]), place(mean, up[-1])], fill=GRID)
        x, y = place(mean, up[0])
        draw.text((x, y + 8), f"{mean:.6g}", fill="black", font=font, anchor="mt")
    for variance in up:
        draw.line([place(across[0], variance), place(across[-1], variance)], fill=GRID)
        x, y = place(across[0], variance)
        draw.text((x - 8, y), f"{variance:.6g}", fill="black", font=font, anchor="rm")
    ends = [(x, max(0.0, noise.gain * x + noise.intercept)) for x in np.linspace(across[0], across[-1], 200)]
    draw.line([place(*end) for end in ends], fill=LINE, width=2)
    for mean, variance in zip(means, variances, strict=True):
        x, y = place(mean, variance)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=POINT)
    draw.text((LEFT, 12), f"variance = {line_of(estimate)}", fill=LINE, font=font)
    draw.text((WIDTH / 2, HEIGHT - 14), "mean of a block", fill="black", font=font, anchor="mb")
    draw.text((8, 12), "variance", fill="black", font=font)
    return np.asarray(plot)


def line_of(estimate: SensorNoiseEstimate) -> str:
    """The variance as a formula, such as `2.02 x - 181`."""
    b = estimate.noise.intercept
    return f"{estimate.noise.gain:.4g} x {'-' if b < 0 else '+'} {abs(b):.4g}"


def _axis(low: float, high: float) -> list[float]:
    """Round numbers at even distances, the first at or below `low` and the last at or above `high`."""
    rough = (high - low or abs(high) or 1.0) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * i for i in range(math.floor(low / step), math.ceil(high / step * 0.999999) + 1)]
