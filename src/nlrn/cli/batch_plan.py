"""The plan of a batch on the command line: its options, and what they exclude."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..batch.job import PlanError, Work, is_remote
from ..batch.plan import OutputExists, plan_jobs
from ..batch.remote import plan_remote
from ..files.images import SUFFIXES
from .errors import CliError
from .parsing import parse_shard

if TYPE_CHECKING:
    from ..files.pages import Ranges
    from ..restoration.stack import Per


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
    log: str | None = None
    engine: str = "local"
    address: str | None = None
    html: Path | None = None
    keep_time: bool = False


def make_work(inputs: Sequence[str], output: str | None, suffix: str, options: BatchOptions) -> Work:
    """`plan_jobs` for a command.

    Raises:
        CliError: a batch that cannot start, options that contradict each other, or a terminal in place of an output.
    """
    if output == "":
        raise CliError("the output has an empty name")
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("overwrite", "skip_existing", "resume")
        if getattr(options, name)
    ]
    if len(given) > 1:
        raise CliError(f"{given[0]} and {given[1]} contradict each other")
    if options.log is not None:
        _check_log(options.log, options.dry_run)
        if options.html is not None and os.path.realpath(options.html) == os.path.realpath(options.log):
            raise CliError(f"--log and --html name the same file, {options.log}")
    _check_engine(options)
    if options.watch:
        if is_remote(output):
            raise CliError("--watch restores into a folder of this computer, which has its journal")
        return _watched(inputs, output, options)
    shard = parse_shard(options.shard)
    if any(is_remote(name) for name in (*inputs, output)):
        if options.keep_time:
            raise CliError("--keep-time is for files of this computer, and not for URLs")
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
    if options.keep_time and any("-" in (job.source, job.target) for job in work.jobs):
        raise CliError("--keep-time is for files, and standard input and output have no time")
    if sys.stdin is None and any(job.source == "-" for job in work.jobs):
        raise CliError("standard input is closed; give a file")
    if sys.stdout is None and (options.as_json or any(job.target == "-" for job in work.jobs)):
        raise CliError("standard output is closed; give a file with -o")
    if options.engine == "ray" and any("-" in (job.source, job.target) for job in work.jobs):
        raise CliError("--engine ray restores files, which its workers read and write; - is of this process")
    streams = any(job.target == "-" for job in work.jobs)
    if streams and sys.stdout.isatty():
        raise CliError("standard output is a terminal; give a file with -o, or send it somewhere")
    if streams and options.as_json:
        raise CliError("--json writes to standard output, where the result goes too; give a file with -o")
    return work


def _check_engine(options: BatchOptions) -> None:
    """Raises `CliError` for an engine that there is not, or for an address without one."""
    if options.engine not in ("local", "ray"):
        raise CliError(f"--engine must be local or ray, got {options.engine!r}")
    if options.address is not None and options.engine != "ray":
        raise CliError("--address is that of a Ray cluster; give --engine ray too")


def _check_log(log: str, dry_run: bool) -> None:
    """Raises `CliError` for a log that is named as an image, which lines must not go into, or that has no use."""
    if Path(log).suffix.lower() in SUFFIXES:
        raise CliError(f"--log names a text file, and {log} has the suffix of an image")
    if dry_run:
        raise CliError("--dry-run and --log contradict each other: nothing is written")


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
        "--engine ray": options.engine == "ray",
    }.items():
        if given:
            several = "; several runs with --watch share a folder" if name in ("--jobs", "--shard") else ""
            raise CliError(f"--watch and {name} contradict each other{several}")
    return Work((), (), target, tuple(inputs))
