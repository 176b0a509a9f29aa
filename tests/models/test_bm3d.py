"""BM3D: its transforms, and what any denoiser must keep. The literature's PSNR is in tests/evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as pictures

from nlrn import dejpeg, denoise, load_model
from nlrn.evaluation.metrics import psnr
from nlrn.models.classical.bm3d import BM3D, BM3DConfig, bior15, dct, haar
from nlrn.models.weights_file import ModelError


def noisy(clean, sigma, seed=0):
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def picture(channels):
    pixels = pictures.astronaut()[40:168, 150:290] / np.float32(255)
    planes = torch.from_numpy(pixels).movedim(2, 0)[None]
    return planes if channels == 3 else planes.mean(1, keepdim=True)


@pytest.mark.parametrize("transform", [dct, haar])
@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_orthonormal_transforms(transform, size):
    rows = transform(size)
    torch.testing.assert_close(rows @ rows.T, torch.eye(size, dtype=torch.float64))
    assert (rows[0] - size**-0.5).abs().max() < 1e-12


def test_wavelet():
    """It separates a constant from the rest, and can be undone."""
    rows = bior15(8)
    constant = rows @ torch.ones(8, dtype=torch.float64)
    assert constant[1:].abs().max() < 1e-9
    assert constant[0] == pytest.approx(8**0.5)
    torch.testing.assert_close(torch.linalg.vector_norm(rows, dim=1), torch.ones(8, dtype=torch.float64))
    assert torch.linalg.cond(rows) < 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("sigma", "least"), [(15, 6), (25, 8), (50, 11)])
def test_gain(channels, sigma, least):
    clean = picture(channels)
    degraded = noisy(clean, sigma / 255)
    restored = BM3D()(degraded, sigma / 255)
    gain = psnr(restored.numpy()[0, 0], clean.numpy()[0, 0], 1) - psnr(
        degraded.numpy()[0, 0], clean.numpy()[0, 0], 1
    )
    assert gain > least


@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_stays(channels):
    image = torch.full((1, channels, 20, 33), 0.4)
    torch.testing.assert_close(BM3D()(image, 0.1), image, rtol=0, atol=5e-5)


def test_far_pixels_change_nothing():
    """In each stage a pixel sees patches, up to 7 pixels away, of groups whose patches lie up to 2 x 5 pixels apart."""
    model = BM3D(BM3DConfig(search_size=11, group_sizes=(4, 8)))
    image, reach = noisy(picture(1), 0.1), 2 * (7 + 2 * 5 + 7)
    other = image.clone()
    other[..., :20, :] = other[..., :20, :].flip(3)
    a, b = (model(x, 0.1) for x in (image, other))
    assert (a - b)[..., :20, :].abs().max() > 0.01
    assert torch.equal(a[..., 20 + reach :, :], b[..., 20 + reach :, :])


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (8, 8), (9, 11)], ids=str)
def test_small_images(size):
    image = noisy(torch.full((1, 3, *size), 0.5), 0.05)
    restored = BM3D()(image, 0.05)
    assert restored.shape == image.shape
    assert torch.isfinite(restored).all()


def test_a_batch_with_levels_of_its_own():
    images = torch.cat([noisy(picture(1), 0.1), noisy(picture(1), 0.2, seed=1)])[..., :40, :50]
    levels = torch.tensor([0.1, 0.2])
    together = BM3D()(images, levels)
    for i in range(2):
        assert torch.equal(together[i : i + 1], BM3D()(images[i : i + 1], levels[i].item()))


def test_sigma_0_changes_nothing():
    image = picture(3)
    assert torch.equal(BM3D()(image, 0.0), image)


def test_float64():
    image = noisy(picture(1), 0.1)[..., :50, :40]
    single, double = BM3D()(image, 0.1), BM3D()(image.double(), 0.1)
    assert double.dtype == torch.float64
    # A threshold may fall on the other side.
    assert (single - double).abs().mean() < 1e-4


@pytest.mark.parametrize(
    ("image", "sigma", "message"),
    [
        (
            torch.zeros(1, 2, 9, 9),
            0.1,
            r"must be \[B, 1 or 3, H, W\], floating point and not empty, got shape \(1, 2, 9, 9\)",
        ),
        (torch.zeros(1, 1, 9, 9), None, "bm3d needs sigma"),
        (torch.zeros(1, 1, 9, 9), -0.1, r"sigma must be finite and >= 0, got \[-0.1\]"),
        (torch.zeros(1, 1, 9, 9), float("nan"), r"sigma must be finite and >= 0, got \[nan\]"),
    ],
    ids=["channels", "none", "negative", "nan"],
)
def test_refuses(image, sigma, message):
    with pytest.raises(ValueError, match=message):
        BM3D()(image, sigma)


def test_other_parameters():
    config = BM3DConfig(patch_size=4, stride=2, search_size=11, group_sizes=(4, 8))
    clean = picture(1)
    degraded = noisy(clean, 0.1)
    assert (BM3D(config)(degraded, 0.1) - clean).square().mean() < 0.35 * (degraded - clean).square().mean()


def test_as_a_model_by_name():
    pixels = (255 * noisy(picture(3), 0.1)[0].movedim(0, 2).clamp(0, 1)).round().byte().numpy()[:40, :40]
    restored = denoise(pixels, sigma=25, model="bm3d")
    assert restored.shape == pixels.shape
    assert restored.std() < pixels.std()
    with pytest.raises(ValueError, match="bm3d has no steps to choose from, got steps=4"):
        denoise(pixels, sigma=25, model="bm3d", steps=4)
    with pytest.raises(ModelError, match="bm3d has no window to choose, got window_size=21"):
        load_model("bm3d", window_size=21)
    with pytest.raises(ModelError, match="bm3d is a model for denoise, not for dejpeg"):
        dejpeg(pixels, model="bm3d")
