"""HEIC and HEIF, the photographs of phones, read through pillow-heif: 8, 10 and 12 bit.

The rotation and mirroring of the file rule, and its EXIF orientation only repeats them (ISO/IEC 23008-12, annex A):
libheif turns the pixels, and the orientation leaves the metadata.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np

from . import exif
from .avif import with_alpha
from .boxes import cicp_chunk
from .image import Image, ImageError, check_size, load_package, scaled

MAIN_ALONE = "only the main picture of this file is kept, without the others, depth and gain maps beside it"


def decode_heic(data: bytes, name: str) -> Image:
    """A picture of uint8 pixels, or of uint16 for more than 8 bit."""
    package, file, picture = _opened(data, name)
    depth, info = int(picture.info["bit_depth"]), dict(picture.info)
    array = np.array(picture)
    mode = picture.mode.split(";")[0]
    if mode not in ("L", "LA", "RGB", "RGBA", "RGBa"):
        raise ImageError(f"{name} has pixels of a kind that is not supported ({picture.mode})")
    others = len(file) > 1 or info.get("aux") or info.get("depth_images")
    had = package.set_orientation(info)
    turned = ("picture turned upright",) if (had or 1) != 1 else ()
    block = (info.get("exif") or b"").removeprefix(b"Exif\0\0")
    image = replace(
        with_alpha(array),
        format="HEIC",
        exif=exif.upright(block),
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        resolution=exif.resolution(exif.parse(block)),
        lossless=False,
        premultiplied=mode == "RGBa",
        color_chunks=() if info.get("icc_profile") else cicp_chunk(data),
        notes=((MAIN_ALONE,) if others else ()) + turned,
    )
    return image if array.dtype == np.uint8 else scaled(image, (1 << depth) - 1)


def measure_heic(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as viewers show them; no pixel is decoded."""
    _, _, picture = _opened(data, name)
    width, height = picture.size
    return int(width), int(height)


def _opened(data: bytes, name: str) -> tuple[Any, Any, Any]:
    """The package, a file and its main picture, not decoded yet, of a size that is allowed."""
    package = load_package("pillow_heif", f"{name}: HEIC", extra="heic")
    file = package.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    picture = file[file.primary_index]
    width, height = picture.size
    check_size(width, height, name)
    return package, file, picture
