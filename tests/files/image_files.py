"""Pictures, metadata and files for the tests of images."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from PIL import ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(0.5, 1, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def exif_block(orientation: int = 6) -> bytes:
    tags = PillowImage.Exif()
    tags[0x010F], tags[0x0112], tags[0x011A] = "Canon", orientation, 300.0
    tags[0x011B], tags[0x0128] = 300.0, 2
    tags.get_ifd(0x8769).update({0x829A: 0.005, 0x9000: b"0232", 0x8827: 800})
    tags.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 11.5)})
    return tags.tobytes().removeprefix(b"Exif\0\0")


def tags_of(block: bytes | None) -> tuple[dict, dict, dict]:
    tags = PillowImage.Exif()
    tags.load(block or b"")
    camera, gps = dict(tags.get_ifd(0x8769)), dict(tags.get_ifd(0x8825))
    return {k: v for k, v in tags.items() if k not in (0x8769, 0x8825)}, camera, gps


def saved(picture: PillowImage.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    try:
        tifffile.imwrite(buffer, array, **options)
    except NotImplementedError as error:
        pytest.skip(f"this imagecodecs cannot write such a file ({error})")
    return buffer.getvalue()


def png16(array: np.ndarray, colour_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG made by hand, so that no library's reading is checked by its own writing."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )
