"""The image formats: what a picture is, which format a file has, and who reads and writes it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

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
        format: PNG, JPEG, TIFF, WEBP or BMP.
        exif: EXIF block, as JPEG files carry it, without its `Exif` prefix.
        icc: ICC profile.
        xmp: XMP packet, in which editors keep keywords, ratings and what they did.
        resolution: pixels an inch, across and down, where the file says.
        lossless: whether the file kept every value, which decides how a WebP file is written.
        premultiplied: whether colours are multiplied with alpha (TIFF's associated alpha).
        notes: what reading had to change.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """What a file format can hold."""

    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    alpha: bool
    metadata: bool


FORMATS = {
    "PNG": Format((".png",), ("uint8", "uint16"), alpha=True, metadata=True),
    "JPEG": Format((".jpg", ".jpeg"), ("uint8",), alpha=False, metadata=True),
    "TIFF": Format((".tif", ".tiff"), ("uint8", "uint16", "float32"), alpha=True, metadata=True),
    "WEBP": Format((".webp",), ("uint8",), alpha=True, metadata=True),
    "BMP": Format((".bmp",), ("uint8",), alpha=False, metadata=False),
}
# Where a file's first bytes say what it is: (offset, bytes, format).
_SIGNATURES = (
    (0, PNG_SIGNATURE, "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    # Only to name them in the error.
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyp", "a HEIC or video"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
)


def decode(data: bytes, name: str) -> Image:
    """The picture in a file's content; `name` is what errors call the file."""
    format_ = _sniff(data, name)
    with _errors(format_, name):
        if format_ == "TIFF":
            from .tiff import decode_tiff

            return decode_tiff(data, name)
        if format_ == "PNG" and data[24:25] == b"\x10":
            from .png16 import decode_png16

            return decode_png16(data, name)
        from .pillow_files import decode_pillow

        return decode_pillow(data, format_, name)


# Of an XMP packet in a JPEG file, which has one segment for it.
MAX_JPEG_XMP = 65502


def keeps_xmp(image: Image, format_: str) -> bool:
    """Whether a format has room for the image's XMP packet."""
    return (
        image.xmp is not None and format_ != "BMP" and (format_ != "JPEG" or len(image.xmp) <= MAX_JPEG_XMP)
    )


def keeps_resolution(image: Image) -> bool:
    """Whether a file can say the image's resolution: formats hold whole numbers of 16 bits."""
    return image.resolution is not None and all(1 <= number < 65536 for number in image.resolution)


def encode(image: Image, format_: str, quality: int) -> bytes:
    """A file's content; the format is known to hold these pixels."""
    if not keeps_resolution(image):
        image = replace(image, resolution=None)
    if not keeps_xmp(image, format_):
        image = replace(image, xmp=None)
    if format_ == "TIFF":
        from .tiff import encode_tiff

        return encode_tiff(image)
    if image.premultiplied and image.alpha is not None:
        image = _unmultiplied(image, image.alpha)
    if image.pixels.dtype == np.uint16:
        from .png16 import encode_png16

        return encode_png16(image)
    from .pillow_files import encode_pillow

    return encode_pillow(image, format_, quality)


def _sniff(data: bytes, name: str) -> str:
    supported = ", ".join(FORMATS)
    if not data:
        raise ImageError(f"{name} is empty; expected an image ({supported})")
    for offset, signature, format_ in _SIGNATURES:
        if data.startswith(signature, offset):
            if format_ in FORMATS:
                return format_
            raise ImageError(f"{name} is {format_} file; supported are {supported}")
    found = "text" if data[:512].isascii() and b"\0" not in data[:512] else "unknown data"
    raise ImageError(f"{name} is no image of a supported format: expected {supported}, found {found}")


@contextmanager
def _errors(format_: str, name: str) -> Iterator[None]:
    """Whatever a decoder throws at damaged data becomes one line."""
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


def check_size(width: int, height: int, name: str) -> None:
    """Raises `ImageError` for sizes that no picture has, before anything is allocated."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} claims {width}x{height} pixels; the limit is {MAX_PIXELS:,} in all")


def load_package(name: str, purpose: str) -> ModuleType:
    """A package that only some formats need.

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


def _unmultiplied(image: Image, alpha: np.ndarray) -> Image:
    """With colours divided by alpha, as every format but TIFF stores them."""
    white = np.iinfo(image.pixels.dtype).max
    share = alpha.astype(np.float64) / white
    share = share if image.pixels.ndim == 2 else share[..., None]
    colours = np.divide(image.pixels, share, out=np.zeros(image.pixels.shape), where=share > 0)
    pixels = np.clip(np.rint(colours), 0, white).astype(image.pixels.dtype)
    return replace(image, pixels=pixels, premultiplied=False)
