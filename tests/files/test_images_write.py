"""Writing files, finding them, and integers to floats and back."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import SRGB, exif_block, noise

from nlrn.files import exif
from nlrn.files.images import (
    Image,
    ImageError,
    check_writable,
    encode_image,
    find_images,
    from_float,
    read_image,
    to_float,
    value_range,
    write_image,
)

GREY = Image(noise((4, 5)))


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.JPEG", "a.tif", "a.tiff", "a.webp", "a.bmp"])
def test_the_suffix_decides_the_format(name, tmp_path: Path):
    write_image(GREY, tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.format == check_writable(GREY, name)
    assert image.notes == ()
    assert os.listdir(tmp_path) == [name]


def test_without_a_suffix_the_format_stays(tmp_path: Path):
    write_image(Image(noise((4, 5)), format="TIFF"), str(tmp_path / "a"))
    assert read_image(tmp_path / "a").format == "TIFF"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_pixels_of_any_strides(dtype, with_alpha, tmp_path: Path):
    planes = np.moveaxis(noise((3, 4, 5), dtype), 0, -1)
    image = Image(planes, noise((5, 4), dtype).T if with_alpha else None)
    for suffix in {"uint8": ("png", "tif", "webp"), "uint16": ("png", "tif"), "float32": ("tif",)}[dtype]:
        write_image(replace(image, lossless=True), tmp_path / f"a.{suffix}")
        assert np.array_equal(read_image(tmp_path / f"a.{suffix}").pixels, planes)


IMPOSSIBLE = {
    "16-bit JPEG": (
        Image(noise((4, 5), "uint16")),
        "a.jpg",
        "JPEG cannot hold uint16 pixels; PNG, TIFF, JXL or FITS can",
    ),
    "16-bit WebP": (Image(noise((4, 5), "uint16")), "a.webp", "WEBP cannot hold uint16"),
    "16-bit BMP": (Image(noise((4, 5), "uint16")), "a.bmp", "BMP cannot hold uint16"),
    "float PNG": (
        Image(noise((4, 5), "float32")),
        "a.png",
        "PNG cannot hold float32 pixels; TIFF or FITS can",
    ),
    "int64 TIFF": (Image(np.zeros((4, 5), np.int64)), "a.tif", "TIFF cannot hold int64 pixels; none can"),
    "alpha JPEG": (
        Image(noise((4, 5)), noise((4, 5))),
        "a.jpg",
        "JPEG cannot hold transparency; PNG, TIFF, WEBP, JXL or AVIF can",
    ),
    "alpha BMP": (Image(noise((4, 5)), noise((4, 5))), "a.bmp", "BMP cannot hold transparency"),
    "GIF": (GREY, "a.gif", "GIF files are only read; expected one of .png, .jpg"),
    "4 channels": (Image(noise((4, 5, 4))), "a.png", r"HxW or HxWx3 and not empty, got shape \(4, 5, 4\)"),
    "empty": (Image(noise((0, 5))), "a.png", r"got shape \(0, 5\)"),
    "alpha of another size": (Image(noise((4, 5)), noise((5, 4))), "a.png", "alpha must be"),
    "alpha of another type": (Image(noise((4, 5)), noise((4, 5), "uint16")), "a.png", "alpha must be"),
    "JPEG too large": (Image(np.zeros((1, 70_000), np.uint8)), "a.jpg", "JPEG holds at most 65500 pixels"),
    "WebP too large": (Image(np.zeros((1, 17_000), np.uint8)), "a.webp", "WEBP holds at most 16383 pixels"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(case, tmp_path: Path):
    image, name, expected = IMPOSSIBLE[case]
    with pytest.raises(ImageError, match=expected):
        write_image(image, tmp_path / name)
    assert os.listdir(tmp_path) == []
    if "large" not in case:
        with pytest.raises(ImageError, match=expected):
            check_writable(image, name)


def test_lost_metadata_is_told(tmp_path: Path):
    image = Image(noise((4, 5)), exif=exif_block(), icc=SRGB)
    assert write_image(image, tmp_path / "a.png") == ()
    assert write_image(image, tmp_path / "a.tif") == ()
    colour, data = write_image(image, tmp_path / "a.bmp")
    assert "colour profile" in colour
    assert "EXIF" in data
    assert write_image(Image(noise((4, 5)), exif=b"garbage"), tmp_path / "b.tif") == (
        "the EXIF data is damaged: it is left out",
    )


@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PNG of 16 bit"])
def test_the_resolution_stays(source):
    """Scans have one; from every format to every other."""
    kind, dtype = source.split()[0], np.uint16 if "16" in source else np.uint8
    image = Image(np.full((9, 7, 3), 100, dtype), format=kind, resolution=(300.0, 150.0))
    image = read_image(encode_image(image))
    assert image.resolution == pytest.approx((300, 150), abs=0.1)
    for name in (
        ("PNG", "TIFF") if dtype == np.uint16 else ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "AVIF", "JXL")
    ):
        assert read_image(encode_image(image, name)).resolution == pytest.approx((300, 150), abs=0.1)
    bare = read_image(encode_image(replace(image, resolution=None, exif=None)))
    assert kind == "BMP" or bare.resolution is None  # every BMP has one


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_xmp_stays(dtype):
    """What editors keep there: keywords, ratings, history; from every format to every other."""
    packet = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>K\u00f6ln</x:xmpmeta>".encode()
    image = Image(np.full((9, 7, 3), 100, dtype), xmp=packet)
    formats = ("PNG", "TIFF", "JXL") if dtype == np.uint16 else ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "JXL")
    for source in formats:
        read = read_image(encode_image(image, source))
        assert read.xmp == packet
        assert all(read_image(encode_image(read, name)).xmp == packet for name in formats)


def test_compressed_xmp_of_a_png():
    data = encode_image(Image(np.zeros((4, 5), np.uint16)))
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>")
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    other = struct.pack(">I", 5) + b"iTXtother" + struct.pack(">I", zlib.crc32(b"iTXtother"))
    assert read_image(data[:33] + chunk + other + data[33:]).xmp == b"<x/>"
    assert read_image(data[:33] + other + data[33:]).xmp is None


def test_xmp_without_room_is_told(tmp_path: Path):
    image = Image(np.zeros((4, 5), np.uint8), xmp=b" " * 70_000)
    assert write_image(image, tmp_path / "a.jpg") == (
        "JPEG has no room for 70000 bytes of XMP data: they are left out",
    )
    assert write_image(image, tmp_path / "a.png") == ()
    assert read_image(tmp_path / "a.png").xmp == image.xmp


def test_resolutions_that_formats_cannot_hold():
    """Microscopes write pixels of a tenth of a nanometre."""
    image = Image(np.zeros((9, 7), np.uint16), format="TIFF", resolution=(2.54e8, 2.54e8))
    for name in ("PNG", "TIFF"):
        assert read_image(encode_image(image, name)).resolution is None


def test_a_picture_turned_upright_turns_its_resolution():
    block = exif_block(orientation=6)
    image = Image(np.zeros((9, 7), np.uint8), exif=block, resolution=(300.0, 150.0))
    assert read_image(encode_image(image, "BMP")).resolution == pytest.approx((150, 300), abs=0.1)


def test_exif_blocks_stay_as_they_are(tmp_path: Path):
    """With a resolution of their own they need not be built anew, which would lose what only programs read."""
    found = exif.with_resolution(exif.parse(exif_block()), (72.0, 72.0))
    block = exif.build(found) + b"maker notes"
    image = Image(np.zeros((9, 7, 3), np.uint8), format="WEBP", exif=block, resolution=(72.0, 72.0))
    assert read_image(encode_image(image)).exif == block


def test_odd_numbers_in_an_exif_block():
    """A type that only BigTIFF has, at the end of the block."""
    block = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 271, 16, 1, 0)
    assert exif.parse(block).main == {}


def test_resolutions_that_are_none():
    """Pillow says 72 dots an inch of a JPEG whose EXIF data has no resolution."""
    from PIL import Image as PillowImage

    for tags, expected in (
        ({271: "x"}, None),
        ({282: 94.488, 283: 94.488, 296: 3}, (240, 240)),
        ({282: 0}, None),
    ):
        block, buffer = PillowImage.Exif(), io.BytesIO()
        for code, value in tags.items():
            block[code] = value
        PillowImage.new("RGB", (8, 8)).save(buffer, "JPEG", exif=block)
        found = read_image(buffer.getvalue()).resolution
        assert found == (None if expected is None else pytest.approx(expected, abs=0.01))


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_quality_out_of_range(quality):
    with pytest.raises(ValueError, match=f"quality must be 1 to 100, got {quality}"):
        encode_image(GREY, "JPEG", quality=quality)


def test_quality_matters():
    image = Image(noise((64, 64)))
    assert len(encode_image(image, "JPEG", quality=50)) < len(encode_image(image, "JPEG"))


def test_unknown_format():
    with pytest.raises(ImageError, match="cannot write the format 'GIF'; expected one of PNG"):
        encode_image(GREY, "GIF")


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_an_existing_output_is_kept(kind, tmp_path: Path):
    path = tmp_path / "a.png"
    {
        "file": lambda: path.write_text("mine"),
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("x"),
    }[kind]()
    with pytest.raises(FileExistsError, match=r"a\.png exists"):
        write_image(GREY, path)
    assert os.listdir(tmp_path) == ["a.png"]
    if kind == "file":
        assert path.read_text() == "mine"
        write_image(GREY, path, overwrite=True)
        assert np.array_equal(read_image(path).pixels, GREY.pixels)


def test_an_output_that_comes_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (sync(handle), path.write_text("mine")))
    with pytest.raises(FileExistsError):
        write_image(GREY, path)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr
)
def test_an_interrupted_write_leaves_nothing(error, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_text("mine")

    def fail(handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)) as caught:
        write_image(GREY, path, overwrite=True)
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_missing_folder_is_told_by_the_name_that_was_asked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        write_image(GREY, tmp_path / "none" / "a.png")
    assert caught.value.filename == str(tmp_path / "none" / "a.png")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("working", ["float32", "float64"])
def test_every_integer_comes_back(dtype, working):
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    values = to_float(levels)
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0, 1)
    assert np.array_equal(from_float(values.astype(working), dtype), levels)
    assert np.array_equal(from_float(values, np.dtype(dtype)), levels)


def test_the_range_comes_from_the_type_never_from_the_values():
    assert to_float(np.array([0, 1], np.uint8)).tolist() == pytest.approx([0, 1 / 255])
    assert to_float(np.array([0, 255], np.uint16)).tolist() == pytest.approx([0, 255 / 65535])
    assert to_float(np.array([-1.5, 4.5], np.float32)).tolist() == [-1.5, 4.5]
    assert to_float(np.array([4095], np.uint16), 4095).tolist() == [1]
    assert to_float(np.array([127.5], np.float32), 255).tolist() == [0.5]
    assert to_float(np.zeros(3)).dtype == np.float64


@pytest.mark.parametrize("values", [[0.0, 255.0], [-10.0, 1.0]], ids=["grey levels", "below"])
def test_floats_that_are_not_in_units_of_white_are_refused(values):
    with pytest.raises(ValueError, match=r"should lie in \[0, 1\], .* give its white as data_range="):
        to_float(np.array(values))
    assert to_float(np.array(values), 255).tolist() == [value / 255 for value in values]


def test_integers_above_white_are_refused():
    with pytest.raises(ValueError, match="reaches 4096, which is more than its white, data_range=4095"):
        to_float(np.array([4096], np.uint16), 4095)


def test_integers_are_rounded_half_to_even_and_clipped_and_floats_are_neither():
    values = np.array([-1, 0.5, 1.5, 2.5, 254.4, 300]) / 256
    assert from_float(values, "uint8", 256).tolist() == [0, 0, 2, 2, 254, 255]
    assert from_float(np.array([2.0]), "uint16", 4095).tolist() == [4095]
    assert from_float(np.array([2.0]), "uint8", 1000).tolist() == [255]
    assert from_float(np.array([-0.25, 3.0], np.float32), "float32").tolist() == [-0.25, 3.0]
    assert from_float(np.array([0.5]), "float64", 255).tolist() == [127.5]


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint32", "complex64", "object"])
def test_other_types_are_refused_by_name(dtype):
    with pytest.raises(ValueError, match=f"uint8, uint16 or float, got {dtype}"):
        to_float(np.zeros(3, dtype))
    with pytest.raises(ValueError, match=dtype):
        from_float(np.zeros(3), dtype)


@pytest.mark.parametrize("data_range", [0, -1, float("nan"), float("inf")])
def test_impossible_ranges(data_range):
    with pytest.raises(ValueError, match="data_range must be positive"):
        value_range(np.dtype("uint8"), data_range)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        to_float(np.array([value]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        from_float(np.array([value]), "uint8")


def test_find_images(tmp_path: Path):
    names = ["b.PNG", "a.jpeg", "notes.txt", ".hidden.png", "sub/c.tif", "sub/.trash/d.tif", "odd[1].png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()

    def found(*inputs: str | Path, **options: bool) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in find_images(inputs, **options)]

    assert found(tmp_path) == ["a.jpeg", "b.PNG", "odd[1].png"]
    assert found(tmp_path, recursive=True) == ["a.jpeg", "b.PNG", "odd[1].png", "sub/c.tif"]
    assert found(str(tmp_path / "*.[Pp][Nn][Gg]")) == ["b.PNG", "odd[1].png"]
    assert found(f"{tmp_path}/**/*.tif") == ["sub/c.tif"]
    assert found(tmp_path / "odd[1].png", tmp_path) == ["odd[1].png", "a.jpeg", "b.PNG"]
    assert found(tmp_path / "notes.txt") == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images in the folder"):
        find_images([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_images([tmp_path / "none.png"])
    with pytest.raises(FileNotFoundError, match="matches no file"):
        find_images([f"{tmp_path}/*.webp"])
