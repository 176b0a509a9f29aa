"""Faults of a sensor are found, and stars, lines, photons and photographs are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlrn.ops.hot_pixels import hot_pixels, without_hot_pixels


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))[None, None]


def sky(rng: np.random.Generator, fwhm: float, fluxes: tuple[float, float]) -> np.ndarray:
    """1024 stars of 10**fluxes electrons anywhere between pixels, on a sky of 100."""
    image, width = np.full((320, 320), 100.0), fwhm / 2.3548
    y, x = np.mgrid[-5:6, -5:6]
    for row in range(5, 320, 10):
        for column in range(5, 320, 10):
            down, across = rng.uniform(-0.5, 0.5, 2)
            star = np.exp(-((y - down) ** 2 + (x - across) ** 2) / 2 / width**2) / (2 * np.pi * width**2)
            part = image[row - 5 : row + 6, column - 5 : column + 6]
            part += 10 ** rng.uniform(*fluxes) * star[: part.shape[0], : part.shape[1]]
    return rng.poisson(image) + 3 * rng.standard_normal(image.shape)


@pytest.mark.parametrize("fwhm", [2.0, 2.5, 4.0])
@pytest.mark.parametrize("fluxes", [(1, 3), (3, 5)], ids=["faint", "bright"])
def test_stars_survive(fwhm, fluxes):
    assert not hot_pixels(planes(sky(np.random.default_rng(0), fwhm, fluxes)), 1.0, 9.0).any()


def test_hardly_a_star_of_one_and_a_half_pixels_is_lost():
    found = hot_pixels(planes(sky(np.random.default_rng(0), 1.5, (2, 5))), 1.0, 9.0)
    assert int(found.sum()) <= 0.02 * 32 * 32


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_hot_and_dead_pixels_are_found(share):
    rng = np.random.default_rng(1)
    image = rng.poisson(400.0, (256, 256)) + 5 * rng.standard_normal((256, 256))
    faulty = rng.random(image.shape) < share
    image[faulty] += rng.choice([-380, 400, 2000, 50000], faulty.sum())
    found = hot_pixels(planes(image), 1.0, 25.0)[0, 0].numpy()
    assert (found & faulty).sum() > 0.95 * faulty.sum()
    assert not (found & ~faulty).any()


def test_neither_lines_nor_corners():
    image = np.full((40, 40), 50.0)
    image[5, 5:20] = 90  # a line of one pixel, with its ends
    image[np.arange(10, 20), np.arange(10, 20)] = 10
    image[25:, 25:] = 200
    assert not hot_pixels(planes(image), 0.0, 1.0).any()


@pytest.mark.parametrize("electrons", [0.01, 0.1, 0.5, 2.0, 30.0])
def test_photons_are_no_faults(electrons):
    counts = np.random.default_rng(2).poisson(electrons, (512, 512))
    assert not hot_pixels(planes(counts), 1.0, 0.0).any()


def test_hardly_any_in_a_photograph():
    from skimage.data import camera

    assert int(hot_pixels(planes(camera()), 0.0, 1.0).sum()) < 1e-4 * camera().size


@pytest.mark.parametrize("where", [(0, 0), (0, 4), (8, 8), (3, 0)], ids=str)
def test_border(where):
    image = torch.full((2, 3, 9, 9), 10, dtype=torch.uint16)
    image[1, 2][where] = 60000
    found = hot_pixels(image, 0.0, 1.0)
    assert found.nonzero().tolist() == [[1, 2, *where]]
    repaired = without_hot_pixels(image, found)
    assert repaired.dtype is torch.uint16
    assert (repaired.int() == 10).all()


def test_pair_and_replacement():
    image = torch.arange(81, dtype=torch.float64).view(1, 1, 9, 9)
    image[0, 0, 4, 4:6] = 1e6
    found = hot_pixels(image, 0.0, 1.0)
    assert found.nonzero().tolist() == [[0, 0, 4, 4], [0, 0, 4, 5]]
    before = image.clone()
    repaired = without_hot_pixels(image, found)
    assert torch.equal(image, before)
    # The median of 30, 31, 32, 39, 48, 49, 50, without the pixel beside.
    assert float(repaired[0, 0, 4, 4]) == 39
    assert torch.equal(repaired[~found], image[~found])


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 50)])
def test_images_too_small_have_none(shape):
    assert not hot_pixels(torch.rand(1, 1, *shape), 0.0, 0.0).any()


def test_large_integers_stay_exact():
    image = torch.full((1, 1, 9, 9), 2**62 + 1, dtype=torch.int64)
    assert torch.equal(without_hot_pixels(image, torch.zeros(1, 1, 9, 9, dtype=torch.bool)), image)
