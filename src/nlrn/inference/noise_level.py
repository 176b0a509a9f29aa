"""The noise level of an image, as `sigma="auto"` estimates it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

SMALLEST_SIDE = 16
CLIPPED_SHARE = 0.02


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
    from skimage.restoration import estimate_sigma

    values = image.detach().double().cpu().numpy()
    levels = estimate_sigma(values.reshape(-1, height, width), channel_axis=0)  # type: ignore[no-untyped-call]
    sigma = float(np.mean(levels))
    clipped = float(np.mean((values <= 0) | (values >= 1)))
    # A constant image has no wavelet details at all.
    return NoiseEstimate(sigma if np.isfinite(sigma) else 0.0, clipped)
