"""A noise level for each pixel: cut, turned and flipped as the image is, in every way of walking over it."""

from __future__ import annotations

import pytest
import torch
from networks import CONFIGS, network, peak_difference

from nlrn import load_model
from nlrn.inference import restore, within_memory
from nlrn.inference.patches import restore_patches
from nlrn.inference.planning import Plan
from nlrn.inference.wavefront import BandPlan, run_bands
from nlrn.models.classical.bm3d import BM3D
from nlrn.models.contract import ModelInfo

NETWORKS = ["noise-channel", "stride-2"]


def levels(batch, height, width, dtype=torch.float32):
    """Rising to the right and downwards, and other ones in each image."""
    y, x = (torch.linspace(0, 1, n, dtype=dtype) for n in (height, width))
    rising = 0.01 + 0.1 * x + 0.05 * y[:, None]
    return rising * torch.linspace(1, 0.5, batch, dtype=dtype).view(batch, 1, 1, 1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(41, 23), (9, 30), (1, 13), (13, 1), (1, 1), (2, 3)], ids=str)
def test_bands_equal_the_network(name, size):
    model = network(**CONFIGS[name]).double()
    image = torch.rand(2, model.config.channels, *size, dtype=torch.float64)
    for sigma in (levels(2, *size, torch.float64), levels(1, *size, torch.float64)):
        expected = model(image, sigma) - image
        for height in (1, 5, 8, 64):
            for transposed in (False, True):
                plan = BandPlan(height, height != 5)
                actual = run_bands(model, image, sigma, 3, plan, transposed=transposed)
                assert peak_difference(actual, expected) < 1e-12, (height, transposed)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_constant_map_is_a_number(name):
    model = network(**CONFIGS[name])
    image = torch.rand(2, model.config.channels, 9, 7)
    expected = model(image, 0.1)
    for sigma in (
        torch.full((2, 1, 9, 7), 0.1),
        torch.full((1, 1, 9, 7), 0.1),
        torch.full((2, 1, 1, 1), 0.1),
    ):
        assert torch.equal(model(image, sigma), expected)


def test_a_pixel_far_away_does_not_see_the_level():
    """Each pixel has its own: what lies beyond the halo changes nothing, what lies within does."""
    model = network(**CONFIGS["noise-channel"], num_steps=1, window_size=3)
    image, sigma = torch.rand(1, 3, 9, 60), torch.full((1, 1, 9, 60), 0.05)
    other = sigma.clone()
    other[..., 40:] = 0.15
    before, after = model(image, sigma), model(image, other)
    edge = 40 - model.config.halo
    assert torch.equal(before[..., :edge], after[..., :edge])
    assert peak_difference(before[..., 40:], after[..., 40:]) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_equal_the_network(name):
    model = network(**CONFIGS[name], num_steps=2)
    image, sigma = torch.rand(2, model.config.channels, 51, 62), levels(2, 51, 62)
    plan = Plan(BandPlan(8, True, 1 << 20), tile=16)
    result = within_memory._run_plan(model, image, sigma, 2, plan, torch.float32, lambda done: None)
    assert peak_difference(result, model(image, sigma)) < 1e-5


