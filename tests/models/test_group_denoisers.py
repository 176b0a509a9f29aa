"""WNNM and SSC: singular values against NumPy, and what a denoiser of groups must keep. BM3D has tests of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as pictures

from nlrn import load_model
from nlrn.evaluation.metrics import psnr
from nlrn.models.classical.group_denoiser import Passes
from nlrn.models.classical.low_rank import LowRankConfig, eigh
from nlrn.models.classical.ssc import SSC
from nlrn.models.classical.wnnm import WNNM
from nlrn.ops.groups import Grouping, filter_groups
from nlrn.ops.patches import extract_patches

# Few and small groups: a second for an image of 50x60.
SMALL = {"stride": 5, "search_size": 21, "iterations": 3}
MODELS = [WNNM(LowRankConfig(weight=4, **SMALL)), SSC(LowRankConfig(weight=1.5, **SMALL))]
# Gain in dB over the noisy image at sigma 15, 25 and 50 of the parameters above.
LEAST = {"wnnm": (4, 5, 8), "ssc": (4, 5, 8)}

each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def noisy(clean, sigma, seed=0):
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return clean + sigma * noise.to(clean)


def picture(channels=1):
    pixels = pictures.astronaut()[40:100, 170:230] / np.float32(255)
    planes = torch.from_numpy(pixels).movedim(2, 0)[None]
    return planes if channels == 3 else planes.mean(1, keepdim=True)


def by_svd(name, matrix, sigma, weight):
    """The group that takes the place of a float64 matrix, by the formulas of the papers."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    count = len(matrix)
    for i, value in enumerate(values):
        if name == "wnnm":
            root = value**2 - 4 * weight * np.sqrt(count) * sigma**2
            values[i] = (value + np.sqrt(root)) / 2 if root > 0 else 0
        else:
            variance = value**2 / count - sigma**2
            threshold = weight * np.sqrt(count) * sigma**2 / np.sqrt(variance) if variance > 0 else np.inf
            values[i] = max(value - threshold, 0)
    return (u * values) @ v


@each_model
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6), (1, 4), (4, 1)], ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 5e-4)], ids=str)
def test_groups_by_numpy(model, shape, dtype, bound):
    matrices = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    level = torch.linspace(0.05, 0.9, 6, dtype=torch.float64).view(2, 3)
    actual, weights = model.shrink(matrices.to(dtype), level.to(dtype))
    assert weights.shape == level.shape
    for at in np.ndindex(2, 3):
        expected = by_svd(model.name, matrices[at].numpy(), level[at].item(), model.config.weight)
        assert np.abs(actual[at].numpy() - expected).max() < bound
    assert (actual - matrices).abs().max() > 0.1


@each_model
def test_groups_without_noise_stay_and_zeros_stay_zeros(model):
    matrices = torch.randn(3, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(model.shrink(matrices, torch.zeros(3, dtype=torch.float64))[0], matrices)
    for level in (0.0, 1.0):
        assert model.shrink(torch.zeros(2, 5, 4), torch.full((2,), level))[0].abs().max() == 0


def test_wnnm_is_a_fixed_point():
    """`s = s_Y - w`: the minimum of `(s_Y - s)^2 / 2 + w s` with the weight w = C / s."""
    model, matrix = WNNM(LowRankConfig(weight=1)), torch.randn(7, 4, dtype=torch.float64)
    level = torch.tensor(0.2, dtype=torch.float64)
    before = torch.linalg.svdvals(matrix)
    after = torch.linalg.svdvals(model.shrink(matrix[None], level[None])[0][0])
    kept = after > 1e-9
    assert kept.any()
    torch.testing.assert_close(after[kept], (before - 7**0.5 * level**2 / after)[kept])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_eigenvalues_on_several_threads(threads, count):
    matrices = torch.randn(2, count, 5, 5, dtype=torch.float64)
    matrices = matrices @ matrices.mT
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        values, vectors = eigh(matrices)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrices))
    torch.testing.assert_close((vectors * values[..., None, :]) @ vectors.mT, matrices)


@each_model
@pytest.mark.parametrize("channels", [1, 3])
def test_gain(model, channels):
    clean = picture(channels)
    for sigma, least in zip((15, 25, 50), LEAST[model.name], strict=True):
        degraded = noisy(clean, sigma / 255)
        restored = model(degraded, sigma / 255)
        before, after = (
            psnr(x[0].movedim(0, 2).squeeze().numpy(), clean[0].movedim(0, 2).squeeze().numpy(), 1)
            for x in (degraded, restored)
        )
        assert after - before > least, sigma


