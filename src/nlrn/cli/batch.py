"""Batches on the command line: what is run, and said about it; exit codes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from ..batch.job import PlanError, Work
from .batch_output import Text
from .batch_page import BatchPage, another_page
from .batch_plan import BatchOptions
from .batch_report import Json, logged
from .errors import CliError, printable
from .options import os_error

if TYPE_CHECKING:
    from ..batch.events import Event
    from ..batch.file_options import FileOptions
    from ..batch.journal import Journal
    from ..restoration import Restorer, Sigma

SOME_FAILED, ALL_FAILED = 3, 4


def run_jobs(work: Work, restorer: Restorer, sigma: Sigma | None, options: BatchOptions) -> int:
    """Restores every file, reports, and returns the exit code.

    A file that fails is named with the reason; the others are done all the same.

    Raises:
        CliError: folders or a journal that cannot be written, or a batch that was begun with other options.
    """
    from ..batch.file_options import FileOptions

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    count = None if options.watch else len(work.jobs)
    output = Json(sys.stdout) if options.as_json else Text(console, restorer, sigma, count)
    enlargement = restorer.enlargement
    growth = 1.0 if enlargement is None else (enlargement.scale or 1) ** 2
    room = work.room_note(growth)
    output.notes(work.notes if room is None else (*work.notes, room))
    files = FileOptions(
        sigma,
        options.quality,
        options.overwrite,
        options.pages,
        options.estimate,
        options.format,
        options.keep_time,
    )
    page = _page(work, options)
    if options.dry_run:
        return _code(output, _foreseen(work, restorer, files), len(work.jobs))
    try:
        work.make_folders()
        log = None if options.log is None else _open_log(options.log)
        journal = _journal(work, restorer, files, options)
    except (PlanError, OSError) as error:
        raise CliError(os_error(error) if isinstance(error, OSError) else str(error)) from error
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if work.watched:
            assert journal is not None
            return _watch(work, restorer, files, options, journal, output, log)
        events = logged(_events(work, restorer, files, options, journal, output), log)
        events = events if page is None else page.following(events)
        return _code(output, events, len(work.jobs), _again(options, journal))
    except PlanError as error:  # of the engine
        raise CliError(str(error)) from error
    except KeyboardInterrupt:
        output.close()
        if page is not None:
            _show_done(page)
        if len(work.jobs) > 1 or journal is not None:
            print(f"nlrn: to go on: {_again(options, journal)}", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if journal is not None:
            journal.close()
        if log is not None:
            with contextlib.suppress(OSError):  # of a line that has been named
                log.close()


def _page(work: Work, options: BatchOptions) -> BatchPage | None:
    if options.html is None:
        return None
    if options.dry_run:
        raise CliError(
            "--dry-run and --html contradict each other: nothing is restored that a page could show"
        )
    return BatchPage(options.html, work, options.pages, options.overwrite)


def _show_done(page: BatchPage) -> None:
    """Writes the page of what an interrupted batch has done, and says so, or why not."""
    try:
        said = page.interrupted()
    except CliError as error:
        said = str(error)
    if said is not None:
        print(f"nlrn: {printable(said)}", file=sys.stderr)


def _watch(
    work: Work,
    restorer: Restorer,
    files: FileOptions,
    options: BatchOptions,
    journal: Journal,
    output: Text | Json,
    log: TextIO | None,
) -> int:
    """Restores what arrives until a signal, which is its regular end; returns the exit code."""
    from ..batch.events import Failed
    from ..batch.watch import Arrivals, watch

    output.notes([f"watching {', '.join(work.watched)}; Ctrl-C ends"])
    arrivals = Arrivals(
        work.watched,
        str(work.folder),
        options.recursive,
        on_note=lambda note: output.notes([note]),
        format=options.format,
    )
    failed, started = False, time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):
        for event in logged(watch(arrivals, restorer, files, journal), log):
            failed = failed or isinstance(event, Failed)
            output.event(event)
    output.summary(time.perf_counter() - started)
    return SOME_FAILED if failed else 0


def _again(options: BatchOptions, journal: Journal | None) -> str:
    """The command that goes on with this one."""
    words = sys.argv[1:]
    if options.html is not None and os.path.lexists(options.html):  # that of what is done
        words = _elsewhere(words, another_page(options.html))
    if not (options.resume or options.skip_existing or (journal is None and options.overwrite)):
        # How existing results are treated stands in the journal.
        words = [word for word in words if word != "--overwrite"]
        words.append("--skip-existing" if journal is None else "--resume")
    return f"nlrn {shlex.join(words)}"


def _elsewhere(words: list[str], page: Path) -> list[str]:
    """The words of a command with another page."""
    others, taken = list[str](), False
    for word in words:
        others.append(str(page) if taken else f"--html={page}" if word.startswith("--html=") else word)
        taken = word == "--html"
    return others


def _open_log(name: str) -> TextIO:
    """A log to which lines are added.

    Raises:
        OSError: a file that cannot be written.
    """
    return open(name, "a", encoding="utf-8", errors="backslashreplace")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _events(
    work: Work,
    restorer: Restorer,
    files: FileOptions,
    options: BatchOptions,
    journal: Journal | None,
    output: Text | Json,
) -> Iterator[Event]:
    from ..batch.processes import run_in_processes
    from ..batch.run import run_batch

    if options.engine == "ray":
        from ..batch.ray_engine import run_on_ray

        return run_on_ray(
            work.jobs,
            restorer.options,
            files,
            address=options.address,
            processes=options.jobs,
            journal=journal,
        )
    processes = min(options.jobs, len(work.jobs))
    if processes > 1:
        return run_in_processes(work.jobs, restorer.options, files, processes, journal=journal)
    return run_batch(
        work.jobs,
        restorer,
        files,
        journal=journal,
        progress=output.progress,
        on_start=output.start,
        on_read=output.read,
    )


def _foreseen(work: Work, restorer: Restorer, files: FileOptions) -> Iterator[Event]:
    from ..batch.one_file import foresee

    for job in work.jobs:
        yield foresee(job, restorer, files)


def _code(output: Text | Json, events: Iterator[Event], count: int, again: str = "") -> int:
    """Reports the events and returns the exit code; `again` is the command that goes on."""
    from ..batch.events import Failed

    seen, failed, full, started = 0, 0, False, time.perf_counter()
    try:
        for event in events:
            seen += 1
            if isinstance(event, Failed):
                failed += 1
                full = full or event.no_room
            output.event(event)
    finally:
        output.close()
    output.summary(time.perf_counter() - started)
    if full and count > 1:
        left = f"{count - seen} files were not begun" if count > seen else "no other file is left"
        print(f"nlrn: the disk is full; {left}; when there is room: {again}", file=sys.stderr)
    if not failed:
        return 0
    return ALL_FAILED if failed == count else SOME_FAILED


def _journal(work: Work, restorer: Restorer, files: FileOptions, options: BatchOptions) -> Journal | None:
    """The journal of a batch of several files in a folder."""
    from ..batch.journal import Journal
    from ..version import __version__

    if any(job.staged for job in work.jobs):
        return None
    if work.folder is None or not (work.watched or options.resume or options.shard or len(work.jobs) > 1):
        return None
    settings: dict[str, Any] = {
        "nlrn": __version__,
        "sigma": files.sigma,
        "quality": files.quality,
        "pages": None if files.pages is None else [list(part) for part in files.pages],
        "estimate": files.estimate,
        "format": files.format,
        **restorer.options.that_change_results(),
    }
    part = "all" if options.shard is None else options.shard.replace("/", "-of-")
    return Journal(
        work.folder, settings, resume=options.resume or options.watch, part=part, overwrite=options.overwrite
    )
