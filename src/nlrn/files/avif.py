"""AVIF: pixels of 8, 10 and 12 bit through imagecodecs, which keeps depth and grey, and metadata through Pillow.

Pillow turns the file's rotation and mirroring (irot, imir), which rule, into the orientation of the EXIF data, and
back when it writes: pixels are as they are stored.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from . import exif
from .boxes import cicp_chunk
from .image import Image, ImageError, load_package, scaled
from .pillow import block_of, open_picture

ANIMATED = "animations are read from PNG, WebP and GIF files"


def decode_avif(data: bytes, name: str) -> Image:
    """A picture of uint8 pixels, or of uint16 for 10 and 12 bit."""
    picture = open_picture(io.BytesIO(data), "AVIF", name)
    _check_single(getattr(picture, "n_frames", 1), name)
    array: np.ndarray = load_package("imagecodecs", "AVIF").avif_decode(data, numthreads=1)
    if array.shape[:2] != picture.size[::-1]:
        raise ImageError(f"{name} decoded to shape {array.shape}, expected {picture.size[::-1]}")
    block, icc = block_of(picture), picture.info.get("icc_profile")
    image = replace(
        with_alpha(array),
        format="AVIF",
        exif=block,
        icc=icc or None,
        xmp=picture.info.get("xmp") or None,
        resolution=exif.resolution(exif.parse(block or b"")),
        lossless=False,
        color_chunks=() if icc else cicp_chunk(data),
    )
    return image if array.dtype == np.uint8 else scaled(image, (1 << _depth(data)) - 1)


def measure_avif(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the header has them."""
    picture = open_picture(io.BytesIO(data), "AVIF", name)
    _check_single(getattr(picture, "n_frames", 1), name)
    return picture.size


def with_alpha(array: np.ndarray) -> Image:
    """The picture of pixels whose last channel of 2 or 4 is alpha."""
    array = array if array.ndim == 3 else array[..., None]
    channels = array.shape[2]
    if channels > 4:
        raise ImageError(f"a picture of {channels} channels; expected grey or RGB, with or without alpha")
    alpha = array[..., -1].copy() if channels in (2, 4) else None
    color = array[..., 0] if channels < 3 else array[..., :3]
    return Image(np.ascontiguousarray(color), alpha)


def _check_single(frames: int, name: str) -> None:
    if frames > 1:
        raise ImageError(f"{name} is an animated AVIF file of {frames} frames; {ANIMATED}")


def _depth(data: bytes) -> int:
    """Bits a channel of a picture that has more than 8: the configuration of its codec says which."""
    place = data.find(b"av1C")
    if place < 0:
        raise ImageError("the configuration of its codec (av1C) is missing")
    return 12 if data[place + 6] & 0x20 else 10  # twelve_bit, beside high_bitdepth
