"""One file of a batch: it is read, restored and written, each of which may happen while another file is restored."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..files.atomic import replacing, write_atomically
from ..files.frames import split_frames
from ..files.image import FORMATS, Image
from ..files.images import check_holds, check_writable, encode_image, format_for, losses, write_image
from ..files.pages import Pages, check_holds_pages, read_pages, stream_pages
from ..inference import Progress
from ..restoration import RestoredPages, Restorer
from ..restoration.enlargement import LARGEST
from ..restoration.levels import strongest_of
from ..restoration.stack import forecast_pages
from .events import FILE_ERRORS, Event, Failed, Foreseen, Restored
from .file_options import FileOptions
from .frames import frames_after, restore_frames
from .job import STANDARD_INPUT, Job
from .remote import staged

COPIED = "the picture is what it was, and the file is copied, as to write it again would lose something"


def foresee(job: Job, restorer: Restorer, options: FileOptions) -> Event:
    """Reads a file and says what `restore_file` would do with it; nothing is written."""
    try:
        with (
            staged(job, overwrite=options.overwrite, publish=False) as own,
            read_pages(_content(own), options.pages) as pages,
        ):
            image, count = pages[0], len(pages)
            own = named(own, options.result_format(image.format))
            check(own, pages, image, restorer, options)
            job = job if job.staged else own
            name, sigma, seconds = forecast_pages(
                restorer, pages, strongest_of(options.sigma), options.estimate
            )
        return Foreseen(job, name, sigma, seconds, count)
    except FILE_ERRORS as error:
        return Failed(job, error)


@dataclass(frozen=True, eq=False)
class Opened:
    """A file whose first page has been read.

    Args:
        job: the file, as it was planned.
        own: its copy on this computer, where it has one, and the name of the result.
        content: the file, or what standard input has.
        pages: all of it.
        first: its first page.
        options: of the file.
        held: what is closed, or published, in the end.
        modified: time of its last change, where the result has the same.
        frames: what follows the first image of a stream.
    """

    job: Job
    own: Job
    content: bytes | Path
    pages: Pages
    first: Image
    options: FileOptions
    held: ExitStack
    modified: int | None
    frames: Iterator[bytes] | None = None

    def drop(self) -> None:
        """Closes the file, of which there will be no result."""
        _drop(self.held)


@dataclass(frozen=True, eq=False)
class Unwritten:
    """A file that was restored, and whose result is to be written; that of several pages has been.

    Args:
        restored: what will have become of the file.
        own: as `Opened` has it.
        result: an image, or a file that is copied as it is.
        options: of the file.
        held, modified: as `Opened` has them.
    """

    restored: Restored
    own: Job
    result: Image | bytes | Path | None
    options: FileOptions
    held: ExitStack
    modified: int | None

    def drop(self) -> None:
        """Gives the result up."""
        _drop(self.held)


def restore_file(
    job: Job, restorer: Restorer, options: FileOptions, *, progress: Progress | None = None
) -> Restored:
    """Reads, restores and writes a file.

    Raises:
        ValueError, OSError, MemoryError: a file that cannot be read, restored or written.
    """
    return write(compute(read(job, restorer, options), restorer, progress))


def read(job: Job, restorer: Restorer, options: FileOptions) -> Opened:
    """Reads the first page of a file, and refuses what its result could not be; errors as `restore_file`."""
    with ExitStack() as held:
        own = held.enter_context(staged(job, overwrite=options.overwrite))
        contents = split_frames(sys.stdin.buffer) if job.source == "-" else None
        modified = _modified(own, options)
        content = _content(own, contents)
        pages = held.enter_context(read_pages(content, options.pages))
        image, frames = pages[0], frames_after(contents, own, options)
        own = named(own, options.result_format(image.format))
        check(own, pages, image, restorer, options)
        return Opened(job, own, content, pages, image, options, held.pop_all(), modified, frames)


def compute(opened: Opened, restorer: Restorer, progress: Progress | None = None) -> Unwritten:
    """Restores a file; pages are written one after the other. Errors as `restore_file`."""
    own, pages, image, options = opened.own, opened.pages, opened.first, opened.options
    with opened.held.pop_all() as held:
        restored: Restored
        result: Image | bytes | Path | None = None
        if opened.frames is not None:
            restored = restore_frames(own, image, opened.frames, restorer, options)
        elif len(pages) > 1:
            growth = _growth(pages, image, restorer)
            restored = _restore_pages(own, opened, growth, restorer, progress)
        else:
            result, report = restorer.image(image, options.sigma, progress)
            notes = (*pages.notes, *image.notes, *report.notes)
            if _is_copied(image, own, options) and np.array_equal(image.pixels, result.pixels):
                result, notes = opened.content, (*report.notes, COPIED)
            report = dataclasses.replace(report, notes=notes)
            restored = Restored(own, report, pixels=math.prod(image.pixels.shape[:2]))
        # URLs stay what they are called.
        restored = dataclasses.replace(restored, job=opened.job if opened.job.staged else own)
        return Unwritten(restored, own, result, options, held.pop_all(), opened.modified)


def write(unwritten: Unwritten) -> Restored:
    """Writes a result whole, under its name in the end; errors as `restore_file`."""
    restored, own, result, options = unwritten.restored, unwritten.own, unwritten.result, unwritten.options
    lost: tuple[str, ...] = ()
    with unwritten.held.pop_all():
        if result is None:
            return restored
        if own.target == "-":
            if isinstance(result, Image):
                name = options.result_format(result.format)
                lost = losses(result, name)
                result = encode_image(result, name, quality=options.quality)
            sys.stdout.buffer.write(result if isinstance(result, bytes) else result.read_bytes())
            sys.stdout.buffer.flush()
        elif isinstance(result, Image):
            lost = write_image(
                result,
                own.target,
                quality=options.quality,
                overwrite=options.overwrite,
                mode=_mode(own),
                modified=unwritten.modified,
            )
        else:
            data = result if isinstance(result, bytes) else result.read_bytes()
            write_atomically(
                own.target,
                data,
                overwrite=options.overwrite,
                mode=_mode(own),
                modified=unwritten.modified,
            )
    report = dataclasses.replace(restored.report, notes=(*restored.report.notes, *lost))
    return dataclasses.replace(restored, report=report)


def _is_copied(image: Image, job: Job, options: FileOptions) -> bool:
    """True where a file that was written with loss is copied if its picture is what it was."""
    name = options.result_format(image.format) if job.target == "-" else format_for(job.target, image.format)
    return not image.lossless and name == image.format and options.pages is None


def _drop(held: ExitStack) -> None:
    """Leaves the contexts of a file as after an error, so that nothing is published."""
    with contextlib.suppress(_DroppedError), held:
        raise _DroppedError


class _DroppedError(Exception):
    """The end of a file that is given up."""


def _content(job: Job, contents: Iterator[bytes] | None = None) -> bytes | Path:
    """A file, or what a pipe has, or the first image of standard input, which can be read once only."""
    if job.source == "-":
        return next(contents or split_frames(sys.stdin.buffer))
    return job.source.read_bytes() if stat.S_ISFIFO(os.stat(job.source).st_mode) else job.source


def _mode(job: Job) -> int | None:
    """The permissions of a result: what only its owner may see stays so."""
    return None if job.source == "-" else os.stat(job.source).st_mode & 0o777


def _modified(job: Job, options: FileOptions) -> int | None:
    """The time of the last change of an input, if its result is to have it."""
    return os.stat(job.source).st_mtime_ns if options.keep_time and job.source != "-" else None


def _restore_pages(
    job: Job, opened: Opened, growth: float, restorer: Restorer, progress: Progress | None
) -> Restored:
    """Restores pages one after the other, each written before the next one is read."""
    pages, options = opened.pages, opened.options
    restored = RestoredPages(restorer, pages, options.sigma, progress, estimate=options.estimate)
    with ExitStack() as stack:
        if job.target == "-":  # what stands first is known last
            name = options.result_format(pages.format)
            file: BinaryIO = stack.enter_context(tempfile.TemporaryFile())
        else:
            name = format_for(job.target, pages.format)
            file = stack.enter_context(
                replacing(job.target, overwrite=options.overwrite, mode=_mode(job), modified=opened.modified)
            )
        written = stream_pages(restored, file, name, pages, growth=growth, quality=options.quality)
        if restored.unchanged and _is_copied(opened.first, job, options):
            written, content = (COPIED,), opened.content
            file.seek(0)
            file.truncate()
            file.write(content if isinstance(content, bytes) else content.read_bytes())
        if job.target == "-":
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    report = restored.report()
    notes = (*pages.notes, *report.notes, *written)
    return Restored(job, dataclasses.replace(report, notes=notes), len(pages), restored.pixels)


def _growth(pages: Pages, first: Image, restorer: Restorer) -> float:
    """An upper bound of the pixels of results for each pixel of the pages."""
    if restorer.enlargement is None:
        return 1
    if pages.are_alike():
        return math.prod(restorer.size_of(first)) / math.prod(first.pixels.shape[:2])
    return math.pow(restorer.enlargement.scale or LARGEST, 2)


def named(job: Job, format_: str) -> Job:
    """The job with the suffix of a format of results, where its target is the name of standard input in a folder."""
    if job.source != "-" or job.target == "-" or job.target.name != STANDARD_INPUT:
        return job
    return Job(job.source, job.target.with_suffix(FORMATS[format_].suffixes[0]))


def check(job: Job, pages: Pages, image: Image, restorer: Restorer, options: FileOptions) -> None:
    """Refuses, before the work, a target that exists or cannot hold the result, and a size that cannot be.

    Raises:
        FileExistsError, ValueError: what is wrong with the target or the size.
    """
    size = restorer.size_of(image)
    if job.target == "-":
        check_holds(image, options.result_format(image.format), size)
        return
    check_holds_pages(pages, check_writable(image, job.target, size))
    if not options.overwrite and os.path.lexists(job.target):
        raise FileExistsError(f"{job.target} exists")
