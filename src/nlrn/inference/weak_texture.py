"""The level of white noise, from the patches of a picture that have the least texture."""

from __future__ import annotations

import math

import numpy as np

# Side of a patch, how many patches are looked at, how few do not tell, and the share without cut-off values that does.
SIDE, PATCHES, FEWEST, WHOLE = 5, 60_000, 800, 0.05
# Sums of squared gradients of patches of white noise have about a gamma distribution: the rank of the gradients of a
# patch, the trace of their product with themselves, and the share of such patches that pass as noise.
RANK, TRACE, SHARE = 21, 15.0, 1 - 1e-6
ROUNDS = 3
# How often a level is taken again that allows for cut-off noise, the largest, and an end at which nothing is cut off.
SETTLING, LARGEST, FAR = 12, 1.0, 10.0


def weak_texture_level(plane: np.ndarray, hidden: np.ndarray) -> float | None:
    """Estimates the standard deviation of white noise.

    The smallest eigenvalue of the covariance of patches is the variance of the noise, if there is a direction without
    texture. It is taken of all patches first, and then of those whose gradients noise of that level can have.

    Where the least value is 0 or the largest 1, noise was cut off there. Patches with such values do not count, and
    the others have noise of a truncated normal distribution, which is weaker the nearer their means are to the end.

    Args:
        plane: `H x W` in units of [0, 1]. Constant patches do not count either.
        hidden: the pixels that are not part of the picture.

    Returns:
        The level; `None` where too few patches tell.

    Source: Liu, Tanaka, Okutomi, Single-Image Noise Level Estimation for Blind Denoising, IEEE TIP 2013,
    doi:10.1109/TIP.2013.2283400.
    """
    from scipy.special import gammaincinv

    limit = 2 * TRACE / RANK * float(gammaincinv(RANK / 2, SHARE))
    patches, masks = (np.lib.stride_tricks.sliding_window_view(x, (SIDE, SIDE)) for x in (plane, hidden))
    step = max(1, int((patches.shape[0] * patches.shape[1] / PATCHES) ** 0.5))
    patches, masks = patches[::step, ::step], masks[::step, ::step]
    low, high = patches.min((2, 3)), patches.max((2, 3))
    varied = (high > low) & ~masks.any((2, 3))
    whole = varied & (low != 0) & (high != 1)
    if whole.sum() < max(FEWEST, WHOLE * varied.sum()):
        return None
    patches = patches[whole]
    across, down = patches[:, :, 2:] - patches[:, :, :-2], patches[:, 2:] - patches[:, :-2]
    texture = ((across**2).sum((1, 2)) + (down**2).sum((1, 2))) / 4
    vectors = patches.reshape(len(patches), -1)
    means = vectors.mean(1)
    vectors = vectors - means[:, None]
    ends = (0.0 if plane.min() == 0 else -FAR, 1.0 if plane.max() == 1 else FAR)
    variance = _whole_variance(_smallest(vectors), means, ends)
    for _ in range(ROUNDS - 1):
        weak = texture < limit * variance
        if weak.sum() < FEWEST:
            break
        vectors, texture, means = vectors[weak], texture[weak], means[weak]
        variance = _whole_variance(_smallest(vectors), means, ends)
    return math.sqrt(variance)


def _whole_variance(variance: float, means: np.ndarray, ends: tuple[float, float]) -> float:
    """The variance of noise, from that of its values between two ends around so many means."""
    from scipy.special import ndtr

    if variance == 0 or ends == (-FAR, FAR):
        return variance
    means = np.quantile(means, (np.arange(64) + 0.5) / 64)
    whole = variance
    for _ in range(SETTLING):
        sigma = math.sqrt(whole)
        low, high = ((end - means) / sigma for end in ends)
        inside = ndtr(high) - ndtr(low)
        at_low, at_high = (np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (low, high))
        kept = 1 + (low * at_low - high * at_high) / inside - ((at_low - at_high) / inside) ** 2
        whole = min(variance / float(kept.mean()), LARGEST)
    return whole


def _smallest(vectors: np.ndarray) -> float:
    """The smallest variance of vectors without a mean, but for the direction of the mean.

    Of white noise it lies below the variance by chance, the more the fewer vectors there are (Marchenko and Pastur).
    """
    count, size = vectors.shape
    smallest = max(float(np.linalg.eigvalsh(vectors.T @ vectors / count)[1]), 0.0)
    return smallest / (1 - math.sqrt((size - 1) / count)) ** 2
