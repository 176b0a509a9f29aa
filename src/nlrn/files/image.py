"""The picture in a file, the formats that can hold it, and the error for what is not an image."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
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
        pixels: uint8, uint16 or float32, `H x W` (grey) or `H x W x 3` (RGB).
        alpha: `H x W` of the same type, or `None`.
        format: a name in `FORMATS`.
        exif: EXIF block, as JPEG files carry it, without its `Exif` prefix.
        icc: ICC profile.
        xmp: XMP packet, in which editors keep keywords, ratings and what they did.
        resolution: pixels an inch, across and down, where the file says.
        lossless: whether the file kept every value, which decides how a WebP file is written.
        premultiplied: whether colours are multiplied with alpha (TIFF's associated alpha).
        color_chunks: type and content of a PNG's chunks that say how its colours are meant (cICP, gAMA and others).
        imagej: what ImageJ keeps in a TIFF file: labels, ranges, colour tables, overlays.
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
    premultiplied: bool = False
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    imagej: dict[str, Any] | None = None
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
        result: the format of results, where this one is only read.
    """

    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    alpha: bool
    metadata: bool
    largest_side: int | None = None
    several: Literal["frames", "pages"] | None = None
    result: str | None = None


FORMATS = {
    "PNG": Format((".png",), ("uint8", "uint16"), alpha=True, metadata=True, several="frames"),
    "JPEG": Format(
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), ("uint8",), alpha=False, metadata=True, largest_side=65500
    ),
    "TIFF": Format(
        (".tif", ".tiff"), ("uint8", "uint16", "float32"), alpha=True, metadata=True, several="pages"
    ),
    "WEBP": Format((".webp",), ("uint8",), alpha=True, metadata=True, largest_side=16383, several="frames"),
    "BMP": Format((".bmp",), ("uint8",), alpha=False, metadata=False),
    "GIF": Format((".gif",), ("uint8",), alpha=True, metadata=False, several="frames", result="PNG"),
    "PPM": Format(
        (".ppm", ".pgm", ".pbm", ".pnm"), ("uint8", "uint16"), alpha=False, metadata=False, result="PNG"
    ),
}


# What is said where one picture is expected.
SINGLE = "only single images are supported here; nlrn denoise, upscale and dejpeg take all pages and frames"
# The formats in which results are written.
WRITTEN = {name: format_ for name, format_ in FORMATS.items() if format_.result is None}


def result_format(name: str) -> str:
    """The format in which the result of an image of a format is written, where nobody names another."""
    return FORMATS[name].result or name


def check_size(width: int, height: int, name: str) -> None:
    """Raises `ImageError` for sizes that no picture has, before anything is allocated."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} claims {width}x{height} pixels; the limit is {MAX_PIXELS:,} in all")


def load_package(name: str, purpose: str) -> ModuleType:
    """Imports a package that only some formats need.

    Raises:
        ImageError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImageError(f"{purpose} needs the package {name}: python -m pip install {name}") from error


def merge_alpha(image: Image) -> np.ndarray:
    """`H x W` or `H x W x C` with alpha as the last channel, contiguous."""
    if image.alpha is None:
        return np.ascontiguousarray(image.pixels)
    pixels = image.pixels if image.pixels.ndim == 3 else image.pixels[..., None]
    # Concatenation keeps the order of strides that its parts have.
    return np.ascontiguousarray(np.concatenate([pixels, image.alpha[..., None]], -1))
