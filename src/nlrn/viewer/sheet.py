"""A page of one file for a batch: a contact sheet of what changed most, and each picture of it under the slider."""

from __future__ import annotations

import base64
import dataclasses
import heapq
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..files.image import Image
from ..ops.resize import bicubic_resize
from ..restoration.kinds import like, planes_of
from ..restoration.value_range import ValueRange, range_of
from .assets import sheet_page
from .embedded import MAX_BYTES, Embedded, embed, embedded_bytes, shown_png

# Pixels a side of the part of a picture that the slider has, of the detail on the sheet, and pictures on it.
PART, DETAIL, MOST = 1024, 160, 200


@dataclass(frozen=True)
class Entry:
    """A picture of a batch.

    Args:
        name: of its file.
        change: root mean square of what changed, in 8-bit grey levels.
        about: a line on what was done.
        part: a line on which part of it the page has; empty for the whole.
        details: before and after where most changed, as PNG files.
        pictures: before and after for the slider; `None` where the page has no room for them.
        nbytes: of the numbers of these.
    """

    name: str
    change: float
    about: str
    part: str
    details: tuple[bytes, bytes]
    pictures: tuple[Embedded, Embedded] | None
    nbytes: int


class Sheet:
    """The pictures of a batch; of very many only those that changed most are kept.

    Args:
        title: of the page.
        room: bytes of numbers that the page may have.
    """

    def __init__(self, title: str, room: int = MAX_BYTES) -> None:
        self._title, self._room = title, room
        self._kept: list[tuple[float, int, Entry]] = []  # a heap, the least change first
        self._seen = 0
        self._left: list[str] = []

    def add(self, name: str, before: Image, after: Image, about: str) -> None:
        """Takes an upright picture before and after its restoration.

        Raises:
            ValueError: values without a range, such as NaN.
        """
        entry = entry_of(name, before, after, about)
        self._seen += 1
        heapq.heappush(self._kept, (entry.change, self._seen, entry))
        if len(self._kept) > MOST:
            heapq.heappop(self._kept)
        self._make_room()

    def leave_out(self, name: str, reason: str) -> None:
        """Names a picture that the page does not have."""
        self._left.append(f"{name} ({reason})")

    def _make_room(self) -> None:
        """Leaves the least changed pictures without a slider while the page is too large."""
        used = sum(entry.nbytes for _, _, entry in self._kept)
        self._kept.sort()  # which is a heap too
        for place, (change, number, entry) in enumerate(self._kept):
            if used <= self._room:
                return
            used -= entry.nbytes
            alone = dataclasses.replace(entry, pictures=None, nbytes=0)
            self._kept[place] = (change, number, alone)

    def html(self) -> bytes:
        """The page; its first picture is the one that changed most."""
        entries = [entry for _, _, entry in sorted(self._kept, reverse=True)]
        fewer = self._seen - len(entries)
        about = f"{self._seen} pictures" if self._seen != 1 else "1 picture"
        if fewer:
            about += f", of which the {len(entries)} that changed most are here"
        if self._left:
            about += f"; without {', '.join(self._left)}"
        rows, pictures = [], dict[str, str]()
        for index, entry in enumerate(entries):
            names = [f"{kind}-{index}" for kind in ("before", "after")]
            shown = None
            if entry.pictures is not None:
                shown = [p.described(name) for name, p in zip(names, entry.pictures, strict=True)]
                for name, picture in zip(names, entry.pictures, strict=True):
                    pictures |= picture.encoded(name)
            rows.append(
                {
                    "name": entry.name,
                    "change": f"changed by {entry.change:.2g} grey levels" if entry.change else "unchanged",
                    "about": entry.about,
                    "part": entry.part,
                    "details": [base64.b64encode(detail).decode() for detail in entry.details],
                    "pictures": shown,
                }
            )
        return sheet_page(self._title, about, rows, pictures)


def entry_of(name: str, before: Image, after: Image, about: str) -> Entry:
    """The entry of a picture, with the part of it that changed most."""
    large = after.pixels.shape[:2]
    if any(length % small for length, small in zip(large, before.pixels.shape[:2], strict=True)):
        before = _enlarged(before, large)
    scale = large[0] // before.pixels.shape[0]
    values = range_of(planes_of(before).color, None)
    change = _change(before, after, values)
    most = _window(change, PART, scale)
    pair = (_cut(before, most, scale), _cut(after, most, 1))
    height, width = pair[1].pixels.shape[:2]
    whole = (height, width) == large
    part = "" if whole else f"{width}x{height} of {large[1]}x{large[0]} pixels, where most changed"
    at = _window(change, DETAIL, scale)
    details = [
        shown_png(_cut(image, at, times), values.low, values.high)[0]
        for image, times in ((before, scale), (after, 1))
    ]
    return Entry(
        name,
        float(change.square().mean().sqrt()),
        about,
        part,
        (details[0], details[1]),
        (embed(pair[0], values.low, values.high), embed(pair[1], values.low, values.high)),
        sum(map(embedded_bytes, pair)),
    )


def _change(before: Image, after: Image, values: ValueRange) -> Tensor:
    """The change of each pixel, `H x W` of the picture after, in 8-bit grey levels."""
    first, second = (values.to_unit(planes_of(image).color) for image in (before, after))
    if first.shape[2:] != second.shape[2:]:
        first = bicubic_resize(first, *second.shape[2:])
    if first.shape[1] != second.shape[1]:
        raise ValueError("the pictures before and after have other channels")
    return 255 * (second - first).square().mean((0, 1)).sqrt()


def _enlarged(image: Image, size: tuple[int, ...]) -> Image:
    """A picture in the size of another one, by bicubic interpolation."""
    planes = planes_of(image)
    values = range_of(planes.color, None)
    color = values.from_unit(bicubic_resize(values.to_unit(planes.color), *size), planes.color)
    return like(dataclasses.replace(image, alpha=None), color, None)


def _window(change: Tensor, side: int, scale: int) -> tuple[slice, slice]:
    """Rows and columns of a window of at most this side in which most changed, all multiples of a scale."""
    side = side // scale * scale
    high, wide = min(side, change.shape[0]), min(side, change.shape[1])
    step = max(1, side // 4 // scale) * scale
    # Sums, of which the last ones reach beyond the end, and lie at it instead.
    amounts = change.square()[None, None]
    found = F.avg_pool2d(amounts, (high, wide), stride=step, ceil_mode=True, divisor_override=1)[0, 0]
    row, column = divmod(int(found.argmax()), found.shape[1])
    top, left = min(row * step, change.shape[0] - high), min(column * step, change.shape[1] - wide)
    return slice(top, top + high), slice(left, left + wide)


def _cut(image: Image, place: tuple[slice, slice], scale: int) -> Image:
    """A part of a picture that is `scale` times smaller than the one in which `place` is."""
    rows, columns = (slice(each.start // scale, each.stop // scale) for each in place)
    alpha = None if image.alpha is None else np.ascontiguousarray(image.alpha[rows, columns])
    return dataclasses.replace(image, pixels=np.ascontiguousarray(image.pixels[rows, columns]), alpha=alpha)
