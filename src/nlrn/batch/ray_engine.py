"""The run of a batch on Ray: on the cores of this computer, or on a cluster whose computers share the files.

The driver has the plan and the journal; a task restores one file and writes its result, whole as always. A task whose
worker is lost is tried again, unless its result is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import remove_abandoned
from ..inference.devices import pick_device
from ..restoration import Restorer
from ..restoration.options import Options
from ..version import __version__
from .events import FILE_ERRORS, Event, Failed, Restored, Skipped
from .file_options import FileOptions
from .job import Job, PlanError, is_remote
from .journal import Journal
from .one_file import restore_file
from .remote import exists
from .run import claimed, recorded

# How often a file is tried whose worker is lost: a computer may be taken away more than once.
TRIES = 3

_restorer: Restorer | None = None  # of a worker process


@dataclasses.dataclass(frozen=True)
class _Task:
    """A file that a worker has, and what stood under the name of its result before."""

    job: Job
    tries: int
    before: object


def run_on_ray(
    jobs: tuple[Job, ...],
    options: Options,
    files: FileOptions,
    *,
    address: str | None = None,
    processes: int = 1,
    journal: Journal | None = None,
) -> Iterator[Event]:
    """Restores files in tasks of Ray; events come as files are done.

    A file whose worker is lost is done again, up to three times, unless the worker had written its result. After the
    first file for which the disk has no room none is begun.

    Args:
        jobs: the files; none is standard input or output.
        options: of the restorer; the model is a name or a file that all computers see.
        files: the options of the files.
        address: of a cluster; by default Ray is started on this computer, and ended with the batch.
        processes: number of tasks that share the cores of a computer.
        journal: what is done and what others are doing; by default nothing.

    Raises:
        PlanError: Ray is not installed, the cluster is not there or has another version of nlrn.
    """
    with _cluster(address) as ray:
        # Ray's memory of results is small change: a report each.
        threads, places = _shares(ray, processes)
        needs = {
            "num_cpus": threads,
            "num_gpus": int(pick_device(options.device).type == "cuda"),
            "max_retries": 0,
        }
        task = ray.remote(**needs)(_restore)
        settings = ray.put((_everywhere(options), __version__, threads))
        waiting = deque((job, 0) for job in jobs)
        running: dict[Any, _Task] = {}
        while waiting or running:
            while waiting and len(running) <= places:
                job, tries = waiting.popleft()
                own: FileOptions | Event
                try:
                    own = claimed(job, files, journal)
                    before = _state(job)
                except OSError as error:  # of the journal, or of an input that is gone
                    own = Failed(job, error)
                if isinstance(own, FileOptions):
                    running[task.remote(_absolute(job), own, settings)] = _Task(job, tries, before)
                    continue
                yield own
                if isinstance(own, Failed) and own.no_room:
                    waiting.clear()
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            at_hand = running.pop(done[0])
            found = _outcome(ray, done[0], at_hand)
            if found is None:
                waiting.appendleft((at_hand.job, at_hand.tries + 1))
                continue
            event = _noted(found, journal)
            yield event
            if isinstance(event, Failed) and event.no_room:
                waiting.clear()
            _, places = _shares(ray, processes)  # computers come and go


def _outcome(ray: Any, reference: Any, task: _Task) -> Event | None:
    """The event of a file; `None` where it is to be tried again.

    Raises:
        PlanError: what is wrong with the cluster, and not with the file.
    """
    errors = ray.exceptions
    try:
        event: Restored | Failed = ray.get(reference)
        return dataclasses.replace(event, job=task.job)
    except (
        errors.WorkerCrashedError,
        errors.OutOfMemoryError,
        errors.NodeDiedError,
        errors.ObjectLostError,
    ):
        if not task.job.staged:
            remove_abandoned(Path(task.job.target).parent)
        after = _state(task.job)
        if after is not None and after != task.before:  # lost between its result and its report
            return Skipped(task.job, elsewhere=False)
        if task.tries + 1 < TRIES:
            return None
        lost = f"{TRIES} workers that restored it were lost (too little memory?)"
        return Failed(task.job, MemoryError(lost))
    except errors.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PlanError(f"Ray cannot go on: {lines[-1].strip()}") from error


def _noted(event: Event, journal: Journal | None) -> Event:
    """`recorded`, where a result of a lost worker counts as restored."""
    if journal is None or not isinstance(event, Skipped):
        return recorded(journal, event)
    try:
        journal.restored(event.job)
    except OSError as error:
        return Failed(event.job, error)
    return event


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or started here; in the end the workers of this batch end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    # The setting that Ray will have, without the warning of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise PlanError("--engine ray needs Ray: pip install 'nlrn[ray]'") from error
    before = signal.getsignal(signal.SIGTERM)
    own = {} if address else {"num_cpus": torch.get_num_threads(), "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PlanError(f"cannot reach Ray{f' at {address}' if address else ''}: {reason}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray has one of its own
    try:
        # Ray prints what it has to say of workers, and standard output is for reports.
        with contextlib.redirect_stdout(sys.stderr):
            yield ray
    finally:
        ray.shutdown()


def _shares(ray: Any, processes: int) -> tuple[int, int]:
    """The cores of a task, so many of which share the smallest computer, and how many tasks the cluster holds."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cores = [count for count in cores if count]
    if not cores:
        raise PlanError("the Ray cluster has no cores")
    threads = max(1, min(cores) // processes)
    return threads, sum(count // threads for count in cores)


def _restore(job: Job, files: FileOptions, settings: tuple[Options, str, int]) -> Restored | Failed:
    """Restores a file in a worker, which keeps the models for the next one."""
    global _restorer
    options, version, threads = settings
    if version != __version__:
        raise RuntimeError(f"the driver has nlrn {version}, and a worker has {__version__}")
    torch.set_num_threads(threads)
    if _restorer is None or _restorer.options != options:
        _restorer = Restorer(
            **{field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        )
    try:
        return restore_file(job, _restorer, files)
    except FILE_ERRORS as error:
        return Failed(job, error)


def _everywhere(options: Options) -> Options:
    """The options with the whole path of a weight file."""
    name = options.model_name
    if name is None or not Path(name).is_file():
        return options
    return dataclasses.replace(options, model=Path(name).absolute())


def _absolute(job: Job) -> Job:
    """The job with whole paths: a worker has a working folder of its own."""
    source = job.source if is_remote(job.origin) else Path(job.source).absolute()
    target = job.target if is_remote(job.place) else Path(job.target).absolute()
    return dataclasses.replace(job, source=source, target=target)


def _state(job: Job) -> object:
    """A mark of the file under the name of a result, to be compared later; `None` for no file."""
    if is_remote(job.place):
        return True if exists(job.place) else None
    try:
        found = os.stat(job.target)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
