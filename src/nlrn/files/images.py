"""Image files in and out, and integers to floats and back; the only place in the project that does either.

Pixels stay as stored: 8 bit, 16 bit or float32, grey or RGB, alpha beside them. Pillow reads and writes 8-bit files,
imagecodecs 16-bit PNG, JPEG XL, AVIF and deep JPEG 2000, tifffile TIFF, pillow-heif HEIC and astropy FITS, since
Pillow reads 16-bit colour as 8-bit. Each is imported when a file needs it.

Orientation: pixels stay as they are stored and so does the EXIF tag, so a viewer turns the result as it turned the
input, and the pixels of both can be compared. The decoders of HEIC and JPEG XL turn the pixels, and then the tag goes.
Where viewers do not look at the tag (BMP, JPEG XL) the picture is turned upright on writing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from . import codecs, exif
from .atomic import check_name, write_atomically
from .image import FORMATS, WRITTEN, Image, ImageError, result_format

__all__ = [
    "Image",
    "ImageError",
    "check_holds",
    "check_writable",
    "encode_image",
    "find_images",
    "from_float",
    "image_size",
    "read_image",
    "to_float",
    "value_range",
    "write_image",
]

# A segment of 65,535 bytes, without its length and the prefix.
MAX_JPEG_EXIF = 65527
SUFFIXES = {suffix: name for name, format_ in FORMATS.items() for suffix in format_.suffixes}
# Those of results.
OUTPUT_SUFFIXES = {suffix: name for suffix, name in SUFFIXES.items() if name in WRITTEN}


def read_image(source: str | os.PathLike[str] | bytes | BinaryIO) -> Image:
    """Reads an image from a file, or from the bytes of one.

    Palettes and 1-bit images become RGB or grey, CMYK becomes sRGB, each with a note.

    Args:
        source: a path, a binary stream or a file's content. Its format is told by the content, not by the name.

    Raises:
        ImageError: not an image of the supported formats, damaged, too large, animated or of several pages, NaN
            or Inf, or channels and depths that are not supported.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np
        >>> from nlrn.files.images import Image, encode_image, read_image
        >>> read_image(encode_image(Image(np.zeros((4, 5), np.uint16)), "PNG")).pixels.dtype
        dtype('uint16')
    """
    if isinstance(source, bytes):
        return codecs.decode(source, "the image")
    if not isinstance(source, str | os.PathLike):
        return codecs.decode(source.read(), "the image")
    path = Path(source)
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder, not an image")
    image = codecs.decode(path.read_bytes(), str(path))
    return replace(image, notes=(*image.notes, *misnamed(path, image.format)))


def misnamed(path: Path, format_: str) -> tuple[str, ...]:
    """A note where the name of a file says another format than its content."""
    suffix = path.suffix.lower()
    if SUFFIXES.get(suffix, format_) == format_:
        return ()
    article = "an" if format_ == "AVIF" else "a"
    return (f"this is {article} {format_} file, though it is named {suffix}",)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height of the image in a file's content, as its header states them.

    Raises:
        ImageError: not an image of the supported formats, a damaged header, or too large.
    """
    return codecs.measure(data, "the image")


def encode_image(image: Image, format: str | None = None, *, quality: int = 95) -> bytes:
    """The content of an image file.

    Args:
        image: the image to write, with its metadata.
        format: one of `WRITTEN`; by default that of its results, which is the image's own or PNG.
        quality: quality of JPEG and AVIF (4:4:4) and of lossy WebP and JPEG XL, 1 to 100.

    Raises:
        ImageError: the format cannot hold these pixels without loss of depth or alpha.
        ValueError: a quality that does not exist.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    name = result_format(image.format) if format is None else format
    check_holds(image, name)
    return codecs.encode(image, name, quality)


def check_holds(image: Image, name: str, size: tuple[int, int] | None = None) -> None:
    """Raises `ImageError` if a format cannot hold an image with its EXIF data, perhaps of another height and width."""
    if name not in WRITTEN:
        raise ImageError(f"cannot write the format {name!r}; expected one of {', '.join(WRITTEN)}")
    target, pixels, alpha = FORMATS[name], image.pixels, image.alpha
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or 0 in pixels.shape:
        raise ImageError(f"an image must be HxW or HxWx3 and not empty, got shape {pixels.shape}")
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        expected = f"{pixels.shape[:2]} of {pixels.dtype}"
        raise ImageError(f"alpha must be {expected}, got {alpha.shape} of {alpha.dtype}")
    if pixels.ndim == 3 and not target.colors:
        raise ImageError(f"{name} holds no colours here, only grey; {_able(image)} can")
    if pixels.dtype.name not in target.dtypes:
        raise ImageError(f"{name} cannot hold {pixels.dtype.name} pixels; {_able(image)} can")
    if alpha is not None and not target.alpha:
        raise ImageError(f"{name} cannot hold transparency; {_able(image)} can")
    longest = max(size or pixels.shape[:2])
    if target.largest_side is not None and longest > target.largest_side:
        raise ImageError(
            f"{name} holds at most {target.largest_side} pixels a side, the result has {longest}; PNG and TIFF hold more"
        )
    if name == "JPEG" and image.exif and len(image.exif) > MAX_JPEG_EXIF:
        raise ImageError(
            f"JPEG has room for {MAX_JPEG_EXIF} bytes of EXIF data, this image has {len(image.exif)}; PNG and TIFF hold more"
        )


def _able(image: Image) -> str:
    """The formats that hold an image's type, colours and alpha, in words."""
    names = [
        name
        for name, target in WRITTEN.items()
        if image.pixels.dtype.name in target.dtypes
        and (target.colors or image.pixels.ndim == 2)
        and (target.alpha or image.alpha is None)
    ]
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names or ["none"])


