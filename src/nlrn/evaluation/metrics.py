"""The PSNR and the SSIM of this project, equal to those of the literature's MATLAB."""

from __future__ import annotations

import numpy as np
from scipy.signal import convolve2d

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def _pair(image: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if image.shape != reference.shape:
        raise ValueError(f"images must have the same shape, got {image.shape} and {reference.shape}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"images must be HxW or HxWxC and not empty, got shape {image.shape}")
    return image.astype(np.float64), reference.astype(np.float64)


def psnr(image: np.ndarray, reference: np.ndarray, data_range: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range^2 / mean squared error)`.

    Args:
        image: `H x W` or `H x W x C`; for published figures clipped and rounded to 8 bit.
        reference: the clean image, of the same shape.
        data_range: value of white.

    Returns:
        dB; infinite for identical images.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> import numpy as np
        >>> from nlrn.evaluation.metrics import psnr
        >>> round(psnr(np.full((8, 8), 130), np.full((8, 8), 128)), 2)
        42.11
    """
    a, b = _pair(image, reference)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(data_range**2 / error))


def ssim(image: np.ndarray, reference: np.ndarray, data_range: float = 255.0) -> float:
    """Structural similarity as Wang's `ssim.m` computes it; for colour, the mean over the channels.

    Gaussian window 11x11 of sigma 1.5, K = (0.01, 0.03), only where the window lies within the image.

    Args:
        image: `H x W` or `H x W x C`, at least 11 pixels a side.
        reference: the clean image, of the same shape.
        data_range: value of white.

    Raises:
        ValueError: shapes that differ or are too small.

    Source: Wang et al., Image quality assessment, IEEE TIP 2004, doi:10.1109/TIP.2003.819861.
    """
    a, b = _pair(image, reference)
    if min(a.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least {SSIM_WINDOW} pixels a side, got {a.shape[1]}x{a.shape[0]}")
    if a.ndim == 3:
        return float(np.mean([ssim(a[..., c], b[..., c], data_range) for c in range(a.shape[2])]))
    offset = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    gauss = np.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    gauss /= gauss.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        # The window is separable: rows, then columns.
        return np.asarray(convolve2d(convolve2d(x, gauss[:, None], "valid"), gauss[None], "valid"))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(np.mean(similarity))
