"""Animations written frame by frame: no more than one frame is ever in memory.

Each frame is encoded as a picture of its own, whole and not as a difference, and its pixels are taken from there.

Source: PNG, third edition, section 11.3.4 (acTL, fcTL, fdAT); RFC 9649, section 2.7 (VP8X, ANIM, ANMF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

from .image import PNG_SIGNATURE, Image
from .pillow import encode_pillow
from .png16 import png_chunk

# Milliseconds a frame, where nothing says them.
DEFAULT = 100.0


class PngWriter:
    """An animated PNG file that grows by a frame at a time.

    Args:
        file: an empty file that is open for writing.
        count: the number of frames.
        loop: how often they are shown, 0 for ever.
    """

    def __init__(self, file: BinaryIO, count: int, loop: int) -> None:
        self._file, self._count, self._loop = file, count, loop
        self._number = 0
        self._end: list[tuple[bytes, bytes]] = []

    def add(self, image: Image) -> None:
        """Writes a frame; the first has the metadata."""
        first = not self._number
        chunks = list(_png_chunks(encode_pillow(image if first else _bare(image), "PNG", 100)))
        pixels = [content for kind, content in chunks if kind == b"IDAT"]
        if first:
            place = [kind for kind, _ in chunks].index(b"IDAT")
            self._end = [chunk for chunk in chunks[place:] if chunk[0] != b"IDAT"]
            self._file.write(PNG_SIGNATURE + png_chunk(*chunks[0]))
            self._file.write(png_chunk(b"acTL", struct.pack(">II", self._count, self._loop)))
            self._file.writelines(png_chunk(*chunk) for chunk in chunks[1:place])
        self._file.write(png_chunk(b"fcTL", self._next() + _control(image)))
        for content in pixels:
            self._file.write(
                png_chunk(b"IDAT", content) if first else png_chunk(b"fdAT", self._next() + content)
            )

    def finish(self) -> None:
        """Writes the end."""
        self._file.writelines(png_chunk(*chunk) for chunk in self._end)

    def _next(self) -> bytes:
        self._number += 1
        return struct.pack(">I", self._number - 1)


class WebpWriter:
    """An animated WebP file that grows by a frame at a time.

    Args:
        file: an empty file that is open for writing, and seekable.
        loop: how often the frames are shown, 0 for ever.
        quality: of frames that are not lossless.
    """

    def __init__(self, file: BinaryIO, loop: int, quality: int) -> None:
        self._file, self._loop, self._quality = file, loop, quality
        self._end = b""
        self._started = False

    def add(self, image: Image) -> None:
        """Writes a frame; the first has the metadata."""
        size = b"".join(struct.pack("<I", length - 1)[:3] for length in image.pixels.shape[1::-1])
        if not self._started:
            self._start(image, size)
        milliseconds = DEFAULT if image.milliseconds is None else image.milliseconds
        time = min(max(0, round(milliseconds)), (1 << 24) - 1)
        pixels = b"".join(
            _webp_chunk(kind, content)
            for kind, content in _webp_chunks(encode_pillow(_bare(image), "WEBP", self._quality))
            if kind in (b"ALPH", b"VP8 ", b"VP8L")
        )
        # At (0, 0), in place of the frame before (bit 1), which stays until then.
        self._file.write(_webp_chunk(b"ANMF", bytes(6) + size + struct.pack("<I", time)[:3] + b"\2" + pixels))

    def finish(self) -> None:
        """Writes the end, and the length of the file into its beginning."""
        self._file.write(self._end)
        length = self._file.tell()
        self._file.seek(4)
        self._file.write(struct.pack("<I", length - 8))
        self._file.seek(length)

    def _start(self, image: Image, size: bytes) -> None:
        """Writes what comes before the frames; the metadata are those of the first one written as a file."""
        found = dict(_webp_chunks(encode_pillow(image, "WEBP", self._quality)))
        flags = 2 | 16 * (image.alpha is not None)
        flags |= 32 * (b"ICCP" in found) | 8 * (b"EXIF" in found) | 4 * (b"XMP " in found)
        self._file.write(b"RIFF" + bytes(4) + b"WEBP")
        self._file.write(_webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size))
        if b"ICCP" in found:
            self._file.write(_webp_chunk(b"ICCP", found[b"ICCP"]))
        self._file.write(_webp_chunk(b"ANIM", bytes(4) + struct.pack("<H", min(self._loop, 65535))))
        self._end = b"".join(_webp_chunk(kind, found[kind]) for kind in (b"EXIF", b"XMP ") if kind in found)
        self._started = True


def _bare(image: Image) -> Image:
    """The pixels alone."""
    return replace(image, exif=None, icc=None, xmp=None, resolution=None, color_chunks=())


def _control(image: Image) -> bytes:
    """The content of an fcTL chunk behind its number: size, place, time, and that the frame replaces the one before."""
    height, width = image.pixels.shape[:2]
    milliseconds = DEFAULT if image.milliseconds is None else image.milliseconds
    seconds = Fraction(max(0.0, min(milliseconds, 65_535_000.0)) / 1000).limit_denominator(1000)
    if seconds.numerator > 65535:
        seconds = Fraction(round(seconds))
    return struct.pack(">IIIIHHBB", width, height, 0, 0, seconds.numerator, seconds.denominator, 0, 0)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_SIGNATURE)
    while place < len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        yield kind, data[place + 8 : place + 8 + size]
        place += size + 12


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place < len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        yield kind, data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
