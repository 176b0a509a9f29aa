"""The run of a batch: an event for each file, whether it was restored or not.

The next file is read while one is restored, and the last one is written meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ..files.image import Image
from ..inference import Progress
from ..restoration import Restorer
from .events import FILE_ERRORS, Event, Failed, Restored, Skipped
from .file_options import FileOptions
from .job import Job
from .journal import Journal
from .one_file import Opened, Unwritten, compute, read, write

Result = TypeVar("Result")

# For this share of the time of a computation its writing is waited for, so that the file counts as done at once.
WAITED = 0.01
# Seconds that an interrupted run gives to the file that is being written.
LAST_SECONDS = 3.0


def claimed(job: Job, options: FileOptions, journal: Journal | None) -> FileOptions | Skipped:
    """The options for a job that this run takes on, or a `Skipped` for one that it does not."""
    if journal is None:
        return options
    claim = journal.claim(job)
    if claim in ("done", "elsewhere"):
        return Skipped(job, claim == "elsewhere")
    return dataclasses.replace(options, overwrite=options.overwrite or claim == "again")


def run_batch(
    jobs: tuple[Job, ...],
    restorer: Restorer,
    options: FileOptions,
    *,
    journal: Journal | None = None,
    progress: Progress | None = None,
    on_start: Callable[[int, Job], None] = lambda index, job: None,
    on_read: Callable[[Image, int], None] = lambda image, pages: None,
) -> Iterator[Event]:
    """Restores one file after the other in this process, up to the first for which the disk has no room.

    One file is read ahead and one is written behind, so that memory holds three at most. Events come in the order of
    the jobs; that of a file may come after the next one has begun.

    Args:
        jobs: the files.
        restorer: restores all of them.
        options: of the files.
        journal: what is done and what others are doing; by default nothing.
        progress: called with the fraction of a file that is done.
        on_start: called with the place of a job in the batch before it begins.
        on_read: called with the first page of each file and their number before it is restored.
    """
    events = _in_turn(jobs, restorer, options, journal, progress, on_start, on_read)
    with contextlib.closing(events):
        for event in events:
            yield event
            if isinstance(event, Failed) and event.no_room:
                return


def _in_turn(
    jobs: tuple[Job, ...],
    restorer: Restorer,
    options: FileOptions,
    journal: Journal | None,
    progress: Progress | None,
    on_start: Callable[[int, Job], None],
    on_read: Callable[[Image, int], None],
) -> Generator[Event, None, None]:
    """`run_batch` to its end, or until it is closed."""
    ahead: Future[Opened] | Event | None = None
    behind: tuple[Job, Future[Restored]] | None = None
    done: Unwritten | Event | None = None
    try:
        for index, job in enumerate(jobs):
            last = index + 1 == len(jobs)
            on_start(index, job)
            # A file that is alone may be standard input, which is read here: Ctrl-C then ends it.
            current = ahead or _begin(job, restorer, options, journal, aside=False)
            ahead = None if last else _begin(jobs[index + 1], restorer, options, journal, aside=True)
            started = time.perf_counter()
            done = _computed(job, current, restorer, progress, on_read)
            seconds = time.perf_counter() - started
            if behind is not None:
                event, behind = _settled(*behind, journal), None
                yield event
            if isinstance(done, Unwritten):
                behind, done = (job, _call(write, done, aside=not last)), None
                if last or wait([behind[1]], WAITED * seconds).done:
                    event, behind = _settled(*behind, journal), None
                    yield event
            else:
                yield recorded(journal, done)
    finally:
        if isinstance(ahead, Future):
            ahead.add_done_callback(_drop)
        if isinstance(done, Unwritten):
            done.drop()
        if behind is not None and wait([behind[1]], LAST_SECONDS).done:
            _settled(*behind, journal)


def _begin(
    job: Job, restorer: Restorer, options: FileOptions, journal: Journal | None, *, aside: bool
) -> Future[Opened] | Event:
    """A file that is being read, or what became of it where this run does not take it on."""
    try:
        own = claimed(job, options, journal)
    except OSError as error:  # of an input that is gone, or of the journal
        return Failed(job, error)
    return own if isinstance(own, Skipped) else _call(read, job, restorer, own, aside=aside)


def _computed(
    job: Job,
    current: Future[Opened] | Event,
    restorer: Restorer,
    progress: Progress | None,
    on_read: Callable[[Image, int], None],
) -> Unwritten | Event:
    """A file that was restored, or what became of it otherwise."""
    if not isinstance(current, Future):
        return current
    try:
        opened = current.result()
        on_read(opened.first, len(opened.pages))
        return compute(opened, restorer, progress)
    except FILE_ERRORS as error:
        return Failed(job, error)


def _settled(job: Job, writing: Future[Restored], journal: Journal | None) -> Event:
    """The event of a file whose result is being written."""
    event: Event
    try:
        event = writing.result()
    except FILE_ERRORS as error:
        event = Failed(job, error)
    return recorded(journal, event)


def _drop(reading: Future[Opened]) -> None:
    """Closes a file that was read in vain."""
    if reading.exception() is None:
        reading.result().drop()


def _call(function: Callable[..., Result], *arguments: Any, aside: bool) -> Future[Result]:
    """The result of a call; `aside` in a thread that does not keep the process from ending."""
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            if not aside and not isinstance(error, FILE_ERRORS):
                raise
            future.set_exception(error)

    if aside:
        threading.Thread(target=call, daemon=True).start()
    else:
        call()
    return future


def recorded(journal: Journal | None, event: Event) -> Event:
    """Writes an event to the journal; a result that it has no room for counts as failed, and is done again."""
    if journal is None:
        return event
    try:
        if isinstance(event, Restored):
            journal.restored(event.job)
        elif isinstance(event, Failed):
            journal.failed(event.job, str(event.error))
    except OSError as error:
        return Failed(event.job, error)
    return event
