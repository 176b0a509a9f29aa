"""Image sets, noise and rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlrn.evaluation.benchmark import measure
from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import (
    JPEG_REMOVAL,
    REAL_NOISE,
    SUPER_RESOLUTION,
    DataSet,
    jpeg_removal,
    noisy_version,
    real_noise,
    super_resolution,
    to_bytes,
)
from nlrn.files.images import Image, ImageError, write_image
from nlrn.files.planes import read_planes


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "Tiny").mkdir()
    for name, shape in {"b": (12, 16), "a": (16, 12), "c": (12, 12, 3)}.items():
        write_image(
            Image(rng.integers(0, 256, shape, dtype=np.uint8), format="PNG"),
            tmp_path / "Tiny" / f"{name}.png",
        )
    return tmp_path


def test_sets_are_sorted(data):
    assert [path.name for path in DataSet.find(data, "Tiny").files] == ["a.png", "b.png", "c.png"]


def test_missing_set_names_what_is_there(data):
    with pytest.raises(FileNotFoundError, match=r"no image set Set12 in .* \(there is: Tiny\)"):
        DataSet.find(data, "Set12")
    with pytest.raises(FileNotFoundError, match="there is: nothing"):
        DataSet.find(data / "nowhere", "Set12")


def test_grey_of_colour_is_matlabs(data):
    red, green, blue = np.moveaxis(read_planes(data / "Tiny" / "c.png", 3).astype(float), -1, 0)
    expected = np.rint(0.2989 * red + 0.5870 * green + 0.1140 * blue)
    assert np.array_equal(read_planes(data / "Tiny" / "c.png", 1), expected)


def test_what_cannot_be_measured(data):
    with pytest.raises(ImageError, match=r"a\.png is grey; this model needs RGB"):
        read_planes(data / "Tiny" / "a.png", 3)
    write_image(Image(np.zeros((12, 12), np.uint16), format="PNG"), data / "deep.png")
    with pytest.raises(ImageError, match="8-bit images are needed here, got uint16"):
        read_planes(data / "deep.png", 1)


def test_noise_is_seeded_by_image_and_level():
    clean = np.full((40, 50, 3), 128, np.uint8)
    first = noisy_version(clean, 25, 0)
    assert first.shape == (3, 40, 50)
    assert first.dtype == np.float32
    assert np.array_equal(first, noisy_version(clean, 25, 0))
    assert not np.array_equal(first, noisy_version(clean, 25, 1))
    noise = first - np.float32(128) / np.float32(255)
    expected = np.random.default_rng(25_000).standard_normal((3, 40, 50)) * 25 / 255
    np.testing.assert_allclose(noise, expected, atol=1e-6)


def test_noise_is_not_clipped():
    assert noisy_version(np.zeros((64, 64), np.uint8), 50, 0).min() < -0.2


def test_bytes_are_clipped_and_rounded():
    values = np.array([[[-0.1, 0.4 / 255, 0.6 / 255, 2.0]]], np.float32)
    assert to_bytes(values).tolist() == [[0, 0, 1, 255]]
    assert to_bytes(np.zeros((3, 2, 5), np.float32)).shape == (2, 5, 3)


def test_super_resolution(tmp_path):
    """Y of colour, grey as it is; cropped to a multiple of the scale; the border is left out."""
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (25, 32, 3), dtype=np.uint8), rng.integers(0, 256, (26, 31), np.uint8)
    for name, pixels in {"colour": colour, "grey": grey}.items():
        write_image(Image(pixels, format="PNG"), tmp_path / f"{name}.png")
    trial = super_resolution(tmp_path / "colour.png", 1, 3, 0)
    y = colour[:24, :30] @ [65.481, 128.553, 24.966] / 255 + 16
    assert trial.exact is not None
    np.testing.assert_allclose(255 * trial.exact, y, atol=1e-9)
    assert np.array_equal(trial.reference, np.rint(y))
    assert trial.degraded.shape == (1, 24, 30)
    assert trial.inside(trial.reference).shape == (18, 24)
    assert np.array_equal(super_resolution(tmp_path / "grey.png", 1, 2, 0).reference, grey[:, :30])
    with pytest.raises(ImageError, match=r"colour\.png: too small for scale 13"):
        super_resolution(tmp_path / "colour.png", 1, 13, 0)
    with pytest.raises(ImageError, match="measured on Y of 8-bit images, got uint8, 3 channels"):
        super_resolution(tmp_path / "colour.png", 3, 2, 0)


def test_jpeg(data):
    coarse, fine = (jpeg_removal(data / "Tiny" / "c.png", 3, quality, 0) for quality in (10, 95))
    assert coarse.degraded.shape == fine.degraded.shape == (3, 12, 12)
    assert psnr(to_bytes(coarse.degraded), coarse.reference) < psnr(to_bytes(fine.degraded), fine.reference)


def test_pairs_must_fit(data):
    write_image(Image(np.zeros((12, 12, 3), np.uint8), format="PNG"), data / "p_mean.png")
    write_image(Image(np.zeros((12, 13, 3), np.uint8), format="PNG"), data / "p_real.png")
    with pytest.raises(ImageError, match=r"same size, got \(12, 12, 3\) and \(12, 13, 3\)"):
        real_noise(data / "p_mean.png", 3, None, 0)
    with pytest.raises(ImageError, match=r"no image in .*Tiny has a name like Sony\*"):
        DataSet.find(data, "Tiny", "Sony*")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "level", "published"),
    [
        (SUPER_RESOLUTION, "Set5", 2, 33.66),
        (SUPER_RESOLUTION, "Set5", 3, 30.39),
        (SUPER_RESOLUTION, "Set5", 4, 28.42),
        (SUPER_RESOLUTION, "Set14", 2, 30.24),
        (SUPER_RESOLUTION, "Set14", 3, 27.55),
        (SUPER_RESOLUTION, "Set14", 4, 26.00),
        (JPEG_REMOVAL, "classic5", 10, 27.82),
        (JPEG_REMOVAL, "classic5", 40, 32.43),
        (REAL_NOISE, "PolyU", None, 36.20),
    ],
)
def test_what_the_literature_starts_from(shared_dir, task, name, level, published):
    """The degraded images score what they score elsewhere, so the protocol is the same."""
    images = DataSet.find(shared_dir / "data", name, task.files)
    channels = 3 if task is REAL_NOISE else 1
    result = measure(
        lambda image, sigma=None: image,
        "identity",
        images,
        level,
        task=task,
        channels=channels,
        device=torch.device("cpu"),
    )
    assert result.input_psnr == pytest.approx(published, abs=0.015)
