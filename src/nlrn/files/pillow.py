"""Files of 8 bit a channel, through Pillow: JPEG, WebP, BMP, GIF and PNG; AVIF is only written here."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms
from PIL.PngImagePlugin import PngInfo

from ..ops.jpeg_tables import LUMINANCE
from . import exif
from .image import MAX_PIXELS, SINGLE, Image, ImageError, check_size, merge_alpha
from .orientation import turned
from .png16 import color_chunks, insert_chunks, read_chunks, read_profile, read_xmp, without_texts, xmp_text

# The multi-picture format of cameras marks what belongs together, as against previews and gain maps of one picture.
MULTI_PICTURE_ENTRIES = 0xB002


JPEG_END = b"\xff\xd9"
# Places of the lowest frequencies in a quantisation table, row by row.
LOW = (0, 1, 2, 8, 9, 16)


def decode_pillow(data: bytes, format_: str, name: str) -> Image:
    """A picture of uint8 pixels."""
    chunks: dict[bytes, bytes] = {}
    if format_ == "PNG":
        chunks = read_chunks(data, name)
        data = without_texts(data)
    if format_ == "JPEG":
        data = _with_end(data, name)
    picture = open_picture(io.BytesIO(data), format_, name)
    notes = _check_single(picture, name)
    picture.load()
    profile, profile_notes = picture.info.get("icc_profile"), tuple[str, ...]()
    if format_ == "PNG":
        profile, profile_notes = read_profile(chunks.get(b"iCCP"))
        if packet := read_xmp(chunks.get(b"iTXt")):
            picture.info["xmp"] = packet
    block = block_of(picture)
    resolution = _resolution(picture.info, block, format_)
    quality = jpeg_quality(getattr(picture, "quantization", {})) if format_ == "JPEG" else None
    xmp = picture.info.get("xmp")
    picture, icc, converted = _plain_mode(picture, profile, name)
    array, alpha = _split(picture)
    return Image(
        pixels=array,
        alpha=alpha,
        format=format_,
        exif=block,
        icc=icc or None,
        xmp=xmp or None,
        resolution=resolution,
        lossless=webp_is_lossless(data) if format_ == "WEBP" else format_ != "JPEG",
        jpeg_quality=quality,
        color_chunks=color_chunks(chunks),
        notes=(*notes, *profile_notes, *converted),
    )


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The quality of quantisation tables on libjpeg's scale of 1 to 100, by the first of them, which is that of luma.

    Tables of other encoders have the quality whose steps are as large, over all frequencies or, where these are
    coarser, over the low ones, whose steps show as blocks.
    """
    if 0 not in tables:
        return None
    # libjpeg's steps are those of the standard times a scale, rounded, and at most 255.
    pairs = list(zip(tables[0], chain(*LUMINANCE), strict=True))
    scales = [100 * step / base for step, base in pairs if step < 255]
    low = [100 * step / base for step, base in (pairs[place] for place in LOW) if step >= 4]
    scale = median(scales) if scales else 5000.0
    if low and median(low) > 1.5 * scale:
        scale = median(low)
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return max(1, min(100, round(quality)))


def decode_frame(stream: BinaryIO, index: int, format_: str, name: str) -> Image:
    """The picture of one page or frame, without metadata beside its colour profile."""
    picture = open_picture(stream, format_, name)
    picture.seek(index)
    return replace(plain(picture, picture.info.get("icc_profile"), name), format=format_)


def plain(picture: PillowImage.Image, icc: bytes | None, name: str) -> Image:
    """A picture as grey or RGB, with its colour profile and no other metadata."""
    picture.load()
    picture, icc, converted = _plain_mode(picture, icc, name)
    pixels, alpha = _split(picture)
    return Image(pixels, alpha, icc=icc or None, notes=tuple(converted))


def block_of(picture: PillowImage.Image) -> bytes | None:
    """The EXIF block of a picture."""
    block: bytes | None = picture.info.get("exif")
    if not block:  # ImageMagick's PNG text, or an orientation in XMP data only
        found = picture.getexif()
        block = found.tobytes() if len(found) else None
    return block.removeprefix(b"Exif\0\0") if block else None


