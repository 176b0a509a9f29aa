"""Pictures, metadata and files for the tests of images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from PIL import ImageCms

from nlrn.files.images import Image, encode_image

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


SIDE = 64
# From sRGB's primaries to XYZ: with its inverse as a color matrix, the camera sees as sRGB does.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def dng(linear: np.ndarray, orientation: int = 1, **options: object) -> bytes:
    """A DNG file of linear RGB in [0, 1] that a sensor with the pattern RGGB has seen in 12 bit, with a pedestal."""
    mosaic = linear[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = linear[::2, ::2, 0], linear[1::2, 1::2, 2]
    counts = (256 + mosaic * (4095 - 256)).round().clip(0, 4095).astype(np.uint16)
    matrix = [int(x) for value in np.linalg.inv(TO_XYZ).ravel() for x in (round(value * 10000), 10000)]
    tags = [
        (271, "s", 0, "Maker", True),
        (272, "s", 0, "Model 1", True),
        (274, "H", 1, orientation, True),
        (306, "s", 0, "2001:02:03 04:05:06", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, b"\0\1\1\2", True),
        (50706, "B", 4, b"\1\4\0\0", True),
        (50707, "B", 4, b"\1\1\0\0", True),
        (50708, "s", 0, "Maker Model 1", True),
        (50714, "H", 1, 256, True),
        (50717, "I", 1, 4095, True),
        (50721, "2i", 9, tuple(matrix), True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, 21, True),
    ]
    file = io.BytesIO()
    tifffile.imwrite(
        file, counts, photometric=32803, extratags=tags, metadata=None, software=False, **options
    )
    return file.getvalue()


def ramp() -> np.ndarray:
    """Linear RGB: brighter to the right, in three colours."""
    light = np.linspace(0.05, 0.9, SIDE)[None, :, None]
    return np.broadcast_to(light * np.array([0.9, 0.7, 0.5]), (SIDE, SIDE, 3)).copy()


RGB = PillowImage.fromarray(noise((32, 32, 3)))
OTHER = PillowImage.fromarray(noise((32, 32, 3), seed=1))
FILES: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: saved(RGB, "PNG"),
    "PNG16": lambda: encode_image(Image(noise((32, 32, 3), "uint16"))),
    "JPEG": lambda: saved(RGB, "JPEG"),
    "WEBP": lambda: saved(RGB, "WEBP"),
    "BMP": lambda: saved(RGB, "BMP"),
    "GIF": lambda: saved(RGB, "GIF"),
    "PPM": lambda: saved(RGB, "PPM"),
    "AVIF": lambda: encode_image(Image(noise((32, 32, 3))), "AVIF"),
    "JXL": lambda: encode_image(Image(noise((32, 32, 3), "uint16")), "JXL"),
    "JPEG2000": lambda: bytes(imagecodecs.jpeg2k_encode(noise((32, 32, 3)), level=0, codecformat="jp2")),
    "TIFF": lambda: tiff(noise((32, 32, 3), "uint16")),
    "TIFF zlib": lambda: tiff(noise((32, 32, 3), "uint16"), compression="zlib"),
    "TIFF lzw strips": lambda: tiff(noise((32, 32, 3), "uint16"), compression="lzw", rowsperstrip=5),
    "FITS": lambda: fits_file(noise((21, 33), "uint16")),
    "FITS of floats": lambda: fits_file(noise((21, 33), "float32")),
    "FITS compressed": lambda: fits_file(noise((21, 33)).astype("int16"), packed=True),
    "HEIC": lambda: heic(noise((32, 32, 3))),
    "RAW": lambda: _needs("rawpy") and dng(ramp()),
}
# Those of several pages or frames.
STACKS: dict[str, Callable[[], bytes]] = {
    "TIFF pages": lambda: tiff(noise((3, 16, 16)), photometric="minisblack"),
    "TIFF hyperstack": lambda: tiff(noise((3, 16, 16)), imagej=True),
    "GIF frames": lambda: saved(RGB, "GIF", save_all=True, append_images=[OTHER]),
    "PNG frames": lambda: saved(RGB, "PNG", save_all=True, append_images=[OTHER]),
    "WEBP frames": lambda: saved(RGB, "WEBP", save_all=True, append_images=[OTHER]),
    "FITS planes": lambda: fits_file(noise((3, 16, 16), "uint16")),
}


def _needs(package: str) -> bool:
    pytest.importorskip(package, reason=f"needs the package {package}")
    return True


def fits_file(array: np.ndarray, packed: bool = False) -> bytes:
    """A FITS file of an image or a cube, perhaps compressed."""
    _needs("astropy")
    from astropy.io import fits

    buffer = io.BytesIO()
    parts = [fits.PrimaryHDU(), fits.CompImageHDU(array)] if packed else [fits.PrimaryHDU(array)]
    fits.HDUList(parts).writeto(buffer)
    return buffer.getvalue()


def heic(array: np.ndarray) -> bytes:
    """A HEIC file."""
    _needs("pillow_heif")
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(PillowImage.fromarray(array)).save(buffer, quality=90)
    return buffer.getvalue()
