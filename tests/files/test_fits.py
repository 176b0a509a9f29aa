"""FITS: measurements with their header, planes of cubes, and pixels without data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import noise

import nlrn
from nlrn.files.images import Image, ImageError, encode_image, image_size, read_image, write_image
from nlrn.files.pages import read_pages, write_pages
from nlrn.restoration import Restorer

fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the package astropy")

TYPES = ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


def values(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return (200 * np.random.default_rng(0).random(shape)).astype(dtype)


def content(*parts: object) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(parts)).writeto(buffer)
    return buffer.getvalue()


def single(array: np.ndarray | None, **cards: object) -> bytes:
    part = fits.PrimaryHDU(array)
    for key, value in cards.items():
        part.header[key] = value
    return content(part)


@pytest.mark.parametrize("dtype", TYPES)
def test_types_and_header_stay(dtype):
    array = values((21, 33), dtype)
    data = single(array, OBJECT="M31", EXPTIME=(30.0, "seconds"), HISTORY="flat fielded")
    image = read_image(data)
    assert (image.pixels.dtype, image.format, image.notes) == (dtype, "FITS", ())
    assert np.array_equal(image.pixels, array)
    assert image_size(data) == (33, 21)
    written = encode_image(image)
    assert len(written) % 2880 == 0
    with fits.open(io.BytesIO(written), uint=True) as file:
        file.verify("exception")
        assert np.array_equal(file[0].data, array)
        assert file[0].data.dtype.newbyteorder("=") == dtype
        header = file[0].header
    assert (header["OBJECT"], header["EXPTIME"], header.comments["EXPTIME"]) == ("M31", 30, "seconds")
    assert list(header["HISTORY"]) == ["flat fielded"]


def test_scaled_values_become_floats():
    stored = values((8, 9), "int16")
    part = fits.PrimaryHDU(stored)
    part.header["BSCALE"], part.header["BZERO"] = 0.5, 10.0
    image = read_image(content(part))
    assert np.array_equal(image.pixels, (0.5 * stored + 10).astype(np.float32))
    assert image.notes == ("scaled values (BSCALE, BZERO) are restored and written as floats",)
    assert np.array_equal(read_image(encode_image(image)).pixels, image.pixels)


@pytest.mark.parametrize("ranges", [None, [(2, 3)], [(4, 4)]])
def test_planes_of_a_cube(ranges, tmp_path: Path):
    cube = values((2, 3, 8, 9))
    (tmp_path / "a.fits").write_bytes(single(cube, CTYPE3="FREQ", OBJECT="x"))
    with read_pages(tmp_path / "a.fits", ranges) as pages:
        write_pages(pages, tmp_path / "b.fits", pages)
        count = len(pages)
    planes = cube.reshape(6, 8, 9)
    expected = {6: cube, 2: planes[1:3], 1: planes[3]}[count]
    with fits.open(tmp_path / "b.fits") as file:
        assert np.array_equal(file[0].data, expected)
        assert file[0].header["OBJECT"] == "x"
    with pytest.raises(ImageError, match="has 6 planes"):
        read_image(tmp_path / "a.fits")


def test_pixels_without_data_come_back_as_they_were(tmp_path: Path):
    array = values((40, 50))
    array[5:9, 20:30] = np.nan
    (tmp_path / "a.fits").write_bytes(single(array))
    restorer = Restorer("gaussian")
    image = read_image(tmp_path / "a.fits")
    restored, _ = restorer.image(image, 25.0)
    empty = np.isnan(array)
    assert np.array_equal(np.isnan(restored.pixels), empty)
    assert not np.array_equal(restored.pixels[~empty], array[~empty])
    # They are filled for the method, so that nothing of them reaches the picture.
    assert np.nanmax(restored.pixels) <= np.nanmax(array)
    large = nlrn.upscale(tmp_path / "a.fits", 2, steps=2)
    assert np.array_equal(np.isnan(large), empty.repeat(2, 0).repeat(2, 1))
    assert np.isfinite(nlrn.estimate_noise(np.where(empty, 0, array)).sigma)


def test_blank_integers():
    array = values((9, 9), "int16")
    array[4, 4] = -1
    image = read_image(single(array, BLANK=-1))
    assert np.argwhere(np.isnan(image.pixels)).tolist() == [[4, 4]]
    assert image.pixels[0, 0] == array[0, 0]


def test_where_the_sky_is_after_an_upscaling(tmp_path: Path):
    """The edges of the picture stay where they were on the sky."""
    wcs = {"CRPIX1": 10.5, "CRPIX2": 4.0, "CD1_1": 0.2, "CD1_2": 0.1, "CD2_1": -0.1, "CD2_2": 0.3}
    distortion = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "A_2_0": 1e-4}
    (tmp_path / "a.fits").write_bytes(single(values((8, 20)), **wcs, **distortion))
    nlrn.upscale(tmp_path / "a.fits", 2, steps=2, output=tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as file:
        new = file[0].header
    for edge in ((0.5, 0.5), (20.5, 8.5)):
        for axis in (1, 2):
            old_place = sum(wcs[f"CD{axis}_{i}"] * (edge[i - 1] - wcs[f"CRPIX{i}"]) for i in (1, 2))
            there = [2 * (at - 0.5) + 0.5 for at in edge]
            new_place = sum(new[f"CD{axis}_{i}"] * (there[i - 1] - new[f"CRPIX{i}"]) for i in (1, 2))
            assert new_place == pytest.approx(old_place)
    assert "A_ORDER" not in new
    assert "A_2_0" not in new
    assert new["CTYPE1"] == "RA---TAN"


def test_what_stands_beside_the_image_is_named():
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])
    image = read_image(content(fits.PrimaryHDU(), fits.ImageHDU(values((8, 9))), table))
    assert image.pixels.shape == (8, 9)
    assert image.notes == (
        "only the first image is kept, without 1 other parts (images, tables) of the file",
    )
    packed = content(fits.PrimaryHDU(), fits.CompImageHDU(values((50, 60), "int16")))
    assert np.array_equal(read_image(packed).pixels, values((50, 60), "int16"))


def test_what_another_format_does_not_hold_is_told(tmp_path: Path):
    image = read_image(single(values((8, 9)), OBJECT="x"))
    assert write_image(image, tmp_path / "a.tif") == (
        "TIFF has no place for the FITS header: it is left out",
    )
    with pytest.raises(ImageError, match="FITS holds no colours here, only grey; PNG"):
        encode_image(Image(noise((4, 5, 3))), "FITS")
    with pytest.raises(ImageError, match="FITS cannot hold transparency; PNG"):
        encode_image(Image(noise((4, 5)), noise((4, 5))), "FITS")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (single(values((21, 33)))[:4000], "FITS file"),
        (single(values((21, 33)))[:1000], "FITS file"),
        (single(None), "no image of two axes in its 1 parts"),
        (single(values((9,))), "no image of two axes"),
        (single(np.full((4, 4), np.inf)), "infinite values"),
        (single(values((4, 4), "int64")), "values of int64; expected one of"),
        (b"SIMPLE  = nothing", "FITS file"),
        (
            content(fits.PrimaryHDU(), fits.ImageHDU(values((8, 9)))).replace(b" END  ", b" END 5", 1),
            "has no end",
        ),
        (
            single(values((3, 8, 9))).replace(b"3  =" + b" " * 20 + b"3", b"3  =" + b" " * 12 + b"900000003"),
            "claims 900000003 planes in",
        ),
    ],
)
def test_what_cannot_be_read(data, words):
    with pytest.raises(ImageError, match=words):
        read_image(data)
