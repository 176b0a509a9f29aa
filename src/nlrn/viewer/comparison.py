"""`nlrn.compare`: two images under a slider."""

from __future__ import annotations

import dataclasses
import html
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Image as PillowImage
from torch import Tensor

from ..evaluation.score import Score, score
from ..files.atomic import write_atomically
from ..files.image import Image
from ..files.images import from_planes, read_image
from ..files.orientation import upright
from ..restoration import DataRange
from ..restoration.kinds import of_pillow, planes_of
from ..restoration.value_range import range_of
from .assets import compare_page
from .embedded import MAX_BYTES, embed, embedded_bytes

FRAME = "width: 100%; height: 34rem; border: 0"


class Comparison:
    """Two images under a slider: a notebook shows it, and `save` writes it as a page of one file.

    Args:
        before: an upright picture.
        after: another one, as large, or a whole number of times larger.
        title: of the page.
        labels: a name for either side.
        scores: those of before and after against a clean image, or `None`.
        data_range: as for `nlrn.denoise`.

    Raises:
        ValueError: sizes that do not fit, more than 256 MB of numbers, or values without a range.
    """

    def __init__(
        self,
        before: Image,
        after: Image,
        *,
        title: str,
        labels: tuple[str, str] = ("Before", "After"),
        scores: tuple[Score | None, Score | None] | None = None,
        data_range: DataRange | None = None,
    ) -> None:
        check_sizes(before, after)
        if isinstance(labels, str) or len(labels) != 2:
            raise ValueError(f"labels must be two texts, one for either side, got {labels!r}")
        size = embedded_bytes(before) + embedded_bytes(after)
        if size > MAX_BYTES:
            raise ValueError(
                f"a comparison holds at most {MAX_BYTES / 1e6:g} MB of pixels, these have {size / 1e6:.0f} MB; "
                "compare a part of them"
            )
        self.scores = scores
        self._size = tuple(f"{i.pixels.shape[1]}x{i.pixels.shape[0]}" for i in (before, after))
        ranges = _ranges((before, after), data_range)
        pictures = [embed(image, *ends) for image, ends in zip((before, after), ranges, strict=True)]
        self.html = compare_page(title, self._about(labels), labels, pictures)

    def _about(self, labels: tuple[str, str]) -> str:
        if self.scores is None:
            return ""
        parts = [
            f"{label}: {s.text()}" for label, s in zip(labels, self.scores, strict=True) if s is not None
        ]
        return f"Against the clean image. {'; '.join(parts)}."

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the page; it appears under its name only when it is complete.

        Raises:
            FileExistsError: the file exists and `overwrite` is false.
            OSError: the folder cannot be written to.
        """
        write_atomically(Path(path), self.html, overwrite=overwrite)
        return Path(path)

    def _repr_html_(self) -> str:
        # A frame keeps the styles of the notebook and of the page apart.
        page = html.escape(self.html.decode(), quote=True)
        return f'<iframe srcdoc="{page}" title="Before and after" style="{FRAME}"></iframe>'

    def __repr__(self) -> str:
        sizes = " and ".join(dict.fromkeys(self._size))
        return (
            f"<Comparison of {sizes} pixels, {len(self.html) / 1e6:.1f} MB as a page; save(path) writes it>"
        )


def compare(
    before: np.ndarray | Tensor | PillowImage | str | os.PathLike[str],
    after: np.ndarray | Tensor | PillowImage | str | os.PathLike[str],
    *,
    reference: np.ndarray | Tensor | PillowImage | str | os.PathLike[str] | None = None,
    data_range: DataRange | None = None,
    labels: tuple[str, str] = ("Before", "After"),
) -> Comparison:
    """Puts two images under a slider, with zoom and the values of pixels.

    A notebook shows the result; `save(path)` writes it as a page of one file, which works offline.

    Args:
        before: an array (`H x W` or `H x W x C`), a tensor (`C x H x W` or `1 x C x H x W`), a Pillow image, or the
            path of a file. Pictures are turned as their EXIF orientation asks.
        after: another one, as large, or a whole number of times larger.
        reference: a clean image; the page states PSNR and SSIM of both against it, on the scale of 8 bit.
        data_range: the value of white, or `(black, white)`; by default as for `denoise`, from `before` where both have
            the same type.
        labels: a name for either side.

    Returns:
        A `Comparison`. PNG files in it have the values of both images exactly; those of floats, and of integers of
        more than 16 bit, are rounded to float32.

    Raises:
        TypeError: another kind of image.
        ValueError: sizes that do not fit, more than 256 MB of pixels, NaN or Inf, a bad `data_range`.
        OSError: a file that cannot be read.

    Example:
        >>> import numpy as np, nlrn
        >>> noisy = np.random.default_rng(0).normal(128, 25, (32, 48)).clip(0, 255).astype(np.uint8)
        >>> nlrn.compare(noisy, nlrn.denoise(noisy, sigma=25))  # doctest: +ELLIPSIS
        <Comparison of 48x32 pixels, ...>
    """
    first, second = picture_of(before), picture_of(after)
    check_sizes(first, second)
    names = [str(i) for i in (before, after) if isinstance(i, str | os.PathLike)]
    scores = None
    if reference is not None:
        scores = _scores((first, second), picture_of(reference), data_range)
    title = " and ".join(Path(name).name for name in names) or "Before and after"
    return Comparison(first, second, title=title, labels=labels, scores=scores, data_range=data_range)


def picture_of(image: Any) -> Image:
    """An upright picture of any kind of image, its pixels in their type.

    Raises:
        TypeError: another kind.
        ValueError: another shape or type, or a batch.
        OSError: a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return upright(read_image(image))
    if isinstance(image, PillowImage):
        picture = of_pillow(ImageOps.exif_transpose(image))
        return dataclasses.replace(picture, icc=image.info.get("icc_profile"))
    if not isinstance(image, np.ndarray | Tensor):
        raise TypeError(
            f"an image must be a path, a NumPy array, a tensor or a Pillow image, got {type(image).__name__}"
        )
    planes = planes_of(image)
    if len(planes.color) != 1:
        raise ValueError(f"one image is compared at a time, got a batch of {len(planes.color)}")
    alpha = None if planes.alpha is None else _numbers(planes.alpha)[..., 0]
    color = _numbers(planes.color)
    return Image(color[..., 0] if color.shape[2] == 1 else color, alpha)


