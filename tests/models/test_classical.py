"""What every classical denoiser must keep, what each gains, and non-local means against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as pictures
from skimage.restoration import denoise_nl_means

from nlrn import denoise, load_model
from nlrn.evaluation.metrics import psnr
from nlrn.models.classical.gaussian import GaussianConfig, GaussianSmoothing
from nlrn.models.classical.nlm import NLM, NLMConfig
from nlrn.models.classical.nonlocal_mean import NonLocalMean, NonLocalMeanConfig
from nlrn.models.classical.tv import TV, TVConfig
from nlrn.models.classical.wavelet import Wavelet, WaveletConfig

MODELS = [GaussianSmoothing(), TV(), Wavelet(), NLM(), NonLocalMean()]
# How far a flipped or turned image may lie from the flipped or turned result, at sigma 25.
SYMMETRY = {"gaussian": 1e-6, "tv": 0.12, "wavelet": 0.2, "nlm": 1e-5, "nonlocal": 1e-5}
# Gain in dB over the noisy image at sigma 15, 25 and 50, on the picture below.
LEAST = {
    "gaussian": (0.2, 2.4, 5.9),
    "tv": (7.5, 8.1, 9.1),
    "wavelet": (2.2, 3.5, 6.3),
    "nlm": (6.9, 7.7, 8.7),
    "nonlocal": (5.5, 6.5, 7.5),
}

each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def noisy(clean, sigma, seed=0):
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def picture(channels=1):
    """A generated picture: shading, a disc, stripes and a chequered corner."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 88), indexing="ij")
    plane = 0.3 + 0.4 * x * y
    plane = torch.where((y - 0.5) ** 2 + (x - 0.6) ** 2 < 0.06, 0.85, plane)
    plane = torch.where((x < 0.3) & (y > 0.4), 0.5 + 0.3 * torch.sign(torch.sin(40 * (x + y))), plane)
    plane = torch.where(
        (x < 0.3) & (y < 0.3), 0.3 + 0.2 * torch.sign(torch.sin(60 * x) * torch.sin(60 * y)), plane
    )
    return torch.stack([plane * c for c in (1.0, 0.8, 0.9)[:channels]])[None].float()


@each_model
@pytest.mark.parametrize("channels", [1, 3])
def test_gain(model, channels):
    clean = picture(channels)
    for sigma, least in zip((15, 25, 50), LEAST[model.name], strict=True):
        degraded = noisy(clean, sigma / 255)
        restored = model(degraded, sigma / 255)
        before, after = (
            psnr(x[0].movedim(0, 2).numpy(), clean[0].movedim(0, 2).numpy(), 1) for x in (degraded, restored)
        )
        assert after - before > least, sigma


@each_model
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 500), (17, 9), (64, 64)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_constant_image_stays(model, size, dtype):
    image = torch.full((1, 3, *size), 0.4, dtype=dtype)
    restored = model(image, 0.1)
    assert restored.dtype == dtype
    torch.testing.assert_close(restored, image, rtol=0, atol=5e-5)


@each_model
def test_any_size(model):
    for size in ((1, 1), (1, 500), (500, 1), (5, 30), (9, 11)):
        image = noisy(torch.full((1, 1, *size), 0.5), 0.05)
        restored = model(image, 0.05)
        assert restored.shape == image.shape
        assert torch.isfinite(restored).all()


@each_model
def test_flips_and_rotations(model):
    image = noisy(picture(), 0.1)[..., :48, :64]
    restored = model(image, 0.1)
    for move in (lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.mT, lambda x: x.rot90(1, (2, 3))):
        assert (model(move(image), 0.1) - move(restored)).abs().max() < SYMMETRY[model.name]


@each_model
def test_a_batch_with_levels_of_its_own(model):
    images = torch.cat([noisy(picture(), 0.1), noisy(picture(), 0.2, seed=1)])[..., :40, :50]
    levels = torch.tensor([0.1, 0.2])
    together = model(images, levels)
    for i in range(2):
        assert torch.equal(together[i : i + 1], model(images[i : i + 1], levels[i].item()))


@each_model
def test_float64(model):
    image = noisy(picture(), 0.1)[..., :40, :50]
    single, double = model(image, 0.1), model(image.double(), 0.1)
    assert (single - double).abs().max() < 1e-4
    half = model(image.half(), 0.1)
    assert half.dtype == torch.float16
    assert (half - double).abs().max() < 0.01


