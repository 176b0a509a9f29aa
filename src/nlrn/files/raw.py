"""Camera raw, developed through rawpy (LibRaw) to RGB of 16 bit in sRGB: DNG, CR2, CR3, NEF, ARW and RAF.

The white balance is that of the camera, and the brightness that of the sensor: what is not clipped in the file is not
clipped here. LibRaw turns the picture upright, and the orientation leaves the EXIF data.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from . import exif
from .image import Image, ImageError, check_size, load_package

# The tag that every DNG has, and those of a main directory that is a preview of pictures in others.
DNG_VERSION, SUBFILE_TYPE, SUB_DIRECTORIES = 50706, 254, 330
# Makers whose raw files are TIFF files of such a kind.
MAKERS = (b"NIKON", b"SONY")
RAF_SIGNATURE = b"FUJIFILMCCD-RAW"
# The curve of sRGB: its power, and its slope near black.
SRGB_CURVE = (2.4, 12.92)
NO_EXIF = "the EXIF data of this raw file cannot be read: left out"


def is_raw(head: bytes) -> bool:
    """True for the first kilobytes of a TIFF file that is a camera's raw file."""
    if head[8:10] == b"CR":
        return True
    tags = exif.main_tags(head)
    if DNG_VERSION in tags:
        return True
    make, kind = tags.get(exif.MAKE), tags.get(SUBFILE_TYPE)
    preview = kind is not None and kind.data[:1] == b"\1" and SUB_DIRECTORIES in tags
    return preview and make is not None and make.data.startswith(MAKERS)


def decode_raw(data: bytes, name: str) -> Image:
    """A picture of RGB in uint16."""
    with _opened(data, name) as raw:
        pixels = raw.postprocess(
            output_bps=16, use_camera_wb=True, no_auto_bright=True, adjust_maximum_thr=0.0, gamma=SRGB_CURVE
        )
        block = _block(data, raw)
        colors = int(raw.num_colors)
    if pixels.ndim == 3 and (colors == 1 or pixels.shape[2] == 1):
        pixels = pixels[..., 0]
    notes = ["camera raw developed to 16 bit, with the white balance of the camera"]
    if block is None:
        notes.append(NO_EXIF)
    return Image(np.ascontiguousarray(pixels), format="RAW", exif=exif.upright(block), notes=tuple(notes))


def measure_raw(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as viewers show them; the picture is not developed."""
    with _opened(data, name) as raw:
        return _size(raw)


def _opened(data: bytes, name: str) -> Any:
    package = load_package("rawpy", f"{name}: camera raw", extra="raw")
    try:
        raw = package.imread(io.BytesIO(data))
    except package.LibRawError as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ImageError(
            f"{name} is a damaged raw file, or of a camera that LibRaw does not know ({text})"
        ) from error
    check_size(*_size(raw), name)
    return raw


def _size(raw: Any) -> tuple[int, int]:
    width, height = int(raw.sizes.width), int(raw.sizes.height)
    return (height, width) if raw.sizes.flip in (5, 6) else (width, height)


def _block(data: bytes, raw: Any) -> bytes | None:
    """The EXIF data: of a TIFF file its own, else those of the JPEG file inside, which is its preview."""
    if data[:2] in (b"II", b"MM"):
        return exif.build(exif.parse(data))
    try:
        preview = bytes(raw.extract_thumb().data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: bytes | None = PillowImage.open(io.BytesIO(preview), formats=["JPEG"]).info.get("exif")
    except (
        Exception
    ):  # LibRaw and Pillow have errors of many kinds for previews that are not there or not JPEG
        return None
    return None if not found else found.removeprefix(b"Exif\0\0")
