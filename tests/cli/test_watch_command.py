"""`--watch` as a service runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nlrn.files.images import Image, write_image

COMMAND = [sys.executable, "-m", "nlrn", "denoise", "in", "-o", "out", "--watch", "--model", "gaussian"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_watched_folder(tmp_path):
    """A good file and a bad one, one that comes in parts, and the end by SIGTERM in the middle."""
    (tmp_path / "in").mkdir()
    picture = Image(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    write_image(picture, tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    with subprocess.Popen(
        [*COMMAND, "--sigma", "20", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert json.loads(process.stdout.readline())["notes"] == ["watching in; Ctrl-C ends"]
        (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
        for end in (len(data) // 3, len(data) // 2, len(data)):  # slower than two looks
            (tmp_path / "in" / "slow.png").write_bytes(data[:end])
            time.sleep(1.2)
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(line["event"], line["source"]) for line in lines] == [
            ("failed", "in/bad.png"),
            ("restored", "in/slow.png"),
        ]
        assert (tmp_path / "out" / "slow.png").exists()
        process.send_signal(signal.SIGTERM)
        summary = json.loads(process.stdout.readline())
        assert summary["files"] == {"failed": 1, "restored": 1}
        assert process.wait(timeout=20) == 3
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "-o", "out", "--jobs", "2"], "--jobs contradict each other; several runs with --watch share"),
        (["in", "-o", "out", "--shard", "0/2"], "--watch and --shard contradict each other"),
        (["in", "-o", "out", "--dry-run"], "--watch and --dry-run contradict each other"),
        (["in"], "--watch restores into a folder; name it with -o"),
        (["in", "-o", "-"], "--watch restores into a folder; name it with -o"),
        (["in", "-o", "in"], "the output in is the input itself"),
        (["none", "-o", "out"], "--watch waits for files in folders, and none is none"),
    ],
)
def test_what_cannot_be_watched(nlrn, tmp_path, arguments, message):
    (tmp_path / "in").mkdir()
    outcome = nlrn("denoise", *arguments, "--watch", "--model", "gaussian", "--sigma", "20")
    assert outcome.code == 2
    assert message in outcome.err
