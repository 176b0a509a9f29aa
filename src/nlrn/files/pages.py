"""Files of several pages or frames: each is decoded when its turn comes, and written before the next one is.

A file of one picture is a file of one page here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from . import codecs
from .atomic import replacing
from .image import FORMATS, WRITTEN, Image, ImageError
from .images import check_holds, format_for, losses, misnamed, read_image
from .stack_description import channel_of, chosen, described, description_of, is_stack, reshaped

# First and last number from 1 on; without a last one, all that follow.
Ranges = Sequence[tuple[int, int | None]]


class Source(Protocol):
    """The pages of a file, as the reader of a format has them."""

    format: str
    loop: int | None  # how often an animation is shown, 0 for ever; `None` for pages that are no frames
    notes: tuple[str, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Image: ...
    def kind(self, index: int) -> Hashable: ...
    def nbytes(self, index: int) -> int: ...
    def close(self) -> None: ...


class SinglePage:
    """The only page of a file."""

    loop: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, image: Image) -> None:
        self.format, self._image = image.format, image

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Image:
        return self._image

    def kind(self, index: int) -> Hashable:
        """Nothing to compare it with."""
        return ()

    def nbytes(self, index: int) -> int:
        """Bytes of its pixels."""
        return self._image.pixels.nbytes

    def close(self) -> None:
        """Nothing is open."""


class Pages:
    """The chosen pages of a file, in their order; a context manager, whose end closes the file.

    Args:
        source: all pages.
        name: what errors call the file.
        numbers: indices of those that are chosen.
        notes: changes that reading has to make.
    """

    def __init__(self, source: Source, name: str, numbers: Sequence[int], notes: Sequence[str] = ()) -> None:
        self.format, self.loop, self.notes = source.format, source.loop, (*notes, *source.notes)
        self._source, self._name, self._numbers = source, name, numbers
        self._description = b""
        self._first: Image | None = None  # without pixels of its own: its metadata
        if len(source) > 1:
            with codecs.errors(self.format, name):
                self._describe()

    def __enter__(self) -> Pages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Image:
        with codecs.errors(self.format, self._name):
            image = self._source[self._numbers[index]]
        if self._first is None:
            return image
        if index:
            return described(image, None) if is_stack(description_of(image)) else image
        first = self._first
        return replace(
            image,
            exif=first.exif,
            icc=first.icc,
            xmp=first.xmp,
            imagej=first.imagej,
            fits=first.fits,
            color_chunks=first.color_chunks,
            resolution=first.resolution,
        )

    def __iter__(self) -> Iterator[Image]:
        return (self[index] for index in range(len(self)))

    def group(self, index: int) -> tuple[int, Hashable]:
        """The channel, size and type of a page; those that belong together have the same."""
        number = self._numbers[index]
        channel = channel_of(self._description, number, len(self._source))
        return channel, self._source.kind(number)

    def are_alike(self) -> bool:
        """True for pages of one size and type."""
        return len({self.group(index)[1] for index in range(len(self))}) == 1

    def nbytes(self) -> int:
        """Bytes of the pixels of all chosen pages."""
        return sum(self._source.nbytes(number) for number in self._numbers)

    def _describe(self) -> None:
        """Takes what the first page of the file says of all of them to the first that is chosen."""
        head = self._source[0]
        self._description = description_of(head)
        stack = (
            is_stack(self._description)
            or self.loop is not None
            or head.imagej is not None
            or head.fits is not None
        )
        if len(self._numbers) == len(self._source) or not stack:
            return
        head = replace(head, pixels=head.pixels[:1].copy(), alpha=None)
        self._first, lost = chosen(head, self._numbers, len(self._source))
        self.notes = (*self.notes, *lost)


def read_pages(source: str | os.PathLike[str] | bytes, ranges: Ranges | None = None) -> Pages:
    """Opens a file of one or more pages (TIFF, FITS) or frames (PNG, WebP, GIF); pixels are decoded page by page.

    Args:
        source: a path, or a file's content.
        ranges: numbers of pages, as `parse_ranges` returns them; by default all.

    Raises:
        ImageError: as `read_image`, or a page that is not there. Damage of a later page shows when it is read.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np
        >>> from nlrn.files.images import Image, encode_image
        >>> from nlrn.files.pages import read_pages
        >>> with read_pages(encode_image(Image(np.zeros((4, 5), np.uint16)), "TIFF")) as pages:
        ...     len(pages), pages[0].pixels.shape
        (1, (4, 5))
    """
    content = source if isinstance(source, bytes) else Path(source)
    name = "the image" if isinstance(content, bytes) else str(content)
    opened = _open(content, name)
    try:
        numbers = _numbers(ranges, len(opened), name)
        several = len(opened) > 1 and isinstance(content, Path)
        return Pages(opened, name, numbers, misnamed(Path(name), opened.format) if several else ())
    except BaseException:
        opened.close()
        raise


def _open(source: bytes | Path, name: str) -> Source:
    """The pages of a file, by the reader of its format."""
    if isinstance(source, Path):
        if os.path.isdir(source):
            raise ImageError(f"{name} is a folder, not an image")
        with source.open("rb") as file:
            head = file.read(codecs.HEAD)
    else:
        head = source[: codecs.HEAD]
    format_ = codecs.sniff(head, name)
    with codecs.errors(format_, name):
        if format_ == "TIFF":
            from .tiff import TiffPages

            pages = TiffPages(source, name)
            if len(pages) > 1:
                return pages
            pages.close()
        elif format_ == "FITS":
            from .fits import FitsPlanes

            planes = FitsPlanes(source, name)
            if len(planes) > 1:
                return planes
            planes.close()
        elif FORMATS[format_].several == "frames":
            from .animation import Frames, count_frames

            if count_frames(source, format_, name) > 1:
                return Frames(source, format_, name)
    return SinglePage(read_image(source))


def parse_ranges(text: str) -> Ranges:
    """Numbers of pages from `1-10,20` or `5-`, counted from 1.

    Raises:
        ValueError: other text, a 0, or a range that falls.
    """
    found: list[tuple[int, int | None]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(-?)\s*(\d*)\s*", part, re.ASCII)
        if match is None or (match[3] and not match[2]) or max(len(match[1]), len(match[3])) > 9:
            raise ValueError(f"pages must be numbers and ranges such as 1-10,20, got {text!r}")
        first = int(match[1])
        last = int(match[3]) if match[3] else None if match[2] else first
        if first < 1 or (last is not None and last < first):
            raise ValueError(f"pages must be counted from 1, in ranges that rise, got {text!r}")
        found.append((first, last))
    return found


def _numbers(ranges: Ranges | None, count: int, name: str) -> list[int]:
    """Indices of the chosen pages, each once and in their order."""
    if ranges is None:
        return list(range(count))
    largest = max(max(first, last or first) for first, last in ranges)
    if largest > count:
        raise ImageError(f"{name} has {count} page{'s' * (count > 1)}, and page {largest} is asked for")
    chosen = {number for first, last in ranges for number in range(first, (last or count) + 1)}
    return [number - 1 for number in sorted(chosen)]


def check_holds_pages(pages: Pages, name: str) -> None:
    """Raises `ImageError` if a format cannot hold so many pages or frames."""
    several = WRITTEN[name].several
    frames = pages.loop is not None
    if len(pages) == 1 or several == "pages" or (several == "frames" and frames):
        return
    able = [n for n, f in WRITTEN.items() if f.colors and (f.several == "pages" or (f.several and frames))]
    listed = " or ".join([", ".join(able[:-1]), able[-1]] if able[1:] else able)
    what = f"an animation of {len(pages)} frames" if frames else f"{len(pages)} pages"
    raise ImageError(f"{name} cannot hold {what}; {listed} can")


def check_writable_pages(pages: Pages, path: str | os.PathLike[str]) -> str:
    """The format in which `write_pages` would write these pages, by the suffix of the path.

    Raises:
        ImageError: a suffix of no format in which results are written, or a format that cannot hold the pages.
    """
    name = format_for(path, pages.format)
    check_holds_pages(pages, name)
    return name


def write_pages(
    images: Iterable[Image],
    path: str | os.PathLike[str],
    pages: Pages,
    *,
    growth: float = 1,
    quality: int = 95,
    overwrite: bool = False,
    mode: int | None = None,
) -> tuple[str, ...]:
    """Writes pages one after the other; the file appears under its name only when all are written.

    Args:
        images: the pages to write, which may be made while they are written.
        path: the file to write; its suffix says the format.
        pages: those that the images are made from: their number, size and timing.
        growth: as many times the pixels of these the images have, at most.
        quality: quality of lossy WebP, 1 to 100.
        overwrite: replace an existing file.
        mode: permissions of the file.

    Returns:
        Notes on the metadata that the format could not keep, one each.

    Raises:
        ImageError: a format that cannot hold the pages.
        FileExistsError: the file exists and `overwrite` is false.
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    name = check_writable_pages(pages, path)
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists")
    with replacing(path, overwrite=overwrite, mode=mode) as file:
        return stream_pages(images, file, name, pages, growth=growth, quality=quality)


