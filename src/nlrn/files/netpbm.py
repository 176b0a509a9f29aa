"""Netpbm files (PBM, PGM, PPM): numbers as text or bytes, of any white up to 65535.

Source: the manual pages pbm(5), pgm(5) and ppm(5) of Netpbm.
"""

from __future__ import annotations

import re

import numpy as np

from .image import Image, ImageError, check_size

# What may stand between the numbers of a header.
_SPACE = rb"(?:\s|#[^\n\r]*[\n\r])"


class DamagedHeader(ImageError):
    """A header that is not one, or not all of one."""


def decode_netpbm(data: bytes, name: str) -> Image:
    """A picture of uint8 or uint16 pixels; another white than that of the type is scaled to it."""
    kind, width, height, white, start = _header(data, name)
    channels = 3 if kind in "36" else 1
    values = _numbers(data, start, kind, (height, width * channels), white, name)
    if values.max() > white:
        raise ImageError(f"{name} is damaged: it has values of {values.max()}, and its white is {white}")
    pixels = values.reshape((height, width, 3) if channels == 3 else (height, width))
    if kind in "14":
        return Image(
            255 - 255 * pixels.astype(np.uint8), format="PPM", notes=("1-bit image restored as 8-bit grey",)
        )
    dtype, full = (np.uint8, 255) if white < 256 else (np.uint16, 65535)
    if white == full:
        return Image(np.ascontiguousarray(pixels.astype(dtype)), format="PPM")
    scaled = np.rint(pixels * (full / white)).astype(dtype)
    return Image(scaled, format="PPM", notes=(f"values of 0..{white} scaled to 0..{full}",))


def measure_netpbm(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the header has them."""
    _, width, height, _, _ = _header(data, name)
    return width, height


def length_of(data: bytes) -> int | None:
    """Bytes of the binary image with which data begin, by its header; `None` where that is not complete, or is none.

    Raises:
        ImageError: a size that no picture has.
    """
    if data[1:2] not in (b"4", b"5", b"6"):
        return None
    try:
        kind, width, height, white, start = _header(data, "the image")
    except DamagedHeader:
        return None
    values = 3 * width if kind == "6" else width
    row = (width + 7) // 8 if kind == "4" else values * (2 if white > 255 else 1)
    return start + height * row


def _header(data: bytes, name: str) -> tuple[str, int, int, int, int]:
    """The digit of the kind, width, height, the value of white, and where the pixels begin."""
    kind = chr(data[1])
    count = 2 if kind in "14" else 3
    match = re.match(rb"P\d" + (rb"%b+(\d{1,9})" % _SPACE) * count + rb"(?:#[^\n\r]*[\n\r]|\s)", data)
    if match is None:
        raise DamagedHeader(f"{name} is damaged: its header should have {count} numbers")
    width, height, white = (*(int(number) for number in match.groups()), 1)[:3]
    check_size(width, height, name)
    if not 1 <= white <= 65535:
        raise ImageError(f"{name} is damaged: its white is {white}, and should be 1 to 65535")
    return kind, width, height, white, match.end()


def _numbers(data: bytes, start: int, kind: str, shape: tuple[int, int], white: int, name: str) -> np.ndarray:
    """The values, `[rows, columns]`."""
    rows, columns = shape
    if kind in "123":
        text = re.sub(rb"#[^\n\r]*", b" ", data[start:])
        digits = re.findall(rb"[01]" if kind == "1" else rb"\S+", text)
        if len(digits) != rows * columns:
            raise ImageError(
                f"{name} is damaged: it should have {rows * columns} values and has {len(digits)}"
            )
        return np.array([int(digit) for digit in digits], np.int64).reshape(shape)
    dtype = np.dtype(">u2" if white > 255 else np.uint8)
    width = (columns + 7) // 8 if kind == "4" else columns * dtype.itemsize
    end = start + rows * width
    if len(data) < end:
        raise ImageError(
            f"{name} is truncated: expected {rows * width} bytes of pixels, found {len(data) - start}"
        )
    if data[end:].lstrip()[:1] == b"P":
        raise ImageError(
            f"{name} holds several images, one behind the other; only single images are supported"
        )
    if kind == "4":
        return np.unpackbits(np.frombuffer(data[start:end], np.uint8).reshape(rows, -1), axis=1)[:, :columns]
    return np.frombuffer(data[start:end], dtype).reshape(rows, -1).astype(np.int64)
