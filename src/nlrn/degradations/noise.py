"""White Gaussian noise."""

from __future__ import annotations

import numpy as np


def gaussian_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """White Gaussian noise, float32, of standard deviation `sigma`.

    Drawn as float64 standard normal numbers and rounded, so that one generator gives the same noise up to scale
    for every sigma.

    Raises:
        ValueError: `sigma` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> from nlrn.degradations import gaussian_noise
        >>> gaussian_noise((2, 3), 0.1, np.random.default_rng(0)).shape
        (2, 3)
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be finite and >= 0, got {sigma}")
    return rng.standard_normal(shape).astype(np.float32) * np.float32(sigma)
