"""PSNR and SSIM against the formula and against scikit-image, as the literature's MATLAB computes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from nlrn.evaluation.metrics import psnr, ssim


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, shape, dtype=np.uint8)
    noisy = np.clip(clean + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)
    return noisy, clean


@pytest.mark.parametrize("shape", [(32, 40), (32, 40, 3), (1, 1)])
def test_psnr(shape):
    noisy, clean = pair(shape)
    error = sum((float(a) - float(b)) ** 2 for a, b in zip(noisy.flat, clean.flat, strict=True)) / noisy.size
    assert psnr(noisy, clean) == pytest.approx(20 * math.log10(255 / math.sqrt(error)), abs=1e-10)


def test_psnr_of_identical_images():
    assert psnr(pair((8, 8))[0], pair((8, 8))[0]) == math.inf


def test_range():
    noisy, clean = pair((16, 16))
    assert psnr(noisy / 255, clean / 255, 1.0) == pytest.approx(psnr(noisy, clean))
    assert ssim(noisy / 255, clean / 255, 1.0) == pytest.approx(ssim(noisy, clean))


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3), (11, 11), (12, 40)])
def test_ssim(shape):
    noisy, clean = (image.astype(float) for image in pair(shape))

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        _, everywhere = structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            full=True,
        )
        return float(everywhere[5 : shape[0] - 5, 5 : shape[1] - 5].mean())

    planes = [(noisy, clean)] if len(shape) == 2 else [(noisy[..., c], clean[..., c]) for c in range(3)]
    expected = np.mean([similarity(a, b) for a, b in planes])
    assert ssim(noisy, clean) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match=r"same shape, got \(20, 20\) and \(20, 21\)"):
        metric(np.zeros((20, 20)), np.zeros((20, 21)))
    with pytest.raises(ValueError, match="HxW or HxWxC"):
        metric(np.zeros(20), np.zeros(20))


def test_ssim_needs_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels a side, got 30x10"):
        ssim(np.zeros((10, 30)), np.zeros((10, 30)))
