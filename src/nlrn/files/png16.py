"""PNG files of 16 bit a channel through imagecodecs (Pillow would read their colours as 8-bit), and PNG chunks."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from .image import PNG_SIGNATURE, Image, ImageError, check_size, load_package, merge_alpha

# Real profiles are below 4 MB; a chunk that unpacks to more is an attack.
MAX_PROFILE = 1 << 24
# EXIF data as text takes two letters a byte.
MAX_RAW = 1 << 19
COLOR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"cHRM", b"gAMA", b"sRGB", b"sBIT")
INCH = 0.0254  # in metres
XMP = b"XML:com.adobe.xmp\0"


def decode_png16(data: bytes, name: str) -> Image:
    """A picture of uint16 pixels."""
    width, height = struct.unpack(">II", data[16:24])
    check_size(width, height, name)
    chunks = read_chunks(data, name)
    if b"acTL" in chunks:
        raise ImageError(f"{name} is animated; only single images are supported")
    with _without_messages(data[28:29] == b"\1"):
        array: np.ndarray = load_package("imagecodecs", "16-bit PNG").png_decode(_pixels_alone(data))
    if array.dtype != np.uint16 or array.ndim not in (2, 3):
        raise ImageError(f"{name} decoded to {array.dtype} of shape {array.shape}, expected 16-bit pixels")
    array = array if array.ndim == 3 else array[..., None]
    alpha = None
    if array.shape[2] in (2, 4):  # imagecodecs has made a transparent colour (tRNS) alpha
        alpha, array = array[..., -1].copy(), array[..., :-1]
    icc, notes = read_profile(chunks.get(b"iCCP"))
    return Image(
        pixels=np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array),
        alpha=alpha,
        format="PNG",
        exif=chunks.get(b"eXIf"),
        icc=icc,
        xmp=read_xmp(chunks.get(b"iTXt")),
        resolution=_read_resolution(chunks.get(b"pHYs")),
        color_chunks=color_chunks(chunks),
        notes=notes,
    )


def read_chunks(data: bytes, name: str) -> dict[bytes, bytes]:
    """The chunks by their type; of several with one type (only pixel data and texts) the last, of texts that with XMP.

    Raises:
        ImageError: a checksum is wrong or the end is missing.
    """
    chunks = {}
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + size
        # Lower case marks what a reader may ignore. libpng would notice as well, but imagecodecs loses a reference
        # to None with each of its errors, which in the end stops Python 3.11.
        if kind[:1].isupper() and data[end : end + 4] != struct.pack(
            ">I", zlib.crc32(data[position + 4 : end])
        ):
            what = "is truncated" if end + 4 > len(data) else "is damaged"
            raise ImageError(f"{name} {what}: the checksum of its {kind.decode('latin-1')!r} chunk is wrong")
        if kind != b"iTXt" or data.startswith(XMP, position + 8):
            chunks[kind] = data[position + 8 : end]
        position = end + 4
        if kind == b"IEND":
            break  # what follows is not the picture's
    if b"IEND" not in chunks:
        raise ImageError(f"{name} is truncated: expected an IEND chunk, found {len(data)} bytes without one")
    return chunks


def _pixels_alone(data: bytes) -> bytes:
    """A PNG file with nothing that a decoder may ignore but transparency: libpng prints what it finds odd there."""
    kept, position = [data[: len(PNG_SIGNATURE)]], len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + size + 12
        if kind[:1].isupper() or kind == b"tRNS":
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def read_profile(chunk: bytes | None) -> tuple[bytes | None, tuple[str, ...]]:
    """The colour profile in the content of an iCCP chunk, and a note where it is damaged."""
    if chunk is None:
        return None, ()
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(chunk.partition(b"\0")[2][1:], MAX_PROFILE)
    except zlib.error:
        profile = b""
    if not profile or not unpacker.eof:
        return None, ("damaged colour profile dropped",)
    return profile, ()


def _read_resolution(chunk: bytes | None) -> tuple[float, float] | None:
    """Pixels an inch; the chunk has them a metre, or only their ratio."""
    if chunk is None or len(chunk) != 9 or chunk[8] != 1:
        return None
    across, down = struct.unpack_from(">II", chunk)
    return (across * INCH, down * INCH) if across and down else None


def read_xmp(chunk: bytes | None) -> bytes | None:
    """The XMP packet in the content of an iTXt chunk."""
    if chunk is None or len(chunk) < len(XMP) + 2:
        return None
    compressed, rest = chunk[len(XMP)], chunk[len(XMP) + 2 :].split(b"\0", 2)
    if len(rest) < 3 or not compressed:  # a language, a translated keyword, the text
        return rest[2] if len(rest) == 3 else None
    unpacker = zlib.decompressobj()
    try:
        packet = unpacker.decompress(rest[2], MAX_PROFILE)
    except zlib.error:
        return None
    return packet if unpacker.eof else None


def xmp_text(packet: bytes) -> bytes:
    """The content of the text chunk that has an XMP packet."""
    return XMP + bytes(4) + packet


def encode_png16(image: Image) -> bytes:
    """A PNG file with EXIF, XMP, ICC profile and resolution, which imagecodecs does not write itself."""
    data: bytes = load_package("imagecodecs", "16-bit PNG").png_encode(merge_alpha(image))
    extra = b""
    if image.icc:
        extra += png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc))
    if image.exif:
        extra += png_chunk(b"eXIf", image.exif)
    if image.resolution:
        extra += png_chunk(b"pHYs", struct.pack(">IIB", *(round(x / INCH) for x in image.resolution), 1))
    if image.xmp:
        extra += png_chunk(b"iTXt", xmp_text(image.xmp))
    return insert_chunks(data, [*image.color_chunks], extra)


def insert_chunks(data: bytes, chunks: list[tuple[bytes, bytes]], extra: bytes = b"") -> bytes:
    """A PNG file with more chunks before its pixels."""
    header = len(PNG_SIGNATURE) + 25  # the signature and IHDR come first
    return data[:header] + b"".join(png_chunk(*chunk) for chunk in chunks) + extra + data[header:]


def color_chunks(chunks: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of a PNG that describe its colours, beside a profile."""
    return tuple((kind, chunks[kind]) for kind in COLOR_CHUNKS if kind in chunks)


def has_significant_bits(content: bytes, image: Image) -> bool:
    """True for the content of an sBIT chunk that fits an image: a byte a channel, and no more bits than it has."""
    channels = (1 if image.pixels.ndim == 2 else 3) + (image.alpha is not None)
    return len(content) == channels and all(1 <= bits <= 8 * image.pixels.itemsize for bits in content)


def without_texts(data: bytes) -> bytes:
    """A PNG file without compressed texts and profile, in whose size Pillow sees an attack.

    Texts of ImageMagick stay, which are EXIF data.
    """
    kept, position = [data[: len(PNG_SIGNATURE)]], len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        kind, content = data[position + 4 : position + 8], position + 8
        raw = data.startswith(b"Raw profile type", content)
        if kind not in (b"iCCP", b"iTXt", b"zTXt", b"tEXt") or (raw and size <= MAX_RAW):
            kept.append(data[position : content + size + 4])
        position = content + size + 4
    return b"".join(kept)


@contextlib.contextmanager
def _without_messages(interlaced: bool) -> Iterator[None]:
    """Keeps libpng from writing to standard error, as it does for interlaced files that it reads well."""
    if not interlaced:
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
