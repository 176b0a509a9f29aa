"""Files that cannot be read: one line each, that names the file and what is wrong."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import FILES, OTHER, RGB, noise, png16, saved, tiff

from nlrn.files import codecs
from nlrn.files.image import FORMATS
from nlrn.files.images import Image, ImageError, encode_image, read_image


def claimed_png(width: int, height: int, bits: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    return data


def claimed_tiff(width: int, height: int, samples: int = 3) -> bytes:
    entries = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, 100)),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def claimed_bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + header + bytes(100)


def pages(count: int) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for index in range(count):
            file.write(noise((8, 8), seed=index), contiguous=False)
    return buffer.getvalue()


def animated_png16() -> bytes:
    return png16(noise((4, 4, 1), "uint16"), 0, (b"acTL", struct.pack(">II", 2, 0)))


def damaged_png(bits: int) -> bytes:
    data = bytearray(encode_image(Image(noise((9, 9), f"uint{bits}"))))
    data[-30] ^= 1
    return bytes(data)


def missing_strips() -> bytes:
    """A file of 24 rows in 3 strips that claims 25 rows."""
    data = bytearray(tiff(noise((24, 4)), rowsperstrip=8))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        data[file.pages[0].tags["ImageLength"].valueoffset] = 25
    return bytes(data)


def with_value(value: float) -> bytes:
    array = noise((8, 8), "float32")
    array[3, 4] = value
    return tiff(array)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"hello, world\n" * 9, "found text"),
    "binary": (lambda: bytes(range(256)), "found unknown data"),
    "PDF": (lambda: b"%PDF-1.7", "is a PDF file; supported are PNG, JPEG, TIFF, WEBP, BMP, GIF"),
    "animated GIF": (lambda: saved(RGB, "GIF", save_all=True, append_images=[OTHER]), "2 images or frames"),
    "only a signature, PNG": (lambda: b"\x89PNG\r\n\x1a\n", "truncated"),
    "only a signature, JPEG": (lambda: b"\xff\xd8\xff\xe0", "damaged or unsupported JPEG"),
    "only a signature, TIFF": (lambda: b"II*\0", "damaged or unsupported TIFF"),
    "only a signature, WebP": (lambda: b"RIFF\0\0\0\0WEBP", "damaged or unsupported WEBP"),
    "only a signature, BMP": (lambda: b"BM", "damaged or unsupported BMP"),
    "damaged PNG": (lambda: damaged_png(8), "damaged: the checksum of its 'IDAT' chunk"),
    "damaged 16-bit PNG": (lambda: damaged_png(16), "damaged: the checksum of its 'IDAT' chunk"),
    "huge PNG": (lambda: claimed_png(100_000, 100_000, 8), "10,000,000,000 pixels; the limit is 178,956,970"),
    "huge 16-bit PNG": (lambda: claimed_png(100_000, 100_000, 16), "100000x100000 pixels; the limit is"),
    "huge TIFF": (lambda: claimed_tiff(100_000, 100_000), "100000x100000 pixels; the limit is"),
    "huge BMP": (lambda: claimed_bmp(100_000, 100_000), "10,000,000,000 pixels; the limit is"),
    "TIFF without data": (
        lambda: claimed_tiff(5_000, 5_000),
        "damaged or unsupported TIFF",
    ),
    "TIFF of no size": (lambda: claimed_tiff(0, 5), "no pixels"),
    "PNG of no size": (lambda: claimed_png(0, 5, 16), "no pixels"),
    "TIFF of many channels": (lambda: claimed_tiff(9_000, 9_000, 60_000), "60000 channels; expected 3 or 4"),
    "5 channels": (lambda: tiff(noise((8, 8, 5)), photometric="rgb"), "5 channels; expected 3 or 4"),
    "3 grey channels": (
        lambda: tiff(noise((8, 8, 3)), photometric="minisblack", planarconfig="contig"),
        "expected 1 or 2 for a grey",
    ),
    "int64": (lambda: tiff(np.zeros((8, 8), np.int64)), "int64 pixels"),
    "complex": (lambda: tiff(np.zeros((8, 8), np.complex64)), "complex64 pixels"),
    "12 bit": (lambda: tiff(np.zeros((8, 8), np.uint16), bitspersample=12), "12-bit pixels"),
    "16-bit CMYK": (
        lambda: tiff(noise((8, 8, 4), "uint16"), photometric="separated"),
        "16-bit CMYK image; only 8-bit",
    ),
    "CIELAB": (lambda: tiff(noise((8, 8, 3)), photometric="cielab"), "CIELAB"),
    "NaN": (lambda: with_value(np.nan), "NaN or infinite"),
    "infinity": (lambda: with_value(-np.inf), "NaN or infinite"),
    "missing strips": (missing_strips, "expected 4 strips or tiles, found 3 whole ones"),
    "pages": (lambda: pages(3), "has 3 pages; only single images"),
    "volume": (lambda: tiff(noise((16, 16, 16)), volumetric=True, tile=(16, 16, 16)), "depth 16"),
    "animated WebP": (lambda: saved(RGB, "WEBP", save_all=True, append_images=[OTHER]), "2 images or frames"),
    "animated PNG": (lambda: saved(RGB, "PNG", save_all=True, append_images=[OTHER]), "2 images or frames"),
    "animated 16-bit PNG": (animated_png16, "is animated"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_one_line(case, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    make, expected = BAD[case]
    path = tmp_path / "x.png"
    path.write_bytes(make())
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(path))
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("format_", FILES)
def test_truncated(format_, share):
    data = FILES[format_]()
    try:
        image = read_image(data[: int(len(data) * share)])
    except ImageError:
        return
    assert format_.startswith("FITS")  # whose last block is filled up
    assert np.array_equal(image.pixels, read_image(data).pixels)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format_", FILES)
def test_damaged_files_fail_with_one_error_or_read_as_images(format_, count):
    """Whatever single bytes say, nothing but `ImageError` comes out."""
    data, rng = FILES[format_](), np.random.default_rng(1)
    for _ in range(count):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(ImageError):
            image = read_image(bytes(damaged))
            assert image.pixels.dtype.name in FORMATS[image.format].dtypes


def test_folder_named_like_an_image(tmp_path: Path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ImageError, match="is a folder, not an image"):
        read_image(tmp_path / "x.png")


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("package", ["imagecodecs", "tifffile"])
def test_a_missing_package_is_named(package, monkeypatch: pytest.MonkeyPatch):
    png, tif = encode_image(Image(noise((4, 4), "uint16"))), tiff(noise((4, 4)))
    monkeypatch.setitem(sys.modules, package, None)
    assert read_image(saved(RGB, "PNG")).pixels.shape == (32, 32, 3)
    for data in {"imagecodecs": [png], "tifffile": [tif]}[package]:
        with pytest.raises(ImageError, match=f"needs the package {package}: python -m pip install {package}"):
            read_image(data)
    if package == "imagecodecs":
        with pytest.raises(ImageError, match=f"pip install {package}"):
            encode_image(Image(noise((4, 4), "uint16")), "PNG")


def test_tifffile_asking_for_imagecodecs_is_named():
    with (
        pytest.raises(ImageError, match="python -m pip install imagecodecs"),
        codecs.errors("TIFF", "x.tif"),
    ):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
