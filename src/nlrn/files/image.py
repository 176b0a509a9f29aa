"""The picture in a file, the formats that can hold it, and the error for what is not an image."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

# As many pixels as Pillow opens at all; a file that claims more is an accident or an attack.
MAX_PIXELS = 178_956_970
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ImageError(ValueError):
    """An image that cannot be read or written; the message is one line for the user."""


@dataclass(frozen=True, eq=False)
class Image:
    """A picture as a file holds it.

    Args:
        pixels: `H x W` (grey) or `H x W x 3` (RGB): uint8, uint16 or float32, of TIFF and FITS files also int16, int32,
            uint32 and float64, and of TIFF files float16. In those of FITS files NaN is a pixel without data.
        alpha: `H x W` of the same type, or `None`.
        format: a name in `FORMATS`.
        exif: EXIF block, as JPEG files carry it, without its `Exif` prefix.
        icc: ICC profile.
        xmp: XMP packet, in which editors keep keywords, ratings and what they did.
        resolution: pixels an inch, across and down, where the file says.
        lossless: whether the file kept every value, which decides how a WebP file is written.
        jpeg_quality: of a JPEG file, on libjpeg's scale of 1 to 100, as its quantisation tables have it.
        premultiplied: whether colours are multiplied with alpha (TIFF's associated alpha).
        color_chunks: type and content of a PNG's chunks that say how its colours are meant (cICP, gAMA and others).
        imagej: what ImageJ keeps in a TIFF file: labels, ranges, colour tables, overlays.
        fits: the cards of a FITS header, 80 characters each.
        milliseconds: time for which a frame of an animation is shown.
        notes: changes that reading had to make.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = "PNG"
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    resolution: tuple[float, float] | None = None
    lossless: bool = True
    jpeg_quality: int | None = None
    premultiplied: bool = False
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    imagej: dict[str, Any] | None = None
    fits: str | None = None
    milliseconds: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """The names, types and extras of a file format.

    Args:
        suffixes: suffixes of file names.
        dtypes: dtypes of its pixels.
        alpha: whether it holds transparency.
        metadata: whether it holds EXIF data and colour profiles.
        largest_side: pixels a side that it holds at most, where that is less than people have.
        several: what it holds more than one of: `"frames"` of an animation, `"pages"` of any kind, or `None`.
        result: the format of results where nobody names one, if it is not this one.
        written: whether results can have it.
        colors: whether it holds RGB.
        media: its media type, where that is not `image/` and the name.
    """

    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    alpha: bool
    metadata: bool
    largest_side: int | None = None
    several: Literal["frames", "pages"] | None = None
    result: str | None = None
    written: bool = True
    colors: bool = True
    media: str | None = None


_ONLY_8, _8_AND_16 = ("uint8",), ("uint8", "uint16")
_MEASURED = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_TIFF = (*_MEASURED, "float16")
# What is read. The results of formats that lose something, or are not written, are PNG files.
FORMATS = {
    "PNG": Format((".png",), _8_AND_16, alpha=True, metadata=True, several="frames"),
    "JPEG": Format(
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), _ONLY_8, alpha=False, metadata=True, largest_side=65500
    ),
    "TIFF": Format((".tif", ".tiff"), _TIFF, alpha=True, metadata=True, several="pages"),
    "WEBP": Format((".webp",), _ONLY_8, alpha=True, metadata=True, largest_side=16383, several="frames"),
    "BMP": Format((".bmp",), _ONLY_8, alpha=False, metadata=False),
    "GIF": Format(
        (".gif",), _ONLY_8, alpha=True, metadata=False, several="frames", result="PNG", written=False
    ),
    "PPM": Format(
        (".ppm", ".pgm", ".pbm", ".pnm"),
        _8_AND_16,
        alpha=False,
        metadata=False,
        result="PNG",
        written=False,
        media="image/x-portable-anymap",
    ),
    "JXL": Format((".jxl",), _8_AND_16, alpha=True, metadata=True, result="PNG"),
    "AVIF": Format((".avif",), _ONLY_8, alpha=True, metadata=True, largest_side=32768, result="PNG"),
    "HEIC": Format((".heic", ".heif"), _8_AND_16, alpha=True, metadata=True, result="PNG", written=False),
    "JPEG2000": Format(
        (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
        _8_AND_16,
        alpha=True,
        metadata=True,
        result="PNG",
        written=False,
        media="image/jp2",
    ),
    "RAW": Format(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
        ("uint16",),
        alpha=False,
        metadata=True,
        result="TIFF",
        written=False,
        media="image/x-dcraw",
    ),
    "FITS": Format(
        (".fits", ".fit", ".fts"), _MEASURED, alpha=False, metadata=False, several="pages", colors=False
    ),
}


# What is said where one picture is expected.
SINGLE = "only single images are supported here; nlrn restore, denoise, upscale and dejpeg take all pages and frames"
# The formats in which results are written.
WRITTEN = {name: format_ for name, format_ in FORMATS.items() if format_.written}
# Their names for people and programs.
FORMAT_NAMES = {name.lower(): name for name in WRITTEN} | {"jpg": "JPEG", "tif": "TIFF"}


def result_format(name: str) -> str:
    """The format in which the result of an image of a format is written, where nobody names another."""
    return FORMATS[name].result or name


def media_type(name: str) -> str:
    """The media type of a format."""
    return FORMATS[name].media or f"image/{name.lower()}"


def check_size(width: int, height: int, name: str) -> None:
    """Raises `ImageError` for sizes that no picture has, before anything is allocated."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} claims {width}x{height} pixels; the limit is {MAX_PIXELS:,} in all")


def scaled(image: Image, white: int) -> Image:
    """A picture of integers of 0 to `white` as one of uint16 that fills its range, with a note."""

    def full(values: np.ndarray) -> np.ndarray:
        if int(values.max()) > white:
            raise ImageError(f"it has values of {values.max()}, and its white is {white}")
        return np.rint(values * (65535 / white)).astype(np.uint16)

    if white == 65535:
        return image
    note = f"values of 0..{white} scaled to 0..65535"
    alpha = None if image.alpha is None else full(image.alpha)
    return replace(image, pixels=full(image.pixels), alpha=alpha, notes=(*image.notes, note))


def load_package(name: str, purpose: str, extra: str | None = None) -> ModuleType:
    """Imports a package that only some formats need, perhaps one of an extra of nlrn.

    Raises:
        ImageError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0].replace("_", "-")
        command = f"python -m pip install {package if extra is None else repr(f'nlrn[{extra}]')}"
        raise ImageError(f"{purpose} needs the package {package}: {command}") from error


def merge_alpha(image: Image) -> np.ndarray:
    """`H x W` or `H x W x C` with alpha as the last channel, contiguous."""
    if image.alpha is None:
        return np.ascontiguousarray(image.pixels)
    pixels = image.pixels if image.pixels.ndim == 3 else image.pixels[..., None]
    # Concatenation keeps the order of strides that its parts have.
    return np.ascontiguousarray(np.concatenate([pixels, image.alpha[..., None]], -1))