def test_the_threshold_of_ssc():
    """Three times as strong a one loses 0.3 dB."""
    clean = picture()
    degraded = noisy(clean, 25 / 255)
    before, after = (
        psnr(x[0, 0].numpy(), clean[0, 0].numpy(), 1) for x in (degraded, SSC()(degraded, 25 / 255))
    )
    assert after - before > 7.45


@each_model
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 500), (17, 9), (30, 40)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_constant_image_stays(model, size, dtype):
    image = torch.full((1, 3, *size), 0.4, dtype=dtype)
    restored = model(image, 0.1)
    assert restored.dtype == dtype
    torch.testing.assert_close(restored, image, rtol=0, atol=1e-3 if dtype == torch.float16 else 5e-5)


@each_model
def test_any_size(model):
    for size in ((1, 1), (1, 500), (500, 1), (5, 30), (9, 11), (64, 64)):
        image = noisy(torch.full((1, 1, *size), 0.5), 0.05)
        restored = model(image, 0.05)
        assert restored.shape == image.shape
        assert torch.isfinite(restored).all()
        assert restored.std(correction=0) <= image.std(correction=0)


@each_model
def test_float64(model):
    image = noisy(picture(), 0.1)
    single, double = model(image, 0.1), model(image.double(), 0.1)
    assert double.dtype == torch.float64
    # A singular value may fall on the other side of a threshold.
    assert (single - double).abs().mean() < 1e-4


@each_model
def test_flips(model):
    """Reference patches lie on a grid from the upper left, so a flipped image has others."""
    image = noisy(picture(), 0.1)
    restored = model(image, 0.1)
    for move in (lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.mT):
        difference = (model(move(image), 0.1) - move(restored)).square().mean().sqrt()
        assert difference < 0.02
    assert (model(image.mT, 0.1) - restored).square().mean().sqrt() > 0.05


@pytest.mark.parametrize("method", [WNNM, SSC])
def test_far_pixels_change_nothing(method):
    model = method(LowRankConfig(1, patch_size=4, count=5, stride=3, search_size=9, iterations=2))
    reach = model.info.halo
    assert reach == 2 * 2 * (3 + 4)
    image = noisy(torch.full((1, 1, 120, 20), 0.5), 0.1)
    other = image.clone()
    other[..., :10, :] = other[..., :10, :].flip(3)
    a, b = (model(x, 0.1) for x in (image, other))
    assert (a - b)[..., :10, :].abs().max() > 0.01
    assert torch.equal(a[..., 10 + reach :, :], b[..., 10 + reach :, :])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRankConfig(1, patch_size=0), "patch_size must be at least 1, got 0"),
        (lambda: LowRankConfig(1, search_size=20), "search_size must be odd, got 20"),
        (lambda: LowRankConfig(1, iterations=0), "passes must be at least 1, got 0"),
        (lambda: LowRankConfig(-1), "weight must be > 0 and finite, got -1"),
        (lambda: Passes(1, 1.5, 0.5), r"feedback must lie in \[0, 1\], got 1.5"),
        (lambda: Passes(1, 0.1, float("nan")), r"noise must lie in \[0, 1\], got nan"),
        (lambda: WNNM()(torch.zeros(1, 2, 9, 9), 0.1), r"must be \[B, 1 or 3, H, W\], .* got shape"),
        (lambda: SSC()(torch.zeros(1, 1, 9, 9)), "ssc needs sigma"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parameters_by_sigma():
    sizes = [WNNM().config.grouping(sigma / 255) for sigma in (5, 20, 25, 50, 75)]
    assert [grouping.patch_size for grouping in sizes] == [6, 6, 7, 8, 9]
    assert [grouping.count for grouping in sizes] == [70, 70, 90, 120, 140]


@pytest.mark.parametrize("size", [(6, 5), (20, 31), (9, 40)], ids=str)
def test_groups_that_are_not_changed_give_the_image(size):
    image = torch.rand(2, *size, dtype=torch.float64)
    grouping = Grouping(4, 3, 9, 30).within(*size)

    def same(positions, distances):
        assert distances.isfinite().all()
        at = positions.flatten()
        yield at, extract_patches(image, at, 4), torch.rand(2, at.numel(), dtype=torch.float64) + 0.1

    torch.testing.assert_close(filter_groups(image[0], 2, grouping, same), image)


@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_as_a_model_by_name(name):
    assert load_model(name).info.name == name
