"""What is read is what was stored, and what is written is what was given."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import SRGB, exif_block, noise, png16, saved, tags_of
from PIL import Image as PillowImage

from nlrn.files.images import Image, encode_image, read_image

LOSSLESS = [
    *(("PNG", dtype) for dtype in ("uint8", "uint16")),
    *(("TIFF", dtype) for dtype in ("uint8", "uint16", "float32")),
    ("WEBP", "uint8"),
    ("BMP", "uint8"),
]


@pytest.mark.parametrize("metadata", [False, True], ids=["bare", "metadata"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 1), (1, 500, 3)], ids=str)
@pytest.mark.parametrize(("format_", "dtype"), LOSSLESS)
def test_lossless_formats_return_every_bit(format_, dtype, shape, alpha, metadata):
    if format_ == "BMP" and (alpha or metadata):
        pytest.skip("BMP holds neither")
    image = Image(
        noise(shape, dtype),
        noise(shape[:2], dtype, seed=3) if alpha else None,
        format_,
        exif_block() if metadata else None,
        SRGB if metadata else None,
    )
    back = read_image(encode_image(image))
    pixels = np.stack([image.pixels] * 3, -1) if format_ == "WEBP" and len(shape) == 2 else image.pixels
    assert back.format == format_
    assert back.pixels.dtype == dtype
    assert np.array_equal(back.pixels, pixels)
    assert back.pixels.flags.writeable
    assert (back.alpha is None) == (not alpha)
    if alpha:
        assert back.alpha.dtype == dtype
        assert np.array_equal(back.alpha, image.alpha)
    assert back.icc == image.icc
    assert tags_of(back.exif) == tags_of(image.exif)
    assert back.notes == ()
    if format_ != "TIFF":
        assert back.exif == image.exif


def test_jpeg_keeps_size_and_metadata_and_is_444():
    image = Image(noise((37, 23, 3)), format="JPEG", exif=exif_block(), icc=SRGB)
    data = encode_image(image)
    back = read_image(data)
    assert (back.pixels.shape, back.exif, back.icc) == (image.pixels.shape, image.exif, image.icc)
    assert not back.lossless
    with PillowImage.open(io.BytesIO(data)) as picture:
        assert {component[1:3] for component in picture.layer} == {(1, 1)}
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (64, 64))
    error = read_image(encode_image(Image(smooth, format="JPEG"))).pixels.astype(int) - smooth
    assert np.abs(error).max() <= 2


def test_jpeg_of_large_noise_at_full_quality():
    pixels = noise((600, 700, 3))
    assert read_image(encode_image(Image(pixels), "JPEG", quality=100)).pixels.shape == pixels.shape


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_stays_lossless_or_lossy(lossless):
    picture = PillowImage.fromarray(noise((40, 40, 3)))
    image = read_image(saved(picture, "WEBP", lossless=lossless, exif=b"Exif\0\0" + exif_block()))
    assert image.lossless is lossless
    back = read_image(encode_image(image))
    assert back.lossless is lossless
    assert np.array_equal(back.pixels, image.pixels) is lossless


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png16_has_the_values_of_the_specification(colour_type, channels):
    array = noise((9, 11, channels), "uint16")
    image = read_image(png16(array, colour_type))
    colours = 1 if channels < 3 else 3
    assert np.array_equal(image.pixels.reshape(9, 11, colours), array[..., :colours])
    assert (image.alpha is None) == (channels in (1, 3))
    if image.alpha is not None:
        assert np.array_equal(image.alpha, array[..., -1])


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_png16_transparent_colour_becomes_alpha(colour_type, channels):
    array = noise((4, 6, channels), "uint16")
    image = read_image(png16(array, colour_type, (b"tRNS", array[2, 3].astype(">u2").tobytes())))
    assert np.array_equal(image.pixels.reshape(array.shape), array)
    assert image.alpha is not None
    assert np.argwhere(image.alpha == 0).tolist() == [[2, 3]]
    assert set(np.unique(image.alpha)) == {0, 65535}


@pytest.mark.parametrize(("shape", "color_type"), [((8, 8), 0), ((8, 8, 3), 2)])
def test_png16_interlaced(shape, color_type, capfd):
    array = noise(shape, "uint16")
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(b"\0" + r.astype(">u2").tobytes() for y, x, dy, dx in passes for r in array[y::dy, x::dx])
    data = bytearray(png16(array, color_type))
    header = struct.pack(">IIBBBBB", 8, 8, 16, color_type, 0, 0, 1)
    data[16:33] = header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    packed = zlib.compress(rows)
    idat = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    assert np.array_equal(read_image(bytes(data[:33]) + idat + bytes(data[-12:])).pixels, array)
    assert capfd.readouterr() == ("", "")  # libpng writes warnings there


def test_png16_metadata_as_another_program_reads_it():
    image = Image(noise((5, 4, 3), "uint16"), exif=exif_block(), icc=SRGB)
    with PillowImage.open(io.BytesIO(encode_image(image))) as picture:
        picture.load()
        assert picture.info["icc_profile"] == SRGB
        assert picture.getexif()[0x0112] == 6


def test_png16_damaged_profile_is_dropped_with_a_note():
    image = read_image(png16(noise((3, 3, 1), "uint16"), 0, (b"iCCP", b"x\0\0garbage")))
    assert image.icc is None
    assert image.notes == ("damaged colour profile dropped",)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "stream"])
def test_sources(kind, tmp_path: Path):
    pixels = noise((3, 4))
    path = tmp_path / "ünïcode 图 🌊.png"
    path.write_bytes(encode_image(Image(pixels)))
    if kind == "stream":
        with path.open("rb") as stream:
            assert np.array_equal(read_image(stream).pixels, pixels)
    else:
        source = {"path": path, "str": str(path), "bytes": path.read_bytes()}[kind]
        assert np.array_equal(read_image(source).pixels, pixels)


def test_content_decides_the_format_and_a_wrong_name_is_noted(tmp_path: Path):
    data = encode_image(Image(noise((3, 4))), "TIFF")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "none").write_bytes(data)
    assert read_image(tmp_path / "a.png").format == "TIFF"
    assert read_image(tmp_path / "a.png").notes == ("this is a TIFF file, though it is named .png",)
    assert read_image(tmp_path / "none").notes == ()
