"""The run of a batch: an event for each file, whether it was restored or not."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files.atomic import write_atomically
from ..files.image import FORMATS, Image, result_format
from ..files.images import check_holds, check_writable, encode_image, format_for, losses
from ..files.pages import Pages, Ranges, check_holds_pages, read_pages, stream_pages, write_pages
from ..inference import Progress
from ..restoration import Report, RestoredPages, Restorer, Sigma
from ..restoration.enlargement import LARGEST
from ..restoration.stack import Per
from .journal import Journal
from .plan import STANDARD_INPUT, Job
from .remote import staged

# What may be wrong with one file; the rest of the batch goes on.
FILE_ERRORS = (ValueError, OSError, MemoryError)
# Of a disk without room, or a user without room on it; Windows has no quota of this name.
NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

COPIED = "the picture is what it was, and the file is copied, as to write it again would lose something"


@dataclass(frozen=True)
class FileOptions:
    """The options of a batch that are about files and not about the restorer.

    Args:
        sigma: noise level in 8-bit grey levels, `"auto"` for white noise, or `None` where nlrn chooses.
        quality: of JPEG and lossy WebP files.
        overwrite: whether existing outputs are replaced.
        pages: numbers of the pages that are restored, by default all.
        estimate: whether the noise is estimated for a stack as a whole or for each page.
        format: of results, by default that of their inputs.
    """

    sigma: Sigma | None
    quality: int
    overwrite: bool
    pages: Ranges | None = None
    estimate: Per = "stack"
    format: str | None = None

    def result_format(self, format_: str) -> str:
        """The format of the result of an image of a format, where no name says another."""
        return self.format or result_format(format_)


@dataclass(frozen=True)
class Restored:
    """A file that was restored, of so many pages."""

    job: Job
    report: Report
    pages: int = 1


@dataclass(frozen=True)
class Failed:
    """A file that was not restored, and the reason."""

    job: Job
    error: Exception

    @property
    def no_room(self) -> bool:
        """True where the disk is full, which ends a batch: the next file would be computed in vain."""
        return isinstance(self.error, OSError) and self.error.errno in NO_ROOM


@dataclass(frozen=True)
class Skipped:
    """A file that an earlier run has restored, or that another run is restoring."""

    job: Job
    elsewhere: bool


@dataclass(frozen=True)
class Foreseen:
    """A forecast for a file.

    Args:
        job: the file.
        model: name of the model.
        sigma: noise level in 8-bit grey levels, `"auto"` where it is estimated, or `None` for a model that takes none
            or where nlrn chooses.
        seconds: about the time that it takes.
        pages: their number.
    """

    job: Job
    model: str
    sigma: Sigma | None
    seconds: float
    pages: int = 1


Event = Restored | Failed | Skipped | Foreseen


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
        name, sigma, seconds = restorer.forecast(image, options.sigma)
        return Foreseen(job, name, sigma, count * seconds, count)
    except FILE_ERRORS as error:
        return Failed(job, error)


def restore_file(
    job: Job,
    restorer: Restorer,
    options: FileOptions,
    *,
    progress: Progress | None = None,
    on_read: Callable[[Image, int], None] = lambda image, pages: None,
) -> Restored:
    """Reads, restores and writes a file; `on_read` is called with its first page and their number before the work.

    Raises:
        ValueError, OSError, MemoryError: a file that cannot be read, restored or written.
    """
    with staged(job, overwrite=options.overwrite) as own:
        restored = _restore_here(own, restorer, options, progress, on_read)
    return dataclasses.replace(restored, job=job) if job.staged else restored


def _restore_here(
    job: Job,
    restorer: Restorer,
    options: FileOptions,
    progress: Progress | None,
    on_read: Callable[[Image, int], None],
) -> Restored:
    """`restore_file` for files on this computer."""
    content = _content(job)
    with read_pages(content, options.pages) as pages:
        image, count = pages[0], len(pages)
        job = named(job, options.result_format(image.format))
        check(job, pages, image, restorer, options)
        on_read(image, count)
        if count > 1:
            return _restore_pages(job, pages, _growth(pages, image, restorer), restorer, options, progress)
    restored, report = restorer.image(image, options.sigma, progress)
    name = options.result_format(image.format) if job.target == "-" else format_for(job.target, image.format)
    if _is_copied(image, restored, name, options):
        _write(job, content if isinstance(content, bytes) else content.read_bytes(), options)
        return Restored(job, dataclasses.replace(report, notes=(*report.notes, COPIED)))
    _write(job, encode_image(restored, name, quality=options.quality), options)
    notes = (*pages.notes, *image.notes, *report.notes, *losses(restored, name))
    return Restored(job, dataclasses.replace(report, notes=notes))


def _write(job: Job, data: bytes, options: FileOptions) -> None:
    if job.target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if not options.overwrite and os.path.lexists(job.target):
        raise FileExistsError(f"{job.target} exists")
    write_atomically(job.target, data, overwrite=options.overwrite, mode=_mode(job))


def _is_copied(image: Image, restored: Image, name: str, options: FileOptions) -> bool:
    """True where a file that was written with loss would be written so again, and its picture is what it was."""
    return (
        not image.lossless
        and name == image.format
        and options.pages is None
        and np.array_equal(image.pixels, restored.pixels)
    )


def _content(job: Job) -> bytes | Path:
    """A file, or what standard input or a pipe has, which can be read once only."""
    if job.source == "-":
        return sys.stdin.buffer.read()
    if not stat.S_ISFIFO(os.stat(job.source).st_mode):
        return job.source
    return job.source.read_bytes()


def _mode(job: Job) -> int | None:
    """The permissions of a result: what only its owner may see stays so."""
    return None if job.source == "-" else os.stat(job.source).st_mode & 0o777


def _restore_pages(
    job: Job,
    pages: Pages,
    growth: float,
    restorer: Restorer,
    options: FileOptions,
    progress: Progress | None,
) -> Restored:
    """Restores pages one after the other, each written before the next one is read."""
    restored = RestoredPages(restorer, pages, options.sigma, progress, estimate=options.estimate)
    if job.target == "-":
        with tempfile.TemporaryFile() as file:  # what stands first is known last
            name = options.result_format(pages.format)
            written = stream_pages(restored, file, name, pages, growth=growth, quality=options.quality)
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    else:
        written = write_pages(
            restored,
            job.target,
            pages,
            growth=growth,
            quality=options.quality,
            overwrite=options.overwrite,
            mode=_mode(job),
        )
    report = restored.report()
    notes = (*pages.notes, *report.notes, *written)
    return Restored(job, dataclasses.replace(report, notes=notes), len(pages))


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


def claimed(job: Job, options: FileOptions, journal: Journal | None) -> FileOptions | Skipped:
    """The options for a job that this run takes on, or a `Skipped` for one that it does not."""
    if journal is None:
        return options
    claim = journal.claim(job)
    if claim in ("done", "elsewhere"):
        return Skipped(job, claim == "elsewhere")
    return dataclasses.replace(options, overwrite=options.overwrite or claim == "again")


def run_batch(
    jobs: tuple[Job, ...],
    restorer: Restorer,
    options: FileOptions,
    *,
    journal: Journal | None = None,
    progress: Progress | None = None,
    on_start: Callable[[int, Job], None] = lambda index, job: None,
    on_read: Callable[[Image, int], None] = lambda image, pages: None,
) -> Iterator[Event]:
    """Restores one file after the other in this process, up to the first for which the disk has no room.

    Args:
        jobs: the files.
        restorer: restores all of them.
        options: of the files.
        journal: what is done and what others are doing; by default nothing.
        progress: called with the fraction of a file that is done.
        on_start: called with the place of a job in the batch before it begins.
        on_read: called with the first page of each file and their number before it is restored.
    """
    for index, job in enumerate(jobs):
        on_start(index, job)
        event: Event
        try:
            own = claimed(job, options, journal)
            if isinstance(own, Skipped):
                yield own
                continue
            event = restore_file(job, restorer, own, progress=progress, on_read=on_read)
        except FILE_ERRORS as error:
            event = Failed(job, error)
        event = recorded(journal, event)
        yield event
        if isinstance(event, Failed) and event.no_room:
            return


def recorded(journal: Journal | None, event: Event) -> Event:
    """Writes an event to the journal; a result that it has no room for counts as failed, and is done again."""
    if journal is None:
        return event
    try:
        if isinstance(event, Restored):
            journal.restored(event.job)
        elif isinstance(event, Failed):
            journal.failed(event.job, str(event.error))
    except OSError as error:
        return Failed(event.job, error)
    return event
