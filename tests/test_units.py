"""What numbers mean: the value of white, of opaque, of a noise level; and what is refused as meaningless."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nlrn
from nlrn.files.images import Image, write_image
from nlrn.restoration.value_range import ValueRange, check_sigma, unit_sigma
from pictures import picture


def test_path_takes_8_bit_levels_whatever_its_depth(tiny_grey, tmp_path):
    deep = picture((16, 20), "uint16")
    write_image(Image(deep, format="PNG"), tmp_path / "deep.png")
    by_path = nlrn.denoise(tmp_path / "deep.png", sigma=20, model=tiny_grey)
    assert np.array_equal(by_path, nlrn.denoise(deep, sigma=20 * 257, model=tiny_grey))


def test_floats_are_not_clipped():
    array = np.linspace(-0.5, 1.5, 64, dtype=np.float32).reshape(8, 8)
    assert np.abs(nlrn.denoise(array, sigma=0.01) - array).max() < 0.1


def test_range_of_8_bit_never_follows_from_the_values(tiny_grey):
    dark = picture((8, 8)) // 200
    assert np.array_equal(
        nlrn.denoise(dark, sigma=2, model=tiny_grey),
        nlrn.denoise(dark, sigma=2, model=tiny_grey, data_range=255),
    )


def test_range_given_by_hand(tiny_grey):
    twelve_bit = picture((8, 8), "uint16") // 16
    a = nlrn.denoise(twelve_bit, sigma=100, model=tiny_grey, data_range=4095)
    b = nlrn.denoise(twelve_bit / 4095, sigma=100 / 4095, model=tiny_grey)
    assert np.array_equal(a, np.clip(np.rint(b * 4095), 0, 4095))


def test_sigma_outside_the_models_range_warns_and_uses_the_nearest():
    array = picture((12, 12))
    with pytest.warns(UserWarning, match=r"outside the range .*0\.\.75.*using 75"):
        result = nlrn.denoise(array, sigma=100)
    assert np.array_equal(result, nlrn.denoise(array, sigma=75))


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_25_for_a_float_image(kind, tiny_grey):
    image = picture((8, 8), "float32")
    with pytest.raises(ValueError, match=r"sigma is 25 for an image in \[0, 1\]; did you mean 25/255\?"):
        nlrn.denoise(image if kind == "array" else torch.from_numpy(image)[None], sigma=25, model=tiny_grey)


@pytest.mark.parametrize("sigma", [-1, float("nan"), float("inf"), 1e9])
def test_impossible_sigma(sigma, tiny_grey):
    with pytest.raises(ValueError, match=r"sigma (must be finite and >= 0, got|is 1e\+09)"):
        nlrn.denoise(picture((8, 8)), sigma=sigma, model=tiny_grey)


def test_float_file_far_outside_its_range(tmp_path):
    """Sigma is in grey levels of the working range, since floats have no white of their own."""
    path, noise = tmp_path / "a.tif", np.random.default_rng(0).normal(0, 20, (32, 32))
    values = (np.linspace(30, 225, 32) + noise).astype(np.float32)
    write_image(Image(values, format="TIFF"), path)
    by_path = nlrn.denoise(path, sigma=20, model="nlrn-small-gray", data_range=(0, 255))
    by_data = nlrn.denoise(path, sigma=20, model="nlrn-small-gray")
    assert np.abs(by_path - by_data).max() < 20
    assert np.array_equal(
        by_path, nlrn.denoise(values, sigma=20, model="nlrn-small-gray", data_range=(0, 255))
    )


@pytest.mark.parametrize("kind", [np.asarray, lambda x: torch.from_numpy(x)[None]], ids=["array", "tensor"])
def test_a_range_that_the_data_contradict(kind, tiny_grey):
    values = kind(picture((9, 7), "uint8").astype(np.float32))
    with pytest.raises(ValueError, match=r"reaches from .* far beyond its range, data_range=10"):
        nlrn.denoise(values, sigma=0.1, model=tiny_grey, data_range=10)
    with pytest.raises(ValueError, match=r"two finite numbers that rise, got \(3, 2\)"):
        nlrn.denoise(values, sigma=0.1, model=tiny_grey, data_range=(3, 2))
    assert nlrn.denoise(values, sigma=20, model=tiny_grey, data_range=255).max() > 50


@pytest.mark.parametrize("white", [0, -1.0, float("nan")])
@pytest.mark.parametrize("kind", [np.asarray, lambda x: torch.from_numpy(x)[None]], ids=["array", "tensor"])
def test_white_must_be_positive(kind, white, tiny_grey):
    for sigma in ("auto", 0.1):
        with pytest.raises(ValueError, match="data_range must be positive"):
            nlrn.denoise(kind(picture((20, 20), "float32")), sigma, model=tiny_grey, data_range=white)


def test_opaque_does_not_follow_white(tiny_upscaler, tmp_path):
    pixels = picture((9, 7, 3), "uint16") // 16
    opaque = np.full((9, 7), 65535, np.uint16)
    write_image(Image(pixels, alpha=opaque), tmp_path / "a.png")
    options = {"model": tiny_upscaler, "data_range": 4095}
    for given in (tmp_path / "a.png", np.dstack([pixels, opaque])):
        assert (nlrn.upscale(given, 2, **options)[..., 3] == 65535).all()
    tensor = torch.from_numpy(np.dstack([pixels, opaque])).permute(2, 0, 1)
    assert (nlrn.upscale(tensor, 2, **options)[3].int() == 65535).all()


def test_alpha_of_floats_beyond_1_keeps_its_extremes(tiny_upscaler):
    array = np.dstack([picture((9, 7, 3), "float32"), np.full((9, 7), 255, np.float32)])
    assert (nlrn.upscale(array, 2, model=tiny_upscaler)[..., 3] == 255).all()


def test_the_strongest_noise_is_within_the_range_of_floats():
    noise = np.random.default_rng(0).normal(0.5, 1, (256, 256)).astype(np.float32)
    assert nlrn.denoise(noise, sigma=1.0, model="bm3d").std() < 0.2


def test_units_of_sigma():
    assert unit_sigma("auto") == check_sigma("auto") == "auto"
    assert unit_sigma(0) == 0
    assert unit_sigma(check_sigma(np.float32(1.0))) == 1
    assert unit_sigma(51, ValueRange(0, 255)) == unit_sigma(51, ValueRange(1000, 1255)) == 0.2
    assert check_sigma(torch.tensor(51.0)) == check_sigma(np.array(51.0)) == 51


@pytest.mark.parametrize("sigma", ["25", True, np.array(True)], ids=["text", "bool", "array"])
def test_what_is_no_sigma(sigma, tiny_grey):
    for image in (picture((20, 20)), torch.zeros(1, 20, 20)):
        with pytest.raises(ValueError, match="sigma must be a number or 'auto', got "):
            nlrn.denoise(image, sigma, model=tiny_grey)
