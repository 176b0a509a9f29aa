"""JPEG 2000: files (JP2) and bare codestreams, of 1 to 16 bit a channel.

Pillow knows the color models and the palette of files of 8 bit. It reads colors of more bits as 8, and so imagecodecs
reads these.

Source: ISO/IEC 15444-1, annexes A (codestream) and I (files).
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np

from . import exif
from .avif import with_alpha
from .boxes import boxes
from .image import Image, ImageError, check_size, load_package, scaled
from .pillow import open_picture, plain

CODESTREAM = b"\xff\x4f\xff\x51"
# Boxes in which programs keep EXIF data and XMP.
EXIF_UUID = b"JpgTiffExif->JP2"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
SYCC, PROFILE = 18, 2


def decode_jpeg2000(data: bytes, name: str) -> Image:
    """A picture of uint8 pixels, or of uint16 for more than 8 bit."""
    _, depths = _header(data, name)
    found = _boxes(data)
    icc = found[b"colr"][3:] if found.get(b"colr", b"")[:1] == bytes([PROFILE]) else None
    block = found.get(EXIF_UUID)
    if max(depths) <= 8:
        image = plain(open_picture(io.BytesIO(data), "JPEG2000", name), icc, name)
        if min(depths) < 8 and b"pclr" not in found:
            image = _full(image, depths)
    else:
        if len(set(depths)) > 1:
            raise ImageError(f"{name} has channels of {', '.join(map(str, depths))} bits; expected one depth")
        if b"pclr" in found or _model(found) == SYCC:
            raise ImageError(
                f"{name} has a palette or YCC colours of {depths[0]} bits, which are not supported"
            )
        array: np.ndarray = load_package("imagecodecs", "JPEG 2000").jpeg2k_decode(data)
        image = scaled(replace(with_alpha(array), icc=icc), (1 << depths[0]) - 1)
    return replace(
        image,
        format="JPEG2000",
        exif=block,
        xmp=found.get(XMP_UUID),
        resolution=exif.resolution(exif.parse(block or b"")),
        lossless=False,
    )


def measure_jpeg2000(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the codestream has them."""
    size, _ = _header(data, name)
    return size


def _header(data: bytes, name: str) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Width and height, and the bits of each channel, from the segment SIZ."""
    start = 0
    if not data.startswith(CODESTREAM):
        start = next((begin for kind, begin, _ in boxes(data) if kind == b"jp2c"), len(data))
    if data[start : start + 4] != CODESTREAM or len(data) < start + 45:
        raise ImageError(f"{name} is truncated: its codestream is missing")
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (channels,) = struct.unpack_from(">H", data, start + 40)
    check_size(right - left, bottom - top, name)
    parts = [data[start + 42 + 3 * i : start + 45 + 3 * i] for i in range(channels)]
    if not 1 <= channels <= 4 or any(len(part) < 3 for part in parts):
        raise ImageError(f"{name} has {channels} channels; expected grey or RGB, with or without alpha")
    if any(part[0] & 0x80 for part in parts):
        raise ImageError(f"{name} has signed values, which are not supported")
    depths = tuple((part[0] & 0x7F) + 1 for part in parts)
    if max(depths) > 16:
        raise ImageError(f"{name} has {max(depths)} bits a channel; at most 16 are supported")
    if any(part[1:] != b"\1\1" for part in parts) and max(depths) > 8:
        raise ImageError(f"{name} has channels of several sizes and more than 8 bits, which is not supported")
    return (right - left, bottom - top), depths


def _boxes(data: bytes) -> dict[bytes, bytes]:
    """The content of a file's boxes by type, or by the number of those that are known by it; the first of each."""
    found = dict[bytes, bytes]()
    for kind, start, end in boxes(data):
        if kind == b"jp2h":
            for inner, begin, stop in boxes(data, start, end):
                found.setdefault(inner, data[begin:stop])
        elif kind == b"uuid":
            found.setdefault(data[start : start + 16], data[start + 16 : end])
    return found


def _full(image: Image, depths: tuple[int, ...]) -> Image:
    """A picture of less than 8 bit, which Pillow only shifts, with white as white."""
    if len(set(depths)) > 1:
        raise ImageError(f"it has channels of {', '.join(map(str, depths))} bits; expected one depth")
    (bits,) = set(depths)
    white = (1 << bits) - 1

    def full(values: np.ndarray) -> np.ndarray:
        levels: np.ndarray = np.rint((values >> (8 - bits)) * (255 / white)).astype(np.uint8)
        return levels

    alpha = None if image.alpha is None else full(image.alpha)
    note = f"values of 0..{white} scaled to 0..255"
    return replace(image, pixels=full(image.pixels), alpha=alpha, notes=(*image.notes, note))


def _model(found: dict[bytes, bytes]) -> int:
    """The number of the color model, 0 where there is none."""
    return int.from_bytes(found.get(b"colr", b"")[3:7], "big") if found.get(b"colr", b"")[:1] == b"\1" else 0