def stream_pages(
    images: Iterable[Image], file: BinaryIO, name: str, pages: Pages, *, growth: float = 1, quality: int = 95
) -> tuple[str, ...]:
    """`write_pages` into an empty file that is open for writing, and seekable."""
    writer, notes = None, tuple[str, ...]()
    for image in images:
        check_holds(image, name)
        image = reshaped(codecs.held(image, name))
        if writer is None:
            writer = _writer(image, file, name, pages, growth, quality)
            notes = losses(image, name)
        writer.add(image)
    if writer is None:
        raise ValueError("there is no page to write")
    writer.finish()
    if name in ("TIFF", "FITS") and pages.loop is not None:
        notes = (*notes, f"{name} has no place for the timing of frames: it is left out")
    return notes


class Writer(Protocol):
    """A file that grows by a page at a time."""

    def add(self, image: Image) -> None: ...
    def finish(self) -> None: ...


def _writer(first: Image, file: BinaryIO, name: str, pages: Pages, growth: float, quality: int) -> Writer:
    """The writer of a format, for pages like the first one."""
    if name == "TIFF":
        from .tiff_writer import BIG_FROM, TiffWriter

        alike = pages.are_alike()
        imagej = description_of(first).startswith(b"ImageJ=")
        return TiffWriter(file, big=pages.nbytes() * growth >= BIG_FROM, together=imagej and alike)
    if name == "FITS":
        from .fits import FitsWriter

        return FitsWriter(file, len(pages))
    from .animation_writer import PngWriter, WebpWriter

    if name == "PNG":
        return PngWriter(file, len(pages), pages.loop or 0)
    return WebpWriter(file, pages.loop or 0, quality)
