"""Calibration, labels and overlays of ImageJ and OME beside the picture that they describe."""

from __future__ import annotations

import re
import struct
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from image_files import noise

import nlrn
from nlrn.files.images import read_image, write_image
from nlrn.files.microscopy import _rational

PIXELS = noise((24, 32), "uint16")
SAID = {
    "unit": "um",
    "Labels": ["cell 1"],
    "Ranges": (1.0, 60000.0),
    "LUTs": [np.arange(768, dtype=np.uint8).reshape(3, 256)],
    "Overlays": b"a place",
}


@pytest.fixture
def imagej(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, imagej=True, resolution=(10, 20), metadata=SAID)
    return tmp_path / "a.tif"


def described(path) -> tuple:
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        return (
            tags["XResolution"].value,
            tags["YResolution"].value,
            int(tags["ResolutionUnit"].value),
            file.imagej_metadata,
        )


def test_imagej_is_kept(imagej, tmp_path):
    assert write_image(read_image(imagej), tmp_path / "b.tif") == ()
    across, down, unit, said = described(tmp_path / "b.tif")
    assert (across, down, unit) == ((10, 1), (20, 1), 1)
    before = described(imagej)[-1]
    assert said.keys() == before.keys()
    for name in ("unit", "Labels", "Ranges", "Overlays"):
        assert said[name] == before[name]
    assert np.array_equal(said["LUTs"], before["LUTs"])
    assert any(
        "no place for ImageJ's" in note for note in write_image(read_image(imagej), tmp_path / "b.png")
    )


def test_square_pixels_of_imagej_keep_their_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, imagej=True, resolution=(10, 10), metadata={"unit": "um"})
    nlrn.denoise(tmp_path / "a.tif", 10, model="gaussian", output=tmp_path / "b.tif")
    assert described(tmp_path / "b.tif")[:3] == ((10, 1), (10, 1), 1)


def test_enlarging_makes_pixels_of_imagej_smaller(imagej, tmp_path):
    nlrn.upscale(imagej, 2, steps=2, output=tmp_path / "b.tif")
    across, down, unit, said = described(tmp_path / "b.tif")
    assert (across, down, unit) == ((20, 1), (40, 1), 1)
    assert said["Labels"] == "cell 1"
    assert "Overlays" not in said


def test_a_fraction_of_pixels_of_imagej(imagej, tmp_path, tiny_upscaler):
    """The size of the picture in its units stays, by the numbers of pixels that it really has."""
    nlrn.upscale(imagej, size=(33, 44), model=tiny_upscaler, output=tmp_path / "b.tif")
    across, down, _, _ = described(tmp_path / "b.tif")
    assert 44 * across[1] / across[0] == pytest.approx(32 / 10, rel=1e-9)
    assert 33 * down[1] / down[0] == pytest.approx(24 / 20, rel=1e-9)


@pytest.mark.parametrize(
    ("before", "factor"),
    [((4294967295, 7), (3, 2)), ((4000000000, 3999999999), (13, 7)), ((7, 4294967291), (3, 2))],
)
def test_resolutions_beyond_32_bit_come_as_near_as_they_can(before, factor):
    data = _rational(*before, Fraction(*factor))
    numerator, denominator = struct.unpack("<II", data)
    exact = Fraction(*before) * Fraction(*factor)
    assert (
        abs(Fraction(numerator, denominator) / exact - 1) < 1e-8
        or numerator == 2**32 - 1
        or denominator == 2**32 - 1
    )


def test_enlarging_rewrites_ome(tmp_path):
    size = {
        "PhysicalSizeX": 0.1,
        "PhysicalSizeXUnit": "\u00b5m",
        "PhysicalSizeY": 0.3,
        "PhysicalSizeYUnit": "\u00b5m",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, metadata={"axes": "YX", **size})
    nlrn.upscale(tmp_path / "a.ome.tif", 2, steps=2, output=tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        found = re.findall(r'\b((?:Physical)?Size[XY])="([^"]*)"', file.ome_metadata)
        assert dict(found) == {"SizeX": "64", "SizeY": "48", "PhysicalSizeX": "0.05", "PhysicalSizeY": "0.15"}
        assert file.series[0].shape == (48, 64)
