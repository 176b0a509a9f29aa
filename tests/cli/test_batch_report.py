"""What a batch says of itself: the progress bar, the summary and the log file."""

from __future__ import annotations

import datetime
import io

import numpy as np
import pytest
from rich.console import Console

from nlrn.batch.events import Failed
from nlrn.batch.job import Job
from nlrn.cli import progress_bar
from nlrn.cli.batch_report import logged
from nlrn.files.images import Image, write_image

COMMAND = ("denoise", "in", "-o", "out", "--model", "gaussian", "--sigma", 20)


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one of them damaged."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        write_image(Image(np.full((40, 50), 90, np.uint8)), tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.png").write_bytes(b"not a picture")
    return tmp_path


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_the_bar_counts_files_pixels_and_failures(monkeypatch):
    now = iter(float(second) for second in range(0, 1000, 10))
    monkeypatch.setattr(progress_bar.time, "perf_counter", lambda: next(now))  # 10 s each
    screen = io.StringIO()
    bar = progress_bar.ProgressBar(Console(file=screen, force_terminal=True, width=100), 4)
    bar.file(0, "a.png")
    bar.pixels = 12_000_000
    bar.done(1, "a.png", 12_000_000)
    bar.done(2, "b.png", failed=True)
    bar.file(2, "c.png")
    bar.pixels = 8_000_000
    bar.progress(0.5)
    (task,) = bar._bar.tasks
    so_far, done = task.fields["so_far"], task.completed
    bar.close()
    # The clock was read for each update: for its start, for the rate.
    assert task.description == "3/4 c.png"
    assert so_far.startswith(", 16.0 MP, ")
    assert so_far.endswith(" MP/s, 1 failed")
    assert float(so_far.split(", ")[2].split()[0]) == pytest.approx(16 / (next(now) - 10), rel=0.1)
    assert done == pytest.approx(2.5 / 4)


def test_a_result_that_comes_late_does_not_set_the_bar_back(monkeypatch):
    """The next file is at hand while one is written."""
    monkeypatch.setattr(progress_bar, "PROGRESS_AFTER_SECONDS", 0)
    bar = progress_bar.ProgressBar(Console(file=io.StringIO(), force_terminal=True, width=100), 4)
    bar.file(1, "b.png")
    bar.progress(0.5)
    bar.done(1, "a.png", 1_000_000)
    assert bar._bar.tasks[0].completed == pytest.approx(1.5 / 4)
    assert bar._bar.tasks[0].description == "2/4 b.png"
    assert bar._bar.tasks[0].fields["so_far"].startswith(", 1 MP, ")
    bar.close()


def test_figures_stay_on_a_narrow_terminal(monkeypatch):
    """Of a long name the end is left out, and nothing else."""
    monkeypatch.setattr(progress_bar, "PROGRESS_AFTER_SECONDS", 0)
    screen = io.StringIO()
    bar = progress_bar.ProgressBar(Console(file=screen, force_terminal=True, width=80), 40)
    bar.file(1, "a folder of a long name/" * 5 + "b.png")
    bar.pixels = 12_000_000
    bar.progress(0.5)
    bar.done(2, "b.png", failed=True)
    bar.close()
    assert "5%, 0 MP, 0 MP/s, 1 failed" in screen.getvalue()


def test_the_summary_has_megapixels_and_failures(nlrn, folder):
    outcome = nlrn(*COMMAND)
    assert outcome.code == 3
    assert "2 of 3 files restored in" in outcome.err
    assert "(0.004 megapixels, " in outcome.err
    assert " a second), 1 failed" in outcome.err


def test_a_log_has_a_line_for_each_file_and_grows(nlrn, folder):
    before = datetime.datetime.now().astimezone() - datetime.timedelta(seconds=1)
    assert nlrn(*COMMAND, "--log", "batch.log").code == 3
    first = rows(folder / "batch.log")
    assert [row[1] for row in first] == ["restored", "failed", "restored"]
    assert [row[3:5] for row in first] == [[f"in/{n}.png", f"out/{n}.png"] for n in "abc"]
    assert float(first[0][2]) >= 0
    assert first[1][2] == "-"
    assert "not an image" in first[1][5] or "in/b.png" in first[1][5]
    assert before <= datetime.datetime.fromisoformat(first[0][0]) <= datetime.datetime.now().astimezone()
    assert nlrn(*COMMAND, "--log", "batch.log", "--resume", "--jobs", 2).code == 3
    again = rows(folder / "batch.log")
    assert again[:3] == first
    assert sorted(row[1] for row in again[3:]) == ["done", "done", "failed"]


def test_a_line_of_the_log_is_on_the_disk_before_the_next_file(tmp_path):
    job = Job(tmp_path / "a\tb\n.png", tmp_path / "out.png")
    log = (tmp_path / "log").open("a")
    events = logged(iter([Failed(job, ValueError("one\ttwo")), Failed(job, ValueError("x"))]), log)
    next(events)
    (row,) = rows(tmp_path / "log")
    assert row[3].endswith(r"a\tb\n.png")
    assert row[5] == "one two"
    log.close()


def test_a_log_that_cannot_be_written_any_more_is_named_once(tmp_path, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    job = Job(tmp_path / "a.png", tmp_path / "b.png")
    events = list(logged(iter([Failed(job, ValueError("x"))] * 3), Full()))
    assert len(events) == 3
    err = capsys.readouterr().err
    assert err.count("the log ends here, the batch goes on: No space left on device") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--log", "in/a.png"], "--log names a text file, and in/a.png has the suffix of an image"),
        (["--log", "no/such/folder.log"], "No such file or directory: no/such/folder.log"),
        (["--log", "x.log", "--dry-run"], "--dry-run and --log contradict each other"),
    ],
)
def test_impossible_logs(nlrn, folder, more, message):
    content = (folder / "in" / "a.png").read_bytes()
    outcome = nlrn(*COMMAND, *more)
    assert outcome.code == 2
    assert message in outcome.err
    assert (folder / "in" / "a.png").read_bytes() == content
    assert list((folder / "out").rglob("*.png")) == []
