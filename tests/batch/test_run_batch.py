"""The run of a batch: reading, computing and writing overlap, in bounded memory and without losing a file."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from nlrn.batch import one_file
from nlrn.batch import run as running
from nlrn.batch.events import Failed, Restored
from nlrn.batch.file_options import FileOptions
from nlrn.batch.job import Job
from nlrn.batch.journal import Journal
from nlrn.batch.run import run_batch
from nlrn.files.images import Image, read_image, write_image
from nlrn.restoration import Restorer

OPTIONS = FileOptions(20.0, 95, False)
PATIENCE = 20.0


@pytest.fixture
def jobs(tmp_path: Path) -> tuple[Job, ...]:
    found = []
    for number in range(4):
        source = tmp_path / "in" / f"{number}.png"
        source.parent.mkdir(exist_ok=True)
        write_image(Image(np.full((12, 14), 40 * number, np.uint8)), source)
        found.append(Job(source, tmp_path / "out" / source.name))
    (tmp_path / "out").mkdir()
    return tuple(found)


@pytest.fixture
def restorer() -> Restorer:
    return Restorer("gaussian")


class Stages:
    """Notes when the stages of files begin and end, in place of those of the run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, int]] = []
        self.changed = threading.Condition()
        self.before: dict[tuple[str, int], object] = {}  # what happens before a stage begins
        for name in ("read", "compute", "write"):
            monkeypatch.setattr(running, name, self.noted(name, getattr(running, name)))

    def noted(self, name, function):
        def stage(first, *more):
            path = getattr(first, "own", first).target
            number = int(path.stem)
            self.note(name, number)
            self.before.get((name, number), lambda: None)()
            result = function(first, *more)
            self.note(f"{name} done", number)
            return result

        return stage

    def note(self, name: str, number: int) -> None:
        with self.changed:
            self.seen.append((name, number))
            self.changed.notify_all()

    def wait_for(self, name: str, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: (name, number) in self.seen, PATIENCE), (name, number)


def test_the_next_file_is_read_and_the_last_one_written_meanwhile(jobs, restorer, monkeypatch):
    stages = Stages(monkeypatch)
    stages.before["compute", 1] = lambda: stages.wait_for("read done", 2)
    stages.before["write", 0] = lambda: stages.wait_for("compute", 1)
    events = list(run_batch(jobs, restorer, OPTIONS))
    assert [event.job for event in events] == list(jobs)
    assert all(isinstance(event, Restored) for event in events)
    for number, job in enumerate(jobs):
        assert read_image(job.target).pixels[0, 0] == 40 * number
    assert all(event.pixels == 12 * 14 for event in events)


def test_one_file_is_ahead_and_one_behind(jobs, restorer, monkeypatch):
    """However slow the work, no third file is read, and no second result waits."""
    stages = Stages(monkeypatch)
    list(run_batch(jobs, restorer, OPTIONS))
    place = {one: index for index, one in enumerate(stages.seen)}
    for number in range(2):
        assert place["read", number + 2] > place["compute done", number]
        assert place["write", number + 1] > place["write done", number]


def test_a_quick_result_counts_before_the_next_file_begins(jobs, restorer, monkeypatch):
    stages = Stages(monkeypatch)
    monkeypatch.setattr(running, "WAITED", 1e6)
    for number, event in enumerate(run_batch(jobs, restorer, OPTIONS)):
        assert event.job == jobs[number]
        assert ("compute", number + 1) not in stages.seen


def test_a_full_disk_gives_up_what_is_ahead(jobs, restorer, monkeypatch):
    stages = Stages(monkeypatch)

    def full():
        stages.wait_for("compute", 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    stages.before["write", 1] = full
    events = list(run_batch(jobs, restorer, OPTIONS))
    assert [type(event) for event in events] == [Restored, Failed]
    assert ("write", 2) not in stages.seen
    assert [path.name for path in sorted(jobs[0].target.parent.iterdir())] == ["0.png"]


def test_a_bad_file_ahead_takes_its_turn(jobs, restorer):
    jobs[2].source.write_bytes(b"no picture")
    events = list(run_batch(jobs, restorer, OPTIONS))
    assert [type(event) for event in events] == [Restored, Restored, Failed, Restored]
    assert events[2].job == jobs[2]


def test_interrupted_while_a_result_is_written(jobs, restorer, monkeypatch, tmp_path):
    """The result is done, and the journal knows it."""
    stages = Stages(monkeypatch)

    def interrupt():
        raise KeyboardInterrupt

    stages.before["write", 0] = lambda: stages.wait_for("compute", 1)
    stages.before["compute", 1] = interrupt
    with Journal(tmp_path / "out", {}, resume=False) as journal:
        with pytest.raises(KeyboardInterrupt):
            list(run_batch(jobs, restorer, OPTIONS, journal=journal))
        assert journal.claim(jobs[0]) == "done"
        assert journal.claim(jobs[1]) == "again"
    assert read_image(jobs[0].target).pixels.shape == (12, 14)


def test_nothing_of_a_dropped_file_is_published(jobs, restorer, monkeypatch, tmp_path):
    """A URL: the upload would be the last step of its contexts."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    remote = tuple(Job(job.source, job.target, "", f"memory://dropped/{job.target.name}") for job in jobs)
    stages = Stages(monkeypatch)

    def full(*arguments, **options):
        stages.wait_for("compute", 1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(one_file, "write_image", full)
    events = list(run_batch(remote, restorer, OPTIONS))
    assert [type(event) for event in events] == [Failed]
    assert not store.exists("memory://dropped/1.png")