def frame_of(picture: PillowImage.Image, mode: str, format_: str) -> Image:
    """The frame at which an animation stands, as L, LA, RGB or RGBA."""
    return Image(*_split(picture.convert(mode)), format=format_)


def _split(picture: PillowImage.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels and the alpha of a grey or RGB picture."""
    array = np.array(picture)
    if picture.mode not in ("LA", "RGBA"):
        return array, None
    alpha, array = array[..., -1].copy(), array[..., :-1].copy()
    return array[..., 0] if picture.mode == "LA" else array, alpha


def measure_pillow(data: bytes, format_: str, name: str) -> tuple[int, int]:
    """Width and height as the header has them; no pixel is decoded."""
    picture = open_picture(io.BytesIO(without_texts(data) if format_ == "PNG" else data), format_, name)
    _check_single(picture, name)
    return picture.size


def open_picture(stream: BinaryIO, format_: str, name: str) -> PillowImage.Image:
    """The picture, not decoded yet, of a size that is allowed."""
    # Pillow itself refuses sizes beyond the limit; between half of it and all of it, it only warns.
    try:
        picture: PillowImage.Image = PillowImage.open(stream, formats=[format_])
    except PillowImage.DecompressionBombError as error:
        claimed = re.search(r"\d+", str(error))
        count = f"{int(claimed[0]):,}" if claimed else "too many"
        raise ImageError(f"{name} claims {count} pixels; the limit is {MAX_PIXELS:,}") from error
    check_size(*picture.size, name)
    return picture


def _resolution(info: dict[Any, Any], block: bytes | None, format_: str) -> tuple[float, float] | None:
    """Pixels an inch, across and down."""
    found: tuple[float, float] | None = info.get("dpi")
    if format_ == "JPEG":  # where Pillow guesses, if there is EXIF data without a resolution
        inches = {1: 1.0, 2: 2.54}.get(info.get("jfif_unit", 0))
        across, down = info.get("jfif_density", (0, 0))
        found = (inches * across, inches * down) if inches and across and down else None
    found = found or exif.resolution(exif.parse(block or b""))
    return (float(found[0]), float(found[1])) if found and min(found) > 0 else None


def _check_single(picture: PillowImage.Image, name: str) -> list[str]:
    """Raises `ImageError` for more than one image; says so where a camera added previews to its one."""
    frames = getattr(picture, "n_frames", 1)
    if "mp" in picture.info:
        entries = getattr(picture, "mpinfo", {}).get(MULTI_PICTURE_ENTRIES, [])
        kinds = {entry["Attribute"]["MPType"].split(":")[0].split(" (")[0] for entry in entries}
        if "Multi-Frame Image" in kinds:
            return [f"only the first of the {frames} pictures in this file (MPO) is kept"]
        return ["only the main picture of this file is kept, without the previews or gain maps beside it"]
    if frames > 1:
        raise ImageError(f"{name} holds {frames} images or frames; {SINGLE}")
    return []


def _plain_mode(
    picture: PillowImage.Image, icc: bytes | None, name: str
) -> tuple[PillowImage.Image, bytes | None, list[str]]:
    """Grey or RGB, with or without alpha; what had to be converted is noted."""
    transparent = "transparency" in picture.info
    if picture.mode == "1":
        return picture.convert("LA" if transparent else "L"), icc, ["1-bit image restored as 8-bit grey"]
    if picture.mode in ("P", "PA"):
        color = picture.convert("RGBA" if transparent or picture.mode == "PA" else "RGB")
        red, green, blue = (np.asarray(color.getchannel(c)) for c in "RGB")
        # A profile for RGB says nothing about grey values, so with one the picture stays RGB.
        gray = bool((red == green).all() and (green == blue).all()) and (not icc or icc[16:20] == b"GRAY")
        if gray:
            color = color.convert("LA" if color.mode == "RGBA" else "L")
        return color, icc, [f"palette image restored as 8-bit {'grey' if gray else 'RGB'}"]
    if picture.mode == "CMYK":
        converted, note = _cmyk_to_rgb(picture, icc)
        return converted, None, [note]
    if picture.mode in ("L", "RGB") and transparent:
        return picture.convert("LA" if picture.mode == "L" else "RGBA"), icc, []
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        return picture, icc, []
    raise ImageError(f"{name} has pixels of a kind that is not supported ({picture.mode})")


def _cmyk_to_rgb(picture: PillowImage.Image, icc: bytes | None) -> tuple[PillowImage.Image, str]:
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(
                picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile is as good as none
        else:
            assert converted is not None
            return converted, "CMYK image converted to sRGB through its profile"
    return picture.convert("RGB"), "CMYK image converted to sRGB without a profile"


def webp_is_lossless(data: bytes) -> bool:
    """True where the first picture in a WebP file is stored without loss."""
    position = 12
    while position + 8 <= len(data):
        chunk, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if chunk in (b"VP8L", b"VP8 "):
            return chunk == b"VP8L"
        # A frame of an animation: 16 bytes, then chunks.
        position += 8 + (16 if chunk == b"ANMF" else size + size % 2)
    return False


def encode_pillow(image: Image, format_: str, quality: int) -> bytes:
    """A file's content.

    Raises:
        ImageError: more pixels a side, or more metadata, than the format allows.
    """
    options: dict[str, Any] = {}
    if format_ == "JPEG":
        # Not optimize=True: Pillow's buffer for it is too small for noisy images at high quality.
        options = {"quality": quality, "subsampling": 0}
    elif format_ == "WEBP":
        options = {"lossless": image.lossless, "quality": 90 if image.lossless else quality, "exact": True}
    elif format_ == "AVIF":
        options = {"quality": quality, "subsampling": "4:4:4" if image.pixels.ndim == 3 else "4:0:0"}
    if format_ == "BMP":
        orientation = exif.parse(image.exif or b"").orientation
        image = replace(image, pixels=turned(image.pixels, orientation))
        if image.resolution and orientation >= 5:
            image = replace(image, resolution=image.resolution[::-1])
    else:
        block = image.exif
        found = exif.parse(block or b"")
        if (
            format_ in ("WEBP", "AVIF") and image.resolution and exif.resolution(found) is None
        ):  # it has no other place
            block = exif.build(exif.with_resolution(found, image.resolution))
        if block:
            options["exif"] = b"Exif\0\0" + block
        if image.icc:
            options["icc_profile"] = image.icc
    if image.resolution and format_ not in ("WEBP", "AVIF"):
        options["dpi"] = image.resolution
    if image.xmp and format_ == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add(b"iTXt", xmp_text(image.xmp))
    elif image.xmp:
        options["xmp"] = image.xmp
    buffer = io.BytesIO()
    try:
        PillowImage.fromarray(merge_alpha(image)).save(buffer, format_, **options)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot write this image as {format_} ({error})") from error
    return insert_chunks(buffer.getvalue(), [*image.color_chunks]) if format_ == "PNG" else buffer.getvalue()


def _with_end(data: bytes, name: str) -> bytes:
    """A JPEG file with the mark of its end, where only this is missing; of other depths than 8 bit none is read."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] in (0xC0, 0xC1, 0xC2) and data[position + 4] != 8:
            raise ImageError(
                f"{name} has {data[position + 4]} bits a channel; only JPEG files of 8 bits are supported"
            )
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if data.find(JPEG_END, position) >= 0:
        return data
    # Whatever stands between the last pixel and the end changes no pixel, unless pixels are missing.
    whole, filled = data + JPEG_END, data + 64 * b"\x55" + JPEG_END
    first, second = (PillowImage.open(io.BytesIO(one), formats=["JPEG"]) for one in (whole, filled))
    check_size(*first.size, name)
    return whole if first.tobytes() == second.tobytes() else data
