"""The estimate behind sigma="auto"."""

from __future__ import annotations

import pytest
import torch

from nlrn.inference.noise_level import estimate_noise


def noisy(sigma: float, level: float = 0.5, shape: tuple[int, ...] = (1, 1, 256, 256)) -> torch.Tensor:
    return level + sigma / 255 * torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise(sigma, channels):
    estimate = estimate_noise(noisy(sigma, shape=(1, channels, 256, 256)))
    assert 255 * estimate.sigma == pytest.approx(sigma, rel=0.03)
    assert estimate.warnings == ()


def test_on_a_photograph():
    from skimage.data import camera

    image = torch.from_numpy(camera()).float()[None, None] / 255
    estimate = estimate_noise(image + noisy(25, 0.0, tuple(image.shape)))
    assert 255 * estimate.sigma == pytest.approx(25, rel=0.05)


def test_clipped_noise_reads_too_low_and_says_so():
    estimate = estimate_noise(noisy(50, 0.1).clip(0, 1))
    assert 255 * estimate.sigma < 45
    assert "clipped noise reads too low" in estimate.warnings[0]


def test_constant_image():
    assert estimate_noise(torch.ones(1, 1, 32, 32)).sigma < 1e-9
    assert estimate_noise(torch.ones(1, 1, 32, 32)).warnings == ()


@pytest.mark.parametrize("shape", [(15, 100), (100, 15), (1, 1)])
def test_too_small(shape):
    with pytest.raises(ValueError, match=f"{shape[1]}x{shape[0]} image cannot be estimated .* give sigma"):
        estimate_noise(torch.zeros(1, 1, *shape))


def test_smallest():
    assert estimate_noise(noisy(25, shape=(1, 1, 16, 16))).sigma > 0
