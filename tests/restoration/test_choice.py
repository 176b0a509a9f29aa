"""The model that is chosen where neither it nor sigma is given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, read_image, write_image
from nlrn.inference.noise_level import NoiseEstimate
from nlrn.restoration import Restorer
from nlrn.restoration.choice import is_photo

CLEAN = astronaut()[0:96, 60:156]


def noisy(sigma: float, blur: float = 0.0, gray: bool = False) -> np.ndarray:
    clean = CLEAN.mean(-1) if gray else CLEAN
    noise = np.random.default_rng(0).normal(0, 1, clean.shape)
    if blur:
        noise = gaussian_filter(noise, (blur, blur, 0)[: noise.ndim])
    return (clean + noise / noise.std() * sigma).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("blur", "gray", "model", "note"),
    [
        (0, False, "nlrn-small-color", "the noise is white"),
        (1, False, "nlrn-photo", None),
        (0, True, "nlrn-small-gray", None),
        (1, True, "nlrn-photo", "the noise is not white"),
    ],
)
def test_whiteness_chooses_the_model(blur, gray, model, note):
    result, report = Restorer().array(noisy(15, blur, gray))
    assert report.model == model
    assert (report.notes[0].split(":")[0] if report.notes else None) == note
    assert result.shape == noisy(15, blur, gray).shape


@pytest.mark.parametrize(
    ("channels", "sigma", "whiteness", "photo"),
    [
        (3, 10, (0.4, 0.9), True),
        (3, 10, (0.8, 0.9), False),
        (3, 10, (0.9, 0.7), True),
        (3, 1, (0.8, 0.9), True),
        (3, 2, (0.8, 0.9), False),
        (1, 10, (0.4, None), True),
        (1, 10, (0.8, None), False),
    ],
)
def test_is_photo(channels, sigma, whiteness, photo):
    white, color = whiteness
    estimate = NoiseEstimate(sigma / 255, clipped=0.0, whiteness=white, color_whiteness=color)
    assert is_photo(channels, estimate) == photo


@pytest.mark.parametrize("quality", [80, 95])
def test_white_noise_after_jpeg_is_not_white_any_more(quality):
    """Its luma is, of sigma 20 still, and the model for white noise loses more than a decibel on the rest."""
    file = io.BytesIO()
    PillowImage.fromarray(noisy(20)).save(file, "JPEG", quality=quality)
    pixels = read_image(file.getvalue()).pixels
    restored, report = Restorer().array(pixels)
    assert report.model == "nlrn-photo"
    assert psnr(restored, CLEAN) > psnr(Restorer().array(pixels, "auto")[0], CLEAN) + 1


def test_white_noise_in_color_is_removed_as_well_as_with_its_level():
    given = noisy(20)
    assert psnr(nlrn.denoise(given), CLEAN) > psnr(nlrn.denoise(given, 20), CLEAN) - 0.5


def test_auto_is_white_noise_of_an_estimated_level():
    _, report = Restorer().array(noisy(15, 1), "auto")
    assert (report.model, report.estimated) == ("nlrn-small-color", True)
    _, report = Restorer().array(noisy(15), "auto")
    assert report.estimated
    assert not any("the noise is white" in note for note in report.notes)  # which the user has said


def test_a_batch_is_chosen_for_image_by_image():
    import torch

    images = [torch.from_numpy(noisy(15, blur)).permute(2, 0, 1) for blur in (0, 1)]
    together = nlrn.denoise(torch.stack(images))
    for one, image in zip(together, images, strict=True):
        assert torch.equal(one, nlrn.denoise(image))


def test_the_estimate_is_in_the_units_of_sigma(tmp_path):
    gray = noisy(20, gray=True)
    level = nlrn.estimate_noise(gray).sigma
    assert level == pytest.approx(20, rel=0.1)
    assert nlrn.estimate_noise(gray / 255).sigma == pytest.approx(level / 255, rel=1e-4)
    assert nlrn.estimate_noise(gray.astype(np.uint16) * 257).sigma == pytest.approx(257 * level, rel=1e-4)
    write_image(Image(gray.astype(np.uint16) * 257), tmp_path / "a.png")
    assert nlrn.estimate_noise(tmp_path / "a.png").sigma == pytest.approx(level, rel=1e-4)


def test_how_white_noise_is():
    assert nlrn.estimate_noise(noisy(15)).whiteness > 0.8
    assert nlrn.estimate_noise(noisy(15, 1)).whiteness < 0.55


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_scattered_hidden_pixels_are_no_drawing(share):
    """Dead pixels under a mask leave no larger area free; the rest is still noisy."""
    given = noisy(20, gray=True)
    mask = np.random.default_rng(1).random(given.shape) < share
    result, report = Restorer().array(np.ma.masked_array(given, mask))
    assert 255 * report.sigma == pytest.approx(20, rel=0.2)
    clean = CLEAN.mean(-1)
    assert np.abs(result.data - clean)[~mask].mean() < 0.5 * np.abs(given - clean)[~mask].mean()
    assert np.array_equal(result.data[mask], given[mask])


def test_hidden_noise_does_not_choose_the_model():
    """White noise beside a hidden part whose noise is not white."""
    given = np.concatenate([noisy(15, gray=True), noisy(15, 1, gray=True)], 1)
    mask = np.zeros(given.shape, bool)
    mask[:, 96:] = True
    _, report = Restorer().array(np.ma.masked_array(given, mask))
    assert report.model == "nlrn-small-gray"


@pytest.mark.parametrize("sigma", [None, "auto", "given"])
def test_strong_noise_has_a_model_of_its_own(sigma):
    """Given or estimated, grey or RGB."""
    restorer, rng = Restorer(), np.random.default_rng(0)
    kinds = {(): ("nlrn-small-gray", "nlrn-gray"), (3,): ("nlrn-small-color", "nlrn-color")}
    for channels, models in kinds.items():
        noise = rng.standard_normal((64, 72, *channels))
        for level, model in zip((15.0, 40.0), models, strict=True):
            image = np.clip(128 + level * noise, 0, 255).round().astype(np.uint8)
            report = restorer.array(image, level if sigma == "given" else sigma)[1]
            assert report.model == model
            assert 255 * report.sigma == pytest.approx(level, rel=0.1)


def test_models_of_files_are_for_grey_levels():
    """As the command line has them."""
    restorer = Restorer()
    assert restorer.model_for_file(1, 20)[1] == "nlrn-small-gray"
    assert restorer.model_for_file(3, 50)[1] == "nlrn-color"
    assert restorer.model_for_file(1, "auto")[1] == restorer.model_for_file(1)[1] == "nlrn-small-gray"
