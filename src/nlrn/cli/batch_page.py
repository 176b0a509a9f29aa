"""The page of `--html`: what a batch did, under the slider."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .batch_output import how
from .errors import CliError

if TYPE_CHECKING:
    from ..batch.events import Event, Restored
    from ..batch.job import Work
    from ..files.image import Image
    from ..files.pages import Ranges


def check_page(page: Path, inputs: list[Path], overwrite: bool, made: Path | None = None) -> None:
    """Refuses a page that cannot be written, before the work; `made` is a folder that the work makes.

    Raises:
        CliError: no name of a file, one of the inputs, an existing file, or a folder that does not exist.
    """
    from ..files.images import SUFFIXES

    if str(page) == "-":
        raise CliError("--html takes the name of a file; the page is not written to standard output (-)")
    if page.is_dir():
        raise CliError(f"the page {page} is a folder, and must be a file")
    if any(page.exists() and path.exists() and page.samefile(path) for path in inputs):
        raise CliError(f"the page {page} is an input itself; the original is never modified")
    if os.path.lexists(page) and not overwrite:
        raise CliError(f"{page} exists; pass --overwrite to replace it")
    if page.suffix.lower() in SUFFIXES:
        raise CliError(f"--html names a page, and {page} has the suffix of an image")
    if page.parent == made and not made.exists():
        return
    if not page.parent.is_dir():
        raise CliError(f"the folder of the page {page} does not exist")
    if not os.access(page.parent, os.W_OK):
        raise CliError(f"the folder of the page {page} cannot be written to")


def another_page(page: Path) -> Path:
    """A name beside a page that no file has."""
    return next(
        other
        for number in itertools.count(2)
        if not os.path.lexists(other := page.with_stem(f"{page.stem}-{number}"))
    )


class BatchPage:
    """The page of a batch; pictures are read again from the files before and after.

    Args:
        page: the file.
        work: of the batch.
        pages: those of each file that are restored.
        overwrite: whether an existing page is replaced.

    Raises:
        CliError: a page that cannot be written, or a batch without files of this computer or without an end.
    """

    def __init__(self, page: Path, work: Work, pages: Ranges | None, overwrite: bool) -> None:
        from ..viewer.sheet import Sheet

        if work.watched:
            raise CliError("--watch and --html contradict each other: the page is of a batch with an end")
        if any(job.staged or job.source == "-" or job.target == "-" for job in work.jobs):
            raise CliError(
                "--html shows files of this computer, and neither URLs nor standard input or output"
            )
        if any(page == job.target for job in work.jobs):
            raise CliError(f"the page {page} is a result itself; give it another name")
        if any(Path(os.path.abspath(page)) in Path(os.path.abspath(job.target)).parents for job in work.jobs):
            raise CliError(f"the page {page} is the folder of the results, and must be a file")
        check_page(page, [job.source for job in work.jobs if job.source != "-"], overwrite, work.folder)
        self._page, self._pages, self._overwrite = page, pages, overwrite
        self._sheet, self._count = Sheet(page.stem), 0

    def following(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events; after the last of them the page is written.

        Raises:
            CliError: a page that cannot be written.
        """
        from ..batch.events import Restored

        for event in events:
            if isinstance(event, Restored):
                self._add(event)
            yield event
        self._write()

    def interrupted(self) -> str | None:
        """Writes the page of what is done so far, of which a line says where it is; `None` where nothing is.

        Raises:
            CliError: a page that cannot be written.
        """
        if not self._count:
            return None
        self._write()
        files = "the file that is" if self._count == 1 else f"the {self._count} files that are"
        return f"{self._page} shows {files} done"

    def _write(self) -> None:
        from ..files.atomic import write_atomically

        try:
            write_atomically(self._page, self._sheet.html(), overwrite=self._overwrite)
        except OSError as error:
            raise CliError(options.os_error(error)) from error

    def _add(self, event: Restored) -> None:
        job = event.job
        assert job.source != "-"
        assert job.target != "-"
        name, about = job.origin, how(event.report, event.pages)
        try:
            self._sheet.add(name, _first(job.source, self._pages), _first(job.target, None), about)
        except (OSError, ValueError) as error:
            self._sheet.leave_out(name, str(error))
        self._count += 1


def _first(path: Path, ranges: Ranges | None) -> Image:
    from ..files.orientation import upright
    from ..files.pages import read_pages

    with read_pages(path, ranges) as pages:
        return upright(pages[0])
