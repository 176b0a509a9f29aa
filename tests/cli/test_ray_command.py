"""Batches on Ray: the results and the journal of other batches, also when a worker is lost."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nlrn.files.images import Image, write_image

COMMAND = [sys.executable, "-m", "nlrn", "denoise", "in", "-r"]
NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray (pip install 'nlrn[ray]')"
)


def pictures(folder: Path, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("a" if number % 2 else "b") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(Image(rng.integers(0, 256, (side, side + number), dtype=np.uint8)), path)


def digests(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and ".nlrn" not in path.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def journal(folder: Path) -> list[dict]:
    lines = (folder / ".nlrn" / "all" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def workers(run: subprocess.Popen, name: str) -> list[int]:
    """Processes of Ray below another one that are at a task."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if not (place / "cmdline").read_bytes().startswith(name.encode()):
                continue
            parents, pid = [], int(place.name)
            while pid > 1:
                pid = int((Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
                parents.append(pid)
        except OSError:
            continue
        if run.pid in parents:
            found.append(int(place.name))
    return found


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_worker_is_killed_in_the_middle(tmp_path, tiny_grey):
    """On two CPUs: its file is done again, none is written twice, and all is as without Ray."""
    pictures(tmp_path / "in", 16, 150)
    (tmp_path / "in" / "b" / "14.png").write_bytes(b"no picture")
    options = ["--sigma", "20", "--model", os.path.relpath(tiny_grey, tmp_path), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ray = [*COMMAND, "-o", "out", *options, "--engine", "ray", "--jobs", "2", "--json"]
    lines, killed = [], []
    with subprocess.Popen(ray, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as run:
        for line in run.stdout:
            lines.append(json.loads(line))
            if len(lines) == 5:
                busy = []
                deadline = time.monotonic() + 20
                while not busy and time.monotonic() < deadline:
                    busy = workers(run, "ray::_restore")
                os.kill(busy[0], signal.SIGKILL)
                killed.append(busy[0])
    assert run.returncode == 3
    assert len(killed) == 1
    events = Counter(line["event"] for line in lines)
    assert events["failed"] == 1
    assert events["restored"] + events["done"] == 15
    targets = [line["target"] for line in lines if line["event"] in ("restored", "done")]
    assert len(targets) == len(set(targets)) == 15
    subprocess.run([*COMMAND, "-o", "local", *options], cwd=tmp_path, stderr=subprocess.PIPE, check=False)
    assert digests(tmp_path / "out") == digests(tmp_path / "local")  # and no temporary file
    entries = journal(tmp_path / "out")
    restored = Counter(entry["target"] for entry in entries if entry["event"] == "restored")
    taken = Counter(entry["target"] for entry in entries if entry["event"] == "taken")
    assert set(restored.values()) == {1}
    assert len(restored) == 15
    print("lost:", [target for target, count in taken.items() if count > 1], dict(events))
    # The journal is that of other batches: nothing is left to be done, and Ray is not asked.
    resumed = subprocess.run(
        [*COMMAND, "-o", "out", *options, "--resume", "--json"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert json.loads(resumed.stdout.splitlines()[-1])["files"] == {"done": 15, "failed": 1}


@NEEDS_RAY
@pytest.mark.slow
def test_terminated(tmp_path):
    """SIGTERM ends the workers too, and says how to go on."""
    pictures(tmp_path / "in", 4, 1500)
    ray = [*COMMAND, "-o", "out", "--sigma", "20", "--device", "cpu", "--engine", "ray"]
    with subprocess.Popen(ray, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 120
        while not (busy := workers(run, "ray::_restore")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert busy
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "to go on: nlrn denoise in -r -o out --sigma 20 --device cpu --engine ray --resume" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in busy)


def test_without_ray(nlrn, tmp_path, monkeypatch):
    pictures(tmp_path / "in", 2, 10)
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = nlrn("denoise", "in", "-r", "-o", "out", "--model", "gaussian", "--engine", "ray")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "nlrn: --engine ray needs Ray: pip install 'nlrn[ray]'"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "spark"], "--engine must be local or ray, got 'spark'"),
        (["--address", "auto"], "--address is that of a Ray cluster; give --engine ray too"),
        (["--engine", "ray", "--watch"], "--watch and --engine ray contradict each other"),
    ],
)
def test_impossible_options(nlrn, tmp_path, more, message):
    pictures(tmp_path / "in", 2, 10)
    outcome = nlrn("denoise", "in", "-r", "-o", "out", "--model", "gaussian", *more)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()
