"""What ImageJ and OME say about a picture in a TIFF file: the size of its pixels, labels, ranges, overlays."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Any

from . import exif
from .image import Image

IMAGEJ_METADATA = 50839
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


def enlarged(image: Image, scale: int) -> tuple[Image, tuple[str, ...]]:
    """The description of a picture that is now `scale` times as large, and what became untrue."""
    directories = exif.parse(image.exif or b"")
    main = dict(directories.main)
    if is_calibrated(main):
        for code in (exif.X_RESOLUTION, exif.Y_RESOLUTION):
            if code in main and main[code].kind == 5:
                across, unit = struct.unpack_from("<II", main[code].data)
                if across * scale < 1 << 32:
                    main[code] = replace(main[code], data=struct.pack("<II", across * scale, unit))
    if exif.DESCRIPTION in main and b"<OME" in main[exif.DESCRIPTION].data:
        main[exif.DESCRIPTION] = replace(
            main[exif.DESCRIPTION], data=_enlarged_ome(main[exif.DESCRIPTION].data, scale)
        )
    kept = {name: value for name, value in (image.imagej or {}).items() if name not in PLACES}
    notes: tuple[str, ...] = ()
    if image.imagej is not None and len(kept) < len(image.imagej):
        notes = ("ImageJ's overlays and regions, which are places in the smaller picture, are left out",)
    block = exif.build(replace(directories, main=main))
    return replace(image, exif=block, imagej=kept or None), notes


def _enlarged_ome(xml: bytes, scale: int) -> bytes:
    """OME-XML with the new numbers of pixels and their new size."""

    def times(found: re.Match[bytes]) -> bytes:
        return found[1] + str(int(found[2]) * scale).encode() + b'"'

    def share(found: re.Match[bytes]) -> bytes:
        return found[1] + f"{float(found[2]) / scale:.12g}".encode() + b'"'

    xml = re.sub(rb'(\bSize[XY]=")(\d+)"', times, xml)
    return re.sub(rb'(\bPhysicalSize[XY]=")([0-9.eE+-]+)"', share, xml)
