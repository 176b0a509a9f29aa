"""The spectrum of noise that rows, columns or neighbours share, from pictures whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import camera

from nlrn.inference.noise_spectrum import BLOCK, estimate_spectrum

CLEAN = camera()[:192, 200:392] / 255


def planes(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(values)).permute(2, 0, 1)[None]


def noisy(kind: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    white = random.normal(0, 0.02, CLEAN.shape)
    if kind == "rows":
        return CLEAN + white + random.normal(0, 0.05, (CLEAN.shape[0], 1))
    if kind == "columns":
        return CLEAN + white + random.normal(0, 0.05, (1, CLEAN.shape[1]))
    if kind == "low-pass":
        shared = gaussian_filter(white, 1)
        return CLEAN + 0.05 * shared / shared.std()
    return CLEAN + 2.5 * white


@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_offsets(kind):
    """Their level within 15%, none on the other axis, and the rest within 25%."""
    spectrum = estimate_spectrum(planes(noisy(kind)))
    found, other = (spectrum.rows, spectrum.columns)[:: 1 if kind == "rows" else -1]
    assert float(found) ** 0.5 == pytest.approx(0.05, rel=0.15)
    assert float(other) == 0
    assert float(spectrum.blocks.mean()) ** 0.5 == pytest.approx(0.02, rel=0.25)
    assert not spectrum.is_white
    assert f"offsets of {kind} 8" in spectrum.note


def test_white_noise_is_flat():
    spectrum = estimate_spectrum(planes(noisy("white")))
    assert spectrum.is_white
    assert spectrum.variance**0.5 == pytest.approx(0.05, rel=0.1)
    assert float(spectrum.blocks.std()) == pytest.approx(0)


def test_low_pass_noise():
    """Its power lies at low frequencies, and there is no more of it than 30% off."""
    spectrum = estimate_spectrum(planes(noisy("low-pass")))
    assert not spectrum.is_white
    assert spectrum.whiteness < 0.4
    assert spectrum.variance**0.5 == pytest.approx(0.05, rel=0.3)
    assert spectrum.blocks[0, 1, 1] > 100 * spectrum.blocks[0, BLOCK // 2, BLOCK // 2]


def test_clean_and_constant_pictures():
    assert estimate_spectrum(planes(np.full((40, 50), 0.3))).is_white
    ramp = estimate_spectrum(planes(np.linspace(0, 1, 64) * np.ones((48, 1))))
    assert float(ramp.rows) == float(ramp.columns) == 0


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (16, 33)], ids=str)
def test_grid(size):
    """Each part has its variance as the mean of the grid, whatever its size; the mean of a picture has no noise."""
    spectrum = estimate_spectrum(planes(noisy("rows")))
    grid = spectrum.on_grid(*size)
    assert grid.shape == (1, *size)
    assert float(grid.min()) > 0
    assert float(grid[:, 0, 0]) < 0.01 * float(grid[:, 1, 0])
    # Without the one frequency that is left to the picture.
    rows = float(spectrum.rows) * (size[0] - 1) / size[0]
    assert float(grid.mean()) == pytest.approx(float(spectrum.blocks.mean()) + rows, rel=2e-3)
    assert spectrum.scaled_to(0.2).variance == pytest.approx(0.04)


def test_hidden_pixels_do_not_count():
    """Stronger noise under a mask changes little, where without the mask it changes much."""
    values, mask = noisy("rows"), np.zeros(CLEAN.shape, bool)
    mask[20:120, 20:120] = True
    spoilt = np.where(mask, np.random.default_rng(1).normal(0.5, 0.3, CLEAN.shape), values)
    hidden = torch.from_numpy(mask)[None, None]
    spectrum = estimate_spectrum(planes(spoilt), hidden)
    assert float(spectrum.rows) ** 0.5 == pytest.approx(0.05, rel=0.2)
    assert float(spectrum.blocks.mean()) ** 0.5 == pytest.approx(0.02, rel=0.3)
    assert float(estimate_spectrum(planes(spoilt)).rows) < 0.8 * float(spectrum.rows)


def test_channels_have_their_own():
    values = np.stack([noisy("rows"), noisy("white"), noisy("columns")], -1)
    spectrum = estimate_spectrum(planes(values))
    assert spectrum.rows[0] > 0
    assert spectrum.columns[2] > 0
    assert not spectrum.rows[1:].any()


def test_too_small():
    with pytest.raises(
        ValueError, match=r"of a 31x40 image cannot be estimated \(it takes 32 pixels a side\)"
    ):
        estimate_spectrum(torch.rand(1, 1, 40, 31))