def check_sizes(before: Image, after: Image) -> None:
    """Raises `ValueError` unless `after` is as large as `before`, or a whole number of times larger."""
    (height, width), (rows, columns) = before.pixels.shape[:2], after.pixels.shape[:2]
    if columns % width or rows % height or columns // width != rows // height:
        raise ValueError(
            f"before has {width}x{height} pixels and after has {columns}x{rows}; "
            "after must be as large, or a whole number of times larger"
        )


def _scores(
    pair: tuple[Image, Image], clean: Image, data_range: DataRange | None
) -> tuple[Score | None, Score | None]:
    before, after = pair
    if clean.pixels.shape[:2] != after.pixels.shape[:2]:
        (height, width), (rows, columns) = clean.pixels.shape[:2], after.pixels.shape[:2]
        raise ValueError(
            f"the reference has {width}x{height} pixels and after has {columns}x{rows}; sizes must agree"
        )
    same = before.pixels.shape[:2] == after.pixels.shape[:2]
    one, two = (
        score(image.pixels, clean.pixels, data_range) if fits else None
        for image, fits in ((before, same), (after, True))
    )
    return one, two


def _numbers(planes: Tensor) -> np.ndarray:
    """`H x W x C` of `[1, C, H, W]`."""
    values = planes[0].float() if planes.dtype is torch.bfloat16 else planes[0]
    return from_planes(values.cpu().numpy(), 3)


def _ranges(pair: tuple[Image, Image], data_range: DataRange | None) -> list[tuple[float, float]]:
    """The values of black and white of both; those of one type have the same."""
    ranges = [range_of(planes_of(image).color, data_range) for image in pair]
    if pair[0].pixels.dtype == pair[1].pixels.dtype:
        ranges[1] = ranges[0]
    return [(each.low, each.high) for each in ranges]
