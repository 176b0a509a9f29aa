"""`nlrn.restore`: what is measured, which steps follow, in which order."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, read_image
from nlrn.inference.blocking import find_blocks
from nlrn.restoration import Restorer
from nlrn.restoration.hidden import fill_hidden
from nlrn.restoration.plan import CERTAIN, Plan, plan_for
from nlrn.restoration.stream import restored_stream
from nlrn.restoration.unit_image import UnitImage

CLEAN = astronaut()[3:99, 61:157]


def noisy(sigma: float, blur: float = 0.0) -> np.ndarray:
    """White noise, or with a blur grey grain."""
    noise = np.random.default_rng(0).normal(0, 1, CLEAN.shape)
    if blur:
        noise = gaussian_filter(noise[..., :1], (blur, blur, 0))
    return (CLEAN + noise / noise.std() * sigma).clip(0, 255).round().astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    return read_image(jpeg(pixels, quality)).pixels


@pytest.fixture(scope="module")
def restorer():
    return Restorer(task="restore")


def steps(restorer: Restorer, pixels: np.ndarray, quality: int | None = None) -> tuple[str, ...]:
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())[None] / 255
    return restorer.combined.plan(UnitImage(image.float(), quality=quality)).steps


@pytest.mark.parametrize(
    ("pixels", "quality", "expected"),
    [
        (CLEAN, None, ()),
        (CLEAN, 98, ()),
        (CLEAN, 40, ("dejpeg",)),
        (decoded(CLEAN, 30), None, ("dejpeg",)),
        (noisy(15), None, ("white",)),
        (noisy(12, 0.7), None, ("photo",)),
        (decoded(noisy(20), 40), None, ("photo", "dejpeg")),
        (decoded(noisy(20), 92), None, ("photo",)),
        (decoded(noisy(20), 92), 92, ("photo", "dejpeg")),
    ],
    ids=["clean", "fine", "jpeg", "blocks", "white", "grain", "both", "measured", "known"],
)
def test_the_steps_follow_from_what_is_measured(restorer, pixels, quality, expected):
    assert steps(restorer, pixels, quality) == expected


def test_strong_compression_goes_first(restorer):
    assert steps(restorer, decoded(noisy(30), 12), 12) == ("dejpeg", "photo")


@pytest.mark.parametrize("top", [0, 3])
@pytest.mark.parametrize("left", [0, 6])
def test_blocks_are_found_wherever_they_begin(top, left):
    gray = decoded(CLEAN, 30)[top:, left:].mean(-1).astype(np.float32) / 255
    found = find_blocks(torch.from_numpy(gray)[None, None])
    assert found.origin == (-top % 8, -left % 8)
    assert found.certainty > 2 * CERTAIN
    clean = find_blocks(torch.from_numpy(CLEAN.mean(-1).astype(np.float32) / 255)[None, None])
    assert clean.certainty < 3
    assert found.height > 3 * clean.height


def test_small_constant_and_hidden_pictures_are_left():
    """The denoiser is not asked where there is nothing to measure."""

    def never(image):
        raise AssertionError("denoised")

    for image in (torch.rand(1, 3, 12, 40), torch.full((1, 1, 40, 40), 0.5)):
        assert plan_for(image, None, None, never, False).steps == ()
    plan = plan_for(torch.rand(1, 1, 12, 40), None, None, never, True)
    assert plan.steps == ("upscale",)
    assert "less than 48 pixels" in plan.reasons[0]


def test_what_fills_holes_does_not_hide_the_noise(restorer):
    ramp = torch.linspace(0.25, 0.7, 96).expand(1, 1, 96, 96)
    noise = 10 / 255 * torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(ramp.shape, dtype=torch.bool)
    hidden[..., 10:70, 10:70] = True
    for image, steps in ((ramp + noise, ("white",)), (ramp, ())):
        filled = fill_hidden(image, hidden)
        assert restorer.combined.plan(UnitImage(filled, hidden=hidden)).steps == steps


def test_a_small_measurement_has_no_noise_level_and_says_so():
    pixels = noisy(12)[:15, :15, 0]
    result, report = Restorer(task="restore", purpose="measurement").array(pixels)
    assert np.array_equal(result, pixels)
    assert (
        "with less than 16 pixels a side noise cannot be estimated, and none is removed" in report.notes[-1]
    )


def test_both_together_gain_and_say_why():
    given = jpeg(noisy(15), 40)
    image = read_image(given)
    assert image.jpeg_quality == 40
    restored, report = Restorer(task="restore").image(image)
    assert psnr(restored.pixels, CLEAN) > psnr(image.pixels, CLEAN) + 1.5
    assert report.model == "nlrn-photo, nlrn-small-dejpeg-color"
    assert report.notes[0] == "a JPEG file of quality 40: dejpeg"
    assert report.notes[1].endswith("grey levels in smooth parts: denoise before it")


def test_a_clean_picture_stays_bit_by_bit_also_enlarged_from():
    assert (nlrn.restore(CLEAN) == CLEAN).all()
    large = nlrn.restore(CLEAN[:40, :40], 2)
    np.testing.assert_array_equal(large, nlrn.upscale(CLEAN[:40, :40], 2))


def test_a_strength_of_luma_alone_keeps_the_color_noise():
    given = noisy(20).astype(np.float32) / 255
    weights = np.array([0.2989, 0.5870, 0.1140]) / 0.9999
    whole = nlrn.restore(given)
    luma = nlrn.restore(given, strength=(1, 0))
    np.testing.assert_allclose(luma @ weights, whole @ weights, atol=1e-5)
    np.testing.assert_allclose(luma - luma[..., :1], given - given[..., :1], atol=1e-5)
    assert np.abs(luma - whole).max() > 0.05
    np.testing.assert_array_equal(nlrn.restore(given, strength=0), given)


def test_gray_and_equal_channels_stay_so():
    gray = noisy(12, 0.7).mean(-1).astype(np.uint8)
    alone = nlrn.restore(gray)
    assert alone.shape == gray.shape
    assert (alone != gray).mean() > 0.5
    together = nlrn.restore(np.stack([gray] * 3, -1))
    assert (together == together[..., :1]).all()


def test_options_of_one_task_are_refused():
    with pytest.raises(ValueError, match="model= is for one task, and restore chooses"):
        nlrn.restore(CLEAN, model="bm3d")
    with pytest.raises(ValueError, match="noise= is for denoise, not for restore"):
        nlrn.restore(CLEAN, noise="poisson-gaussian")
    with pytest.raises(ValueError, match="sigma= is for denoise; restore measures"):
        Restorer(task="restore").array(CLEAN, 0.1)
    with pytest.raises(TypeError, match="sigma= is for denoise, not for restore"):
        nlrn.restore(CLEAN, sigma=3)
    with pytest.raises(ValueError, match="scale and size"):
        nlrn.restore(CLEAN, 2, size=(400, 400))


def test_a_stack_has_one_plan(monkeypatch):
    """Pages near a threshold would flicker."""
    stack = np.stack([CLEAN[:64, :64].mean(-1).astype(np.uint8) + shift for shift in range(3)])
    plans = iter([Plan(("dejpeg",), ("first",)), Plan((), ("second",)), Plan((), ("third",))])
    monkeypatch.setattr("nlrn.restoration.combined.plan_for", lambda *_: next(plans))
    assert (nlrn.restore(stack, axes="ZYX") == stack).all()
    plans = iter([Plan((), ("first",))] + 2 * [Plan(("dejpeg",), ("second",))])
    changed = nlrn.restore(stack, axes="ZYX", estimate="page")
    assert [bool((page != before).any()) for page, before in zip(changed, stack, strict=True)] == [
        False,
        True,
        True,
    ]


def test_frames_of_a_stream_have_one_plan(monkeypatch, restorer):
    frames = [Image(CLEAN[:64, :64] // 2 + shift) for shift in range(10)]
    plans = iter([Plan((), ("most",))] * 3 + [Plan(("dejpeg",), ("one",))] * 2)
    monkeypatch.setattr("nlrn.restoration.combined.plan_for", lambda *_: next(plans))
    results = [image for image, _ in restored_stream(restorer, frames)]
    assert [
        (image.pixels == frame.pixels).all() for image, frame in zip(results, frames, strict=True)
    ] == 10 * [True]


def test_turned_files_are_enlarged_as_they_are_shown():
    from nlrn.files import exif

    block = exif.build(exif.Directories({exif.ORIENTATION: exif.Tag(3, b"\x06\0")}, {}))
    image = Image(CLEAN[:40, :50], exif=block)
    restored, _ = Restorer(task="restore", size=(100, 80)).image(image)
    assert restored.pixels.shape == (80, 100, 3)


def squares(side: int) -> np.ndarray:
    return CLEAN[::side, ::side].repeat(side, 0).repeat(side, 1)[:96, :96]


def framed() -> np.ndarray:
    """White noise in a frame that lies on a grid of 8."""
    frame = np.full((160, 160, 3), 255, np.uint8)
    frame[32:128, 32:128] = noisy(15)
    return frame


@pytest.mark.parametrize(
    "pixels",
    [squares(8), squares(16), framed(), CLEAN[:20, :20]],
    ids=["squares", "large squares", "frame", "too small"],
)
def test_what_a_picture_has_itself_is_no_seam(pixels):
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())[None].float() / 255
    found = find_blocks(image)
    assert found is None or found.certainty < CERTAIN


def test_drawings_come_back_as_they_are():
    page = Pillow.new("L", (120, 96), 255)
    ImageDraw.Draw(page).text((8, 30), "The quick brown fox", fill=0)
    dots = ((np.indices((96, 96)).sum(0) % 2) * 255).astype(np.uint8)
    halftone = (CLEAN.mean(-1) > np.tile([[32, 160], [224, 96]], (48, 48))).astype(np.uint8) * 255
    for drawing in (np.asarray(page), dots, halftone, squares(8)):
        np.testing.assert_array_equal(nlrn.restore(drawing), drawing)


def test_ranges_beyond_those_of_files():
    """Counts of 10 bit in uint16 and floats near 0 gain what the same picture gains at full range."""
    clean = CLEAN.mean(-1)
    given = clean + np.random.default_rng(0).normal(0, 15, clean.shape)
    gains = []
    for white, dtype in ((255, np.float64), (1023, np.uint16), (1e-3, np.float32)):
        image = (given / 255 * white).clip(0, None).astype(dtype)
        error = (nlrn.restore(image) / white * 255 - clean).std()
        gains.append(20 * np.log10((given.clip(0) - clean).std() / error))
    assert min(gains) > 5
    assert max(gains) - min(gains) < 0.3
