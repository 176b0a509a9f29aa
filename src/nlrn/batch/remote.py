"""Files in object stores and on other computers, by the URLs of fsspec: fetched whole, and named when complete.

A file that is elsewhere has a copy in a folder of its own while it is restored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import temporary_beside
from ..files.images import OUTPUT_SUFFIXES, SUFFIXES
from .job import Job, PlanError, Work, is_remote
from .plan import find_sources, part_of_jobs, result_name

# Stores in which an object has its name when all of it is there, and which have no folders.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def plan_remote(
    inputs: Sequence[str],
    output: str | None,
    *,
    recursive: bool,
    overwrite: bool,
    skip_existing: bool,
    shard: tuple[int, int] | None = None,
    format_: str | None = None,
) -> Work:
    """`plan_jobs` where an input or the output is a URL.

    Raises:
        PlanError: as `plan_jobs`; no output, or a protocol whose package is missing.
    """
    if output is None or output == "-" or "-" in inputs:
        raise PlanError("URLs are restored into a folder or another URL, and not through -; name it with -o")
    found: dict[str, str] = {}  # and the place within the input
    for name in inputs:
        if is_remote(name):
            found |= _find(name, recursive)
        else:
            found |= {str(path): str(place) for path, place in find_sources([name], None, recursive).items()}
    single = len(found) == 1 and [*found] == [*inputs] and _suffix(output) in OUTPUT_SUFFIXES
    if not single and _suffix(output) in SUFFIXES:
        raise PlanError(f"one file, {output}, cannot take several results; give a folder")
    written = OUTPUT_SUFFIXES.get(_suffix(output)) if single else None
    if format_ is not None and written not in (None, format_):
        raise PlanError(f"the output {output} is named as {written}, and the format is to be {format_}")
    jobs: dict[str, Job] = {}
    for source, place in found.items():
        target = output if single else posixpath.join(output, place, result_name(Path(source), "", format_))
        target = target if is_remote(target) else str(Path(target))
        if target in jobs:
            raise PlanError(
                f"{jobs[target].origin} and {source} would both be written to {target}; give them other names"
            )
        if target in found:
            raise PlanError(f"the output {target} is one of the inputs; the original is never modified")
        jobs[target] = _job(source, target)
    chosen, notes = part_of_jobs(list(jobs.values()), shard)
    there = set() if overwrite else {job for job in chosen if exists(job.place)}
    if there and not skip_existing:
        first = next(job for job in chosen if job in there)
        raise PlanError(
            f"{first.place} exists; pass --overwrite to replace it, or --skip-existing to do what is left"
        )
    if there:
        notes.append(f"existing outputs skipped: {len(there)}")
    return Work(
        tuple(job for job in chosen if job not in there),
        tuple(notes),
        None if is_remote(output) or single else Path(output),
    )


@contextlib.contextmanager
def staged(job: Job, *, overwrite: bool, publish: bool = True) -> Iterator[Job]:
    """A job whose files are on this computer: the input is fetched, and the result published in the end.

    Args:
        job: any job; one without URLs is itself.
        overwrite: whether an existing object is replaced.
        publish: whether there is a result.

    Raises:
        FileExistsError: the output exists and `overwrite` is false.
        OSError: what the store says; errors of the work name the URL and not the copy.
    """
    if not job.staged:
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="nlrn-") as name:
        folder, own = Path(name), job
        if is_remote(job.origin):
            own = dataclasses.replace(own, source=folder / posixpath.basename(job.origin))
            with _told(f"cannot read {job.origin}"):
                system, path = _opened(job.origin)
                system.get_file(path, str(own.source))
        if is_remote(job.place):
            (folder / "result").mkdir()
            own = dataclasses.replace(own, target=folder / "result" / posixpath.basename(job.place))
            if publish and not overwrite and exists(job.place):
                raise FileExistsError(f"{job.place} exists")
        with _named(own, job):
            yield own
        if publish and is_remote(job.place):
            with _told(f"cannot write {job.place}"):
                _publish(str(own.target), job.place, overwrite)


def _publish(local: str, url: str, overwrite: bool) -> None:
    """Uploads a file whole, and then gives it its name."""
    system, path = _opened(url)
    if not overwrite and system.exists(path):
        raise FileExistsError(f"{url} exists")
    if _protocol(url) in OBJECT_STORES:
        system.put_file(local, path)
        return
    system.makedirs(posixpath.dirname(path), exist_ok=True)
    part = posixpath.join(posixpath.dirname(path), temporary_beside(Path("file")).name)
    try:
        system.put_file(local, part)
        system.mv(part, path)
    except BaseException:
        with contextlib.suppress(Exception):
            system.rm_file(part)
        raise


def _find(url: str, recursive: bool) -> dict[str, str]:
    """The images that a URL means, each with its place: an object, a pattern, or those in a folder."""
    with _told(f"cannot look into {url}", PlanError):
        system, path = _opened(url)
        if glob.has_magic(path):
            matches = sorted(name for name in system.glob(path) if system.isfile(name))
            places = {name: "" for name in matches if not posixpath.basename(name).startswith(".")}
        elif system.isfile(path):
            return {url: ""}
        elif system.isdir(path):
            listed = system.find(path) if recursive else system.find(path, maxdepth=1)
            inside = {found: posixpath.relpath(found, path) for found in sorted(listed)}
            places = {
                found: posixpath.dirname(place)
                for found, place in inside.items()
                if _suffix(place) in SUFFIXES and not any(p.startswith(".") for p in place.split("/"))
            }
        else:
            raise PlanError(f"{url} does not exist")
    if not places:
        raise PlanError(f"no images in {url} (looked for {', '.join(SUFFIXES)})")
    return {_url(url, system, found): place for found, place in places.items()}


def _url(url: str, system: Any, path: str) -> str:
    """The URL of a path in the store of another URL, with a slash in front where that has one."""
    own = str(system._strip_protocol(path))
    return f"{_protocol(url)}://{own if ':///' in url else own.lstrip('/')}"


def _job(source: str, target: str) -> Job:
    return Job(Path(source), Path(target), source, target)


def _opened(url: str) -> tuple[Any, str]:
    """The store of a URL, and the path in it.

    Raises:
        PlanError: fsspec or the package of the protocol is missing, or there is no such protocol.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise PlanError(f"{url} needs fsspec: pip install 'nlrn[remote]'") from error
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise PlanError(f"cannot open {url}: {error}") from error
    return system, str(path)


