"""The range that the networks work on: given, of the type, or from the data."""

from __future__ import annotations

import functools
import logging
import warnings

import numpy as np
import pytest
import torch
from skimage.data import camera

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, write_image
from nlrn.restoration import Restorer
from nlrn.restoration.value_range import range_of

NOISE = 20 / 255  # below that from which another model serves, in any working range
# White, value of black, type.
KINDS = {
    **{f"uint16 of white {white}": (white, 0, "uint16") for white in (255, 1023, 4095, 16383)},
    "uint16 on a pedestal": (1023, 30000, "uint16"),
    "signed int16": (4095, -2000, "int16"),
    "signed int32": (1e6, -5e5, "int32"),
    "uint32": (4e9, 0, "uint32"),
    "signed floats": (1, -0.5, "float32"),
    **{f"floats of white {white:g}": (white, 0, "float32") for white in (1, 1e-6, 3, 255, 1e6)},
    "float16 of white 3": (3, 0, "float16"),
    "float64 on a pedestal": (1, 1e9, "float64"),
}


@functools.cache
def scene() -> tuple[np.ndarray, np.ndarray]:
    clean = camera()[100:180, 150:230] / 255
    return clean, np.clip(clean + np.random.default_rng(0).normal(0, NOISE, clean.shape), 0, 1)


def as_type(unit: np.ndarray, white: float, black: float, dtype: str) -> np.ndarray:
    values = unit * white + black
    return (np.rint(values) if np.dtype(dtype).kind in "iu" else values).astype(dtype)


