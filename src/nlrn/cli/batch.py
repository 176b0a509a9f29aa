"""Batches on the command line: options, progress, failures, exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..batch.plan import STANDARD_INPUT, Job, OutputExists, PlanError, Work, plan_jobs
from .errors import CliError
from .options import os_error, worded

if TYPE_CHECKING:
    from ..restoration import Report, Restorer, Sigma

SOME_FAILED, ALL_FAILED = 3, 4
# A job that will take longer than this says so at the start.
LONG_JOB_SECONDS = 60.0
PROGRESS_AFTER_SECONDS = 2.0
# Options for the settings of `Restorer.faster_settings`.
FASTER = {
    "ensemble": "no --ensemble",
    "precision": "--precision {}",
    "steps": "--steps {}",
    "window_size": "--window {} (approximate)",
    "model": "--model {}",
    "device": "a CUDA GPU",
}


@dataclass(frozen=True)
class FileOptions:
    """The options of a batch that are about files and not about the restorer."""

    sigma: Sigma | None
    quality: int
    overwrite: bool


def make_work(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    *,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
) -> Work:
    """`plan_jobs` for a command.

    Raises:
        CliError: a batch that cannot start, or a terminal in place of an output.
    """
    if overwrite and skip_existing:
        raise CliError("--overwrite and --skip-existing contradict each other")
    try:
        work = plan_jobs(
            inputs, output, suffix, recursive=recursive, overwrite=overwrite, skip_existing=skip_existing
        )
    except OutputExists as error:
        rest = ", or --skip-existing to do only what is left" if error.several else ""
        raise CliError(f"{error}; pass --overwrite to replace it{rest}") from error
    except PlanError as error:
        raise CliError(str(error)) from error
    if sys.stdin is None and any(job.source == "-" for job in work.jobs):
        raise CliError("standard input is closed; give a file")
    if sys.stdout is None and any(job.target == "-" for job in work.jobs):
        raise CliError("standard output is closed; give a file with -o")
    if any(job.target == "-" for job in work.jobs) and sys.stdout.isatty():
        raise CliError("standard output is a terminal; give a file with -o, or send it somewhere")
    return work


def run_jobs(work: Work, restorer: Restorer, options: FileOptions) -> int:
    """Restores every file, reports on standard error, and returns the exit code.

    A file that fails is named with the reason; the others are done all the same.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    jobs, failed = work.jobs, 0
    for note in work.notes:
        console.print(f"note: {_plain(note)}")
    started = time.perf_counter()
    with _Bar(console) as bar:
        for index, job in enumerate(jobs):
            bar.file(index, len(jobs), str(job.source))
            try:
                job, report = _run(job, restorer, options, console, bar, len(jobs) - index)
            except (ValueError, OSError, MemoryError) as error:
                failed += 1
                reason = _reason(error)
                named = reason if str(job.source) in reason else f"{job.source}: {reason}"
                console.print(f"[red]failed:[/red] {_plain(named)}")
                continue
            console.print(_line(job, report))
            for note in report.notes:
                console.print(f"  note: {_plain(worded(note))}")
            for warning in report.warnings:
                console.print(f"  [yellow]warning:[/yellow] {_plain(worded(warning))}")
    if len(jobs) > 1:
        seconds = time.perf_counter() - started
        console.print(f"{len(jobs) - failed} of {len(jobs)} files restored in {seconds:.1f} s")
    if not failed:
        return 0
    return ALL_FAILED if failed == len(jobs) else SOME_FAILED


def _run(
    job: Job, restorer: Restorer, options: FileOptions, console: Console, bar: _Bar, remaining: int
) -> tuple[Job, Report]:
    from ..files.images import check_holds, check_writable, encode_image, read_image, write_image

    image = read_image(sys.stdin.buffer.read() if job.source == "-" else job.source)
    job = _named(job, image.format)
    if job.target == "-":
        check_holds(image, image.format, restorer.scale)
    else:
        check_writable(image, job.target, restorer.scale)
        if not options.overwrite and os.path.lexists(job.target):
            raise FileExistsError(f"{job.target} exists")
    bar.announce(image.pixels.shape, restorer, options.sigma, remaining)
    restored, report = restorer.image(image, options.sigma, bar.progress)
    written: tuple[str, ...] = ()
    if job.target == "-":
        stream: BinaryIO = sys.stdout.buffer
        stream.write(encode_image(restored, image.format, quality=options.quality))
        stream.flush()
    else:
        # What only its owner may see stays so.
        mode = None if job.source == "-" else os.stat(job.source).st_mode & 0o777
        written = write_image(
            restored, job.target, quality=options.quality, overwrite=options.overwrite, mode=mode
        )
    return job, dataclasses.replace(report, notes=(*image.notes, *report.notes, *written))


def _named(job: Job, format_: str) -> Job:
    """The job with the suffix of a format, where its target is the name of standard input in a folder."""
    from ..files.image import FORMATS

    if job.source != "-" or job.target == "-" or job.target.name != STANDARD_INPUT:
        return job
    return Job(job.source, job.target.with_suffix(FORMATS[format_].suffixes[0]))


def _line(job: Job, report: Report) -> str:
    source = "standard input" if job.source == "-" else job.source
    target = "standard output" if job.target == "-" else job.target
    level = ""
    if report.sigma is not None:
        grey = 255 * report.sigma
        level = f", sigma {f'{grey:.1f}' if grey >= 1 or not grey else f'{grey:.2g}'}{' (estimated)' if report.estimated else ''}"
    return f"{_plain(source)} -> {_plain(target)} ({_plain(report.model)}{level}, {report.seconds:.1f} s)"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return os_error(error)
    return worded(" ".join(str(error).split())) or type(error).__name__


def _plain(text: object) -> str:
    """Text that rich prints as it is."""
    return escape(str(text))


class _Bar:
    """A progress bar on a terminal's standard error, for work of more than two seconds; elsewhere nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._started = time.perf_counter()
        self._index, self._count, self._name = 0, 1, ""
        self._announced = False
        self.progress: Callable[[float], None] | None = self._update if console.is_terminal else None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def file(self, index: int, count: int, name: str) -> None:
        self._index, self._count, self._name = index, count, name

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
        name = self._name if self._count == 1 else f"{self._index + 1}/{self._count} {self._name}"
        self._bar.update(task, completed=(self._index + fraction) / self._count, description=name)

    def announce(
        self, shape: tuple[int, ...], restorer: Restorer, sigma: Sigma | None, remaining: int
    ) -> None:
        """Says once, at the start, that a job is long, and what would be faster."""
        if self._announced:
            return
        self._announced = True
        seconds = restorer.estimate_seconds(shape, sigma) * remaining
        if seconds < LONG_JOB_SECONDS:
            return
        faster = restorer.faster_settings(shape, sigma)
        hints = [FASTER[name].format(value) for name, value in faster.items()]
        hint = f"; faster: {', '.join(hints)}" if hints else ""
        what = "this" if remaining == 1 else f"these {remaining} files"
        self._console.print(f"{what} will take about {_duration(seconds)}{hint}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
