"""The work of a job: a file's content in, a file's content out, as the commands do it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..files import exif
from ..files.image import FORMATS
from ..files.images import Image, check_writable, encode_image, read_image
from ..files.orientation import upright
from ..inference import Progress
from ..inference.precision import Precision
from ..restoration import Report, Restorer
from ..restoration.kinds import planes_of
from ..restoration.value_range import range_of
from ..viewer.embedded import shown_png
from .limits import Refused
from .order import Order, Region

MEDIA_TYPES = {name: f"image/{name.lower()}" for name in FORMATS}
# Restorers that stay loaded; each holds one or two models of less than two megabytes.
KEPT_RESTORERS = 16


@dataclass(frozen=True)
class Result:
    """A restored file: its content, its format, its size in pixels, and the report."""

    data: bytes
    format: str
    width: int
    height: int
    report: Report

    @property
    def media_type(self) -> str:
        """The media type of the content."""
        return MEDIA_TYPES[self.format]


class Restorers:
    """The restorers of one device, kept for the next job of the same options; for one thread."""

    def __init__(
        self,
        device: str,
        *,
        precision: Precision = "auto",
        max_memory: int | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self._device, self._precision, self._max_memory = device, precision, max_memory
        self._files = files or {}
        self._kept: OrderedDict[tuple[object, ...], Restorer] = OrderedDict()

    def get(self, order: Order) -> Restorer:
        """The restorer for an order.

        Raises:
            ValueError: as `Restorer`.
        """
        key = (order.task, order.model, order.scale, order.steps, order.strength)
        if key not in self._kept:
            model = None if order.model is None else self._files.get(order.model, order.model)
            self._kept[key] = Restorer(
                model,
                task=order.task,
                scale=order.scale,
                steps=order.steps,
                strength=order.strength,
                device=self._device,
                precision=self._precision,
                max_memory=self._max_memory,
            )
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_RESTORERS:
            self._kept.popitem(last=False)
        return self._kept[key]


def restore_file(order: Order, upload: bytes, restorers: Restorers, progress: Progress) -> Result:
    """Restores the content of an image file; the result has the bytes that `nlrn` would write.

    Raises:
        Refused: 422, a region outside of the image.
        ValueError: not an image, options that do not fit it, or a format that cannot hold it.
        MemoryError: there is too little memory.
    """
    image = read_image(upload)
    if order.region is not None:
        image = crop(image, order.region)
    name = order.format or image.format
    check_writable(image, f"image{FORMATS[name].suffixes[0]}")
    restored, report = restorers.get(order).image(image, order.sigma, progress)
    data = encode_image(restored, name, quality=order.quality)
    height, width = restored.pixels.shape[:2]
    report = dataclasses.replace(report, notes=(*image.notes, *report.notes))
    return Result(data, name, width, height, report)


@dataclass(frozen=True)
class View:
    """A picture of a file for a browser that cannot read the file.

    Args:
        png: an upright PNG file, of 16 bit where the file has 16.
        ends: the values of black and white.
        exact: whether the numbers in `png` are those of the file.
    """

    png: bytes
    ends: tuple[float, float]
    exact: bool


def view_of(upload: bytes, ends: tuple[float, float] | None = None) -> View:
    """A picture of a file, whose values between `ends` are shown, by default those of its range.

    Raises:
        ValueError: not an image, or values without a range.
    """
    image = upright(read_image(upload))
    if ends is None:
        values = range_of(planes_of(image).color, None)
        ends = (values.low, values.high)
    png, exact = shown_png(image, *ends)
    return View(png, ends, exact)


def crop(image: Image, region: Region) -> Image:
    """The part of an image under a region of the picture that viewers show, which EXIF data may turn.

    What reaches beyond the image is cut off.

    Raises:
        Refused: 422, the region lies outside.
    """
    height, width = image.pixels.shape[:2]
    orientation = exif.parse(image.exif or b"").orientation
    columns, rows = (region.x, region.x + region.width), (region.y, region.y + region.height)
    if orientation >= 5:
        columns, rows = rows, columns
    if orientation in (2, 3, 7, 8):
        columns = (width - columns[1], width - columns[0])
    if orientation in (3, 4, 6, 7):
        rows = (height - rows[1], height - rows[0])
    x0, x1 = max(columns[0], 0), min(columns[1], width)
    y0, y1 = max(rows[0], 0), min(rows[1], height)
    if x0 >= x1 or y0 >= y1:
        raise Refused(
            422,
            "the region lies outside of the image",
            expected=f"a part of {width}x{height} pixels",
            got=f"{region.x},{region.y},{region.width},{region.height}",
        )
    alpha = None if image.alpha is None else image.alpha[y0:y1, x0:x1]
    return dataclasses.replace(image, pixels=image.pixels[y0:y1, x0:x1], alpha=alpha)
