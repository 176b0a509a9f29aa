"""The run of a batch in several processes, for many small images."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from ..restoration import Restorer
from ..restoration.options import Options
from .events import FILE_ERRORS, Event, Failed, Restored, Skipped
from .file_options import FileOptions
from .job import Job
from .journal import Journal
from .one_file import restore_file
from .run import claimed, recorded

# How often a file is tried in a worker that dies of it.
TRIES = 2

_restorer: Restorer  # of a worker process


def run_in_processes(
    jobs: tuple[Job, ...],
    options: Options,
    files: FileOptions,
    processes: int,
    *,
    journal: Journal | None = None,
) -> Iterator[Event]:
    """Restores files in worker processes, each with its share of the cores; events come as files are done.

    A worker that dies takes no other file with it: its file is tried once more, by itself, and then counts as failed.
    After the first file for which the disk has no room none is begun.

    Args:
        jobs: the files.
        options: of the restorer; the model is a name or a file.
        files: the options of the files.
        processes: number of workers.
        journal: what is done and what others are doing; by default nothing.
    """
    waiting = deque((job, 0) for job in jobs)
    while waiting:
        # After a death, the files that were at hand go one by one: the one that kills is then known.
        alone = waiting[0][1] > 0
        yield from _run_pool(waiting, options, files, 1 if alone else processes, alone, journal)


def _run_pool(
    waiting: deque[tuple[Job, int]],
    options: Options,
    files: FileOptions,
    processes: int,
    alone: bool,
    journal: Journal | None,
) -> Iterator[Event]:
    """Runs what is waiting until it is done, or until a worker dies; then its files wait again, at the front."""
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), _begin, (options, max(1, torch.get_num_threads() // processes))
    )
    running: dict[Future[Restored], tuple[Job, int]] = {}
    died = False
    try:
        while waiting or running:
            while waiting and not died and len(running) < processes + (processes > 1):
                if alone and not waiting[0][1]:
                    if not running:
                        return
                    break
                job, tries = waiting.popleft()
                try:
                    own = claimed(job, files, journal)
                except OSError as error:  # of the journal
                    failed = Failed(job, error)
                    yield failed
                    if failed.no_room:
                        waiting.clear()
                    continue
                if isinstance(own, Skipped):
                    yield own
                    continue
                running[pool.submit(_restore, job, own)] = (job, tries)
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job, tries = running.pop(future)
                event: Event
                try:
                    event = future.result()
                except BrokenProcessPool:
                    died = True
                    if tries + 1 < TRIES:
                        waiting.appendleft((job, tries + 1))
                        continue
                    event = Failed(job, MemoryError("the process that restored it died (too little memory?)"))
                except FILE_ERRORS as error:
                    event = Failed(job, error)
                event = recorded(journal, event)
                yield event
                if isinstance(event, Failed) and event.no_room:
                    waiting.clear()
    finally:
        _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Ends the workers, without waiting for what they are at."""
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def _begin(options: Options, threads: int) -> None:
    """Prepares a worker: Ctrl-C is for the parent, which ends the workers."""
    global _restorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _restorer = Restorer(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    )


def _restore(job: Job, options: FileOptions) -> Restored:
    return restore_file(job, _restorer, options)
