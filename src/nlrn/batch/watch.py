"""The run that does not end: what arrives in folders is restored as soon as it is complete.

The folders are looked through again and again, which works on every file system, network drives too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..restoration import Restorer
from .events import Event, Failed, Skipped
from .file_options import FileOptions
from .job import Job, PlanError
from .journal import Journal
from .plan import find_sources, result_name
from .run import run_batch

# Seconds between two looks; a look never takes more than a tenth of the time.
INTERVAL = 1.0
# Seconds for which a file must stay as it is to count as complete.
SETTLED_AFTER = 2.0
# Seconds after which a file is tried again for which the disk had no room.
ROOM_AFTER = 60.0

State = tuple[int, int]  # size and time of change of a file


@dataclass
class Arrivals:
    """The files in folders that are complete, each once for every state in which it is left alone.

    Args:
        folders: that are watched.
        output: the folder of the results.
        recursive: whether subfolders are watched too.
        on_note: called with a sentence when a folder goes away or cannot be read.
        format: of results, by default that of their inputs.
    """

    folders: Sequence[str]
    output: str
    recursive: bool
    on_note: Callable[[str], None]
    format: str | None = None
    _seen: dict[Path, tuple[State, float]] = field(default_factory=dict)  # and since when
    _handled: dict[Path, State] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)

    def look(self, now: float) -> list[Job]:
        """The files that are complete and have not been returned as they are now.

        Args:
            now: seconds on a clock that never goes back.
        """
        found = self._find()
        seen: dict[Path, tuple[State, float]] = {}
        for source in found:
            try:
                status = source.stat()
            except OSError:  # gone meanwhile
                continue
            state = (status.st_size, status.st_mtime_ns)
            before = self._seen.get(source)
            seen[source] = before if before is not None and before[0] == state else (state, now)
        self._seen = seen
        self._handled = {source: state for source, state in self._handled.items() if source in seen}
        complete = [
            source
            for source, (state, since) in seen.items()
            if now - since >= SETTLED_AFTER and self._handled.get(source) != state
        ]
        self._handled |= {source: seen[source][0] for source in complete}
        folder = Path(self.output)
        names = {source: result_name(source, "", self.format) for source in complete}
        return [Job(source, folder / found[source] / name) for source, name in names.items()]

    def forget(self, job: Job) -> None:
        """Lets a file be returned once more."""
        if job.source != "-":
            self._handled.pop(job.source, None)

    def _find(self) -> dict[Path, Path]:
        """The images in the folders, each with its place in the folder."""
        found: dict[Path, Path] = {}
        for folder in self.folders:
            if not os.path.isdir(folder):
                self._miss(folder, f"the folder {folder} is not there; waiting for it")
                continue
            try:
                found |= find_sources([folder], self.output, self.recursive)
            except PlanError as error:
                if isinstance(error.__cause__, OSError):
                    self._miss(folder, f"{error}; waiting for it")
                    continue
                # No images yet.
            self._gone.discard(folder)
        return found

    def _miss(self, folder: str, note: str) -> None:
        """Says once that a folder cannot be looked through."""
        if folder not in self._gone:
            self._gone.add(folder)
            self.on_note(note)


def watch(
    arrivals: Arrivals,
    restorer: Restorer,
    options: FileOptions,
    journal: Journal,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Restores files as they arrive, without an end; an event for each.

    A file that fails is tried again when it changes, and one for which the disk has no room after a minute. What an
    earlier run has done is left out, and so is what another one is doing, until that one ends.

    Args:
        arrivals: the files.
        restorer: restores all of them.
        options: of the files.
        journal: what is done and what others are doing.
        sleep: waits for so many seconds.
    """
    left: set[Path] = set()  # to other runs
    while True:
        began = time.monotonic()
        jobs = arrivals.look(began)
        pause = max(INTERVAL, 10 * (time.monotonic() - began))
        for job in jobs:
            assert job.source != "-"
            event = _restored(job, restorer, options, journal)
            if isinstance(event, Skipped) and event.elsewhere:
                arrivals.forget(job)
                if job.source in left:
                    continue
                left.add(job.source)
            else:
                left.discard(job.source)
            yield event
            if isinstance(event, Failed) and event.no_room:
                arrivals.forget(job)
                pause = ROOM_AFTER
                break
        sleep(pause)


def _restored(job: Job, restorer: Restorer, options: FileOptions, journal: Journal) -> Event:
    """Restores a file whose target no file of another name has."""
    assert job.source != "-"
    assert job.target != "-"
    owner = journal.source_of(job)
    if owner not in (None, job.source.name):
        return Failed(
            job, ValueError(f"{job.target} is the result of {owner}; give one of them another name")
        )
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Failed(job, error)
    (event,) = run_batch((job,), restorer, options, journal=journal)
    return event