def test_tiles_of_another_affinity():
    """Which is called as any method is, on overlapping tiles."""
    model = network(
        affinity="patch_distance", num_steps=1, window_size=3, noise_channel=True, sigma_range=(0.0, 0.2)
    )
    image, sigma = torch.rand(2, 1, 150, 161), levels(2, 150, 161)
    seen = 64 + 2 * model.config.halo
    budget = model.info.memory((2, 1, seen, seen)) + 16 * image.numel()
    sizes = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape)))
    result = restore(model, image, sigma, max_memory=budget)
    assert len(sizes) > 1
    assert peak_difference(result, model(image, sigma)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_an_ensemble_turns_the_map(name):
    model = network(**CONFIGS[name])
    image, sigma = torch.rand(1, model.config.channels, 12, 17), levels(1, 12, 17)
    expected = restore(model, image, sigma, ensemble=True)
    for turn in (lambda x: x.rot90(1, (2, 3)), lambda x: x.flip(3), lambda x: x.flip(2).rot90(3, (2, 3))):
        result = restore(model, turn(image), turn(sigma), ensemble=True)
        assert peak_difference(result, turn(expected)) < 1e-5
    assert peak_difference(restore(model, image, sigma.flip(3), ensemble=True), expected) > 1e-4


def test_patches_have_the_levels_of_their_place():
    places = []

    def same(stack, sigma):
        places.append(torch.equal(stack, sigma))
        return stack

    image = levels(2, 20, 17)
    result = restore_patches(same, image, image, (11, 5), 4, lambda done: None)
    assert peak_difference(result, image) < 1e-6
    assert all(places)
    model = network(**CONFIGS["stride-2"])
    number, constant = (restore(model, image, s, patches=(8, 5)) for s in (0.1, torch.full_like(image, 0.1)))
    assert peak_difference(number, constant) < 1e-6


def test_half_precision():
    """Within 60 dB of the result in float32."""
    model = load_model("nlrn-small-gray")
    clean = torch.full((1, 1, 48, 40), 0.5)
    sigma = levels(1, 48, 40)
    image = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    whole, half = (restore(model, image, sigma, precision=p) for p in (torch.float32, torch.bfloat16))
    assert (whole - half).square().mean().log10() < -5
    banded = run_bands(model, image, sigma, 6, BandPlan(8, True))
    assert peak_difference(image + banded, whole) < 1e-4


def test_levels_beyond_the_range_are_the_nearest_ones():
    model = network(**CONFIGS["noise-channel"])
    image, sigma = torch.rand(1, 3, 8, 8), levels(1, 8, 8)
    sigma[..., 4:] = 0.5
    with pytest.warns(UserWarning, match=r"outside the range .* using 51"):
        result = model(image, sigma)
    assert torch.equal(result, model(image, sigma.clamp(max=0.2)))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (torch.full((1, 1, 8, 9), 0.1), r"of each pixel \(2, 1, 8, 8\), got shape \(1, 1, 8, 9\)"),
        (torch.full((3, 1, 8, 8), 0.1), r"got shape \(3, 1, 8, 8\)"),
        (torch.full((2, 3, 8, 8), 0.1), r"got shape \(2, 3, 8, 8\)"),
        (torch.full((8, 8), 0.1), r"got shape \(8, 8\)"),
        (torch.full((2, 1, 8, 8), torch.nan), "finite and >= 0, got nan"),
        (torch.full((2, 1, 8, 8), -0.1), "finite and >= 0, got -0.1"),
    ],
    ids=["size", "batch", "channels", "axes", "nan", "negative"],
)
def test_what_is_no_map(sigma, message):
    model = network(**CONFIGS["noise-channel"])
    for call in (model, lambda *args: restore(model, *args)):
        with pytest.raises(ValueError, match=message):
            call(torch.rand(2, 3, 8, 8), sigma)


def test_methods_of_one_level_refuse_a_map():
    image, sigma = torch.rand(1, 1, 16, 16), levels(1, 16, 16)
    with pytest.raises(
        ValueError, match="bm3d takes one noise level for an image, and sigma has one for each pixel"
    ):
        restore(BM3D(), image, sigma)
    with pytest.raises(
        ValueError, match=r"sigma must be a number or one per image \(1,\), got shape \(1, 1, 16, 16\)"
    ):
        BM3D()(image, sigma)


def test_a_method_that_declares_it_gets_the_map():
    class Shift:
        info = ModelInfo("shift", "denoise", sigma_map=True)

        def __call__(self, image, sigma=None):
            return image + sigma

    image, sigma = torch.rand(2, 1, 9, 7), levels(2, 9, 7)
    assert torch.equal(restore(Shift(), image, sigma), image + sigma)
