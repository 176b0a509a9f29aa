"""TIFF files written page by page: no more than one page is ever in memory.

Source: TIFF 6.0; for BigTIFF, the Aware Systems proposal of 2007. ImageJ reads the planes of an uncompressed stack from
where the first one begins, so that they must stand together, before all directories.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from . import exif
from .exif import Directories, Tag
from .image import Image, load_package, merge_alpha

ICC_PROFILE, XMP = 34675, 700
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
DEFLATE, UNCOMPRESSED = 8, 1
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
# Bytes of a strip before compression.
STRIP = 1 << 18
# Pixels beyond which offsets of 32 bit may not reach, with room for directories.
BIG_FROM = (1 << 32) - (1 << 25)


class TiffWriter:
    """A little-endian TIFF or BigTIFF file that grows by a page at a time.

    Args:
        file: an empty file that is open for writing, and seekable.
        big: whether offsets have 64 bit, which a file of more than 4 GB needs.
        together: whether the pixels stand together and uncompressed, as ImageJ expects it of a stack.
    """

    def __init__(self, file: BinaryIO, *, big: bool = False, together: bool = False) -> None:
        self._file, self._big, self._together = file, big, together
        self._waiting: list[Directories] = []
        file.write(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4))
        self._place, self._link = (16, 8) if big else (8, 4)

    def add(self, image: Image) -> None:
        """Writes a page."""
        pixels = merge_alpha(image)
        if self._together:
            strips, rows = [pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()], len(pixels)
        else:
            rows = max(1, min(len(pixels), STRIP // pixels[0].nbytes))
            strips = [_deflated(pixels[start : start + rows]) for start in range(0, len(pixels), rows)]
        places = []
        for strip in strips:
            places.append((self._place, len(strip)))
            self._write(strip)
        main = _layout(image, pixels, rows) | self._strips(places) | _described(image)
        found = exif.parse(image.exif or b"")
        if image.resolution:
            found = exif.with_resolution(found, image.resolution)
        if exif.X_RESOLUTION in found.main:  # it comes with its own unit, or means the standard's
            for code in (exif.Y_RESOLUTION, exif.RESOLUTION_UNIT):
                main.pop(code)
        self._waiting.append(replace(found, main=main | found.main))
        if not self._together:
            self.finish()

    def finish(self) -> None:
        """Writes the directories that wait, each linked from the one before."""
        for directories in self._waiting:
            self._write(bytes(self._place % 2))
            start = self._place
            packed, link = exif.pack(directories, start, self._big)
            self._write(packed)
            self._file.seek(self._link)
            self._file.write(struct.pack("<Q" if self._big else "<I", start))
            self._file.seek(self._place)
            self._link = link
        self._waiting.clear()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._place += len(data)

    def _strips(self, places: Sequence[tuple[int, int]]) -> exif.Tags:
        kind, letter = (exif.LONG8, "Q") if self._big else (LONG, "I")
        offsets, sizes = zip(*places, strict=True)
        return {
            273: Tag(kind, struct.pack(f"<{len(places)}{letter}", *offsets)),
            279: Tag(kind, struct.pack(f"<{len(places)}{letter}", *sizes)),
            259: Tag(SHORT, struct.pack("<H", UNCOMPRESSED if self._together else DEFLATE)),
        }


def _deflated(rows: np.ndarray) -> bytes:
    data = rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
    # Two to five times as fast as zlib, and no larger.
    return bytes(load_package("imagecodecs", "TIFF").deflate_encode(data, 6))


def _layout(image: Image, pixels: np.ndarray, rows: int) -> exif.Tags:
    """The tags that say how the pixels are laid out."""

    def numbers(kind: int, *values: int) -> Tag:
        return Tag(kind, struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values))

    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = {
        254: numbers(LONG, 0),  # a picture of its own
        256: numbers(LONG, pixels.shape[1]),
        257: numbers(LONG, pixels.shape[0]),
        258: numbers(SHORT, *[8 * pixels.itemsize] * samples),
        262: numbers(SHORT, 2 if image.pixels.ndim == 3 else 1),
        277: numbers(SHORT, samples),
        278: numbers(LONG, rows),
        exif.X_RESOLUTION: Tag(RATIONAL, struct.pack("<II", 1, 1)),
        exif.Y_RESOLUTION: Tag(RATIONAL, struct.pack("<II", 1, 1)),
        284: numbers(SHORT, 1),  # the samples of a pixel stand together
        exif.RESOLUTION_UNIT: numbers(SHORT, 1),
        339: numbers(SHORT, *[SAMPLE_FORMATS[pixels.dtype.kind]] * samples),
    }
    if image.alpha is not None:
        tags[338] = numbers(SHORT, 1 if image.premultiplied else 2)
    return tags


def _described(image: Image) -> exif.Tags:
    """The tags of what goes with the pixels, beside EXIF data."""
    tags: exif.Tags = {}
    if image.icc:
        tags[ICC_PROFILE] = Tag(UNDEFINED, image.icc)
    if image.xmp:
        tags[XMP] = Tag(BYTE, image.xmp)
    if image.imagej:
        found = load_package("tifffile", "ImageJ's data").imagej_metadata_tag(image.imagej, "<")
        tags |= {code: Tag(kind, data) for code, kind, _, data, _ in found}
    return tags
