"""Batches on the command line: what is planned, run, and said about it; exit codes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..batch.plan import OutputExists, PlanError, Work, is_remote, plan_jobs
from ..batch.remote import plan_remote
from .batch_output import Json, Text
from .batch_page import BatchPage
from .errors import CliError
from .options import os_error
from .parsing import parse_shard

if TYPE_CHECKING:
    from ..batch.journal import Journal
    from ..batch.run import Event, FileOptions
    from ..files.pages import Ranges
    from ..restoration import Restorer, Sigma
    from ..restoration.stack import Per

SOME_FAILED, ALL_FAILED = 3, 4


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """The options of a batch, as the commands have them."""

    recursive: bool
    overwrite: bool
    skip_existing: bool
    resume: bool
    shard: str | None
    jobs: int
    dry_run: bool
    as_json: bool
    quality: int
    pages: Ranges | None = None
    estimate: Per = "stack"
    watch: bool = False
    format: str | None = None
    html: Path | None = None


def make_work(inputs: Sequence[str], output: str | None, suffix: str, options: BatchOptions) -> Work:
    """`plan_jobs` for a command.

    Raises:
        CliError: a batch that cannot start, options that contradict each other, or a terminal in place of an output.
    """
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("overwrite", "skip_existing", "resume")
        if getattr(options, name)
    ]
    if len(given) > 1:
        raise CliError(f"{given[0]} and {given[1]} contradict each other")
    if options.watch:
        if is_remote(output):
            raise CliError("--watch restores into a folder of this computer, which has its journal")
        return _watched(inputs, output, options)
    shard = parse_shard(options.shard)
    if any(is_remote(name) for name in (*inputs, output)):
        return _remote(inputs, output, options, shard)
    try:
        work = plan_jobs(
            inputs,
            output,
            suffix,
            recursive=options.recursive,
            overwrite=options.overwrite or options.resume,
            skip_existing=options.skip_existing,
            shard=shard,
            format_=options.format,
        )
    except OutputExists as error:
        rest = ", or --skip-existing to do only what is left" if error.several else ""
        raise CliError(f"{error}; pass --overwrite to replace it{rest}") from error
    except PlanError as error:
        raise CliError(str(error)) from error
    if options.resume and work.folder is None:
        raise CliError("--resume goes on with a batch in an output folder; name it with -o")
    if options.resume and any(job.source == "-" for job in work.jobs):
        raise CliError("--resume goes on with a batch of files, and standard input is read once")
    if sys.stdin is None and any(job.source == "-" for job in work.jobs):
        raise CliError("standard input is closed; give a file")
    if sys.stdout is None and (options.as_json or any(job.target == "-" for job in work.jobs)):
        raise CliError("standard output is closed; give a file with -o")
    streams = any(job.target == "-" for job in work.jobs)
    if streams and sys.stdout.isatty():
        raise CliError("standard output is a terminal; give a file with -o, or send it somewhere")
    if streams and options.as_json:
        raise CliError("--json writes to standard output, where the result goes too; give a file with -o")
    return work


def _remote(
    inputs: Sequence[str], output: str | None, options: BatchOptions, shard: tuple[int, int] | None
) -> Work:
    """`plan_remote` for a command.

    Raises:
        CliError: a batch that cannot start, or `--resume`: stores have no locks for a journal.
    """
    if options.resume:
        raise CliError("--resume needs a journal in a folder; with URLs, --skip-existing does what is left")
    try:
        return plan_remote(
            inputs,
            output,
            recursive=options.recursive,
            overwrite=options.overwrite,
            skip_existing=options.skip_existing,
            shard=shard,
            format_=options.format,
        )
    except PlanError as error:
        raise CliError(str(error)) from error


def _watched(inputs: Sequence[str], output: str | None, options: BatchOptions) -> Work:
    """A batch without jobs yet, whose folders are to be watched.

    Raises:
        CliError: an input that is no folder, no output folder, or an option of a batch with an end.
    """
    for folder in inputs:
        if not os.path.isdir(folder):
            raise CliError(f"--watch waits for files in folders, and {folder} is none")
    if output in (None, "-") or os.path.isfile(str(output)):
        raise CliError("--watch restores into a folder; name it with -o")
    target = Path(str(output))
    if os.path.realpath(target) in map(os.path.realpath, inputs):
        raise CliError(f"the output {output} is the input itself; the original is never modified")
    for name, given in {
        "--shard": options.shard is not None,
        "--dry-run": options.dry_run,
        "--skip-existing": options.skip_existing,
        "--jobs": options.jobs > 1,
    }.items():
        if given:
            several = "; several runs with --watch share a folder" if name in ("--jobs", "--shard") else ""
            raise CliError(f"--watch and {name} contradict each other{several}")
    return Work((), (), target, tuple(inputs))


def run_jobs(work: Work, restorer: Restorer, sigma: Sigma | None, options: BatchOptions) -> int:
    """Restores every file, reports, and returns the exit code.

    A file that fails is named with the reason; the others are done all the same.

    Raises:
        CliError: folders or a journal that cannot be written, or a batch that was begun with other options.
    """
    from ..batch.run import FileOptions

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    count = None if options.watch else len(work.jobs)
    output = Json(sys.stdout) if options.as_json else Text(console, restorer, sigma, count)
    enlargement = restorer.enlargement
    growth = 1.0 if enlargement is None else (enlargement.scale or 1) ** 2
    room = work.room_note(growth)
    output.notes(work.notes if room is None else (*work.notes, room))
    files = FileOptions(
        sigma, options.quality, options.overwrite, options.pages, options.estimate, options.format
    )
    page = _page(work, options)
    if options.dry_run:
        return _code(output, _foreseen(work, restorer, files), len(work.jobs))
    try:
        work.make_folders()
        journal = _journal(work, restorer, files, options)
    except (PlanError, OSError) as error:
        raise CliError(os_error(error) if isinstance(error, OSError) else str(error)) from error
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if work.watched:
            assert journal is not None
            return _watch(work, restorer, files, options, journal, output)
        events = _events(work, restorer, files, options, journal, output)
        events = events if page is None else page.following(events)
        return _code(output, events, len(work.jobs), _again(options, journal))
    except KeyboardInterrupt:
        output.close()
        if len(work.jobs) > 1 or journal is not None:
            print(f"nlrn: to go on: {_again(options, journal)}", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if journal is not None:
            journal.close()


def _page(work: Work, options: BatchOptions) -> BatchPage | None:
    if options.html is None:
        return None
    if options.dry_run:
        raise CliError(
            "--dry-run and --html contradict each other: nothing is restored that a page could show"
        )
    return BatchPage(options.html, work, options.pages, options.overwrite)


def _watch(
    work: Work,
    restorer: Restorer,
    files: FileOptions,
    options: BatchOptions,
    journal: Journal,
    output: Text | Json,
) -> int:
    """Restores what arrives until a signal, which is its regular end; returns the exit code."""
    from ..batch.run import Failed
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
        for event in watch(arrivals, restorer, files, journal):
            failed = failed or isinstance(event, Failed)
            output.event(event)
    output.summary(time.perf_counter() - started)
    return SOME_FAILED if failed else 0


def _again(options: BatchOptions, journal: Journal | None) -> str:
    """The command that goes on with this one."""
    words = sys.argv[1:]
    if not (options.resume or options.skip_existing or (journal is None and options.overwrite)):
        # How existing results are treated stands in the journal.
        words = [word for word in words if word != "--overwrite"]
        words.append("--skip-existing" if journal is None else "--resume")
    return f"nlrn {shlex.join(words)}"


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
    from ..batch.run import foresee

    for job in work.jobs:
        yield foresee(job, restorer, files)


def _code(output: Text | Json, events: Iterator[Event], count: int, again: str = "") -> int:
    """Reports the events and returns the exit code; `again` is the command that goes on."""
    from ..batch.run import Failed

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
