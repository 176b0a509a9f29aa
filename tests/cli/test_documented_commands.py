"""The commands and the Python of README.md and the documentation do what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import typer
from PIL import Image
from skimage import data

from nlrn.cli import CLICK_ERROR, app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("README.md", "guide.md", "batches.md")  # the pages whose commands are run
# Those without a picture of the user, those that wait (for a browser, for files, for an object store) and those that
# take minutes are run elsewhere.
ELSEWHERE = (
    "--fit",
    "serve",
    "--demo",
    "models",
    "train",
    "benchmark",
    "SLURM",
    "--watch",
    "://",
    "ffmpeg",
    "--engine ray",
)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """The lines of shell that call nlrn, without comments; continued lines are joined."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [re.split(r"\s+#", line)[0].strip() for line in lines if re.search(r"(^|\| )nlrn ", line)]


ALL = [(page.name, command) for page in PAGES for command in commands(page)]
TO_RUN = [(page, c) for page, c in ALL if page in RUN and not any(word in c for word in ELSEWHERE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the documentation speaks of, small."""
    place = tmp_path_factory.mktemp("documented")
    clean = data.astronaut()[60:108, 190:246]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    for name in ("photo.jpg", "small.png", "in.png", "scan.tif", "photo-denoised.jpg", "old.jpg"):
        Image.fromarray(noisy).save(place / name)
    Image.fromarray(clean).save(place / "truth.png")
    for name in ("scans", "holiday/more", "more"):
        (place / name).mkdir(parents=True)
        Image.fromarray(noisy).save(place / name / f"{name[0]}.png")
    Image.fromarray(noisy).save(place / "holiday" / "h.png")
    for name, count in (("stack.tif", 3), ("movie.tif", 20)):
        tifffile.imwrite(place / name, np.stack([noisy[:20, :24, 0]] * count), photometric="minisblack")
    ramp = np.linspace(20, 220, 160)
    counts = 2 * np.random.default_rng(1).poisson(np.tile(ramp, (160, 1)))
    Image.fromarray(counts.astype(np.uint16)).save(place / "counts.tif")
    return place


def test_commands_are_found():
    assert len(ALL) >= 30
    assert len(TO_RUN) >= 18


@pytest.mark.parametrize(("page", "command"), ALL, ids=lambda x: x)
def test_options_exist(page, command):
    """Every command of the documentation is one that nlrn knows, with its options."""
    own = re.split(r" [>|] ", command.split("nlrn ", 1)[1])[0]
    words = shlex.split(own.replace('"$SLURM_ARRAY_TASK_ID/16"', "0/16"))
    program = typer.main.get_command(app)
    while words and words[0] in getattr(program, "commands", {}):
        program, words = program.commands[words[0]], words[1:]
    try:
        program.make_context("nlrn", words)
    except CLICK_ERROR as error:
        pytest.fail(f"{page}: {command}: {error.format_message()}")


@pytest.mark.parametrize(("page", "command"), TO_RUN, ids=lambda x: x)
def test_runs(page, command, folder, nlrn, monkeypatch, tmp_path):
    """Exit code 0, on copies of small files; results of a folder are where the line says."""
    subprocess.run(["cp", "-r", f"{folder}/.", tmp_path], check=True)
    if "compare" not in command:
        (tmp_path / "photo-denoised.jpg").unlink()
    if "|" in command:
        program = f"{shlex.quote(sys.executable)} -m nlrn "
        shell = re.sub(r"(?<=\| )nlrn ", lambda _: program, command)
        finished = subprocess.run(
            shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        code, message = finished.returncode, finished.stderr
    else:
        words = [
            name
            for word in shlex.split(command)[1:]
            for name in (sorted(str(p) for p in tmp_path.glob(word)) if "*" in word else [word])
        ]
        outcome = nlrn(*words)
        code, message = outcome.code, outcome.err
    assert code == 0, message
    target = re.search(r"(?:-o|>) (\S+)", command)
    if target and "--dry-run" not in command:
        place = tmp_path / target[1]
        assert place.is_file() or any(path.is_file() for path in place.rglob("*"))


def test_python_of_the_guide(folder, monkeypatch):
    """Its first two blocks; the third needs a GPU."""
    monkeypatch.chdir(folder)
    image = np.array(Image.open("truth.png"))
    names = {
        "image": image,
        "tensor": torch.from_numpy(image.copy()).permute(2, 0, 1) / 255,
        "stack": np.stack([data.camera()[i : i + 40, 200:248] for i in (60, 100, 140, 180)]),
        "channels": np.stack([data.camera()[i : i + 40, 200:248] for i in (60, 100)]),
        "heights": np.where(np.eye(48, dtype=bool), np.nan, data.camera()[100:148, 200:248] / 9.0),
        "pillow_image": Image.fromarray(image),
        "counts": np.array(Image.open("counts.tif")),
    }
    found = blocks(ROOT / "docs" / "guide.md", "python")
    ran = [block for block in found if "torch.compile" not in block]
    assert len(ran) >= 2
    for block in (*ran, *blocks(ROOT / "README.md", "python")):
        exec(block, dict(names))
