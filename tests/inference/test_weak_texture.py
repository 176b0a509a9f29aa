"""The level of weak white noise, from the patches of a picture that have the least texture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from nlrn.inference.noise_level import estimate_noise
from nlrn.inference.weak_texture import RANK, SIDE, TRACE, weak_texture_level


def noisy(sigma, side=160):
    """A textured part of a photograph, in units of [0, 1], with noise in grey levels."""
    clean = data.camera()[100 : 100 + side, 160 : 160 + side].astype(np.float64)
    return (clean + np.random.default_rng(0).normal(0, sigma, clean.shape)) / 255


def seen(plane):
    return np.zeros(plane.shape, bool)


def test_constants_are_those_of_the_gradients_of_a_patch():
    rows = []
    for axis in (0, 1):
        for place in np.ndindex(SIDE, SIDE):
            if 0 < place[axis] < SIDE - 1:
                row = np.zeros((SIDE, SIDE))
                for step in (-1, 1):
                    row[tuple(p + step * (i == axis) for i, p in enumerate(place))] = step / 2
                rows.append(row.ravel())
    product = np.array(rows).T @ np.array(rows)
    assert (np.linalg.matrix_rank(product), np.trace(product)) == (RANK, TRACE)


@pytest.mark.parametrize("sigma", [2, 3, 5, 10, 20])
def test_texture_does_not_count(sigma):
    plane = noisy(sigma)
    assert 255 * weak_texture_level(plane, seen(plane)) == pytest.approx(sigma, rel=0.05, abs=0.5)


def test_the_estimate_of_weak_noise():
    """Wavelet details alone, where texture counts, have 4.0 and 2.6 here."""
    for sigma in (3, 1.5):
        image = torch.from_numpy(noisy(sigma))[None, None]
        assert 255 * estimate_noise(image).sigma == pytest.approx(sigma, abs=0.5)


def test_hidden_constant_and_cut_off_patches_do_not_count():
    plane = noisy(5)
    hidden = seen(plane)
    hidden[:60] = True
    for value in (0.0, 0.5, 1.0):
        plane[:60] = value
        assert 255 * weak_texture_level(plane, hidden) == pytest.approx(5, abs=0.5)
        assert 255 * weak_texture_level(plane, seen(plane)) == pytest.approx(5, abs=0.5)
    plane[:60] = noisy(1)[:60]
    assert 255 * weak_texture_level(plane, hidden) == pytest.approx(5, abs=0.5)
    assert weak_texture_level(np.full((40, 40), 0.5), seen(plane[:40, :40])) is None


@pytest.mark.parametrize("side", [36, 48, 96])
def test_few_patches_do_not_read_low(side):
    noise = np.random.default_rng(0).normal(0, 0.04, (side, side))
    assert weak_texture_level(0.5 + noise, seen(noise)) == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize(("picture", "sigma"), [("camera", 25), ("coins", 50), ("moon", 50)])
def test_noise_that_was_cut_off_beside_the_patches(picture, sigma):
    """The patches without cut-off values have less: 23.4, 47.4 and 47.1."""
    clean = getattr(data, picture)()[:160, :160].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    plane = np.clip(np.rint(clean + noise), 0, 255) / 255
    assert 255 * weak_texture_level(plane, seen(plane)) == pytest.approx(sigma, rel=0.03)
    assert estimate_noise(torch.from_numpy(plane)[None, None]).warnings == ()
