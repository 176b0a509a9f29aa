"""JPEG as tensor arithmetic against libjpeg (Pillow)."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from nlrn.degradations.jpeg import at_random_phase, jpeg


def peer(pixels: np.ndarray, quality: int, subsample: bool = True) -> np.ndarray:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    return np.asarray(PillowImage.open(buffer)).astype(float)


def ours(pixels: np.ndarray, quality: int, subsample: bool = True) -> np.ndarray:
    planes = torch.from_numpy(np.moveaxis(np.atleast_3d(pixels), -1, 0).copy())[None] / 255
    result = 255 * jpeg(planes, torch.tensor([float(quality)]), subsample=subsample)[0]
    return np.moveaxis(result.numpy(), 0, -1).reshape(pixels.shape)


def rms(a: np.ndarray, b: np.ndarray | float) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("quality", [5, 10, 40, 75, 95])
def test_grey(quality):
    from skimage.data import camera

    pixels = camera()[100:260, 150:333]
    expected = peer(pixels, quality)
    difference = np.abs(ours(pixels, quality) - expected)
    # libjpeg's cosines are of integers: a coefficient half-way between two steps may go the other way.
    assert (difference > 1).mean() < 0.04
    assert rms(difference, 0) < 0.4 * rms(pixels, expected)


@pytest.mark.parametrize("quality", [10, 50, 95])
@pytest.mark.parametrize("subsample", [True, False])
def test_colour(quality, subsample):
    from skimage.data import astronaut

    pixels = astronaut()[40:200, 150:333]
    expected = peer(pixels, quality, subsample)
    difference = rms(ours(pixels, quality, subsample), expected)
    assert difference < 2
    assert difference < 0.4 * rms(pixels, expected)


def test_each_image_its_own_quality():
    images = torch.rand(3, 1, 24, 16)
    together = jpeg(images, torch.tensor([5.0, 50.0, 90.0]))
    for i, quality in enumerate([5.0, 50.0, 90.0]):
        assert torch.equal(together[i : i + 1], jpeg(images[i : i + 1], torch.tensor([quality])))


def test_the_grid_may_lie_anywhere():
    """Where blocks begin differs between images and draws; a constant picture stays as it is."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.1, 0.9, 64).expand(8, 1, 64, 64)
    moved = at_random_phase(ramp, torch.full((8,), 5.0), generator, subsample=True)
    steps = (moved[:, 0, 32, 17:47].diff(dim=1).abs() > 0.02).float()
    assert len({tuple(row.tolist()) for row in steps}) > 2
    flat = torch.full((2, 3, 32, 32), 128 / 255)
    assert torch.equal(at_random_phase(flat, torch.full((2,), 50.0), generator, subsample=True), flat)


def test_refusals():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        jpeg(torch.rand(1, 2, 8, 8), torch.tensor([50.0]))
    with pytest.raises(ValueError, match=r"quality must be \[2\], one per image"):
        jpeg(torch.rand(2, 1, 8, 8), torch.tensor([50.0]))
