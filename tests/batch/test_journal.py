"""The journal of a batch: what is done, what others have, what a crash leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nlrn.batch.job import Job, PlanError
from nlrn.batch.journal import Journal
from nlrn.files.atomic import temporary_beside

SETTINGS = {"sigma": 25.0, "model": None}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"input")
    return Job(tmp_path / "in" / "a.png", tmp_path / "out" / "a.png")


def begin(job: Job, *, resume: bool = False, **settings: object) -> Journal:
    return Journal(job.target.parent, SETTINGS | settings, resume=resume)


def lines(job: Job) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for line in (job.target.parent / ".nlrn" / "all" / "journal.jsonl").read_text().splitlines()
    ]


def restore(journal: Journal, job: Job, content: bytes = b"result") -> None:
    job.target.write_bytes(content)
    journal.restored(job)


def test_what_is_done_is_not_done_again(job: Job):
    with begin(job) as journal:
        assert journal.claim(job) == "first"
        restore(journal, job)
        assert journal.claim(job) == "done"
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "done"
    with begin(job) as journal:
        assert journal.claim(job) == "first"


@pytest.mark.parametrize("change", ["input", "output", "no output"])
def test_what_has_changed_is_done_again(job: Job, change: str):
    with begin(job) as journal:
        journal.claim(job)
        restore(journal, job)
    if change == "input":
        os.utime(job.source, (1, 1))
    elif change == "output":
        job.target.write_bytes(b"shorter")
    else:
        job.target.unlink()
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "again"


def test_a_failed_file_is_tried_again(job: Job):
    with begin(job) as journal:
        journal.claim(job)
        journal.failed(job, "damaged")
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "again"
    assert [line["event"] for line in lines(job)] == ["begun", "taken", "failed", "taken"]


def test_two_runs_share_a_folder(job: Job):
    first = begin(job)
    second = begin(job, resume=True)
    assert first.claim(job) == "first"
    assert second.claim(job) == "elsewhere"
    restore(first, job)
    assert second.claim(job) == "done"
    with pytest.raises(PlanError, match="another run is at work"):
        begin(job)
    first.close()
    second.close()
    begin(job).close()


def test_files_of_a_dead_run_are_free(job: Job):
    first = begin(job)
    first.claim(job)
    lock = first._file_of(first._id)
    first._own.release()  # as the system does when a process dies
    lock.touch()
    with begin(job, resume=True) as second:
        assert second.claim(job) == "again"
    assert not lock.exists()


def test_a_line_that_was_cut_off(job: Job):
    with begin(job) as journal:
        journal.claim(job)
        restore(journal, job)
    path = job.target.parent / ".nlrn" / "all" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "again"
        restore(journal, job)
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "done"


def test_other_options_are_named(job: Job):
    begin(job).close()
    with pytest.raises(PlanError, match=r"begun with other options \(sigma was 25.0 and is auto\)"):
        begin(job, resume=True, sigma="auto")
    with pytest.raises(PlanError, match=r"steps was not given and is 4"):
        begin(job, resume=True, steps=4)


def test_another_format_is_refused(job: Job):
    begin(job).close()
    path = job.target.parent / ".nlrn" / "all" / "journal.jsonl"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(PlanError, match="has format 2, this version reads 1"):
        begin(job, resume=True)


def test_temporary_files_of_dead_runs_are_removed(job: Job):
    own, dead = temporary_beside(job.target).name.split("-"), str(2**22 + 1)
    names = {
        "dead": [*own[:2], dead, "01.part"],
        "alive": own,
        "of another computer": [own[0], "0badcafe", dead, "02.part"],
        "of another computer, old": [own[0], "0badcafe", dead, "03.part"],
    }
    paths = {name: job.target.with_name("-".join(parts)) for name, parts in names.items()}
    for path in paths.values():
        path.touch()
    old = time.time() - 2 * 86400
    os.utime(paths["of another computer, old"], (old, old))
    begin(job, resume=True).close()
    assert {name for name, path in paths.items() if path.exists()} == {"alive", "of another computer"}


def test_a_batch_that_overwrites_goes_on_so(job: Job):
    job.target.write_bytes(b"of the user")
    with begin(job) as journal:
        assert journal.claim(job) == "first"
    with Journal(job.target.parent, SETTINGS, resume=False, overwrite=True) as journal:
        assert journal.claim(job) == "again"
    with begin(job, resume=True) as journal:
        assert journal.claim(job) == "again"
