"""`nlrn denoise`: what goes where, what is said, how it ends."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nlrn.cli import pace, progress_bar
from nlrn.cli.errors import CliError
from nlrn.cli.parsing import parse_memory, parse_sigma
from nlrn.files.images import Image, read_image, write_image

COMMAND = [sys.executable, "-m", "nlrn"]


def picture(path: Path, shape: tuple[int, ...] = (20, 24), dtype: str = "uint8", **fields: object) -> Path:
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    values = np.random.default_rng(0).uniform(0.2, 0.8, shape) * white
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(Image(values.astype(dtype), **fields), path)
    return path


def names(folder: Path) -> list[str]:
    """The files in a folder and below, without the journals of batches."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if ".nlrn" not in path.parts)


def test_beside_the_input(nlrn, tmp_path, tiny_grey):
    before = picture(tmp_path / "a.png").read_bytes()
    outcome = nlrn("denoise", "a.png", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 0
    assert outcome.out == ""
    assert "a.png -> a-denoised.png" in outcome.err
    assert "sigma 20.0" in outcome.err
    assert names(tmp_path) == ["a-denoised.png", "a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
    assert read_image(tmp_path / "a-denoised.png").pixels.shape == (20, 24)


def test_existing_output(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    (tmp_path / "a-denoised.png").write_text("mine")
    outcome = nlrn("denoise", "a.png", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 2
    assert outcome.err == "nlrn: a-denoised.png exists; pass --overwrite to replace it\n"
    assert (tmp_path / "a-denoised.png").read_text() == "mine"
    assert nlrn("denoise", "a.png", "--sigma", 20, "--model", tiny_grey, "--overwrite").code == 0
    assert read_image(tmp_path / "a-denoised.png").format == "PNG"


def test_output_file_and_conversion(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    assert nlrn("denoise", "a.png", "-o", "b.tif", "--sigma", 20, "--model", tiny_grey).code == 0
    assert read_image(tmp_path / "b.tif").format == "TIFF"


def test_output_folder_is_made(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    assert nlrn("denoise", "a.png", "-o", "out/deep", "--sigma", 20, "--model", tiny_grey).code == 0
    assert names(tmp_path) == ["a.png", "out/deep/a.png"]


def test_folder_glob_and_files(nlrn, tmp_path, tiny_grey):
    for name in ("in/a.png", "in/b.jpg", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    outcome = nlrn("denoise", "in", "c*.png", "-o", "out", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 0
    assert names(tmp_path / "out") == ["a.png", "b.jpg", "c.png"]
    assert "3 of 3 files restored" in outcome.err


def test_folder_again_leaves_its_results_alone(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "in" / "a.png")
    for _ in range(2):
        assert nlrn("denoise", "in", "--sigma", 20, "--model", tiny_grey, "--overwrite").code == 0
    assert names(tmp_path / "in") == ["a-denoised.png", "a.png"]
    assert nlrn("denoise", "in/a-denoised.png", "--sigma", 20, "--model", tiny_grey).code == 0
    assert "in/a-denoised-denoised.png" in names(tmp_path)


def test_left_out_results_are_told_of(nlrn, tmp_path, tiny_grey):
    """Into another folder they go like any other file: there an input keeps its name."""
    for name in ("cat.png", "cat-denoised.png"):
        picture(tmp_path / "in" / name)
    arguments = ("--sigma", 20, "--model", tiny_grey)
    assert nlrn("denoise", "in", "-o", "out", *arguments).code == 0
    assert names(tmp_path / "out") == ["cat-denoised.png", "cat.png"]
    outcome = nlrn("denoise", "in", *arguments, "--overwrite")
    assert outcome.err.startswith("note: results of an earlier run (*-denoised.*) left out: 1\n")


def test_a_batch_goes_on_where_it_was(nlrn, tmp_path, tiny_grey):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)
    arguments = ("denoise", "in", "-o", "out", "--sigma", 20, "--model", tiny_grey)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_text("mine")
    refused = nlrn(*arguments)
    assert refused.code == 2
    assert "--overwrite to replace it, or --skip-existing" in refused.err
    outcome = nlrn(*arguments, "--skip-existing")
    assert outcome.code == 0
    assert outcome.err.startswith("note: existing outputs skipped: 1\n")
    assert "2 of 2 files restored" in outcome.err
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    assert (tmp_path / "out" / "b.png").read_text() == "mine"
    again = nlrn(*arguments, "--skip-existing")
    assert (again.code, again.err) == (0, "note: existing outputs skipped: 3\n")
    assert "contradict" in nlrn(*arguments, "--skip-existing", "--overwrite").err


def test_folders_with_their_subfolders(nlrn, tmp_path, tiny_grey):
    for name in (
        "in/a.png",
        "in/june/a.png",
        "in/june/deep/b.png",
        "in/.hidden/c.png",
        "in/out/june/old.png",
    ):
        picture(tmp_path / name)
    arguments = ("--sigma", 20, "--model", tiny_grey)
    assert nlrn("denoise", "in", "-r", "-o", "in/out", *arguments).code == 0
    made = ["a.png", "june/a.png", "june/deep/b.png", "june/old.png"]
    assert names(tmp_path / "in" / "out") == made
    again = nlrn("denoise", "in", "-r", "-o", "in/out", *arguments, "--skip-existing")
    assert (again.code, again.err) == (0, "note: existing outputs skipped: 3\n")
    assert nlrn("denoise", "in/june", "-r", *arguments).code == 0  # beside the originals
    assert names(tmp_path / "in" / "june") == ["a-denoised.png", "a.png", "deep/b-denoised.png", "deep/b.png"]
    assert "original is never modified" in nlrn("denoise", "in", "-r", "-o", "in", *arguments).err


def test_what_is_no_image_fails_by_itself(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    outcome = nlrn("denoise", "in/*", "-o", "out", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 3
    assert "failed: in/notes.txt" in outcome.err
    assert names(tmp_path / "out") == ["a.png"]


def test_one_file_does_not_take_several_results(nlrn, tmp_path, tiny_grey):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    outcome = nlrn("denoise", "a.png", "b.png", "-o", "out.png", "--sigma", 20, "--model", tiny_grey)
    assert (outcome.code, outcome.err) == (
        2,
        "nlrn: one file, out.png, cannot take several results; give a folder\n",
    )
    assert names(tmp_path) == ["a.png", "b.png"]
    assert "an empty name" in nlrn("denoise", "", "--model", tiny_grey).err


def test_two_inputs_with_one_output(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "x" / "a.png")
    picture(tmp_path / "y" / "a.png")
    outcome = nlrn("denoise", "x/a.png", "y/a.png", "-o", "out", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 2
    assert "x/a.png and y/a.png would both be written to out/a.png" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["a.png", "./a.png", "link.png", "."])
def test_the_original_is_never_the_output(nlrn, tmp_path, tiny_grey, output):
    before = picture(tmp_path / "a.png").read_bytes()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    outcome = nlrn("denoise", "a.png", "-o", output, "--sigma", 20, "--model", tiny_grey, "--overwrite")
    assert outcome.code == 2
    assert "the original is never modified" in outcome.err
    assert (tmp_path / "a.png").read_bytes() == before


def test_no_input_is_overwritten_by_anothers_result(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    before = picture(tmp_path / "a-denoised.png", (9, 9)).read_bytes()
    outcome = nlrn("denoise", "a.png", "a-denoised.png", "--sigma", 20, "--model", tiny_grey, "--overwrite")
    assert outcome.code == 2
    assert "the original is never modified" in outcome.err
    assert (tmp_path / "a-denoised.png").read_bytes() == before


def test_some_fail(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    outcome = nlrn("denoise", "a.png", "b.png", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 3
    assert "failed: b.png" in outcome.err
    assert "1 of 2 files restored" in outcome.err
    assert names(tmp_path) == ["a-denoised.png", "a.png", "b.png"]


def test_all_fail(nlrn, tmp_path, tiny_grey):
    (tmp_path / "b.png").write_text("x")
    assert nlrn("denoise", "b.png", "--sigma", 20, "--model", tiny_grey).code == 4
    assert names(tmp_path) == ["b.png"]


def test_depth_metadata_and_alpha_stay(nlrn, tmp_path, tiny_colour):
    from PIL import ImageCms

    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.random.default_rng(1).integers(0, 65536, (20, 24), dtype=np.uint16)
    picture(tmp_path / "a.png", (20, 24, 3), "uint16", alpha=alpha, icc=icc)
    assert nlrn("denoise", "a.png", "--sigma", 20, "--model", tiny_colour).code == 0
    result = read_image(tmp_path / "a-denoised.png")
    assert (result.pixels.dtype, result.icc) == (np.uint16, icc)
    assert np.array_equal(result.alpha, alpha)


def test_auto_says_what_it_found(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png")
    outcome = nlrn("denoise", "a.png", "--model", tiny_grey)
    assert outcome.code == 0
    assert "(estimated)" in outcome.err


def test_camera_jpeg_is_warned_of(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.jpg", (32, 32))
    assert "noise of a camera JPEG is not white" in nlrn("denoise", "a.jpg", "--model", tiny_grey).err


def test_notes_of_reading_and_writing_are_shown(nlrn, tmp_path, tiny_grey):
    from PIL import Image as PillowImage

    PillowImage.new("P", (20, 20)).save(tmp_path / "a.png")
    assert "  note: " in nlrn("denoise", "a.png", "--sigma", 5, "--model", tiny_grey).err


def test_grey_model_on_colour_says_so(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a.png", (20, 24, 3))
    assert "each colour channel" in nlrn("denoise", "a.png", "--sigma", 5, "--model", tiny_grey).err


def test_names_with_brackets_are_printed_as_they_are(nlrn, tmp_path, tiny_grey):
    picture(tmp_path / "a[red].png")
    assert (
        "a[red].png -> a[red]-denoised.png"
        in nlrn("denoise", "a[red].png", "--sigma", 5, "--model", tiny_grey).err
    )


def test_standard_streams(nlrn, tmp_path, tiny_grey):
    content = picture(tmp_path / "a.png").read_bytes()
    arguments = ["--sigma", 20, "--model", tiny_grey]
    assert nlrn("denoise", "a.png", *arguments).code == 0
    command = [*COMMAND, "denoise", "-", "--sigma", "20", "--model", str(tiny_grey)]
    done = subprocess.run(command, input=content, capture_output=True, check=True)
    assert done.stdout == (tmp_path / "a-denoised.png").read_bytes()
    assert b"standard input -> standard output" in done.stderr


def test_standard_input_to_a_file(nlrn, tmp_path, tiny_grey, monkeypatch):
    content = picture(tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert nlrn("denoise", "-", "-o", "b.png", "--sigma", 20, "--model", tiny_grey).code == 0
    assert read_image(tmp_path / "b.png").pixels.shape == (20, 24)


def test_a_terminal_gets_no_image(nlrn, tmp_path, tiny_grey, monkeypatch):
    picture(tmp_path / "a.png")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    outcome = nlrn("denoise", "a.png", "-o", "-", "--sigma", 20, "--model", tiny_grey)
    assert outcome.code == 2
    assert "standard output is a terminal" in outcome.err


def test_a_long_job_says_so_and_what_is_faster(nlrn, tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    monkeypatch.setattr(pace, "MEASURED_SECONDS", 0)
    assert "left" not in nlrn("denoise", "a.png", "--sigma", 20).err
    monkeypatch.setattr(pace, "LONG_JOB_SECONDS", 0)
    outcome = nlrn("denoise", "a.png", "--sigma", 20, "--device", "cpu", "--overwrite")
    assert re.search(
        r"^about \d+ seconds left; faster: (--precision bfloat16, )?--steps 4, a CUDA GPU$",
        outcome.err,
        re.MULTILINE,
    )
    assert outcome.err.count("left") == 1
    # The first file is done at the latest when the third begins: its writing may take as long as the second.
    more = [picture(tmp_path / name).name for name in ("b.png", "c.png")]
    outcome = nlrn("denoise", "a.png", *more, "--sigma", 20, "--model", "gaussian", "-o", "clean")
    assert re.search(
        r"^about \d+ seconds left( for \d files)?; faster: a CUDA GPU$", outcome.err, re.MULTILINE
    )


def test_progress_bar_only_after_two_seconds(monkeypatch):
    from rich.console import Console

    screen = io.StringIO()
    bar = progress_bar.ProgressBar(Console(file=screen, force_terminal=True, width=80), 1)
    bar.file(0, "a.png")
    bar.progress(0.1)
    assert screen.getvalue() == ""
    monkeypatch.setattr(progress_bar, "PROGRESS_AFTER_SECONDS", 0)
    bar.progress(0.5)
    bar.close()
    assert "a.png" in screen.getvalue()
    assert " 50%" in screen.getvalue()


def test_no_progress_bar_without_a_terminal():
    from rich.console import Console

    assert progress_bar.ProgressBar(Console(file=io.StringIO()), 1).progress is None


def test_demo(nlrn, tmp_path):
    outcome = nlrn("denoise", "--demo", "--steps", 2)
    assert outcome.code == 0
    assert names(tmp_path / "nlrn-demo") == ["noisy.png", "restored.png", "side-by-side.png"]
    levels = [float(line.split()[1]) for line in outcome.out.splitlines() if " dB" in line]
    assert levels[0] == pytest.approx(20.2, abs=0.2)
    assert levels[1] > 31
    # Again, into its own folder; another one is the user's.
    assert nlrn("denoise", "--demo", "--steps", 2).code == 0
    assert nlrn("denoise", "--demo", "-o", tmp_path / "nlrn-demo").code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4G", 4 << 30), ("512m", 512 << 20), ("1.5 GiB", 3 << 29), ("1000", 1000), ("2kB", 2048)],
)
def test_memory_sizes(text, expected):
    assert parse_memory(text) == expected


def test_sigma_parsing():
    assert parse_sigma("auto") == "auto"
    assert parse_sigma("25") == 25
    with pytest.raises(CliError, match="between 0 and 255"):
        parse_sigma("inf")


def test_interrupted(tmp_path):
    picture(tmp_path / "a.png", (4000, 4000))
    process = subprocess.Popen(
        [*COMMAND, "denoise", "a.png", "--sigma", "25", "--device", "cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert b" left" in process.stderr.readline()  # it is under way
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.decode().endswith("nlrn: interrupted\n")
    assert names(tmp_path) == ["a.png"]


def test_strength(nlrn, tmp_path, tiny_grey):
    original = read_image(picture(tmp_path / "a.png")).pixels
    options = ("--sigma", "25", "--model", tiny_grey, "--strength")
    assert nlrn("denoise", "a.png", "-o", "same.png", *options, "0").code == 0
    assert np.array_equal(read_image(tmp_path / "same.png").pixels, original)
    assert nlrn("denoise", "a.png", "-o", "luma.png", *options, "1,0").code == 0
    assert not np.array_equal(read_image(tmp_path / "luma.png").pixels, original)
    for text in ("much", "1,0,0", "2"):
        failed = nlrn("denoise", "a.png", "-o", "b.png", *options, text)
        assert failed.code == 2
        assert "strength must be a number from 0 to 1" in failed.err
        assert not (tmp_path / "b.png").exists()


def test_help_fits_80_columns_and_groups_the_options(nlrn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = nlrn("denoise", "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    groups = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == [
        "Arguments:",
        "Files:",
        "Restoration:",
        "Noise of a sensor:",
        "Computing:",
        "Other options:",
    ]
    after = {group: shown.split(group)[1] for group in groups}
    assert "--strength" in after["Restoration:"].split("Noise of a sensor:")[0]
    assert "--read-noise" in after["Noise of a sensor:"].split("Computing:")[0]
    assert "--max-memory" in after["Computing:"].split("Other options:")[0]
