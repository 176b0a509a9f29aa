"""Means of a restored picture of counts, held to those of the counts where electrons are few."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..ops.anscombe import SensorNoise

# The radius in pixels over which means are compared: 3,200 pixels count, of 320 electrons where each has a tenth.
RADIUS = 16.0
# Up to FEW electrons the mean is corrected, from MANY on it is not: there the transform keeps it.
FEW, MANY = 4.0, 10.0


def with_local_mean(restored: Tensor, counts: Tensor, noise: SensorNoise) -> Tensor:
    """A restored picture whose mean around each dark pixel is that of the counts.

    A network darkens areas of less than an electron a pixel beside bright ones, because their noise is not normal even
    after the transform. Means are weighted by the inverse of the variance, so that a bright neighbour does not count in
    the dark.

    Args:
        restored: `[1, C, H, W]`, float64, in the units of the counts.
        counts: of the same shape.
        noise: of the counts.
    """
    electrons = (restored - noise.offset) / noise.gain
    share = ((MANY - electrons) / (MANY - FEW)).clamp(0, 1)
    if not share.any():
        return restored
    variance = electrons.clamp(min=0.02) + (noise.read_noise / noise.gain) ** 2
    corrected = restored.clone()
    for channel in range(restored.shape[1]):
        at = (0, channel)
        weight = 1 / np.maximum(gaussian_filter(variance[at].numpy(), 1.5), 0.05)
        missing = weight * (counts[at] - restored[at]).numpy()
        mean = _blurred(missing) / _blurred(weight)
        corrected[at] += share[at] * torch.from_numpy(mean)
    return corrected


def _blurred(plane: np.ndarray) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter(plane, RADIUS, mode="constant")
    return blurred
