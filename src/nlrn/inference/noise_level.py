"""The noise level of an image, as `sigma="auto"` estimates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ..models.nlrn import nearest_known

SMALLEST_SIDE = 16
CLIPPED_SHARE = 0.02
# The median of the absolute value of a standard normal variable.
NORMAL_MEDIAN = 0.6744897501960817


@dataclass(frozen=True)
class NoiseEstimate:
    """White-noise level of an image.

    Args:
        sigma: standard deviation in units of [0, 1].
        clipped: share of the values that lie at the ends of the range, 0 or 1; noise was cut off there, and
            the estimate is too low (on Set12 sigma 50 reads 46.6).
    """

    sigma: float
    clipped: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Cautions for the user, in full sentences."""
        if self.clipped <= CLIPPED_SHARE or self.sigma < 2 / 255:
            return ()
        return (
            f"{100 * self.clipped:.0f}% of the values are at the end of the range: clipped noise reads too low; "
            "give --sigma if you know it",
        )


def estimate_noise(image: Tensor) -> NoiseEstimate:
    """Estimates the standard deviation of additive white Gaussian noise.

    The median of the finest wavelet details (Donoho and Johnstone 1994), averaged over channels and images, as
    `skimage.restoration.estimate_sigma` computes it. Noise that is not white, such as that of a camera JPEG, is
    outside its assumption and mostly reads too low.

    Args:
        image: `[B, C, H, W]` in units of [0, 1].

    Raises:
        ValueError: an image of fewer than 16 pixels a side.

    Example:
        >>> import torch
        >>> from nlrn.inference.noise_level import estimate_noise
        >>> noise = 0.1 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
        >>> round(estimate_noise(0.5 + noise).sigma, 2)
        0.1
    """
    height, width = image.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"the noise of a {width}x{height} image cannot be estimated (it takes {SMALLEST_SIDE} pixels a side); "
            "give sigma"
        )
    values = image.detach().double().cpu().numpy()
    sigma = float(np.mean([_of_plane(plane) for plane in values.reshape(-1, height, width)]))
    clipped = float(np.mean((values <= 0) | (values >= 1)))
    return NoiseEstimate(sigma, clipped)


def _of_plane(plane: np.ndarray) -> float:
    """The level of `H x W`, from those of its diagonal details that are not zero; 0 where all are."""
    import pywt

    details = pywt.dwt2(plane, "db2")[1][2]
    details = np.abs(details[details != 0])
    return float(np.median(details)) / NORMAL_MEDIAN if details.size else 0.0


def noise_level(
    image: Tensor, sigma: float | Literal["auto"], known: tuple[float, float]
) -> tuple[float, float, list[str]]:
    """The noise level, given or estimated; the nearest that the model knows; and cautions about both."""
    cautions: list[str] = []
    if sigma == "auto":
        estimate = estimate_noise(image)
        sigma, cautions = estimate.sigma, list(estimate.warnings)
    used, caution = nearest_known(sigma, known)
    return sigma, used, cautions if caution is None else [*cautions, caution]
