"""Gaussian smoothing: the local prior that all others are measured by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import ModelInfo
from .denoiser import Denoiser


@dataclass(frozen=True)
class GaussianConfig:
    """The parameters of the method.

    Args:
        spread: standard deviation of the weights in pixels. `None` is `min(0.34 + 5.6 sigma, 22 sigma)`, fitted
            on crops of BSDS500's training and test images with noise of 5 to 75 grey levels.
    """

    spread: float | None = None

    def __post_init__(self) -> None:
        if self.spread is not None and not 0 < self.spread < math.inf:
            raise ValueError(f"spread must be > 0 and finite, got {self.spread}")


class GaussianSmoothing(Denoiser):
    """Smoothing by a Gaussian whose width follows from the noise: `model(image, sigma) -> restored`.

    `Z_i = sum_j w_ij x_j / sum_j w_ij` with `w_ij = exp(-|i - j|^2 / 2 s^2)`, j over the square that reaches
    4 s from i, truncated at the border.

    Cost: `16 s` multiply-adds for each pixel.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.gaussian import GaussianSmoothing
        >>> GaussianSmoothing()(torch.rand(1, 3, 32, 40), sigma=0.1).shape
        torch.Size([1, 3, 32, 40])
    """

    name = "gaussian"

    def __init__(self, config: GaussianConfig | None = None) -> None:
        self.config = config or GaussianConfig()

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        halo = math.ceil(4 * self._spread(1.0))
        return ModelInfo(
            self.name,
            "denoise",
            cut="tiles",
            halo=halo,
            memory=lambda shape: 24 * math.prod(shape),
            symmetric=True,
        )

    def _spread(self, sigma: float) -> float:
        return self.config.spread or min(0.34 + 5.6 * sigma, 22 * sigma)

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        spread = self._spread(sigma)
        radius = math.ceil(4 * spread)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.exp(-offsets.square() / (2 * spread**2)).to(planes)
        image = planes[:, None]
        # [C and one of ones, 1, H, W]: what the weights that lie within the image sum to.
        image = torch.cat([image, torch.ones_like(image[:1])])
        image = F.conv2d(image, weights.view(1, 1, 1, -1), padding=(0, radius))
        image = F.conv2d(image, weights.view(1, 1, -1, 1), padding=(radius, 0))
        return image[:-1, 0] / image[-1]
