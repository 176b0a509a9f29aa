"""Many files through one restorer: what goes where, progress, failures, exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import CliError
from .options import os_error

if TYPE_CHECKING:
    from ..restoration import Report, Restorer, Sigma

SOME_FAILED, ALL_FAILED = 3, 4
# A job that will take longer than this says so at the start.
LONG_JOB_SECONDS = 60.0
PROGRESS_AFTER_SECONDS = 2.0


@dataclass(frozen=True)
class Job:
    """One file to restore; `-` is standard input or output."""

    source: Path | Literal["-"]
    target: Path | Literal["-"]


@dataclass(frozen=True)
class Options:
    """What applies to every file of a batch."""

    sigma: float | Literal["auto"]
    data_range: float | None
    quality: int
    overwrite: bool


@dataclass(frozen=True)
class Work:
    """What a command is to do, and what it leaves out, in full sentences."""

    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()


def plan_jobs(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    *,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
) -> Work:
    """Where each input goes; nothing is read or written yet.

    Without `output` a result stands beside its input as `STEM + suffix + EXT`. `output` is a file for a single
    input file, otherwise a folder (made if it is not there), which with `recursive` has the subfolders of the inputs.
    Whether an input is an image shows when it is read.

    Raises:
        CliError: an input that does not exist, two inputs with one output, an output that exists or that
            cannot be written.
    """
    from ..files.images import SUFFIXES

    if overwrite and skip_existing:
        raise CliError("--overwrite and --skip-existing contradict each other")
    if "" in inputs:
        raise CliError("an input has an empty name")
    if "-" in inputs:
        if len(inputs) > 1:
            raise CliError("standard input (-) must be the only input")
        if output is None or output == "-":
            _refuse_terminal()
            return Work((Job("-", "-"),))
        _check_suffix(output)
        return _work([Job("-", Path(output))], overwrite, skip_existing)
    sources = _find(inputs, output, recursive)
    single = len(sources) == 1 and not Path(inputs[0]).is_dir()
    if output == "-":
        _refuse_terminal()
        if not single:
            raise CliError("standard output (-) takes the result of one file only")
        return Work((Job(next(iter(sources)), "-"),))
    if output is not None and single and not _means_folder(output):
        (source,) = sources
        if os.path.realpath(output) == os.path.realpath(source):
            raise CliError(f"the output {output} is the input itself; the original is never modified")
        _check_suffix(output)
        return _work([Job(source, Path(output))], overwrite, skip_existing)
    if output is not None and Path(output).suffix.lower() in SUFFIXES and not Path(output).is_dir():
        raise CliError(f"one file, {output}, cannot take several results; give a folder")
    if output is not None:
        return _work(_into_folder(sources, Path(output)), overwrite, skip_existing)
    # A folder may hold the results of an earlier run; only by its name is one restored again.
    earlier = {_beside(source, suffix) for source in sources} - {Path(name) for name in inputs}
    left = {source: _beside(source, suffix) for source in sources if source not in earlier}
    notes = [f"results of an earlier run (*{suffix}.*) left out: {len(sources) - len(left)}"]
    return _work(_jobs(left), overwrite, skip_existing, notes if len(left) < len(sources) else ())


def _find(inputs: Sequence[str], output: str | None, recursive: bool) -> dict[Path, Path]:
    """The files that are meant, each with the subfolder of its input in which it lies.

    Where the output folder lies within an input folder, what is in it are results.
    """
    from ..files.images import ImageError, find_images

    sources: dict[Path, Path] = {}
    results = None if output is None else Path(output).resolve()
    for name in inputs:
        try:
            found = find_images([name], recursive=recursive)
        except (OSError, ImageError) as error:
            raise CliError(str(error)) from error
        folder = Path(name)
        if not folder.is_dir():
            sources |= dict.fromkeys(found, Path())
            continue
        if results is not None and folder.resolve() in results.parents:
            found = [path for path in found if results not in path.resolve().parents]
        sources |= {path: path.relative_to(folder).parent for path in found}
    return sources


def _beside(source: Path, suffix: str) -> Path:
    return source.with_name(f"{source.stem}{suffix}{source.suffix}")


def _into_folder(sources: dict[Path, Path], output: Path) -> list[Job]:
    """Each file under its own name; the folders are made."""
    jobs = _jobs({source: output / place / source.name for source, place in sources.items()})
    for folder in {output, *(output / place for place in sources.values())}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(f"cannot make the output folder {folder}: {error.strerror or error}") from error
    return jobs


def _jobs(targets: dict[Path, Path]) -> list[Job]:
    """Raises `CliError` for two sources with one target, and for a target that is a source."""
    sources: dict[Path, Path] = {}
    originals = {os.path.realpath(source) for source in targets}
    for source, target in targets.items():
        if target in sources:
            raise CliError(
                f"{sources[target]} and {source} would both be written to {target}; give them other names"
            )
        if os.path.realpath(target) in originals:
            raise CliError(f"the output {target} is one of the inputs; the original is never modified")
        sources[target] = source
    return [Job(source, target) for target, source in sources.items()]


def _work(jobs: list[Job], overwrite: bool, skip_existing: bool, notes: Sequence[str] = ()) -> Work:
    """Those jobs whose output can be written and, with `skip_existing`, is not there yet."""
    left = [job for job in jobs if not (skip_existing and job.target != "-" and job.target.exists())]
    for job in left:
        assert job.target != "-"
        _check_target(job.target, overwrite, several=len(jobs) > 1)
    skipped = len(jobs) - len(left)
    return Work(tuple(left), (*notes, *([f"existing outputs skipped: {skipped}"] if skipped else [])))


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise CliError("standard output is a terminal; give a file with -o, or send it somewhere")


def _means_folder(output: str) -> bool:
    return output.endswith(("/", "\\")) or Path(output).is_dir() or not Path(output).suffix


def _check_suffix(output: str) -> None:
    """Raises `CliError` for a name that the user chose and that is no image's."""
    from ..files.images import SUFFIXES

    if Path(output).suffix.lower() not in ("", *SUFFIXES):
        raise CliError(f"the output {output} has an unknown suffix; expected one of {', '.join(SUFFIXES)}")


