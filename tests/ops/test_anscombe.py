"""The Anscombe transform against integrals of its own, and its inverse against counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nlrn.ops.anscombe import SensorNoise, anscombe, inverse_anscombe, mean_of_anscombe

LEVELS = (0.0, 0.05, 0.5, 1.0, 3.0, 10.0, 40.0, 300.0, 1e4)


def integral(electrons: float, read_noise: float, share: float) -> float:
    """E[f(x) | y] by SciPy's distributions; the read noise in 20001 steps."""
    counts = np.arange(int(electrons + 12 * math.sqrt(electrons)) + 40)
    chances = stats.poisson.pmf(counts, electrons)
    points, weights = np.zeros(1), np.ones(1)
    if read_noise:
        points = np.linspace(-7, 7, 20001)
        weights = stats.norm.pdf(points) / stats.norm.pdf(points).sum()
    total = 0.0
    for count, chance in zip(counts, chances, strict=True):
        if chance > 1e-12:
            mixed = share * (count + read_noise * points) + (1 - share) * electrons
            inside = mixed / share**2 + 3 / 8 + (read_noise / share) ** 2
            total += chance * float((2 * np.sqrt(np.maximum(inside, 0)) * weights).sum())
    return total


@pytest.mark.parametrize("values", [[-5.0, 0.0, 7.0, 1000.0]])
def test_transform(values):
    """The formula of Starck, Murtagh and Bijaoui, in units of the data."""
    noise = SensorNoise(gain=2.0, read_noise=3.0, offset=1.0)
    expected = [2 / 2 * math.sqrt(max(0.0, 2 * (x - 1) + 3 / 8 * 4 + 9)) for x in values]
    assert anscombe(torch.tensor(values), noise).tolist() == pytest.approx(expected)


def test_transform_of_integers_is_float64():
    assert anscombe(torch.tensor([1, 2], dtype=torch.uint8), SensorNoise(1.0)).dtype is torch.float64


@pytest.mark.parametrize("read_noise", [0.0, 0.4, 1.0, 3.0, 7.9, 9.0])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_inverse_is_exact(read_noise, share):
    """From the mean of the transform to the electrons, for tables and beyond them."""
    levels = [y for y in LEVELS if y <= 40] if read_noise else LEVELS
    means = torch.tensor([integral(y, read_noise, share) for y in levels], dtype=torch.float64)
    found = inverse_anscombe(means, SensorNoise(1.0, read_noise), share)
    assert found.tolist() == pytest.approx(levels, abs=4e-3, rel=1e-4)


@pytest.mark.parametrize("read_noise", [0.0, 2.0])
def test_mean_of_the_transform(read_noise):
    found = mean_of_anscombe(torch.tensor([0.0, 0.7, 12.0]), read_noise)
    expected = [integral(y, read_noise, 1.0) for y in (0.0, 0.7, 12.0)]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


def test_units():
    """Gain and offset scale and shift, and nothing else."""
    stabilized = torch.linspace(0.5, 60, 50, dtype=torch.float64)
    electrons = inverse_anscombe(stabilized, SensorNoise(1.0, 1.5))
    units = inverse_anscombe(stabilized, SensorNoise(0.02, 0.03, -4.0))
    assert torch.allclose(units, -4 + 0.02 * electrons, atol=1e-12)


@pytest.mark.parametrize("noise", [SensorNoise(1.0), SensorNoise(2.5, 4.0, 100.0)], ids=["counts", "sensor"])
@pytest.mark.parametrize("electrons", [0.5, 1.0, 2.0, 5.0, 20.0, 1000.0, 10000.0])
def test_mean_of_a_flat_field(noise, electrons):
    """The mean of a million transformed values becomes their mean: within 0.5% and four standard errors."""
    rng = np.random.default_rng(3)
    counts = rng.poisson(electrons, 1_000_000)
    values = noise.offset + noise.gain * counts + noise.read_noise * rng.standard_normal(len(counts))
    found = float(inverse_anscombe(anscombe(torch.from_numpy(values), noise).mean(), noise)) - noise.offset
    error = 4 * math.sqrt(noise.gain**2 * electrons + noise.read_noise**2) / 1000
    assert found == pytest.approx(noise.gain * electrons, abs=error + 0.005 * noise.gain * electrons)


def test_algebraic_inverse_would_fail_that():
    counts = np.random.default_rng(3).poisson(1.0, 1_000_000)
    mean = float(anscombe(torch.from_numpy(counts), SensorNoise(1.0)).mean())
    assert (mean / 2) ** 2 - 3 / 8 < 0.85


@pytest.mark.parametrize("electrons", [5.0, 30.0, 1000.0])
def test_variance_is_one(electrons):
    counts = torch.from_numpy(np.random.default_rng(0).poisson(electrons, 200_000))
    assert float(anscombe(counts, SensorNoise(1.0)).std()) == pytest.approx(1, abs=0.02)


def test_inverse_rises_and_has_no_step():
    """Also where the table ends, and below the value of no electrons."""
    for read_noise in (0.0, 1.0, 4.0):
        d = torch.linspace(0, 40, 40001, dtype=torch.float64)
        steps = inverse_anscombe(d, SensorNoise(1.0, read_noise)).diff()
        assert float(steps.min()) > 0
        assert float(steps.diff().abs().max()) < 3e-3
    assert float(inverse_anscombe(torch.tensor(1.0), SensorNoise(1.0))) < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gain": 0.0}, "gain must be finite and > 0, got 0"),
        ({"gain": math.nan}, "gain must be finite and > 0, got nan"),
        ({"gain": 1.0, "read_noise": -1.0}, "read_noise must be finite and >= 0, got -1"),
        ({"gain": 1.0, "offset": math.inf}, "offset must be finite, got inf"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SensorNoise(**arguments)


def test_variance():
    noise = SensorNoise(2.0, 3.0, 10.0)
    assert noise.variance(torch.tensor([10.0, 20.0, -1000.0])).tolist() == [9.0, 29.0, 0.0]
    assert noise.intercept == -11