def quality(white: float, black: float, dtype: str, sigma: float | str, tensor: bool = False) -> float:
    clean, noisy = scene()
    given = as_type(noisy, white, black, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some of the noise is clipped
        result = nlrn.denoise(torch.from_numpy(given)[None] if tensor else given, sigma)
    result = result[0].numpy() if isinstance(result, torch.Tensor) else result
    assert (result.dtype, result.shape) == (given.dtype, given.shape)
    return psnr((result.astype(np.float64) - black) / white, clean, 1.0)


@functools.cache
def full_range(auto: bool) -> float:
    return quality(65535, 0, "uint16", "auto" if auto else NOISE * 65535)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("auto", [False, True], ids=["given", "auto"])
def test_every_range_is_restored_as_well_as_the_full_one(kind, auto):
    white, black, dtype = KINDS[kind]
    sigma = "auto" if auto else NOISE * white
    assert quality(white, black, dtype, sigma) == pytest.approx(full_range(auto), abs=0.1)


@pytest.mark.parametrize("kind", ["uint16 of white 1023", "floats of white 3", "signed int16"])
def test_tensors_have_the_same_ranges(kind):
    white, black, dtype = KINDS[kind]
    assert quality(white, black, dtype, NOISE * white, tensor=True) == pytest.approx(
        full_range(False), abs=0.1
    )


@pytest.mark.parametrize(("white", "dtype"), [(1, "float32"), (1000, "float32"), (600, "uint16")])
def test_stars_keep_their_flux(white, dtype):
    rng = np.random.default_rng(3)
    sky = 0.5 + rng.normal(0, 0.05, (48, 48))
    rows, columns = rng.integers(2, 46, (2, 2))
    sky[rows, columns] = 50
    given = as_type(sky, white, 0, dtype)
    result = nlrn.denoise(given, 0.05 * white)
    np.testing.assert_allclose(result[rows, columns], given[rows, columns], rtol=0.01)
    sky[rows, columns] = result[rows, columns] = 0
    assert result.std() < 0.3 * 0.05 * white + 0.5 * white * np.sqrt(2) / 48


def test_a_dark_sky_with_bright_objects():
    """The brightest objects do not decide on what counts as noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:96, :96]
    sky = np.full((96, 96), 0.003)
    for _ in range(12):
        row, column = rng.uniform(5, 91, 2)
        sky += 10 ** rng.uniform(-2.5, -0.2) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 4.5)
    noisy = (sky + rng.normal(0, 0.0005, sky.shape)).astype(np.float32)
    result = nlrn.denoise(noisy)
    assert np.sqrt(np.mean((result - sky) ** 2)) < 0.0004


def test_the_range_of_a_type_stays_where_data_fill_it():
    rng = np.random.default_rng(0)
    for values, low, high in (
        (rng.integers(0, 40, (32, 32)).astype(np.uint8), 0, 255),
        (rng.integers(0, 65535, (32, 32)).astype(np.uint16), 0, 65535),
        (rng.random((32, 32), np.float32), 0, 1),
        (rng.normal(0.5, 0.3, (32, 32)).astype(np.float32), 0, 1),
    ):
        found = range_of(torch.from_numpy(values)[None, None], None)
        assert (found.low, found.high, found.note) == (low, high, None)


def test_the_note_names_the_range_and_what_sets_another(caplog):
    counts = np.random.default_rng(0).integers(0, 1000, (32, 32)).astype(np.uint16)
    _, report = Restorer("nlrn-small-gray", steps=2).array(counts, 50)
    assert report.notes[0].startswith("working range 0..10")
    assert report.notes[0].endswith(" of 0..65535, from the data; data_range= sets another")
    with caplog.at_level(logging.INFO, "nlrn"):
        nlrn.denoise(counts, 50, steps=2, data_range=(0, 1100))
    assert "working range" not in caplog.text


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "float64"]
)
def test_the_map_is_inverted_exactly(dtype):
    rng = np.random.default_rng(0)
    values = rng.normal(100, 3, (1, 1, 40, 50)) * (1 if dtype in ("uint8", "float16") else 300)
    values[0, 0, 3, 4] = 250 if dtype == "uint8" else 32000  # an outlier
    given = torch.from_numpy(values.astype(dtype))
    for data_range in (None, 40000, (10, 33000)):
        if dtype == "uint8" or data_range is None:
            found = range_of(given, None)
        else:
            found = range_of(given, data_range)
        assert torch.equal(found.from_unit(found.to_unit(given), given), given)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(9, 8), (20, 20, 3)])
def test_a_constant_image_stays_as_it_is(shape, dtype):
    for value in (0, 1, 200):
        image = np.full(shape, value, dtype)
        for result in (nlrn.denoise(image), nlrn.dejpeg(image)):
            assert np.array_equal(result, image)
        np.testing.assert_allclose(nlrn.upscale(image, 2), value, rtol=1e-6)


def test_noise_of_a_file_in_grey_levels_of_its_type(tmp_path):
    """The level that is found is one that can be given."""
    counts = np.random.default_rng(0).normal(500, 60, (48, 48)).astype(np.uint16)
    write_image(Image(counts), tmp_path / "a.png")
    _, report = Restorer("nlrn-small-gray", steps=2).image(Image(counts))
    assert report.sigma == pytest.approx(60 / 65535, rel=0.1)
    found = nlrn.denoise(tmp_path / "a.png", model="nlrn-small-gray", steps=2)
    given = nlrn.denoise(tmp_path / "a.png", 255 * report.sigma, model="nlrn-small-gray", steps=2)
    assert np.abs(found.astype(int) - given).max() <= 2


def test_every_image_of_a_batch_has_a_range_of_its_own():
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(np.stack([rng.random((1, 24, 24)), 300 * rng.random((1, 24, 24))]))
    together = nlrn.denoise(batch, 0.1, model="nlrn-small-gray", steps=2)
    for image, result in zip(batch, together, strict=True):
        torch.testing.assert_close(result, nlrn.denoise(image, 0.1, model="nlrn-small-gray", steps=2))


@pytest.mark.parametrize("top", [1.2, 1.3])
def test_highlights_above_white_by_less_than_their_noise(top):
    """They were darkened by a tenth, and 1.3 dB were lost."""
    clean = camera()[100:228, 100:228].astype(np.float32) / camera()[100:228, 100:228].max()
    noisy = clean + 25 / 255 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    within = nlrn.denoise(noisy, 25 / 255, model="nlrn-small-gray")
    beyond = nlrn.denoise(top * noisy, top * 25 / 255, model="nlrn-small-gray") / top
    assert psnr(beyond, clean, 1.0) > psnr(within, clean, 1.0) - 0.1
    bright = clean > 0.8
    assert abs((beyond - clean)[bright].mean()) < abs((within - clean)[bright].mean()) + 0.01


def test_a_level_of_the_type_for_data_of_fewer_bits():
    """12-bit counts in a file of 16 bit, and a sigma that was meant for 12."""
    rng = np.random.default_rng(0)
    counts = (1000 + 60 * np.arange(48) + rng.normal(0, 190, (48, 48))).clip(0, 4095).astype(np.uint16)
    restore = Restorer("gaussian").image
    _, report = restore(Image(counts), 12.0)
    (caution,) = [one for one in report.warnings if "data_range=" in one]
    assert "12 is 3084 in units of the data" in caution
    _, fitting = restore(Image(counts), 190 / 257)
    assert not any("data_range=" in one for one in fitting.warnings)
    _, given = Restorer("gaussian", data_range=4095).image(Image(counts), 12.0)
    assert not any("data_range=" in one for one in given.warnings)
