"""Watched folders: what arrives, when it is complete, and what goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nlrn.batch import watch as watching
from nlrn.batch.events import Event, Failed, Restored, Skipped
from nlrn.batch.file_options import FileOptions
from nlrn.batch.job import Job, PlanError
from nlrn.batch.journal import Journal
from nlrn.batch.watch import ROOM_AFTER, SETTLED_AFTER, Arrivals, watch
from nlrn.files.images import Image, encode_image, read_image
from nlrn.restoration import Restorer

PICTURE = encode_image(Image(np.arange(64, dtype=np.uint8).reshape(8, 8)), "PNG")
OTHER = encode_image(Image(np.full((9, 9), 7, np.uint8)), "PNG")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path


def arrivals(notes: list[str] | None = None, *, output: str = "out", recursive: bool = False) -> Arrivals:
    return Arrivals(["in"], output, recursive, [].append if notes is None else notes.append)


def names(found: Arrivals, now: float) -> list[str]:
    return [job.source.name for job in found.look(now)]


def test_a_file_is_complete_when_it_stays_as_it_is(folder: Path):
    found, source = arrivals(), folder / "in" / "a.png"
    assert names(found, 0) == []
    source.write_bytes(PICTURE[:20])
    assert names(found, 1) == []
    source.write_bytes(PICTURE)
    assert names(found, 1 + SETTLED_AFTER) == []
    assert names(found, 1 + 2 * SETTLED_AFTER) == ["a.png"]
    assert names(found, 100) == []
    os.utime(source, ns=(1, 1))
    assert names(found, 101) == []
    assert names(found, 101 + SETTLED_AFTER) == ["a.png"]
    source.unlink()
    assert names(found, 200) == []
    source.write_bytes(PICTURE)
    os.utime(source, ns=(1, 1))
    assert names(found, 201) == []
    assert names(found, 201 + SETTLED_AFTER) == ["a.png"]  # it came again


def test_subfolders_and_results_within(folder: Path):
    for place in ("in/a.png", "in/b/c.png", "in/out/d.png", "in/.hidden.png", "in/text.txt"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(PICTURE)
    flat, deep = arrivals(output="in/out"), arrivals(output="in/out", recursive=True)
    assert names(flat, 0) == names(deep, 0) == []
    assert names(flat, 9) == ["a.png"]
    assert [str(job.target) for job in deep.look(9)] == ["in/out/a.png", "in/out/b/c.png"]


def test_a_folder_that_cannot_be_read_is_named_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    notes: list[str] = []
    found = arrivals(notes)
    (folder / "in" / "a.png").write_bytes(PICTURE)

    def refuse(*arguments: object) -> dict[Path, Path]:
        raise PlanError("in: Permission denied") from PermissionError()

    with monkeypatch.context() as patched:
        patched.setattr(watching, "find_sources", refuse)
        assert names(found, 0) == names(found, 1) == []
    assert notes == ["in: Permission denied; waiting for it"]
    assert names(found, 2) == []
    assert names(found, 9) == ["a.png"]


def test_a_folder_that_goes_away_is_waited_for(folder: Path):
    notes: list[str] = []
    found = arrivals(notes)
    shutil.rmtree(folder / "in")
    assert names(found, 0) == names(found, 1) == []
    assert notes == ["the folder in is not there; waiting for it"]
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(PICTURE)
    assert names(found, 2) == []
    assert names(found, 9) == ["a.png"]
    shutil.rmtree(folder / "in")
    assert names(found, 10) == []
    assert len(notes) == 2


class Steps:
    """The waiting of `watch`, in which things happen, one after the other, and then Ctrl-C."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps, self.pauses = iter(steps), []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        step = next(self._steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Event]]:
    """Watches through the steps, and returns the events."""
    monkeypatch.setattr(watching, "SETTLED_AFTER", 0.0)
    restorer = Restorer("gaussian")

    def run(*steps: Callable[[], object], wait: Steps | None = None, **options: bool) -> list[Event]:
        (folder / "out").mkdir(exist_ok=True)
        with Journal(folder / "out", {"sigma": 20}, resume=True) as journal:
            events = watch(
                arrivals(**options),
                restorer,
                FileOptions(20.0, 95, False),
                journal,
                sleep=wait or Steps(*steps),
            )
            return list(until_interrupted(events))

    return run


