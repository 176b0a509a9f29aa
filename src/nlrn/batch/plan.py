"""The plan of a batch: which files are restored, and where each result goes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..files.atomic import check_name
from ..files.image import FORMATS, result_format
from ..files.images import OUTPUT_SUFFIXES, SUFFIXES, ImageError, find_images
from .job import STANDARD_INPUT, Job, PlanError, Work


class OutputExists(PlanError):
    """An output that is there already.

    Args:
        target: the output.
        several: whether the batch has other jobs too.
    """

    def __init__(self, target: Path, several: bool) -> None:
        super().__init__(f"{target} exists")
        self.several = several


def plan_jobs(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    *,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
    shard: tuple[int, int] | None = None,
    format_: str | None = None,
) -> Work:
    """Finds the inputs and the place of each result; nothing is read or written yet, and no folder made.

    Without `output` a result stands beside its input as `STEM + suffix + EXT`. `output` is a file for a single
    input file, otherwise a folder, which with `recursive` has the subfolders of the inputs.
    The suffix of a result is that of its input or of the format in which its results are written, or that of `format_`.
    Whether an input is an image shows when it is read. With a `shard` (i, n) every n-th job is taken, from the i-th on;
    the shards of a batch have all its jobs, and each once.

    Raises:
        OutputExists: an output exists, and is neither to be replaced nor skipped.
        PlanError: an input that does not exist, two inputs with one output, or an output that cannot be written.
    """
    if "" in inputs:
        raise PlanError("an input has an empty name")
    if "-" in inputs:
        if len(inputs) > 1:
            raise PlanError("standard input (-) must be the only input")
        if output is None or output == "-":
            return Work((Job("-", "-"),))
        if _means_existing_folder(output):
            folder = Path(output)
            job = Job("-", folder / STANDARD_INPUT)
            return dataclasses.replace(_work([job], overwrite, skip_existing), folder=folder)
        return _work([_named(output, "-", format_)], overwrite, skip_existing)
    sources = find_sources(inputs, output, recursive)
    single = len(sources) == 1 and not os.path.isdir(inputs[0])
    if output == "-":
        if not single:
            raise PlanError("standard output (-) takes the result of one file only")
        return Work((Job(next(iter(sources)), "-"),))
    if output is not None and single and not _means_folder(output):
        (source,) = sources
        if os.path.realpath(output) == os.path.realpath(source):
            raise PlanError(f"the output {output} is the input itself; the original is never modified")
        return _work([_named(output, source, format_)], overwrite, skip_existing)
    if output is not None and Path(output).suffix.lower() in SUFFIXES and not os.path.isdir(output):
        raise PlanError(f"one file, {output}, cannot take several results; give a folder")
    if output is not None:
        folder = Path(output)
        targets = {
            source: folder / place / result_name(source, "", format_) for source, place in sources.items()
        }
        return dataclasses.replace(
            _work(_jobs(targets), overwrite, skip_existing, shard=shard), folder=folder
        )
    # A folder may hold the results of an earlier run; only by its name is one restored again.
    beside = {source: source.with_name(result_name(source, suffix, format_)) for source in sources}
    earlier = set(beside.values()) - {Path(name) for name in inputs}
    left = {source: target for source, target in beside.items() if source not in earlier}
    notes = [f"results of an earlier run (*{suffix}.*) left out: {len(sources) - len(left)}"]
    return _work(_jobs(left), overwrite, skip_existing, notes if len(left) < len(sources) else (), shard)


def find_sources(inputs: Sequence[str], output: str | None, recursive: bool) -> dict[Path, Path]:
    """The files to restore, each with the subfolder of its input in which it lies.

    Files in the output folder are results, and left out, where it lies within an input folder.

    Raises:
        PlanError: an input that does not exist, or a folder without images.
    """
    sources: dict[Path, Path] = {}
    results = None if output is None else Path(os.path.realpath(output))
    for name in inputs:
        try:
            found = find_images([name], recursive=recursive)
        except (OSError, ImageError) as error:
            raise PlanError(str(error)) from error
        folder = Path(name)
        if not os.path.isdir(folder):
            sources |= dict.fromkeys(found, Path())
            continue
        if results is not None and Path(os.path.realpath(folder)) in results.parents:
            found = [path for path in found if results not in Path(os.path.realpath(path)).parents]
        sources |= {path: path.relative_to(folder).parent for path in found}
    return sources


def result_name(source: Path, suffix: str, format_: str | None) -> str:
    """The name of a result: that of its input with a suffix before its own, which follows the format of results."""
    own = source.suffix
    kind = SUFFIXES.get(own.lower())
    wanted = format_ or (None if kind is None else result_format(kind))
    if wanted is not None and wanted != kind:
        stem = source.stem[:-4] if source.stem.lower().endswith(".ome") else source.stem
        return f"{stem}{suffix}{FORMATS[wanted].suffixes[0]}"
    if kind == "TIFF" and source.stem.lower().endswith(".ome"):
        own = source.name[-len(own) - 4 :]
    return f"{source.name[: len(source.name) - len(own)]}{suffix}{own}"


def _jobs(targets: dict[Path, Path]) -> list[Job]:
    """One job a target.

    Raises:
        PlanError: two sources with one target, or a target that is a source.
    """
    sources: dict[Path, Path] = {}
    originals = {os.path.realpath(source) for source in targets}
    for source, target in targets.items():
        if target in sources:
            raise PlanError(
                f"{sources[target]} and {source} would both be written to {target}; give them other names"
            )
        if os.path.realpath(target) in originals:
            raise PlanError(f"the output {target} is one of the inputs; the original is never modified")
        sources[target] = source
    return [Job(source, target) for target, source in sources.items()]


def _work(
    jobs: list[Job],
    overwrite: bool,
    skip_existing: bool,
    notes: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
) -> Work:
    """Checks the outputs; with `skip_existing`, leaves out the jobs whose output exists."""
    several = len(jobs) > 1
    jobs, part = part_of_jobs(jobs, shard)
    notes = [*notes, *part]
    left = [job for job in jobs if not (skip_existing and job.target != "-" and os.path.exists(job.target))]
    for job in left:
        assert job.target != "-"
        _check_target(job.target, overwrite, several)
    if len(left) < len(jobs):
        notes.append(f"existing outputs skipped: {len(jobs) - len(left)}")
    return Work(tuple(left), tuple(notes))


def part_of_jobs(jobs: list[Job], shard: tuple[int, int] | None) -> tuple[list[Job], list[str]]:
    """The jobs of a shard (index, count), by default all, and notes on them."""
    if shard is None:
        return jobs, []
    index, count = shard
    part = jobs[index::count]
    return part, [f"shard {index} of {count}: {len(part)} of {len(jobs)} files"]


def _means_folder(output: str) -> bool:
    return _means_existing_folder(output) or not Path(output).suffix


def _means_existing_folder(output: str) -> bool:
    return output.endswith(("/", "\\")) or os.path.isdir(output)


def _named(output: str, source: Path | Literal["-"], format_: str | None) -> Job:
    """The job whose output file the user has named.

    Raises:
        PlanError: a suffix of no image format or of another one than `format_`, or a folder that does not exist.
    """
    target = Path(output)
    if target.suffix.lower() not in ("", *OUTPUT_SUFFIXES):
        raise PlanError(
            f"the output {output} has an unknown suffix; expected one of {', '.join(OUTPUT_SUFFIXES)}"
        )
    named = OUTPUT_SUFFIXES.get(target.suffix.lower())
    if format_ is not None and named not in (None, format_):
        raise PlanError(f"the output {output} is named as {named}, and the format is to be {format_}")
    if not os.path.isdir(target) and not os.path.isdir(target.parent):
        raise PlanError(f"the folder of the output {output} does not exist")
    return Job(source, target)


def _check_target(target: Path, overwrite: bool, several: bool) -> None:
    """Raises `PlanError` for an output that cannot be written, `OutputExists` for one that would be replaced."""
    if os.path.isdir(target):
        raise PlanError(f"the output {target} is a folder")
    if os.path.lexists(target) and not overwrite:
        raise OutputExists(target, several)
    try:
        check_name(target)
    except OSError as error:
        if not several:  # the others need not wait for one name
            raise PlanError(f"cannot write {target}: {error.strerror or error}") from error