@each_model
def test_refuses(model):
    for image, sigma, message in (
        (torch.zeros(9, 9), 0.1, r"image must be \[B, .*C?.*, H, W\]"),
        (torch.zeros(1, 1, 0, 9), 0.1, "not empty, got shape .1, 1, 0, 9. of torch.float32"),
        (torch.zeros(1, 1, 9, 9, dtype=torch.uint8), 0.1, "floating point"),
        (torch.zeros(1, 1, 9, 9), None, f"{model.name} needs sigma"),
        (torch.zeros(1, 1, 9, 9), -0.1, r"sigma must be finite and >= 0, got \[-0.1\]"),
        (torch.zeros(1, 1, 9, 9), float("nan"), r"sigma must be finite and >= 0, got \[nan\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model(image, sigma)
    with pytest.raises(ValueError, match=f"{model.name} has no steps to choose from, got steps=4"):
        model.info.check_steps(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NLM(NLMConfig(patch_size=4)), "patch_size must be odd and positive, got 4"),
        (lambda: NLM(NLMConfig(window_size=0)), "size must be odd and positive, got 0"),
        (lambda: NLM(NLMConfig(h=-1.0)), "h must be > 0, got -1.0"),
        (
            lambda: NonLocalMean(NonLocalMeanConfig(patch_size=4)),
            "patch_size must be odd and positive, got 4",
        ),
        (lambda: NonLocalMean(NonLocalMeanConfig(h=-1.0)), "h must be > 0, got -1.0"),
        (lambda: GaussianConfig(spread=0.0), "spread must be > 0 and finite, got 0.0"),
        (lambda: TVConfig(weight=-2.0), "weight must be > 0 and finite, got -2.0"),
        (lambda: TVConfig(max_iterations=0), "max_iterations must be at least 1, got 0"),
        (lambda: WaveletConfig(levels=0), "levels must be at least 1, got 0"),
        (lambda: Wavelet(WaveletConfig("none")), "must be one that PyWavelets knows, got 'none'"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def nlm_by_definition(image, config, sigma):
    """float64 `[H, W]`, window by window."""
    affinity = config.affinity(sigma)
    size, radius, reach = config.patch_size, config.patch_size // 2, config.window_size // 2
    height, width = image.shape
    patches = np.lib.stride_tricks.sliding_window_view(np.pad(image, radius, mode="reflect"), (size, size))
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * affinity.patch_sigma**2))
    weights /= weights.sum()
    restored = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            window = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
            far = (weights * (patches[window] - patches[y, x]) ** 2).sum((2, 3))
            phi = np.exp(-far / affinity.h**2)
            restored[y, x] = (phi * image[window]).sum() / phi.sum()
    return restored


@pytest.mark.parametrize("sigma", [2, 25, 75])
def test_non_local_means_by_definition(sigma):
    image = noisy(picture(), sigma / 255)[..., 30:62, :40]
    expected = nlm_by_definition(image[0, 0].double().numpy(), NLMConfig(), sigma / 255)
    assert np.abs(NLM()(image, sigma / 255)[0, 0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_by_scikit_image(channels):
    """Its patch weights have a standard deviation of `(patch_size - 1) / 4`; inside, where no border rule matters.

    Its weights below exp(-5) are 0: h is so large that there are none.
    """
    pixels = pictures.astronaut()[60:120, 160:220] / np.float32(255)
    clean = torch.from_numpy(pixels).movedim(2, 0)[None][:, :channels]
    image = noisy(clean, 0.1)
    ours = NLM(NLMConfig(patch_size=7, window_size=21, h=0.3, patch_sigma=1.5))(image, 0.1)
    array = image[0].movedim(0, 2).numpy()
    theirs = denoise_nl_means(
        array.squeeze(), 7, 10, 0.3, fast_mode=False, channel_axis=-1 if channels == 3 else None
    )
    assert np.abs(ours[0].movedim(0, 2).squeeze().numpy() - theirs)[13:-13, 13:-13].max() < 2e-3


def test_far_pixels_change_nothing():
    image, reach = noisy(picture(), 0.1), 10 + 2
    other = image.clone()
    other[..., :20, :] = other[..., :20, :].flip(3)
    a, b = (NLM()(x, 0.1) for x in (image, other))
    assert (a - b)[..., :20, :].abs().max() > 0.01
    assert (a - b)[..., 20 + reach :, :].abs().max() < 1e-6


@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_as_a_model_by_name(name):
    assert load_model(name).name == name
    pixels = (255 * noisy(picture(3), 0.1)[0].movedim(0, 2).clamp(0, 1)).round().byte().numpy()[:32, :32]
    restored = denoise(pixels, sigma=25, model=name)
    assert restored.shape == pixels.shape
    assert restored.std() < pixels.std()