def until_interrupted(events: Iterator[Event]) -> Iterator[Event]:
    try:
        yield from events
    except KeyboardInterrupt:
        return


def put(folder: Path, name: str, data: bytes = PICTURE) -> Callable[[], object]:
    def write() -> None:
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).write_bytes(data)

    return write


def test_what_arrives_is_restored_and_bad_files_are_survived(run, folder: Path):
    events = run(
        put(folder, "a.png"),
        put(folder, "bad.png", b"no picture"),
        put(folder, "sub/b.png"),
        put(folder, "bad.png"),  # now it is good
        lambda: None,
        recursive=True,
    )
    assert [(type(event), event.job.source.name) for event in events] == [
        (Restored, "a.png"),
        (Failed, "bad.png"),
        (Restored, "b.png"),
        (Restored, "bad.png"),
    ]
    assert sorted(path.name for path in (folder / "out").rglob("*.png")) == ["a.png", "b.png", "bad.png"]
    assert run(put(folder, "c.png"))[-1].job.source.name == "c.png"


def test_a_later_run_leaves_out_what_is_done_and_takes_up_what_has_changed(run, folder: Path):
    run(put(folder, "a.png"), put(folder, "b.png"))
    before = (folder / "out" / "b.png").read_bytes()
    put(folder, "b.png", OTHER)()
    events = run()
    assert [type(event) for event in events] == [Skipped, Restored]
    assert (folder / "out" / "b.png").read_bytes() != before


def test_a_file_that_changes_while_it_is_restored_is_restored_again(run, folder: Path, monkeypatch):
    whole = Restorer.image

    def image(self, *arguments):
        monkeypatch.setattr(Restorer, "image", whole)
        put(folder, "a.png", OTHER)()
        return whole(self, *arguments)

    monkeypatch.setattr(Restorer, "image", image)
    events = run(put(folder, "a.png"), lambda: None)
    assert [type(event) for event in events] == [Restored, Restored]
    assert read_image(folder / "out" / "a.png").pixels.shape == (9, 9)


def test_two_files_of_one_target(run, folder: Path):
    """A PPM becomes a PNG."""
    first = run(put(folder, "a.png"))
    before = (folder / "out" / "a.png").read_bytes()
    assert [type(event) for event in first] == [Restored]
    (event,) = run(put(folder, "a.ppm", b"P5 1 1 255 a"))[1:]
    assert isinstance(event, Failed)
    assert str(event.error) == "out/a.png is the result of a.png; give one of them another name".replace(
        "out/a.png", str(event.job.target)
    )
    assert (folder / "out" / "a.png").read_bytes() == before


def test_a_full_disk_is_waited_for(run, folder: Path, monkeypatch):
    sync = os.fsync

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        put(folder, "a.png")()
        put(folder, "b.png")()
        monkeypatch.setattr(os, "fsync", full)

    wait = Steps(fill, lambda: monkeypatch.setattr(os, "fsync", sync))
    events = run(wait=wait)
    assert [type(event) for event in events] == [Failed, Restored]
    assert wait.pauses[1] == ROOM_AFTER
    monkeypatch.setattr(os, "fsync", sync)
    assert len(run()) == 2


def test_what_another_run_has_taken_is_left_to_it(run, folder: Path):
    put(folder, "a.png")()
    (folder / "out").mkdir()
    other = Journal(folder / "out", {"sigma": 20}, resume=True)
    other.claim(Job(Path("in/a.png"), Path("out/a.png")))
    events = run(lambda: None, lambda: None, other.close)
    assert [type(event) for event in events] == [Skipped, Restored]
    assert events[0].elsewhere
