"""FITS: images and cubes of measurements, read through astropy plane by plane and written beside their header.

A plane stays as it is stored: bottom row first, in the units of the header. Values that a header scales to others than
integers (BSCALE, BZERO) become floats. NaN and BLANK are pixels without data.

Source: FITS standard 4.0, section 4.4 (keywords) and 8 (world coordinates).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .image import SINGLE, Image, ImageError, check_size, load_package

BLOCK = 2880
# Numbers of a header for the types of pixels; unsigned integers are stored as signed ones with an offset.
BITPIX = {"uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "float32": -32, "float64": -64}
OFFSETS = {"uint16": 1 << 15, "uint32": 1 << 31}
# Cards on how a file lays out its pixels, which are written anew, and on numbers that it had before.
_LAYOUT = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|END|DATAMIN|DATAMAX)"
)
# Polynomials of distortion, in pixels.
_DISTORTION = re.compile(r"(A|B|AP|BP)_(ORDER|DMAX|\d_\d)|(CPDIS|CQDIS|DP|DQ)\d.*")
DISTORTION_NOTE = "the distortion in the FITS header, which is in pixels of the smaller picture, is left out"
FLOATS_NOTE = "scaled values (BSCALE, BZERO) are restored and written as floats"


def decode_fits(data: bytes, name: str) -> Image:
    """The picture of a file that has one plane."""
    planes = FitsPlanes(data, name)
    try:
        if len(planes) != 1:
            raise ImageError(f"{name} has {len(planes)} planes; {SINGLE}")
        image = planes[0]
        return replace(image, notes=(*image.notes, *planes.notes))
    finally:
        planes.close()


def measure_fits(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the header has them."""
    planes = FitsPlanes(data, name)
    try:
        if len(planes) != 1:
            raise ImageError(f"{name} has {len(planes)} planes; {SINGLE}")
        return planes.size
    finally:
        planes.close()


