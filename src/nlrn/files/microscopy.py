"""Descriptions of a picture in a TIFF file by ImageJ and OME: the size of its pixels, labels, ranges, overlays."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from fractions import Fraction
from typing import Any

from . import exif
from .image import Image

IMAGEJ_METADATA = 50839
MAX_LONG = (1 << 32) - 1
# Places on the old grid of pixels.
PLACES = ("ROI", "Overlays", "Plot")


def is_calibrated(tags: exif.Tags) -> bool:
    """True for a description by ImageJ, whose resolution has a unit of its own."""
    description = tags.get(exif.DESCRIPTION)
    return description is not None and description.data.startswith(b"ImageJ=")


def read_imagej(page: Any) -> dict[str, Any] | None:
    """Labels, ranges, colour tables and overlays of a page."""
    found = page.tags.valueof(IMAGEJ_METADATA)
    return dict(found) if isinstance(found, dict) and found else None


def enlarged(image: Image, before: tuple[int, int]) -> tuple[Image, tuple[str, ...]]:
    """The description of a picture that is larger now, and what became untrue.

    Args:
        image: the larger picture, with the description of the smaller one.
        before: width and height of that.
    """
    directories = exif.parse(image.exif or b"")
    main = dict(directories.main)
    sizes = list(zip(before, image.pixels.shape[1::-1], strict=True))  # across, then down
    if is_calibrated(main):
        for code, (old, new) in zip((exif.X_RESOLUTION, exif.Y_RESOLUTION), sizes, strict=True):
            if code in main and main[code].kind == 5:
                pixels, units = struct.unpack_from("<II", main[code].data)
                main[code] = replace(main[code], data=_rational(pixels, units, Fraction(new, old)))
    if exif.DESCRIPTION in main and b"<OME" in main[exif.DESCRIPTION].data:
        main[exif.DESCRIPTION] = replace(
            main[exif.DESCRIPTION],
            data=_enlarged_ome(main[exif.DESCRIPTION].data, dict(zip(b"XY", sizes, strict=True))),
        )
    kept = {name: value for name, value in (image.imagej or {}).items() if name not in PLACES}
    notes: tuple[str, ...] = ()
    if image.imagej is not None and len(kept) < len(image.imagej):
        notes = ("ImageJ's overlays and regions, which are places in the smaller picture, are left out",)
    header = image.fits
    if header is not None:
        from .fits import enlarged_header

        header, bent = enlarged_header(header, before, image.pixels.shape[1::-1])
        notes = (*notes, *bent)
    block = exif.build(replace(directories, main=main))
    return replace(image, exif=block, imagej=kept or None, fits=header), notes


def _rational(numerator: int, denominator: int, factor: Fraction) -> bytes:
    """A fraction of two 32-bit numbers times a factor, as near as two such numbers come."""
    numerator, denominator = numerator * factor.numerator, denominator * factor.denominator
    if max(numerator, denominator) > MAX_LONG:
        exact = Fraction(numerator, denominator)
        near = exact.limit_denominator(max(1, min(MAX_LONG, int(MAX_LONG / exact))))
        numerator, denominator = min(near.numerator, MAX_LONG), near.denominator
    return struct.pack("<II", numerator, denominator)


def _enlarged_ome(xml: bytes, sizes: dict[int, tuple[int, int]]) -> bytes:
    """OME-XML with the new numbers of pixels and their new size; `sizes` has old and new ones by the letter's code."""

    def times(found: re.Match[bytes]) -> bytes:
        old, new = sizes[found[2][0]]
        return b'%s%d"' % (found[1], round(Fraction(int(found[3]) * new, old)))

    def share(found: re.Match[bytes]) -> bytes:
        old, new = sizes[found[2][0]]
        return found[1] + f"{float(found[3]) / (new / old):.12g}".encode() + b'"'

    xml = re.sub(rb'(\bSize([XY])=")(\d+)"', times, xml)
    return re.sub(rb'(\bPhysicalSize([XY])=")([0-9.eE+-]+)"', share, xml)
