"""The generalized Anscombe transform and its exact unbiased inverse.

A sensor counts electrons, of which there are y on average, and its electronics add white noise:

    x = offset + gain z + read_noise n,    z ~ Poisson(y),  n ~ N(0, 1)

so that the mean of a value is `offset + gain y` and its variance `gain (mean - offset) + read_noise^2`. The transform
f makes that variance about 1 wherever there are some electrons, and a method for white noise can follow. The mean of
f(x) is not f of the mean, because f is curved: the algebraic inverse of a restored image is too low, by half of the
signal at half an electron. The exact unbiased inverse takes the mean of f(x) to y.

Source: Anscombe, The transformation of Poisson, binomial and negative-binomial data, doi:10.1093/biomet/35.3-4.246;
Starck, Murtagh and Bijaoui, Image Processing and Data Analysis, 1998 (with read noise); Makitalo and Foi, Optimal
inversion of the Anscombe transformation in low-count Poisson image denoising, doi:10.1109/TIP.2010.2056693, and of
the generalized Anscombe transformation for Poisson-Gaussian noise, doi:10.1109/TIP.2012.2202675 (inverse).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Electrons plus variance of the read noise from which the asymptotic inverse is right within 0.002 electrons.
BRIGHT = 64.0
# Nodes of the table, evenly spaced in the square root of the electrons.
NODES = 384
# The integral over the read noise is a sum over so many points, as far as so many standard deviations.
POINTS, REACH = 513, 8.0


@dataclass(frozen=True)
class SensorNoise:
    """Noise whose variance rises in a straight line with the value: `gain (x - offset) + read_noise^2`.

    Args:
        gain: units of the data per electron; the slope a of the variance `a x + b`.
        read_noise: standard deviation without light, in the units of the data.
        offset: value without light, in the units of the data.

    Raises:
        ValueError: a gain that is not positive, a negative read noise, or a number that is not finite.
    """

    gain: float
    read_noise: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"gain must be finite and > 0, got {self.gain:g}")
        if not (math.isfinite(self.read_noise) and self.read_noise >= 0):
            raise ValueError(f"read_noise must be finite and >= 0, got {self.read_noise:g}")
        if not math.isfinite(self.offset):
            raise ValueError(f"offset must be finite, got {self.offset:g}")

    @property
    def intercept(self) -> float:
        """b of the variance `a x + b`, in squared units of the data; negative on a pedestal."""
        return self.read_noise**2 - self.gain * self.offset

    def variance(self, values: Tensor) -> Tensor:
        """The variance of the noise of values, in squared units of the data; never below 0."""
        return (self.gain * values + self.intercept).clamp(min=0)


def anscombe(values: Tensor, noise: SensorNoise, share: float = 1.0) -> Tensor:
    """The generalized Anscombe transform, after which the noise has a standard deviation of about 1.

        f(x) = 2 sqrt(max(z / share^2 + 3/8 + (r / share)^2, 0)),  z = (x - offset) / gain,  r = read_noise / gain

    Args:
        values: of any shape, in the units of the data.
        noise: of the values.
        share: the values are `share * x + (1 - share) * estimate`, where the estimate has no noise, as in the later
            passes of an iteration. Their noise is that of `1 / share^2` as many electrons.

    Returns:
        float64 of the same shape.

    Source: as `nlrn.ops.anscombe` says; share after Azzari and Foi, Variance stabilization for noisy+estimate
    combination in iterative Poisson denoising, doi:10.1109/LSP.2016.2580600.

    Example:
        >>> import torch
        >>> from nlrn.ops.anscombe import SensorNoise, anscombe
        >>> counts = torch.poisson(torch.full((1000, 1000), 20.0), generator=torch.Generator().manual_seed(0))
        >>> round(float(anscombe(counts, SensorNoise(gain=1.0)).std()), 2)
        1.0
    """
    electrons = (values.double() - noise.offset) / noise.gain
    return _root(electrons, noise.read_noise / noise.gain, share)


def inverse_anscombe(stabilized: Tensor, noise: SensorNoise, share: float = 1.0) -> Tensor:
    """The exact unbiased inverse: of the mean of `anscombe(x)`, the mean of x.

    A table of the mean, summed over the Poisson distribution and integrated over the read noise, up to
    y + read_noise^2 = 64 electrons. Beyond, `share^2 (D^2 / 4 - 1/8) - read_noise^2` electrons, which that approaches.
    Below the value of no electrons it goes on in a straight line, so that noise around a dark background is not cut off
    and keeps its mean.

    Args:
        stabilized: of any shape, restored after `anscombe`.
        noise: as it was for `anscombe`.
        share: as it was for `anscombe`.

    Returns:
        float64 of the same shape, in the units of the data.

    Example:
        >>> import torch
        >>> from nlrn.ops.anscombe import SensorNoise, anscombe, inverse_anscombe
        >>> counts = torch.poisson(torch.full((1000, 1000), 0.5), generator=torch.Generator().manual_seed(0))
        >>> round(float(inverse_anscombe(anscombe(counts, SensorNoise(1.0)).mean(), SensorNoise(1.0))), 2)
        0.5
    """
    read_noise, stabilized = noise.read_noise / noise.gain, stabilized.double()
    electrons = share**2 * (stabilized**2 / 4 - 1 / 8) - read_noise**2
    if read_noise**2 < BRIGHT:
        means, of_means = (x.to(stabilized.device) for x in _table(read_noise, share))
        dark = stabilized <= of_means[-1]
        electrons = torch.where(dark, _interpolated(stabilized, of_means, means), electrons)
    return noise.offset + noise.gain * electrons


def mean_of_anscombe(electrons: Tensor, read_noise: float, share: float = 1.0) -> Tensor:
    """The mean of the transform of a pixel.

    Args:
        electrons: their means y, `[N]`, which are also the estimate.
        read_noise: in electrons.
        share: as for `anscombe`.

    Returns:
        float64 `[N]`.
    """
    y = electrons.double()
    points, weights = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    if read_noise:
        points = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
        weights = torch.softmax(-(points**2) / 2, 0)
    most, total = float(y.max()), torch.zeros_like(y)
    for count in range(math.ceil(most + 12 * math.sqrt(most) + 24)):
        chance = torch.exp(torch.xlogy(torch.as_tensor(float(count)), y) - y - math.lgamma(count + 1))
        mixed = share * (count + read_noise * points) + (1 - share) * y[:, None]
        total += chance * (_root(mixed, read_noise, share) @ weights)
    return total


def _root(electrons: Tensor, read_noise: float, share: float) -> Tensor:
    return 2 * (electrons / share**2 + (0.375 + (read_noise / share) ** 2)).clamp(min=0).sqrt()


@lru_cache(maxsize=64)
def _table(read_noise: float, share: float) -> tuple[Tensor, Tensor]:
    """Mean electrons from 0 on, in rising order, and the means of the transform."""
    electrons = torch.linspace(0, math.sqrt(BRIGHT - read_noise**2), NODES, dtype=torch.float64) ** 2
    return electrons, mean_of_anscombe(electrons, read_noise, share)


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation of y over rising x, continued beyond both ends."""
    right = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    return y[left] + (at - x[left]) * (y[right] - y[left]) / (x[right] - x[left])
