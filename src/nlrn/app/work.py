"""The work of a job: a file's content in, a file's content out, as the commands do it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..batch.one_file import COPIED
from ..evaluation.score import Score, score
from ..files import exif
from ..files.image import FORMATS, WRITTEN, media_type, result_format
from ..files.images import Image, check_writable, encode_image, read_image
from ..files.orientation import upright
from ..inference import Progress
from ..inference.precision import Precision
from ..restoration import Report, Restorer
from ..restoration.kinds import planes_of
from ..restoration.value_range import range_of
from ..viewer.embedded import numbers_png, shown_png
from .limits import Refused, check_pixels
from .order import Order, Region

MEDIA_TYPES = {name: media_type(name) for name in WRITTEN}
# Restorers that stay loaded; each holds one or two models of less than two megabytes.
KEPT_RESTORERS = 16
# SSIM takes some hundred bytes a pixel.
SCORED_PIXELS = 1 << 22


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
    """The restorers of one device, kept for the next job of the same options; for one thread.

    `pixels` are those that a result may have.
    """

    def __init__(
        self,
        device: str,
        *,
        pixels: int,
        precision: Precision = "auto",
        max_memory: int | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self.pixels = pixels
        self._device, self._precision, self._max_memory = device, precision, max_memory
        self._files = files or {}
        self._kept: OrderedDict[tuple[object, ...], Restorer] = OrderedDict()

    def get(self, order: Order) -> Restorer:
        """The restorer for an order.

        Raises:
            ValueError: as `Restorer`.
        """
        larger = (order.scale, order.size, order.fit)
        key = (order.task, order.model, order.purpose, *larger, order.steps, order.strength)
        if key not in self._kept:
            model = None if order.model is None else self._files.get(order.model, order.model)
            self._kept[key] = Restorer(
                model,
                task=order.task,
                scale=order.scale,
                size=order.size,
                fit=order.fit,
                steps=order.steps,
                strength=order.strength,
                purpose=order.purpose,
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
        Refused: 413, more pixels than a result may have; 422, a region outside of the image.
        ValueError: not an image, options that do not fit it, or a format that cannot hold it.
        MemoryError: there is too little memory.
    """
    image = read_image(upload)
    if order.region is not None:
        image = crop(image, order.region)
    name = order.format or result_format(image.format)
    restorer = restorers.get(order)
    size = restorer.size_of(image)
    check_pixels(restorers.pixels, size[1], size[0])
    check_writable(image, f"image{FORMATS[name].suffixes[0]}", size)
    restored, report = restorer.image(image, order.sigma, progress)
    same = name == image.format and order.region is None and np.array_equal(image.pixels, restored.pixels)
    if same and not image.lossless:
        data, notes = upload, (*report.notes, COPIED)
    else:
        data, notes = encode_image(restored, name, quality=order.quality), (*image.notes, *report.notes)
    height, width = restored.pixels.shape[:2]
    report = dataclasses.replace(report, notes=notes)
    return Result(data, name, width, height, report)


def shown(upload: bytes, ends: tuple[float, float] | None = None) -> tuple[bytes, dict[str, str]]:
    """A PNG file of what a file shows, upright, for a browser that cannot read it, and headers that describe it.

    Args:
        upload: the file.
        ends: the values of black and white, by default those of the picture's range.

    Raises:
        ImageError: not an image.
    """
    image = upright(read_image(upload))
    if ends is None:
        values = range_of(planes_of(image).color, None)
        ends = (values.low, values.high)
    png, exact = shown_png(image, *ends)
    return png, {"nlrn-range": f"{ends[0]!r},{ends[1]!r}", "nlrn-exact": str(int(exact))}


def numbers(upload: bytes) -> tuple[bytes, dict[str, str]]:
    """A PNG file with the numbers of a file, as `numbers_png` has them, and headers that describe it.

    Raises:
        ImageError: not an image.
    """
    png, channels = numbers_png(upright(read_image(upload)))
    return png, {"nlrn-floats": str(channels)}


def score_of(upload: bytes, reference: bytes, region: Region | None = None) -> Score:
    """PSNR and SSIM of an image file against a clean one.

    Args:
        upload: the image.
        reference: the clean image.
        region: the part of the clean image that counts, and of the other one too if that is as large.

    Raises:
        Refused: 413, too many pixels; 422, sizes or kinds that differ, values without a white, or a region outside.
        ImageError: not an image.
    """
    image, clean = read_image(upload), read_image(reference)
    if region is not None:
        whole = clean.pixels.shape[:2]
        clean = crop(clean, region)
        image = crop(image, region) if image.pixels.shape[:2] == whole else image
    one, other = upright(image).pixels, upright(clean).pixels
    if one.shape != other.shape:
        expected, got = (
            f"{'grey' if p.ndim == 2 else 'RGB'} of {p.shape[1]}x{p.shape[0]} pixels" for p in (other, one)
        )
        raise Refused(422, "the image and the clean one differ in size or kind", expected=expected, got=got)
    if one.shape[0] * one.shape[1] > SCORED_PIXELS:
        got = f"{one.shape[1]}x{one.shape[0]}"
        raise Refused(413, "too many pixels; name a region", expected=f"at most {SCORED_PIXELS}", got=got)
    try:
        return score(one, other)
    except ValueError as error:
        raise Refused(422, " ".join(str(error).split())) from error


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
