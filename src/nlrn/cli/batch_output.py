"""The output of a batch for people: lines on standard error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from .batch_report import kind_of, reason_of
from .errors import printable
from .options import worded
from .pace import Announcement, duration
from .progress_bar import ProgressBar, millions

if TYPE_CHECKING:
    from ..batch.events import Event
    from ..batch.job import Job
    from ..files.image import Image
    from ..restoration import Report, Restorer, Sigma

# Kinds of files that were not restored and did not fail, in words.
SKIPS = {"done": "done before", "elsewhere": "left to another run"}


class Text:
    """Lines for people, and a progress bar.

    Args:
        console: standard error.
        restorer: of the batch, which knows what would be faster.
        sigma: noise level in 8-bit grey levels, `"auto"`, or `None` where nlrn chooses.
        count: number of files, `None` for a batch without an end.
    """

    def __init__(self, console: Console, restorer: Restorer, sigma: Sigma | None, count: int | None) -> None:
        self._console, self._count = console, count
        self._bar = ProgressBar(console, count or 0)
        self._announcement = Announcement(restorer, sigma, count or 0)  # no line without an end
        self._seen, self._pixels = Counter[str](), 0

    def notes(self, notes: Sequence[str]) -> None:
        """Prints notes on the plan."""
        for note in notes:
            self._console.print(f"note: {_plain(note)}")

    def start(self, index: int, job: Job) -> None:
        """Notes which file begins."""
        self._bar.file(index, job.origin)

    def read(self, image: Image, pages: int) -> None:
        """Notes what is in the file that begins."""
        self._bar.pages, self._bar.pixels = pages, pages * math.prod(image.pixels.shape[:2])
        self._announcement.read(image)

    def progress(self, fraction: float) -> None:
        """Takes the fraction of a file that is done."""
        if self._bar.progress is not None:
            self._bar.progress(fraction)
        self._say(self._announcement.at(fraction))

    def _say(self, line: str | None) -> None:
        if line is not None:
            self._console.print(_plain(line))

    def event(self, event: Event) -> None:
        """Prints what became of a file."""
        from ..batch.events import Failed, Foreseen, Restored

        kind, job = kind_of(event), event.job
        self._seen[kind] += 1
        pixels = event.pixels if isinstance(event, Restored) else 0
        self._pixels += pixels
        self._bar.done(sum(self._seen.values()), job.origin, pixels, isinstance(event, Failed))
        if isinstance(event, Failed):
            reason = reason_of(event.error)
            named = reason if job.origin in reason else f"{job.origin}: {reason}"
            self._console.print(f"[red]failed:[/red] {_plain(named)}")
        elif isinstance(event, Restored):
            self._console.print(_line(job, event.report, event.pages))
            for note in event.report.notes:
                self._console.print(f"  note: {_plain(worded(note))}")
            for warning in event.report.warnings:
                self._console.print(f"  [yellow]warning:[/yellow] {_plain(worded(warning))}")
        elif isinstance(event, Foreseen):
            level = "" if event.sigma is None else f", sigma {event.sigma}"
            self._console.print(
                f"{_plain(job.origin)} -> {_plain(job.place)} "
                f"({_pages(event.pages)}{_plain(event.model)}{level}, {_expected(event.seconds)})"
            )
        if not isinstance(event, Foreseen):
            self._say(self._announcement.file(isinstance(event, Restored)))

    def summary(self, seconds: float) -> None:
        """Prints the numbers of a batch of several files."""
        if self._count is None:
            done = f"{self._seen['restored']} files restored, {self._seen['failed']} failed"
            self._console.print(f"{', '.join([done, *self._skipped()])} in {duration(seconds)}")
            return
        if self._count < 2:
            return
        if self._seen["foreseen"]:
            self._console.print(
                f"{self._seen['foreseen']} of {self._count} files would be restored; nothing is written"
            )
            return
        restored, failed = self._seen["restored"], self._seen["failed"]
        done = f"{restored} of {self._count} files restored in {seconds:.1f} s"
        if restored:
            rate = millions(self._pixels / max(seconds, 1e-3))
            done += f" ({millions(self._pixels)} megapixels, {rate} a second)"
        self._console.print(", ".join([done, *([f"{failed} failed"] if failed else []), *self._skipped()]))

    def _skipped(self) -> list[str]:
        return [f"{self._seen[kind]} {said}" for kind, said in SKIPS.items() if self._seen[kind]]

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()


def _pages(count: int) -> str:
    return f"{count} pages, " if count > 1 else ""


def _expected(seconds: float) -> str:
    return "less than a second" if seconds < 1 else f"about {duration(seconds)}"


def _line(job: Job, report: Report, pages: int) -> str:
    source = "standard input" if job.source == "-" else job.origin
    target = "standard output" if job.target == "-" else job.place
    done = f"{how(report, pages)}, {report.seconds:.1f} s"
    return f"{_plain(source)} -> {_plain(target)} ({_plain(done)})"


def how(report: Report, pages: int) -> str:
    """Pages, models and noise level of a result, in words."""
    level = ""
    if report.sigma is not None:
        grey = 255 * report.sigma
        level = f", sigma {f'{grey:.1f}' if grey >= 1 or not grey else f'{grey:.2g}'}{' (estimated)' if report.estimated else ''}"
    return f"{_pages(pages)}{report.model}{level}"


def _plain(text: object) -> str:
    """Text that rich prints as it is."""
    return escape(printable(text))
