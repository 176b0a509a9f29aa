"""JPEG XL through imagecodecs (libjxl), with the EXIF data and the XMP in the boxes of a file.

The decoder turns pixels as the codestream asks, which rules, and the EXIF orientation only repeats it.

Source: ISO/IEC 18181-2, section 9 (boxes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import exif
from .avif import with_alpha
from .boxes import box, boxes
from .image import Image, ImageError, check_size, load_package, merge_alpha, scaled
from .jpegxl_header import ALPHA, Header, as_srgb, read_header
from .orientation import turned

CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
# The largest block of EXIF data or XMP that is unpacked; a file that unpacks to more is an attack.
MAX_METADATA = 1 << 24
PROFILE_NOTE = (
    "the colour profile of a JPEG XL file cannot be read here: values stay, and the profile is left out"
)


def decode_jpegxl(data: bytes, name: str) -> Image:
    """A picture of uint8 pixels, of uint16 for more than 8 bit, or of floats."""
    header = _header(data, name)
    if header.profile and header.lossy_colors:
        raise ImageError(
            f"{name} has lossy colours of an own profile, which cannot be read; djxl converts it"
        )
    if any(kind != ALPHA for kind in header.extra) or len(header.extra) > 1:
        raise ImageError(f"{name} has channels beside colours and alpha, which are not supported")
    array: np.ndarray = load_package("imagecodecs", "JPEG XL").jpegxl_decode(data, numthreads=1)
    metadata = _metadata(data)
    block = exif.upright(metadata.get(b"Exif", b"")[4:])
    rotated = ("picture turned upright",) if header.orientation != 1 else ()
    image = replace(
        with_alpha(array.astype(np.float32) if array.dtype.kind == "f" else array),
        format="JXL",
        exif=block,
        xmp=metadata.get(b"xml "),
        resolution=exif.resolution(exif.parse(block or b"")),
        lossless=not header.lossy_colors,
        premultiplied=header.premultiplied,
        color_chunks=header.color_chunks,
        notes=rotated + (() if header.described else (PROFILE_NOTE,)),
    )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError(f"{name} has NaN or infinite values")
        return image
    white = (1 << header.bits) - 1
    if white in (255, 65535):
        return image
    return scaled(image, white)


def measure_jpegxl(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as viewers show them, from the header."""
    header = _header(data, name)
    return (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)


def encode_jpegxl(image: Image, quality: int) -> bytes:
    """A file's content, lossless where the image was or has 16 bit; the picture is turned as its EXIF data ask."""
    pixels = np.ascontiguousarray(turned(merge_alpha(image), exif.parse(image.exif or b"").orientation))
    codec = load_package("imagecodecs", "JPEG XL")
    if image.lossless or pixels.dtype == np.uint16:
        data = bytes(codec.jpegxl_encode(pixels, lossless=True, numthreads=1))
    else:
        data = bytes(codec.jpegxl_encode(pixels, distance=_distance(quality), numthreads=1))
    if pixels.dtype == np.uint16:  # which the encoder takes for linear
        start, end = _codestream(data)
        data = data[:start] + as_srgb(data[start:end]) + data[end:]
    extra = b""
    found = exif.parse(image.exif or b"")
    if image.resolution:  # it has no other place
        across, down = image.resolution
        found = exif.with_resolution(found, (down, across) if found.orientation >= 5 else (across, down))
    if block := exif.upright(exif.build(found)):
        extra += box(b"Exif", bytes(4) + block)
    if image.xmp:
        extra += box(b"xml ", image.xmp)
    if not extra:
        return data
    if data.startswith(CODESTREAM):
        data = CONTAINER + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"jxlc", data)
    place = next(end for kind, _, end in boxes(data) if kind == b"ftyp")
    return data[:place] + extra + data[place:]


def _distance(quality: int) -> float:
    """The distance of libjxl for a quality of 1 to 100, as its command cjxl has it."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _header(data: bytes, name: str) -> Header:
    """The header of the picture, whose size is allowed."""
    start, end = _codestream(data)
    try:
        header = read_header(data[start:end])
    except EOFError as error:
        raise ImageError(f"{name} is truncated: its header is cut off") from error
    check_size(header.width, header.height, name)
    if header.animated:
        raise ImageError(
            f"{name} is an animated JPEG XL file; animations are read from PNG, WebP and GIF files"
        )
    return header


def _codestream(data: bytes) -> tuple[int, int]:
    """Begin and end of the codestream in a file, or of its first part."""
    if data.startswith(CODESTREAM):
        return 0, len(data)
    for kind, start, end in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            return start + 4 * (kind == b"jxlp"), end  # a part has its number before it
    return len(data), len(data)


def _metadata(data: bytes) -> dict[bytes, bytes]:
    """EXIF data and XMP by the type of their boxes, unpacked."""
    found = dict[bytes, bytes]()
    if data.startswith(CODESTREAM):
        return found
    for kind, start, end in boxes(data):
        if kind == b"brob" and data[start : start + 4] in (b"Exif", b"xml "):
            unpacked = load_package("imagecodecs", "JPEG XL").brotli_decode(
                data[start + 4 : end], out=MAX_METADATA
            )
            found.setdefault(data[start : start + 4], bytes(unpacked))
        elif kind in (b"Exif", b"xml "):
            found.setdefault(kind, data[start:end])
    return found
