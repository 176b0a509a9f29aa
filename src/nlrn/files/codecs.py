"""One function to decode a file of any supported format, and one to encode an image in a format."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from . import boxes
from .avif import decode_avif, measure_avif
from .fits import decode_fits, encode_fits, measure_fits
from .heic import decode_heic, measure_heic
from .image import FORMATS, PNG_SIGNATURE, Image, ImageError
from .jpeg2000 import decode_jpeg2000, measure_jpeg2000
from .jpegxl import decode_jpegxl, encode_jpegxl, measure_jpegxl
from .netpbm import decode_netpbm, measure_netpbm
from .pillow import decode_pillow, encode_pillow, measure_pillow
from .png16 import decode_png16, encode_png16, has_significant_bits
from .raw import RAF_SIGNATURE, decode_raw, is_raw, measure_raw
from .tiff import decode_tiff, encode_tiff, measure_tiff

# So many bytes say what kind of TIFF file one is.
HEAD = 1 << 12
# The first bytes by which a format is known: (offset, bytes, format).
_SIGNATURES = (
    (0, PNG_SIGNATURE, "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    *((0, b"P%d" % kind, "PPM") for kind in range(1, 7)),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"\0\0\0\x0cJXL ", "JXL"),
    (0, b"SIMPLE  =", "FITS"),
    (0, RAF_SIGNATURE, "RAW"),
    # Only to name them in the error.
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop"),
    (0, b"\x1f\x8b", "a gzip"),
)


# How a format is decoded, and its width and height read; Pillow has the formats that are not here.
_DECODERS: dict[str, Callable[[bytes, str], Image]] = {
    "TIFF": decode_tiff,
    "PPM": decode_netpbm,
    "AVIF": decode_avif,
    "HEIC": decode_heic,
    "JPEG2000": decode_jpeg2000,
    "JXL": decode_jpegxl,
    "FITS": decode_fits,
    "RAW": decode_raw,
}
_MEASURES: dict[str, Callable[[bytes, str], tuple[int, int]]] = {
    "TIFF": measure_tiff,
    "PPM": measure_netpbm,
    "AVIF": measure_avif,
    "HEIC": measure_heic,
    "JPEG2000": measure_jpeg2000,
    "JXL": measure_jpegxl,
    "FITS": measure_fits,
    "RAW": measure_raw,
}


def decode(data: bytes, name: str) -> Image:
    """The picture in a file's content; `name` is what errors call the file."""
    format_ = sniff(data, name)
    with errors(format_, name):
        if format_ in _DECODERS:
            return _DECODERS[format_](data, name)
        if format_ == "PNG" and data[24:25] == b"\x10":
            return decode_png16(data, name)
        return decode_pillow(data, format_, name)


def measure(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of the picture in a file's content, from its header."""
    format_ = sniff(data, name)
    with errors(format_, name):
        if format_ in _MEASURES:
            return _MEASURES[format_](data, name)
        return measure_pillow(data, format_, name)


# The largest XMP packet of a JPEG file, which has one segment for it.
MAX_JPEG_XMP = 65502


def keeps_xmp(image: Image, format_: str) -> bool:
    """True if a format has room for the image's XMP packet."""
    return (
        image.xmp is not None
        and format_ not in ("BMP", "FITS")
        and (format_ != "JPEG" or len(image.xmp) <= MAX_JPEG_XMP)
    )


def keeps_resolution(image: Image) -> bool:
    """True if a file can hold the image's resolution: formats hold whole numbers of 16 bits."""
    return image.resolution is not None and all(1 <= number < 65536 for number in image.resolution)


def held(image: Image, format_: str) -> Image:
    """The image as a format can hold it: without metadata that have no place, and alpha as the format has it."""
    if not keeps_resolution(image):
        image = replace(image, resolution=None)
    if not keeps_xmp(image, format_):
        image = replace(image, xmp=None)
    chunks = tuple(
        (kind, content)
        for kind, content in image.color_chunks
        if kind != b"sBIT" or has_significant_bits(content, image)
    )
    if chunks != image.color_chunks:
        image = replace(image, color_chunks=chunks)
    if format_ != "TIFF" and image.premultiplied and image.alpha is not None:
        image = _unmultiplied(image, image.alpha)
    return image


def encode(image: Image, format_: str, quality: int) -> bytes:
    """A file's content; the format is known to hold these pixels."""
    image = held(image, format_)
    if format_ == "TIFF":
        return encode_tiff(image)
    if format_ == "FITS":
        return encode_fits(image)
    if format_ == "JXL":
        return encode_jpegxl(image, quality)
    if image.pixels.dtype == np.uint16:
        return encode_png16(image)
    return encode_pillow(image, format_, quality)


def sniff(data: bytes, name: str) -> str:
    """The format of a file, by its first bytes.

    Raises:
        ImageError: it is none of those that are supported.
    """
    supported = ", ".join(FORMATS)
    if not data:
        raise ImageError(f"{name} is empty; expected an image ({supported})")
    for offset, signature, format_ in _SIGNATURES:
        if data.startswith(signature, offset):
            if format_ == "TIFF" and is_raw(data[:HEAD]):
                return "RAW"
            if format_ in FORMATS:
                return format_
            raise ImageError(f"{name} is {format_} file; supported are {supported}")
    if named := boxes.format_of(data[:4096]):
        if named in FORMATS:
            return named
        raise ImageError(f"{name} is {named} file; supported are {supported}")
    found = "text" if data[:512].isascii() and b"\0" not in data[:512] else "unknown data"
    raise ImageError(f"{name} is not an image of a supported format: expected {supported}, found {found}")


@contextmanager
def errors(format_: str, name: str) -> Iterator[None]:
    """Turns whatever a decoder raises for damaged data into an `ImageError` of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "imagecodecs" in reason:  # tifffile says so when it needs it
            reason = "needs the package imagecodecs: python -m pip install imagecodecs"
        raise ImageError(f"{name} is a damaged or unsupported {format_} file ({reason[:120]})") from error


def _unmultiplied(image: Image, alpha: np.ndarray) -> Image:
    """The image with colours divided by alpha, as every format but TIFF stores them."""
    white = np.iinfo(image.pixels.dtype).max
    share = alpha.astype(np.float64) / white
    share = share if image.pixels.ndim == 2 else share[..., None]
    colors = np.divide(image.pixels, share, out=np.zeros(image.pixels.shape), where=share > 0)
    pixels = np.clip(np.rint(colors), 0, white).astype(image.pixels.dtype)
    return replace(image, pixels=pixels, premultiplied=False)
