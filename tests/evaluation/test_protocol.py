"""Image sets, noise and rounding."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.data.datasets import read_planes
from nlrn.data.images import Image, ImageError, write_image
from nlrn.evaluation.protocol import DataSet, noisy_version, to_bytes


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
