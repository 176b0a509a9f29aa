"""Flat areas of saturated colour, drawings, and pictures that are grey though they are stored as RGB."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.restoration import Restorer, unit
from nlrn.restoration.guard import Guarded, guard

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (0, 0, 128), (255, 128, 0), (128, 0, 128))  # fmt: skip


def chart(side: int = 32) -> np.ndarray:
    return np.array(COLORS, np.uint8).reshape(3, 3, 3).repeat(side, 0).repeat(side, 1)


def with_noise(image: np.ndarray, sigma: float) -> np.ndarray:
    noisy = image + np.random.default_rng(0).normal(0, sigma, image.shape)
    return noisy.clip(0, 255).round().astype(np.uint8)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return np.array(PillowImage.open(buffer))


@pytest.mark.parametrize("quality", [30, 80])
def test_a_chart_is_no_worse_without_its_artifacts(quality):
    given = compressed(chart(), quality)
    assert psnr(nlrn.dejpeg(given), chart()) >= psnr(given, chart()) - 0.3


@pytest.mark.parametrize("model", ["nlrn-small-color", "nlrn-color"])
def test_a_noisy_chart_is_better_and_keeps_its_colors(model):
    given = with_noise(chart(), 5)
    result = nlrn.denoise(given, 5, model=model)
    assert psnr(result, chart()) > psnr(given, chart()) + 1
    for row, column in np.ndindex(3, 3):
        inner = np.s_[32 * row + 10 : 32 * row + 22, 32 * column + 10 : 32 * column + 22]
        moved = result[inner].mean((0, 1)) - given[inner].mean((0, 1))
        assert np.abs(moved).max() < 3.5


@pytest.mark.parametrize("model", ["nlrn-small-photo", "nlrn-photo"])
def test_the_models_for_photographs_leave_a_noisy_chart_no_worse(model):
    given = with_noise(chart(), 5)
    assert psnr(nlrn.denoise(given, model=model), chart()) > psnr(given, chart())


@pytest.mark.parametrize("sigma", [25, 50])
def test_a_photograph_with_noise_loses_little(sigma, monkeypatch):
    """Warm saturated wood, which noise makes look flat; means over few pixels are not what the restoration added."""
    from skimage.data import coffee

    clean = coffee()[100:228, 150:278]
    given = with_noise(clean, sigma)
    guarded = psnr(nlrn.denoise(given, sigma), clean)
    monkeypatch.setattr(unit, "guard", lambda image, restored, noise, handling: Guarded(restored, 0.0))
    plain = psnr(nlrn.denoise(given, sigma), clean)
    assert guarded != plain
    assert guarded > plain - 0.2


def test_a_note_says_what_kept_its_colors():
    _, report = Restorer("nlrn-small-color").array(with_noise(chart(), 5), 5)
    assert any(note.startswith("flat areas and their edges, ") for note in report.notes)


def test_pictures_without_flat_areas_are_not_touched():
    from skimage.data import astronaut

    image = torch.from_numpy(astronaut()[100:200, 150:250]).permute(2, 0, 1)[None] / 255
    restored = image + 0.05
    assert guard(image, restored, 0.0).image is restored


@pytest.mark.parametrize("channels", [1, 3])
def test_a_drawing_without_noise_comes_back_as_it_was(channels):
    drawing = np.full((96, 96), 255, np.uint8)
    drawing[20:24, 8:80] = drawing[20:70, 8:12] = 30
    drawing[50:80, 50:80] = 120
    drawing = drawing if channels == 1 else np.dstack([drawing, drawing, np.minimum(drawing, 200)])
    result, report = Restorer().array(drawing)
    assert np.array_equal(result, drawing)
    assert report.notes == (
        "drawing, text or screenshot without noise (of constant areas or a few levels): "
        "it stays as it was; sigma= restores it",
    )
    assert not np.array_equal(nlrn.denoise(drawing, 20), drawing)


@pytest.mark.parametrize("model", [None, "nlrn-small-color", "nlrn-photo", "bm3d"])
@pytest.mark.parametrize("sigma", [None, 25])
def test_gray_stored_as_rgb_stays_gray(model, sigma):
    from skimage.data import camera

    gray = with_noise(camera()[100:148, 150:198], 25)
    result, report = Restorer(model).array(np.dstack([gray] * 3), sigma)
    assert np.ptp(result.astype(int), axis=-1).max() == 0
    assert report.notes[0] == "the three channels are equal: restored as grey"
    if model in (None, "bm3d"):
        assert np.array_equal(result[..., 0], Restorer(model).array(gray, sigma)[0])


def test_gray_stored_as_rgb_is_enlarged_as_gray():
    gray = np.random.default_rng(0).integers(0, 255, (12, 12), np.uint8)
    assert np.ptp(nlrn.upscale(np.dstack([gray] * 3), 2).astype(int), axis=-1).max() == 0
