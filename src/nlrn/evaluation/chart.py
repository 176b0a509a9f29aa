"""Charts drawn with Pillow: two axes with round numbers, and what is placed between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 40, 60
TICKS = 5
GRID = (225, 225, 225)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Axis:
    """An axis: its label, and its ticks, the first and the last at the ends.

    `logarithmic` axes have positive ticks.
    """

    label: str
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @classmethod
    def linear(cls, label: str, low: float, high: float) -> Axis:
        """Round numbers at even distances, the first at or below `low` and the last at or above `high`."""
        rough = (high - low or abs(high) or 1.0) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.floor(low / step), math.ceil(high / step * 0.999999)
        return cls(label, tuple(step * i for i in range(first, max(last, first + 1) + 1)))

    @classmethod
    def powers_of_ten(cls, label: str, low: float, high: float) -> Axis:
        """Powers of ten, the first at or below `low` and the last at or above `high`, both positive."""
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return cls(label, tuple(10.0**i for i in range(first, max(last, first + 1) + 1)), logarithmic=True)

    def share(self, value: float) -> float:
        """The place of a value along the axis, from 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


class Chart:
    """A white picture of 720 x 480 pixels with a grid, to be drawn into.

    Args:
        x, y: the axes; the label of y stands above it.
    """

    def __init__(self, x: Axis, y: Axis) -> None:
        self.x, self.y = x, y
        self._picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        self._draw, self._font = ImageDraw.Draw(self._picture), ImageFont.load_default(14)
        for tick in x.ticks:
            self.line([(tick, y.ticks[0]), (tick, y.ticks[-1])], GRID, 1)
            across, _ = self.place(tick, y.ticks[0])
            self._draw.text(
                (across, HEIGHT - BOTTOM + 8), f"{tick:.6g}", fill="black", font=self._font, anchor="mt"
            )
        for tick in y.ticks:
            self.line([(x.ticks[0], tick), (x.ticks[-1], tick)], GRID, 1)
            left, up = self.place(x.ticks[0], tick)
            self._draw.text((left - 8, up), f"{tick:.6g}", fill="black", font=self._font, anchor="rm")
        self._draw.text((WIDTH / 2, HEIGHT - 14), x.label, fill="black", font=self._font, anchor="mb")
        self._draw.text((8, 12), y.label, fill="black", font=self._font)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of two values."""
        return (
            LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM),
        )

    def line(self, points: list[tuple[float, float]], color: Color, width: int = 2) -> None:
        """A line through values."""
        self._draw.line([self.place(*point) for point in points], fill=color, width=width)

    def dashed(self, y: float, color: Color) -> None:
        """A dashed line across the chart."""
        _, height = self.place(self.x.ticks[0], y)
        for start in range(LEFT, WIDTH - RIGHT, 10):
            self._draw.line([(start, height), (min(start + 5, WIDTH - RIGHT), height)], fill=color)

    def dot(self, x: float, y: float, color: Color) -> None:
        """A point."""
        across, up = self.place(x, y)
        self._draw.ellipse((across - 4, up - 4, across + 4, up + 4), fill=color)

    def text(self, place: tuple[float, float], text: str, color: Color, anchor: str = "la") -> None:
        """Words at a pixel; `anchor` as Pillow has it."""
        self._draw.text(place, text, fill=color, font=self._font, anchor=anchor)

    def extent(self, place: tuple[float, float], text: str, anchor: str) -> tuple[float, float, float, float]:
        """The left, upper, right and lower pixel of words."""
        return self._draw.textbbox(place, text, font=self._font, anchor=anchor)

    def pixels(self) -> np.ndarray:
        """uint8 `480 x 720 x 3`."""
        return np.asarray(self._picture)