def _check_target(target: Path, overwrite: bool, several: bool) -> None:
    """Raises `CliError` for what cannot be written."""
    if target.is_dir():
        raise CliError(f"the output {target} is a folder")
    if target.exists() and not overwrite:
        rest = ", or --skip-existing to do only what is left" if several else ""
        raise CliError(f"{target} exists; pass --overwrite to replace it{rest}")
    if not target.parent.is_dir():
        raise CliError(f"the folder of the output {target} does not exist")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise CliError(f"cannot write to the folder of {target}: {error.strerror or error}") from error


def run_jobs(work: Work, restorer: Restorer, options: Options) -> int:
    """Restores every file, reports on standard error, and returns the exit code.

    A file that fails is named with the reason; the others are done all the same.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    jobs, failed = work.jobs, 0
    for note in work.notes:
        console.print(f"note: {_plain(note)}")
    started = time.perf_counter()
    with _Bar(console) as bar:
        for index, job in enumerate(jobs):
            bar.file(index, len(jobs), str(job.source))
            try:
                report = _run(job, restorer, options, console, bar, len(jobs) - index)
            except (ValueError, OSError, MemoryError) as error:
                failed += 1
                reason = _reason(error)
                named = reason if str(job.source) in reason else f"{job.source}: {reason}"
                console.print(f"[red]failed:[/red] {_plain(named)}")
                continue
            console.print(_line(job, report))
            for note in report.notes:
                console.print(f"  note: {_plain(note)}")
            for warning in report.warnings:
                console.print(f"  [yellow]warning:[/yellow] {_plain(warning)}")
    if len(jobs) > 1:
        seconds = time.perf_counter() - started
        console.print(f"{len(jobs) - failed} of {len(jobs)} files restored in {seconds:.1f} s")
    if not failed:
        return 0
    return ALL_FAILED if failed == len(jobs) else SOME_FAILED


def _run(
    job: Job, restorer: Restorer, options: Options, console: Console, bar: _Bar, remaining: int
) -> Report:
    from ..files.images import check_writable, encode_image, read_image, write_image

    image = read_image(sys.stdin.buffer.read() if job.source == "-" else job.source)
    if job.target != "-":
        check_writable(image, job.target)
    bar.announce(image.pixels.shape, restorer, options.sigma, remaining)
    restored, report = restorer.image(
        image, options.sigma, data_range=options.data_range, progress=bar.progress
    )
    written: tuple[str, ...] = ()
    if job.target == "-":
        stream: BinaryIO = sys.stdout.buffer
        stream.write(encode_image(restored, image.format, quality=options.quality))
        stream.flush()
    else:
        written = write_image(restored, job.target, quality=options.quality, overwrite=options.overwrite)
    return dataclasses.replace(report, notes=(*image.notes, *report.notes, *written))


def _line(job: Job, report: Report) -> str:
    source = "standard input" if job.source == "-" else job.source
    target = "standard output" if job.target == "-" else job.target
    level = ""
    if report.sigma is not None:
        level = f", sigma {255 * report.sigma:.1f}{' (estimated)' if report.estimated else ''}"
    return f"{_plain(source)} -> {_plain(target)} ({_plain(report.model)}{level}, {report.seconds:.1f} s)"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return os_error(error)
    return " ".join(str(error).split()) or type(error).__name__


def _plain(text: object) -> str:
    """Text that rich prints as it is."""
    return str(text).replace("[", r"\[")


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

    def announce(self, shape: tuple[int, ...], restorer: Restorer, sigma: Sigma, remaining: int) -> None:
        """Says once, at the start, that a job is long, and what would be faster."""
        if self._announced:
            return
        self._announced = True
        seconds = restorer.estimate_seconds(shape, sigma) * remaining
        if seconds < LONG_JOB_SECONDS:
            return
        faster = restorer.faster_options(shape, sigma)
        hint = f"; faster: {', '.join(faster)}" if faster else ""
        what = "this" if remaining == 1 else f"these {remaining} files"
        self._console.print(f"{what} will take about {_duration(seconds)}{hint}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
