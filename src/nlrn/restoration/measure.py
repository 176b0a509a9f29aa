"""The noise of an image of any kind, in the units that `sigma` has for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..files.images import Image
from ..inference.noise_level import NoiseEstimate, estimate_noise
from ..inference.noise_spectrum import clear_lines
from ..inference.sensor_noise import SensorNoiseEstimate, estimate_sensor_noise
from .hidden import fill_hidden, hidden_pixels
from .kinds import planes_of
from .options import DataRange
from .shared import median_of
from .value_range import range_of, type_white


def measure_noise(image: np.ndarray | Tensor | Image, data_range: DataRange | None = None) -> NoiseEstimate:
    """The noise level of an image as `sigma` is given for it, and how white the noise is.

    Raises:
        ValueError: fewer than 16 pixels a side, and what `planes_of` and `range_of` refuse.
    """
    color, hidden = _color_of(image)
    values = range_of(color, data_range)
    estimate = estimate_noise(values.to_unit(color), hidden)
    unit = values.span
    if isinstance(image, Image):  # in 8-bit grey levels
        white = type_white(color.dtype) if data_range is None else None
        unit = 255 * (1.0 if white is None else values.span / white)
    return dataclasses.replace(estimate, sigma=estimate.sigma * unit)


def measure_noise_of_pages(pages: Sequence[Image]) -> NoiseEstimate:
    """The noise of pages of one size and type as `measure_noise` has it: the median of those that show noise.

    Raises:
        ValueError: as `measure_noise`, or no page.
    """
    found = median_of([measure_noise(page) for page in pages])
    if found is None:
        raise ValueError("there is no page to measure")
    return found


def measure_lines(image: Image) -> tuple[str, ...]:
    """`"rows"` and `"columns"` where whole ones of an image share noise beyond doubt.

    Raises:
        ValueError: as `measure_noise`.
    """
    color, hidden = _color_of(image)
    unit = range_of(color, None).to_unit(color)
    return clear_lines(unit, hidden, estimate_noise(unit, hidden).sigma)


def measure_sensor_noise(image: np.ndarray | Tensor | Image | Sequence[Image]) -> SensorNoiseEstimate:
    """Gain and read noise of the sensor that took an image, a batch or pages of one size, in the units of the values.

    Raises:
        NoiseUnknown: the image does not tell.
        ValueError: NaN or Inf, and what `planes_of` refuses.
    """
    if not isinstance(image, np.ndarray | Tensor | Image):
        parts = [planes_of(one) for one in image]
        masks = [hidden_pixels(one) for one in parts]
        none = torch.zeros_like(parts[0].color[:, :1], dtype=torch.bool)
        hidden = torch.cat([none if mask is None else mask for mask in masks])
        return _sensor_noise(torch.cat([one.color for one in parts]), hidden if hidden.any() else None)
    planes = planes_of(image)
    return _sensor_noise(planes.color, hidden_pixels(planes))


def _color_of(image: np.ndarray | Tensor | Image) -> tuple[Tensor, Tensor | None]:
    """The color planes of an image with hidden pixels filled, and those."""
    planes = planes_of(image)
    hidden = hidden_pixels(planes)
    return planes.color if hidden is None else fill_hidden(planes.color, hidden), hidden


def _sensor_noise(color: Tensor, hidden: Tensor | None) -> SensorNoiseEstimate:
    color = color if hidden is None else fill_hidden(color, hidden)
    if not color.double().isfinite().all():
        raise ValueError("the image has NaN or infinite values")
    return estimate_sensor_noise(color, hidden)
