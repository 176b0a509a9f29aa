"""The kind of a picture, named by hand: each case is one in which what is measured leads to another result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image
from nlrn.restoration import Restorer
from nlrn.restoration.guard import guard
from nlrn.restoration.purpose import HANDLINGS
from nlrn.restoration.stream import restored_stream
from nlrn.restoration.unit_image import UnitImage

CLEAN = astronaut()[30:94, 190:254]
GRAY = CLEAN.mean(-1)


def rounded(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def noise(shape: tuple[int, ...], sigma: float, blur: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 1, shape)
    values = gaussian_filter(values, (blur, blur, 0)[: len(shape)]) if blur else values
    return sigma * values / values.std()


def screen() -> np.ndarray:
    """A window with text."""
    image = Pillow.new("RGB", (96, 96), (245, 245, 245))
    draw = ImageDraw.Draw(image)
    for y in (2, 14):
        draw.text((4, y), "the quick brown fox", fill=(20, 20, 20))
    return np.array(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"purpose": "painting"}, "purpose= must be one of photo, scan, screenshot, measurement, got 'painting'"),
        ({"purpose": "scan", "task": "upscale", "scale": 2}, "purpose= is for denoise and restore, not for upscale"),
        ({"purpose": "scan", "task": "dejpeg"}, "purpose= is for denoise and restore, not for dejpeg"),
        ({"purpose": "scan", "model": "bm3d"}, "purpose='scan' chooses the model, and model= another one"),
        (
            {"purpose": "measurement", "noise": "poisson-gaussian"},
            "purpose='measurement' chooses the model, and noise= another one",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Restorer(**options)


def test_a_wrong_type_is_refused_by_name():
    with pytest.raises(TypeError, match="purpose must be the name of a kind of picture, got 3"):
        nlrn.denoise(CLEAN, purpose=3)


@pytest.mark.parametrize("purpose", ["photo", "scan"])
@pytest.mark.parametrize("sigma", [10, "auto"])
def test_the_model_for_photographs_takes_no_level(purpose, sigma):
    with pytest.raises(
        ValueError, match=f"purpose='{purpose}' takes a model that has no noise level, and sigma="
    ):
        nlrn.denoise(CLEAN, sigma, purpose=purpose)


@pytest.mark.parametrize("purpose", ["screenshot", "measurement"])
def test_a_level_is_for_white_noise(purpose):
    given = rounded(CLEAN + noise(CLEAN.shape, 6))
    given[:2] = 250  # the whole range
    _, report = Restorer(purpose=purpose).array(given, 6)
    assert report.model == "nlrn-small-color"
    assert report.sigma == pytest.approx(6 / 255, rel=0.1)
    assert not report.estimated
    assert any(note.startswith(f"chosen by hand, for a {purpose}") for note in report.notes)


def test_a_gray_photograph_by_hand():
    """White noise that grows with brightness, as one sensor has it."""
    gray = astronaut()[160:224, 180:244].mean(-1)
    given = rounded(gray + noise(gray.shape, 6) * gray / 128)
    automatic, by_noise = Restorer().array(given)
    by_hand, report = Restorer(purpose="photo").array(given)
    assert (by_noise.model, report.model) == ("nlrn-small-gray", "nlrn-photo")
    assert by_hand.shape == given.shape
    assert psnr(by_hand, rounded(gray)) > psnr(automatic, rounded(gray)) + 1
    assert report.notes == (
        "chosen by hand, for a photograph: its noise is removed by the model for photographs",
    )


def test_weak_grain_of_a_scan():
    given = rounded(GRAY + noise(GRAY.shape, 5))
    automatic = psnr(nlrn.denoise(given), rounded(GRAY))
    by_hand, report = Restorer(purpose="scan").array(given)
    assert report.model == "nlrn-photo"
    assert psnr(by_hand, rounded(GRAY)) > automatic + 0.2
    assert report.notes[0].startswith("chosen by hand, for a scan")


def test_grain_is_removed_from_a_scan_without_asking():
    given = rounded(GRAY + noise(GRAY.shape, 5))
    restored, report = Restorer(task="restore", purpose="scan").array(given)
    assert (nlrn.restore(given) == given).all()
    assert report.model == "nlrn-photo"
    assert report.notes[0].startswith("chosen by hand, for a scan")
    assert psnr(restored, rounded(GRAY)) > psnr(given, rounded(GRAY)) + 0.5


def test_faint_grain_in_color_goes_through_the_model_that_learned_grain():
    given = rounded(
        gaussian_filter(CLEAN.astype(float), (3, 3, 0)) + noise(CLEAN.shape[:2], 0.8, 0.7)[..., None]
    )
    assert Restorer().array(given)[1].model == "nlrn-small-photo"
    assert Restorer(purpose="photo").array(given)[1].model == "nlrn-small-photo"
    assert Restorer(purpose="scan").array(given)[1].model == "nlrn-photo"


def test_a_screenshot_keeps_its_text_and_loses_the_noise_of_a_picture_in_it():
    clean = screen()
    clean[30:90, 30:90] = CLEAN[:60, :60]
    given = clean.copy()
    given[30:90, 30:90] = rounded(CLEAN[:60, :60] + noise((60, 60, 3), 10))
    automatic = psnr(nlrn.denoise(given), clean)
    restored, report = Restorer(purpose="screenshot").array(given)
    around = np.ones(given.shape[:2], bool)
    around[26:94, 26:94] = False
    assert (restored[around] == given[around]).all()
    assert psnr(restored, clean) > max(automatic, psnr(given, clean)) + 0.5
    assert any(note.endswith("have no noise and stay bit for bit") for note in report.notes)


def test_a_noisy_screenshot_keeps_the_colors_of_all_flat_areas():
    given = rounded(screen() + noise(screen().shape, 3, 0.6))
    automatic, by_hand = (psnr(nlrn.denoise(given, purpose=name), screen()) for name in (None, "screenshot"))
    assert by_hand > max(automatic, psnr(given, screen())) + 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_of_a_gray_area_stays_in_a_screenshot(channels):
    image = (0.5 + torch.from_numpy(noise((1, channels, 32, 32), 0.02))).float()
    shifted = torch.full_like(image, 0.55)
    guarded = {name: guard(image, shifted, 0.02, HANDLINGS[name]).image for name in (None, "screenshot")}
    assert guarded[None] is shifted
    assert float(guarded["screenshot"].mean()) == pytest.approx(0.5, abs=0.01)


def test_a_clean_screenshot_stays_as_it_was():
    for task in ("denoise", "restore"):
        result, report = Restorer(task=task, purpose="screenshot").array(screen())
        assert (result == screen()).all()
        assert any(note.startswith("chosen by hand, for a screenshot") for note in report.notes)


def test_a_measurement_has_the_range_of_its_data_in_8_bit_too():
    clean = GRAY / 255 * 20
    given = rounded(clean + noise(GRAY.shape, 2))
    results = {name: nlrn.denoise(given, purpose=name) for name in (None, "measurement")}
    errors = {name: float(np.square(result - clean).mean()) for name, result in results.items()}
    assert errors["measurement"] < 0.9 * errors[None]
    assert any(
        note.startswith("working range 0..2")
        for note in Restorer(purpose="measurement").array(given)[1].notes
    )


def test_a_measurement_is_not_judged_by_its_look():
    """Noise within an object on an empty ground counts as a drawing, and saturated colours are guarded, elsewhere."""
    given = np.zeros((64, 64))
    rows, columns = np.mgrid[:64, :64]
    given[(rows - 32) ** 2 + (columns - 32) ** 2 < 20**2] = 120
    inner = (rows - 32) ** 2 + (columns - 32) ** 2 < 8**2
    given[inner] += noise((int(inner.sum()),), 12)
    given = rounded(given)
    assert (nlrn.denoise(given) == given).all()
    assert not (nlrn.denoise(given, purpose="measurement")[inner] == given[inner]).all()
    chart = np.full((64, 64, 3), (200.0, 20.0, 20.0))
    notes = {
        name: Restorer(purpose=name).array(rounded(chart + noise(chart.shape, 8)), 8)[1].notes
        for name in (None, "measurement")
    }
    assert any("kept their colours" in note for note in notes[None])
    assert not any("kept their colours" in note for note in notes["measurement"])


@pytest.mark.parametrize("purpose", ["photo", "scan"])
def test_a_drawing_that_is_named_a_photograph_is_restored(purpose):
    assert (nlrn.denoise(screen()) == screen()).all()
    assert (nlrn.denoise(screen(), purpose=purpose) != screen()).any()


def test_nothing_of_a_measurement_is_clipped():
    values = (GRAY / 255 * 900 - 100 + noise(GRAY.shape, 30)).astype(np.float32)
    values[10, 10], values[40, 40] = 5000, -4000
    restored = nlrn.denoise(values, purpose="measurement")
    assert restored[10, 10] == 5000
    assert restored[40, 40] == -4000
    assert restored.min() < -100


def test_a_measurement_is_not_taken_for_a_compressed_picture():
    image = torch.from_numpy(CLEAN.transpose(2, 0, 1).copy())[None] / 255
    plan = Restorer(task="restore", purpose="measurement", scale=2).combined.plan(
        UnitImage(image, quality=40)
    )
    assert plan.steps == ("white", "upscale")
    assert Restorer(task="restore", purpose="photo").combined.plan(UnitImage(image, quality=40)).steps == (
        "dejpeg",
    )


def test_pages_and_frames_are_handled_alike():
    stack = np.stack([rounded(GRAY / 255 * 20 + noise(GRAY.shape, 2)) + shift for shift in range(2)])
    restorer = Restorer(purpose="measurement")
    _, report = restorer.array(stack[0])
    assert report.notes[0].startswith("working range")
    together = nlrn.denoise(stack, axes="ZYX", purpose="measurement")
    assert together.shape == stack.shape
    assert not (together == nlrn.denoise(stack, axes="ZYX")).all()
    frames = [Image(page) for page in stack]
    for _, report in restored_stream(Restorer(purpose="scan"), frames):
        assert report.model == "nlrn-photo"
        assert report.notes[0].startswith("chosen by hand, for a scan")


def test_the_purpose_changes_results():
    """A batch that goes on with another one is refused by its journal."""
    named = Restorer(purpose="scan").options.that_change_results()
    assert named["purpose"] == "scan"
    assert named != Restorer().options.that_change_results()