class FitsPlanes:
    """The planes of the first image of a FITS file, each decoded when it is asked for.

    Args:
        source: a path, or the file's content.
        name: what errors call the file.

    Raises:
        ImageError: astropy is missing, or no image of two axes or more.
    """

    format = "FITS"
    loop: int | None = None

    def __init__(self, source: bytes | Path, name: str) -> None:
        self._name = name
        fits = load_package("astropy.io.fits", f"{name}: FITS", extra="fits")
        self._file = fits.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        try:
            parts = list(self._file)
            self._part: Any = next((part for part in parts if part.is_image and len(part.shape) >= 2), None)
            if self._part is None or 0 in self._part.shape:
                raise ImageError(f"{name} has no image of two axes in its {len(parts)} parts")
            if {"SIMPLE", "XTENSION"} <= set(self._part.header):
                raise ImageError(
                    f"{name} is damaged: a header has no end, and goes on in that of the next part"
                )
            self._shape: tuple[int, ...] = self._part.shape
            check_size(*self.size, name)
            length = len(source) if isinstance(source, bytes) else source.stat().st_size
            if prod(self._shape[:-2]) > length:
                raise ImageError(
                    f"{name} is damaged: it claims {prod(self._shape[:-2])} planes in {length} bytes"
                )
            # Before pixels are read, which changes the header.
            self._header = str(self._part.header.tostring(sep=""))
            scaled = self._part.header.get("BSCALE", 1) != 1
            scaled |= self._part.header.get("BZERO", 0) not in (0, 1 << 15, 1 << 31)
        except BaseException:
            self._file.close()
            raise
        others = sum(bool(part.shape) for part in parts if part.is_image) - 1
        others += sum(not part.is_image for part in parts)
        left = f"only the first image is kept, without {others} other parts (images, tables) of the file"
        self.notes: tuple[str, ...] = ((left,) if others else ()) + ((FLOATS_NOTE,) if scaled else ())

    def __len__(self) -> int:
        return prod(self._shape[:-2])

    def __getitem__(self, index: int) -> Image:
        place = np.unravel_index(index, self._shape[:-2]) if len(self._shape) > 2 else ()
        plane = np.array(self._part.section[(*(int(number) for number in place), ...)])
        plane = np.ascontiguousarray(plane.astype(plane.dtype.newbyteorder("="), copy=False))
        if plane.shape != self._shape[-2:]:
            raise ImageError(
                f"{self._name} is damaged: a plane has shape {plane.shape}, expected {self._shape[-2:]}"
            )
        if plane.dtype.name not in BITPIX:
            raise ImageError(
                f"{self._name} has values of {plane.dtype.name}; expected one of {', '.join(BITPIX)}"
            )
        if plane.dtype.kind == "f" and np.isinf(plane).any():
            raise ImageError(f"{self._name} has infinite values")
        return Image(plane, format="FITS", fits=self._header if index == 0 else None)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._shape[-1], self._shape[-2]

    def kind(self, index: int) -> str:
        """The same for all planes."""
        return "plane"

    def nbytes(self, index: int) -> int:
        """Bytes of the pixels of a plane, at most."""
        return 8 * prod(self._shape[-2:])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class FitsWriter:
    """A FITS file that grows by a plane at a time.

    Args:
        file: an empty file that is open for writing.
        count: the number of planes.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file, self._count, self._length = file, count, 0
        self._like: tuple[tuple[int, ...], str] | None = None

    def add(self, image: Image) -> None:
        """Writes a plane; the first has the header.

        Raises:
            ImageError: another size or type than the first one.
        """
        pixels, name = image.pixels, image.pixels.dtype.name
        if self._like is None:
            self._like = (pixels.shape, name)
            self._write(_header_of(image, self._count))
            self._length = 0
        if self._like != (pixels.shape, name):
            raise ImageError(
                f"FITS holds planes of one size and type, got {self._like} and {pixels.shape, name}"
            )
        if name in OFFSETS:
            stored = (pixels.astype(np.int64) - OFFSETS[name]).astype(f">i{pixels.itemsize}")
        else:
            stored = pixels.astype(pixels.dtype.newbyteorder(">"))
        self._write(stored.tobytes())

    def finish(self) -> None:
        """Fills the last block."""
        self._write(bytes(-self._length % BLOCK))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._length += len(data)


def encode_fits(image: Image) -> bytes:
    """A FITS file of one plane."""
    buffer = io.BytesIO()
    writer = FitsWriter(buffer, 1)
    writer.add(image)
    writer.finish()
    return buffer.getvalue()


def enlarged_header(
    text: str, before: tuple[int, int], after: tuple[int, int]
) -> tuple[str, tuple[str, ...]]:
    """The header of a picture that is larger now, and a note on what is left out.

    The reference pixel and the size of a pixel on the sky (CRPIX, CDELT, CD) are those of the larger picture.

    Args:
        text: the header.
        before: width and height that the picture had.
        after: those that it has.
    """
    header = _parsed(text)
    for axis, (old, new) in enumerate(zip(before, after, strict=True), 1):
        factor = new / old
        for key in [
            key for key in header if re.fullmatch(rf"(CRPIX{axis}|CDELT{axis}|CD\d_{axis})[A-Z]?", key)
        ]:
            value = header[key]
            if isinstance(value, int | float) and not isinstance(value, bool):
                # The middle of the first pixel is 1, and its edge 0.5.
                header[key] = (value - 0.5) * factor + 0.5 if key.startswith("CRPIX") else value / factor
    bent = [key for key in header if _DISTORTION.fullmatch(key)]
    for key in bent:
        del header[key]
    if bent:
        for axis in (1, 2):
            if str(header.get(f"CTYPE{axis}", "")).endswith("-SIP"):
                header[f"CTYPE{axis}"] = header[f"CTYPE{axis}"].removesuffix("-SIP")
    return str(header.tostring(sep="", endcard=False, padding=False)), (DISTORTION_NOTE,) if bent else ()


def _parsed(text: str) -> Any:
    return load_package("astropy.io.fits", "FITS", extra="fits").Header.fromstring(text)


def _header_of(image: Image, count: int) -> bytes:
    """The header of planes like this one: how they are laid out, and the cards that they came with."""
    fits = load_package("astropy.io.fits", "FITS", extra="fits")
    given, name = _parsed(image.fits or ""), image.pixels.dtype.name
    lengths = [*image.pixels.shape[::-1], *_lengths(given, count)]
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, BITPIX[name], len(lengths)
    for axis, length in enumerate(lengths, 1):
        header[f"NAXIS{axis}"] = length
    if name in OFFSETS:
        header["BSCALE"], header["BZERO"] = 1, OFFSETS[name]
    header.extend(
        [card for card in given.cards if not _LAYOUT.fullmatch(card.keyword)], unique=False, update=False
    )
    return bytes(header.tostring().encode("ascii"))


def _lengths(given: Any, count: int) -> Sequence[int]:
    """The lengths of the axes beyond the second, for so many planes."""
    old = [int(given.get(f"NAXIS{axis}", 1)) for axis in range(3, int(given.get("NAXIS", 0)) + 1)]
    if prod(old) == count:
        return old
    return [count] if count > 1 else []
