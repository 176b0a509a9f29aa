"""Batches on the command line: resumed, shared, in parts, in processes, foreseen, and reported as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nlrn.files.images import Image, write_image

COMMAND = [sys.executable, "-m", "nlrn"]


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of two sizes and colours, one of them damaged."""
    rng = np.random.default_rng(0)
    for number in range(12):
        shape = ((40, 56), (40, 56, 3), (33, 21))[number % 3]
        path = tmp_path / "in" / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(rng.integers(0, 256, shape, dtype=np.uint8)), path)
    (tmp_path / "in" / "a" / "1.png").write_bytes(b"not a picture")
    return tmp_path


def results(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*.png") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def arguments(model: Path, *more: object, out: str = "out") -> list[str]:
    return [
        *("denoise", "in", "-r", "-o", out, "--sigma", "20", "--model", str(model), "--device", "cpu"),
        *map(str, more),
    ]


def test_processes_shards_and_order_change_nothing(nlrn, folder, tiny_grey):
    assert nlrn(*arguments(tiny_grey, out="one")).code == 3
    expected = results(folder / "one")
    assert len(expected) == 11
    outcome = nlrn(*arguments(tiny_grey, "--jobs", 2, out="two"))
    assert outcome.code == 3
    assert "11 of 12 files restored" in outcome.err
    assert outcome.err.count("failed: in/a/1.png") == 1
    assert results(folder / "two") == expected
    for part in range(3):
        assert nlrn(*arguments(tiny_grey, "--shard", f"{part}/3", out="parts")).code in (0, 3)
    assert results(folder / "parts") == expected


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_the_script_of_a_slurm_array(nlrn, folder, tiny_grey):
    """That of the documentation, as three processes at once in place of sixteen jobs."""
    page = (Path(__file__).parents[2] / "docs" / "batches.md").read_text()
    (script,) = (block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "#SBATCH" in block)
    assert "#SBATCH --array=0-15" in script
    assert "$SLURM_ARRAY_TASK_ID/16" in script
    run = f"{shlex.join(COMMAND)} denoise in -r -o out --sigma 20 --model {shlex.quote(str(tiny_grey))} "
    script = re.sub(r"^nlrn .*? --sigma 12 ", run, script.replace("/16", "/3"), flags=re.MULTILINE)
    assert run in script
    jobs = [
        subprocess.Popen(["sh", "-c", script], cwd=folder, env={**os.environ, "SLURM_ARRAY_TASK_ID": str(i)})
        for i in range(3)
    ]
    assert sorted(job.wait(timeout=120) for job in jobs) == [0, 0, 3]  # one has the damaged file
    nlrn(*arguments(tiny_grey, out="whole"))
    assert results(folder / "out") == results(folder / "whole")
    assert len(results(folder / "out")) == 11


def test_resume_refuses_other_options_and_takes_up_changed_inputs(nlrn, folder, tiny_grey):
    nlrn(*arguments(tiny_grey))
    before = results(folder / "out")
    outcome = nlrn(*arguments(tiny_grey, "--resume", "--strength", 0.5))
    assert outcome.code == 2
    assert "begun with other options (strength was 1.0 and is 0.5)" in outcome.err
    write_image(Image(np.full((20, 20), 9, np.uint8)), folder / "in" / "b" / "0.png", overwrite=True)
    write_image(Image(np.full((20, 20), 9, np.uint8)), folder / "in" / "b" / "new.png")
    outcome = nlrn(*arguments(tiny_grey, "--resume"))
    assert "2 of 13 files restored" in outcome.err
    after = results(folder / "out")
    assert {name for name, digest in after.items() if before.get(name) != digest} == {"b/0.png", "b/new.png"}


def test_resume_never_replaces_a_file_of_the_user(nlrn, folder, tiny_grey):
    (folder / "out" / "b").mkdir(parents=True)
    (folder / "out" / "b" / "0.png").write_bytes(b"mine")
    outcome = nlrn(*arguments(tiny_grey, "--resume"))
    assert outcome.code == 3
    assert "failed: in/b/0.png: out/b/0.png exists" in outcome.err
    assert (folder / "out" / "b" / "0.png").read_bytes() == b"mine"


def test_two_runs_share_a_folder(nlrn, folder, tiny_grey):
    nlrn(*arguments(tiny_grey, out="whole"))
    runs = [
        subprocess.Popen(
            [*COMMAND, *arguments(tiny_grey, "--resume", "--json")], cwd=folder, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    lines = [json.loads(line) for run in runs for line in run.communicate(timeout=120)[0].splitlines()]
    restored = [line["target"] for line in lines if line["event"] == "restored"]
    assert len(restored) == len(set(restored)) == 11
    assert results(folder / "out") == results(folder / "whole")


def test_a_worker_that_dies_takes_no_other_file_with_it(nlrn, folder, tiny_grey, tmp_path, monkeypatch):
    """A model that kills its process at one image: here the tallest one."""
    write_image(Image(np.zeros((97, 8), np.uint8)), folder / "in" / "b" / "deadly.png")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'multiprocessing.spawn' in ' '.join(sys.argv) or '--multiprocessing-fork' in sys.argv:\n"
        "    from nlrn.restoration import Restorer\n"
        "    whole = Restorer.image\n"
        "    def image(self, image, *more):\n"
        "        if image.pixels.shape[0] == 97:\n"
        "            os._exit(1)\n"
        "        return whole(self, image, *more)\n"
        "    Restorer.image = image\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{hooks}:{Path(__file__).parents[2] / 'src'}")
    outcome = nlrn(*arguments(tiny_grey, "--jobs", 2))
    assert outcome.code == 3
    assert "failed: in/b/deadly.png: the process that restored it died" in outcome.err
    assert len(results(folder / "out")) == 11


def test_dry_run_writes_nothing(nlrn, folder, tiny_grey):
    outcome = nlrn(*arguments(tiny_grey, "--dry-run"))
    assert outcome.code == 3
    assert not (folder / "out").exists()
    assert "in/b/0.png -> out/b/0.png (tiny-1" in outcome.err.replace(f"{tiny_grey.parent}/", "")
    assert "sigma 20.0, less than a second)" in outcome.err
    assert "failed: in/a/1.png" in outcome.err
    assert "11 of 12 files would be restored; nothing is written" in outcome.err


def test_json(nlrn, folder, tiny_grey):
    outcome = nlrn(*arguments(tiny_grey, "--json"))
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.err == ""
    assert {line["version"] for line in lines} == {1}
    assert lines[-1]["event"] == "summary"
    assert lines[-1]["files"] == {"restored": 11, "failed": 1}
    (failed,) = (line for line in lines if line["event"] == "failed")
    assert failed["source"] == "in/a/1.png"
    assert "not" in failed["reason"]
    first = next(line for line in lines if line["event"] == "restored")
    assert first.keys() == {
        *("version", "event", "source", "target", "model", "sigma", "estimated", "seconds", "notes", "pages"),
        "megapixels",
        "warnings",
    }
    assert first["sigma"] == pytest.approx(20)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume", "--overwrite"], "--overwrite and --resume contradict each other"),
        (["--shard", "3/3"], "--shard must be I/N with 0 <= I < N"),
        (["--shard", "one"], "--shard must be I/N"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_impossible_options(nlrn, folder, tiny_grey, more, message):
    outcome = nlrn(*arguments(tiny_grey, *more))
    assert outcome.code == 2
    assert message in outcome.err
    assert not (folder / "out").exists()


def test_resume_needs_a_folder(nlrn, folder, tiny_grey):
    outcome = nlrn("denoise", "in/b/0.png", "--resume")
    assert outcome.code == 2
    assert "--resume goes on with a batch in an output folder" in outcome.err


def test_terminated_says_how_to_go_on(folder, tiny_grey):
    write_image(Image(np.zeros((2000, 2000), np.uint8)), folder / "in" / "a" / "0.png")
    rng = np.random.default_rng(1)
    write_image(Image(rng.integers(0, 256, (3000, 3000), dtype=np.uint8)), folder / "in" / "a" / "00.png")
    command = ["denoise", "in", "-r", "-o", "out", "--sigma", "20", "--device", "cpu"]
    process = subprocess.Popen([*COMMAND, *command], cwd=folder, stderr=subprocess.PIPE, text=True)
    while not (folder / "out" / ".nlrn" / "all" / "journal.jsonl").exists():
        time.sleep(0.05)
    while '"taken"' not in (folder / "out" / ".nlrn" / "all" / "journal.jsonl").read_text():
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"to go on: nlrn {' '.join(command)} --resume" in err
