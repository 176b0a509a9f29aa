"""The output of a batch: lines on standard error for people, or JSON on standard output for programs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import printable
from .options import os_error, worded
from .pace import Announcement, duration

if TYPE_CHECKING:
    from ..batch.plan import Job
    from ..batch.run import Event
    from ..files.image import Image
    from ..restoration import Report, Restorer, Sigma

# The version of the JSON objects; names are added without a new one.
VERSION = 1
PROGRESS_AFTER_SECONDS = 2.0


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
        self._bar = _Bar(console, count or 0)
        self._announcement = Announcement(restorer, sigma, count or 0)  # no line without an end
        self._seen = Counter[str]()

    def notes(self, notes: Sequence[str]) -> None:
        """Prints notes on the plan."""
        for note in notes:
            self._console.print(f"note: {_plain(note)}")

    def start(self, index: int, job: Job) -> None:
        """Notes which file begins."""
        self._bar.file(index, job.origin)

    def read(self, image: Image, pages: int) -> None:
        """Notes what is in the file that begins."""
        self._bar.pages = pages
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
        from ..batch.run import Failed, Foreseen, Restored

        kind, job = kind_of(event), event.job
        self._seen[kind] += 1
        self._bar.done(sum(self._seen.values()), job.origin)
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
                f"({_pages(event.pages)}{_plain(event.model)}{level}, about {event.seconds:.1f} s)"
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
        counts = ", ".join(
            [f"{self._seen['restored']} of {self._count} files restored in {seconds:.1f} s", *self._skipped()]
        )
        self._console.print(counts)

    def _skipped(self) -> list[str]:
        return [f"{self._seen[kind]} {said}" for kind, said in SKIPS.items() if self._seen[kind]]

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()


class Json:
    """One JSON object a line: one for each file, and a summary.

    Args:
        stream: standard output.
    """

    progress: Callable[[float], None] | None = None

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._seen = stream, Counter[str]()

    def notes(self, notes: Sequence[str]) -> None:
        """Writes notes on the plan."""
        if notes:
            self._write({"event": "plan", "notes": list(notes)})

    def start(self, index: int, job: Job) -> None:
        """Says nothing."""

    def read(self, image: Image, pages: int) -> None:
        """Says nothing."""

    def event(self, event: Event) -> None:
        """Writes what became of a file; sigma is in 8-bit grey levels."""
        from ..batch.run import Failed, Foreseen, Restored

        kind = kind_of(event)
        self._seen[kind] += 1
        entry: dict[str, Any] = {
            "event": kind,
            "source": event.job.origin,
            "target": event.job.place,
        }
        if isinstance(event, Failed):
            entry["reason"] = reason_of(event.error)
        elif isinstance(event, Restored):
            report = event.report
            entry |= {
                "model": report.model,
                "sigma": None if report.sigma is None else 255 * report.sigma,
                "estimated": report.estimated,
                "seconds": report.seconds,
                "pages": event.pages,
                "notes": [worded(note) for note in report.notes],
                "warnings": [worded(warning) for warning in report.warnings],
            }
        elif isinstance(event, Foreseen):
            entry |= {
                "model": event.model,
                "sigma": event.sigma,
                "seconds": event.seconds,
                "pages": event.pages,
            }
        self._write(entry)

    def summary(self, seconds: float) -> None:
        """Writes the number of files of each kind."""
        self._write({"event": "summary", "files": dict(self._seen), "seconds": seconds})

    def close(self) -> None:
        """Says nothing."""

    def _write(self, entry: dict[str, Any]) -> None:
        self._stream.write(json.dumps({"version": VERSION, **entry}) + "\n")
        self._stream.flush()


SKIPS = {"done": "done before", "elsewhere": "left to another run"}


def kind_of(event: Event) -> str:
    """The word for an event."""
    from ..batch.run import Failed, Restored, Skipped

    if isinstance(event, Skipped):
        return "elsewhere" if event.elsewhere else "done"
    return (
        "restored" if isinstance(event, Restored) else "failed" if isinstance(event, Failed) else "foreseen"
    )


def reason_of(error: Exception) -> str:
    """One line on why a file failed."""
    if isinstance(error, OSError):
        return os_error(error)
    return worded(" ".join(str(error).split())) or type(error).__name__


def _pages(count: int) -> str:
    return f"{count} pages, " if count > 1 else ""


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


class _Bar:
    """A progress bar on a terminal's standard error, for work of more than two seconds; elsewhere nothing."""

    def __init__(self, console: Console, count: int) -> None:
        self._console, self._count = console, count
        self._bar: Progress | None = None
        self._started = time.perf_counter()
        self._index, self._name = 0, ""
        self.pages = 1  # of the file at hand
        self.progress: Callable[[float], None] | None = self._update if console.is_terminal else None

    def file(self, index: int, name: str) -> None:
        """Notes which file begins."""
        self._index, self._name = index, name

    def done(self, count: int, name: str) -> None:
        """Notes that so many files are done, the last of which is named."""
        self._index, self._name = count, name
        if self.progress is not None and self._count and count < self._count:
            self._update(0.0)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _update(self, fraction: float) -> None:
        if self._bar is None:
            if time.perf_counter() - self._started < PROGRESS_AFTER_SECONDS:
                return
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("", total=1.0)
        task = self._bar.task_ids[0]
        name = (
            self._name
            if self._count == 1
            else f"{min(self._index + 1, self._count)}/{self._count} {self._name}"
        )
        if self.pages > 1:
            name += f", page {min(int(fraction * self.pages) + 1, self.pages)} of {self.pages}"
        self._bar.update(task, completed=(self._index + fraction) / self._count, description=name)