def check_writable(image: Image, path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> str:
    """The format in which `write_image` would write this image: the suffix decides, without one the image's own.

    It can be asked with the image before a long job that gives it another size, which is height and width.

    Raises:
        ImageError: an unknown suffix, or a format that cannot hold these pixels, this size or this EXIF data.
        OSError: a name that no file can have.
    """
    name = format_for(path, image.format)
    check_holds(image, name, size)
    check_name(Path(path))
    return name


def format_for(path: str | os.PathLike[str], format_: str) -> str:
    """The format of a result by its file's suffix; without one that of its input, or of its input's results.

    Raises:
        ImageError: a suffix of no format in which results are written.
    """
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in OUTPUT_SUFFIXES:
        kind = (
            f"{SUFFIXES[suffix]} files are only read" if suffix in SUFFIXES else f"unknown suffix {suffix!r}"
        )
        raise ImageError(f"cannot write {path}: {kind}; expected one of {', '.join(OUTPUT_SUFFIXES)}")
    return OUTPUT_SUFFIXES.get(suffix, result_format(format_))


def write_image(
    image: Image,
    path: str | os.PathLike[str],
    *,
    quality: int = 95,
    overwrite: bool = False,
    mode: int | None = None,
    modified: int | None = None,
) -> tuple[str, ...]:
    """Writes an image file; its format follows the suffix (without one, it is the image's own).

    The file appears under its name only when it is complete.

    Args:
        image: the image to write, with its metadata.
        path: the file to write.
        quality: quality of JPEG and AVIF (4:4:4) and of lossy WebP and JPEG XL, 1 to 100.
        overwrite: replace an existing file.
        mode: permissions of the file.
        modified: time of its last change, as `replacing` has it.

    Returns:
        What the format could not keep of the metadata, one note each.

    Raises:
        ImageError: an unknown suffix, or a format that cannot hold these pixels.
        ValueError: a quality that does not exist.
        FileExistsError: the file exists and `overwrite` is false.
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    name = check_writable(image, path)
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists")
    data = encode_image(image, name, quality=quality)
    write_atomically(path, data, overwrite=overwrite, mode=mode, modified=modified)
    return losses(image, name)


def losses(image: Image, name: str) -> tuple[str, ...]:
    """Notes on the metadata of an image that a format cannot keep, one each."""
    notes = []
    if image.fits is not None and name != "FITS":
        notes.append(f"{name} has no place for the FITS header: it is left out")
    if name != "PNG" and any(kind == b"cICP" for kind, _ in image.color_chunks):
        notes.append(
            f"{name} has no place for what the PNG says of its colours (cICP, such as HDR): it is left out"
        )
    if name != "PNG" and any(kind == b"sBIT" for kind, _ in image.color_chunks):
        notes.append(f"{name} has no place for the number of significant bits (sBIT): it is left out")
    if image.imagej and name != "TIFF":
        notes.append(f"{name} has no place for ImageJ's {', '.join(sorted(image.imagej))}: left out")
    if image.icc and (name == "JXL" or not FORMATS[name].metadata):
        notes.append(f"{name} holds no colour profile here: it is left out")
    if image.exif and name == "FITS":
        notes.append("FITS holds no EXIF data: it is left out, and the picture stays as it is stored")
    elif image.exif and not FORMATS[name].metadata:
        notes.append(f"{name} holds no EXIF data: it is left out, and the picture turned upright")
    if image.exif and name == "TIFF" and exif.build(exif.parse(image.exif)) is None:
        notes.append("the EXIF data is damaged: it is left out")
    if image.xmp is not None and not codecs.keeps_xmp(image, name):
        notes.append(f"{name} has no room for {len(image.xmp)} bytes of XMP data: they are left out")
    if image.resolution is not None and (
        name == "FITS" or (not codecs.keeps_resolution(image) and name != "TIFF")
    ):
        notes.append(
            f"{name} cannot hold a resolution of {image.resolution[0]:.3g} pixels an inch: it is left out"
        )
    if image.premultiplied and name != "TIFF":
        notes.append(f"{name} holds no premultiplied colours: they are divided by alpha")
    return tuple(notes)


def value_range(dtype: np.dtype[Any], data_range: float | None = None) -> float:
    """The value of white: `data_range` if given, else by the type, never by the values.

    Raises:
        ValueError: a type other than uint8, uint16 and floats, or a range that is not positive.
    """
    ranges = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}
    if dtype.name not in ranges:
        raise ValueError(f"image values must be uint8, uint16 or float, got {dtype.name}")
    if data_range is None:
        return ranges[dtype.name]
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive, got {data_range:g}")
    return float(data_range)


def to_float(pixels: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """Pixels in units of [0, 1]: float32, or float64 if they are.

    Raises:
        ValueError: a type or range that `value_range` refuses, NaN or Inf, integers above white, or floats that are
            not in units of [0, 1] without a range (`check_unit_range`).
    """
    white = value_range(pixels.dtype, data_range)
    values: np.ndarray = pixels.astype(np.float64 if pixels.dtype == np.float64 else np.float32)
    if pixels.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("the image has NaN or infinite values")
        if data_range is None and values.size:
            check_unit_range(float(values.min()), float(values.max()))
    elif data_range is not None and values.size and values.max() > white:
        raise ValueError(
            f"the image reaches {values.max():g}, which is more than its white, data_range={white:g}"
        )
    values /= white
    return values


def check_unit_range(low: float, high: float) -> None:
    """Refuses the (finite) extremes of a float image that cannot be in units of [0, 1], whatever its noise.

    Raises:
        ValueError: beyond -9 or 10: noise of sigma 1 is within, and 8-bit grey levels are not.
    """
    if np.isfinite([low, high]).all() and (low < -9 or high > 10):
        raise ValueError(
            f"a float image should lie in [0, 1], this one reaches from {low:g} to {high:g}; "
            "give its white as data_range="
        )


def from_float(values: np.ndarray, dtype: npt.DTypeLike, data_range: float | None = None) -> np.ndarray:
    """The inverse of `to_float`: integers are rounded (half to even) and clipped, floats are neither.

    Raises:
        ValueError: a type or range that `value_range` refuses, NaN or Inf where integers are asked for.
    """
    target = np.dtype(dtype)
    white = value_range(target, data_range)
    if target.kind == "f":
        return (values * white).astype(target)
    if not np.isfinite(values).all():
        raise ValueError(f"the image has NaN or infinite values, which {target} cannot hold")
    levels: np.ndarray = np.multiply(values, white, dtype=np.float64)
    np.rint(levels, out=levels)
    np.clip(levels, 0, min(white, np.iinfo(target).max), out=levels)
    return levels.astype(target)


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """`C x H x W` of an image `H x W` (C = 1) or `H x W x C`; a view."""
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def from_planes(planes: np.ndarray, axes: int) -> np.ndarray:
    """The inverse of `to_planes`: an image with 2 axes (`H x W`) or 3 (`H x W x C`); a view."""
    return planes[0] if axes == 2 else np.moveaxis(planes, 0, -1)


def find_images(inputs: Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> list[Path]:
    """The image files that are meant: files as named, those in a folder, globs; each once, in the order given.

    In a folder these are the files with a suffix of a supported format that are not hidden, sorted by path.

    Args:
        inputs: files, folders and globs (`**` for subfolders).
        recursive: whether to search subfolders too.

    Raises:
        FileNotFoundError: a path that does not exist, or a glob that matches no file.
        ImageError: a folder without images.
    """
    found: dict[Path, None] = {}
    for item in inputs:
        path = Path(item)
        if os.path.isdir(path):
            matches: Sequence[Path] = _in_folder(path, recursive)
            if not matches:
                raise ImageError(f"no images in the folder {path} (looked for {', '.join(SUFFIXES)})")
        elif os.path.lexists(path):
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(str(item), recursive=True)) if os.path.isfile(p)]
            if not matches:
                what = "matches no file" if glob.has_magic(str(item)) else "does not exist"
                raise FileNotFoundError(f"{path} {what}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _in_folder(folder: Path, recursive: bool) -> list[Path]:
    # Hidden files are other programs' own: copies that macOS makes, downloads that are not done.
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and os.path.isfile(path)
    )
