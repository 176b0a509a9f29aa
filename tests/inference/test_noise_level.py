"""The estimate behind sigma="auto"."""

from __future__ import annotations

import numpy as np
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
    estimate = estimate_noise(noisy(50, 0.02).clip(0, 1))
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


def within(level: float, inner: torch.Tensor, side: int = 160) -> torch.Tensor:
    """A picture in the middle of a constant area."""
    page = torch.full((1, 1, side, side), level)
    low = (side - inner.shape[-1]) // 2
    page[..., low : low + inner.shape[-1], low : low + inner.shape[-1]] = inner
    return page


@pytest.mark.parametrize("level", [0.0, 1 / 3, 0.7, 1.0])
def test_constant_areas_do_not_count(level):
    estimate = estimate_noise(within(level, noisy(25, shape=(1, 1, 80, 80))))
    assert 255 * estimate.sigma == pytest.approx(25, rel=0.06)
    assert 0.15 < estimate.used < 0.3
    assert estimate.warnings == ()


def test_too_little_of_the_picture_is_said():
    estimate = estimate_noise(within(1.0, noisy(25, shape=(1, 1, 32, 32))))
    assert "of the picture, as the rest is constant or hidden" in estimate.warnings[0]


def test_an_estimate_from_single_pixels_on_black_is_said():
    stars = torch.zeros(1, 1, 64, 64)
    stars[0, 0, 31, 31] = 0.8
    estimate = estimate_noise(stars, drawings=False)
    assert estimate.sigma > 0
    assert "of the picture, as the rest is constant or hidden" in estimate.warnings[0]


def test_hidden_areas_do_not_count():
    image, hidden = noisy(25), torch.zeros(1, 1, 256, 256, dtype=torch.bool)
    image[..., 40:] = 0.5 + torch.linspace(0, 0.1, 216)
    hidden[..., 40:] = True
    assert 255 * estimate_noise(image, hidden).sigma == pytest.approx(25, rel=0.06)
    assert 255 * estimate_noise(image).sigma < 5


def test_the_edges_of_a_drawing_are_no_noise():
    drawing = torch.ones(1, 1, 128, 128)
    for row in range(4, 120, 8):
        drawing[..., row : row + 2, row // 2 :] = 0.2
        drawing[..., :, row] = 0.1
    assert estimate_noise(drawing).sigma == 0
    assert estimate_noise(drawing).drawing
    assert not estimate_noise(noisy(25)).drawing


def test_whiteness():
    white = noisy(10)
    shared = 0.5 + torch.nn.functional.avg_pool2d(white - 0.5, 3, 1, 1) * 3
    assert estimate_noise(white).whiteness > 0.95
    assert estimate_noise(shared).whiteness < 0.6


def test_where_noise_is_cut_off_the_rest_decides():
    image = noisy(25)
    image[..., 100:] = (image[..., 100:] + 0.45).clip(0, 1)  # a sky at its white
    assert 255 * estimate_noise(image).sigma == pytest.approx(25, rel=0.04)


def fine_structure():
    y, x = np.mgrid[:96, :96]
    return {
        "hatching": np.where((x + y) % 4 == 0, 40, 220),
        "thin-lines": np.where(((x + y) % 9 == 0) | (x % 13 == 0), 20, 230),
        "checkerboard": np.where((x // 2 + y // 2) % 2 == 0, 90, 160),
        "two-pixel-modules": np.kron(
            np.random.default_rng(0).integers(0, 2, (48, 48)) * 255, np.ones((2, 2), int)
        ),
    }


@pytest.mark.parametrize("name", fine_structure())
def test_fine_structure_without_noise_is_a_drawing(name):
    """It read as noise of up to 100 grey levels, and its restoration was a grey area."""
    estimate = estimate_noise(torch.from_numpy(fine_structure()[name] / 255)[None, None])
    assert estimate.drawing
    assert estimate.sigma == 0


@pytest.mark.parametrize("name", ["hatching", "checkerboard"])
@pytest.mark.parametrize("sigma", [5, 10])
def test_noise_on_repeated_structure(name, sigma):
    """Patches have directions without structure; the finest details have none."""
    clean = fine_structure()[name]
    noisy = (clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)).clip(0, 255).round()
    estimate = estimate_noise(torch.from_numpy(noisy / 255)[None, None])
    assert 255 * estimate.sigma == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [25, 50, 75])
def test_strong_noise_on_black_and_white_is_noise(sigma):
    """Half of it is cut off, and the rest has more than a few levels."""
    clean = np.kron(np.random.default_rng(0).integers(0, 2, (6, 6)) * 255, np.ones((16, 16), int))
    noisy = (clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)).clip(0, 255).round()
    estimate = estimate_noise(torch.from_numpy(noisy / 255)[None, None])
    assert not estimate.drawing
    assert estimate.sigma > 0.45 * sigma / 255


@pytest.mark.parametrize("photons", [1, 4, 16])
def test_counts_of_few_photons_are_no_drawing(photons):
    """Their levels are few, and evenly spaced."""
    counts = np.random.default_rng(0).poisson(photons * np.linspace(0.5, 1, 96) * np.ones((96, 1)))
    estimate = estimate_noise(torch.from_numpy(counts / counts.max())[None, None])
    assert not estimate.drawing
    assert estimate.sigma * counts.max() == pytest.approx((0.75 * photons) ** 0.5, rel=0.35)