def exists(name: str) -> bool:
    """True where there is something under a URL or a name of this computer."""
    if not is_remote(name):
        return os.path.lexists(name)
    with _told(f"cannot look into {name}", PlanError):
        system, path = _opened(name)
        return bool(system.exists(path))


@contextlib.contextmanager
def _told(what: str, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turns the errors of a store into one kind, with the URL: each package of a protocol has its own."""
    try:
        yield
    except (PlanError, FileExistsError):
        raise
    except Exception as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else f"{error}"
        raise kind(f"{what}: {reason or type(error).__name__}") from error


@contextlib.contextmanager
def _named(own: Job, job: Job) -> Iterator[None]:
    """Puts the URLs of a job in the place of its copies in an error."""
    copies = {str(own.source): job.origin, str(own.target): job.place}

    def renamed(text: str) -> str:
        for copy, url in copies.items():
            text = text.replace(copy, url)
        return text

    try:
        yield
    except ValueError as error:
        raise ValueError(renamed(str(error))) from error
    except OSError as error:
        if error.errno is None:
            raise OSError(renamed(str(error))) from error
        name = () if error.filename is None else (renamed(str(error.filename)),)
        raise OSError(error.errno, error.strerror, *name) from error


def _protocol(url: str) -> str:
    return url.split("://", 1)[0]


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()
