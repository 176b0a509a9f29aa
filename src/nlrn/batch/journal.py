"""The journal of a batch: a run goes on from what it says is done, and runs share what it says is taken.

It is a file of JSON lines below `.nlrn` in the output folder. The first line has the options with which the batch was
begun. Then come a line when a run takes a file and a line when it is done. A line is synced to the disk before the
next file begins; a line that was cut off does not count. Every run holds a lock file of its own as long as it lives, so
that the files that a dead run had taken are free again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock, Timeout

from ..files.atomic import remove_abandoned
from .job import Job, PlanError

FOLDER, NAME = ".nlrn", "journal.jsonl"
FORMAT = 1
# Seconds in which another run surely has written its line.
PATIENCE = 60.0

Claim = Literal["first", "again", "done", "elsewhere"]


class Journal:
    """The journal in an output folder, as one run sees it; a context manager.

    Args:
        folder: the output folder.
        settings: the options on which results depend, as JSON values by name.
        part: the name of a shard, which has a journal of its own.
        resume: go on with the batch that was begun there, or share it with runs at work; otherwise begin anew.
        overwrite: whether the batch replaces existing files; one that goes on does as it was begun.

    Raises:
        PlanError: another run is at work and `resume` is false, or the batch was begun with other options.
        OSError: a folder that cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        part: str = "all",
        overwrite: bool = False,
    ) -> None:
        self._folder, self._path = folder, folder / FOLDER / part / NAME
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._path.with_suffix(".lock"))
        self._id = secrets.token_hex(8)
        self._own = FileLock(self._file_of(self._id))
        self._read = 0  # bytes of the journal
        self._done: dict[str, dict[str, Any]] = {}
        self._taken: dict[str, str] = {}  # by whom
        self._touched: set[str] = set()  # targets that this batch has begun or written
        # Of the inputs that this run has taken, before they are read.
        self._states: dict[str, dict[str, int]] = {}
        self._begun: dict[str, Any] | None = None
        with self._lock.acquire(PATIENCE):
            self._own.acquire(0)
            try:
                self._start(dict(settings), resume, overwrite)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends this run's part; what it had taken and not done is free again."""
        self._own.release()
        with contextlib.suppress(OSError):
            self._file_of(self._id).unlink()

    def claim(self, job: Job) -> Claim:
        """Takes a file for this run.

        Returns:
            `"first"`, or `"again"` where the target may be replaced: the batch overwrites, or has begun it before;
            `"done"` where the result is there and the input has not changed; `"elsewhere"` where another run has it.

        Raises:
            OSError: an input that is gone, or a journal that cannot be written.
        """
        assert job.source != "-"
        key = self._key(job)
        with self._lock.acquire(PATIENCE):
            self._catch_up()
            if self._is_done(key, job):
                return "done"
            holder = self._taken.get(key)
            if holder not in (None, self._id) and self._is_alive(str(holder)):
                return "elsewhere"
            self._states[key] = _state_of(job.source)
            again = key in self._touched or (self._begun or {}).get("overwrite", False)
            self._append({"event": "taken", "target": key, "run": self._id})
        return "again" if again else "first"

    def restored(self, job: Job) -> None:
        """Notes that a file is done."""
        assert job.source != "-"
        assert job.target != "-"
        target = job.target.stat()
        entry = {
            "event": "restored",
            "target": self._key(job),
            "bytes": target.st_size,
            "source": str(job.source),
        }
        state = self._states.pop(self._key(job))
        with self._lock.acquire(PATIENCE):
            self._catch_up()
            self._append({**entry, **state})

    def source_of(self, job: Job) -> str | None:
        """The name of the file of which the batch has a result at the target of a job."""
        with self._lock.acquire(PATIENCE):
            self._catch_up()
        entry = self._done.get(self._key(job))
        return None if entry is None else Path(entry["source"]).name

    def failed(self, job: Job, reason: str) -> None:
        """Notes that a file failed; a disk that is full does not end the batch here."""
        entry = {"event": "failed", "target": self._key(job), "source": str(job.source), "reason": reason}
        with contextlib.suppress(OSError), self._lock.acquire(PATIENCE):
            self._catch_up()
            self._append(entry)

    def _start(self, settings: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self._catch_up()
        others = [run for run in self._runs() if run != self._id and self._is_alive(run)]
        if not resume and others:
            raise PlanError(
                f"another run is at work on {self._folder}; with --resume this one shares its batch"
            )
        if not others:
            remove_abandoned(self._folder)
        if not resume or self._begun is None:
            self._path.unlink(missing_ok=True)
            self._read, self._done, self._taken, self._touched = 0, {}, {}, set()
            self._append({"event": "begun", "format": FORMAT, "settings": settings, "overwrite": overwrite})
            return
        if self._begun.get("format") != FORMAT:
            raise PlanError(
                f"{self._path} has format {self._begun.get('format')}, this version reads {FORMAT}"
            )
        before = self._begun["settings"]
        changed = [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]
        if changed:
            listed = ", ".join(
                f"{name} was {_shown(before.get(name))} and is {_shown(settings.get(name))}"
                for name in changed
            )
            raise PlanError(
                f"the batch in {self._folder} was begun with other options ({listed}); "
                "go on with the same, or begin anew without --resume"
            )

    def _key(self, job: Job) -> str:
        """The target within the folder: it does not change with the working folder or a mount."""
        return Path(os.path.relpath(job.target, self._folder)).as_posix()

    def _is_done(self, key: str, job: Job) -> bool:
        entry = self._done.get(key)
        if entry is None:
            return False
        assert job.source != "-"
        assert job.target != "-"
        try:
            state, size = _state_of(job.source), job.target.stat().st_size
        except OSError:
            return False
        return size == entry["bytes"] and all(entry[name] == value for name, value in state.items())

    def _catch_up(self) -> None:
        """Reads the lines that came since the last look."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off by a crash, and ended by the line that came after it
                continue
            self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        key = entry.get("target", "")
        match entry["event"]:
            case "begun":
                self._begun = entry
            case "taken":
                self._taken[key] = entry["run"]
                self._touched.add(key)
                self._done.pop(key, None)
            case "restored":
                self._taken.pop(key, None)
                self._done[key] = entry
            case "failed":
                self._taken.pop(key, None)

    def _append(self, entry: dict[str, Any]) -> None:
        """Writes a line, for which all lines before have been read; the lock is held."""
        line = json.dumps(entry).encode() + b"\n"
        with self._path.open("ab") as file:
            if file.tell() > self._read:  # a line that was cut off
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._read = file.tell()
        self._note(entry)

    def _file_of(self, run: str) -> Path:
        return self._path.with_name(f"run-{run}.lock")

    def _runs(self) -> list[str]:
        return [path.stem.removeprefix("run-") for path in self._path.parent.glob("run-*.lock")]

    def _is_alive(self, run: str) -> bool:
        """True where another run holds its lock; the lock file of a dead one is removed."""
        path = self._file_of(run)
        if not path.exists():
            return False
        lock = FileLock(path)
        try:
            lock.acquire(0)
        except Timeout:
            return True
        lock.release()
        path.unlink(missing_ok=True)
        return False


def _state_of(source: Path) -> dict[str, int]:
    """Size and time of an input, which differ after a change."""
    state = source.stat()
    return {"size": state.st_size, "modified": state.st_mtime_ns}


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
