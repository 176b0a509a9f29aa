"""Paths that the operating system refuses, names that look like markup, and standard input into a folder."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from nlrn.files.images import Image, encode_image, read_image, write_image
from pictures import picture

FAST = ("--model", "gaussian", "--sigma", "10")


@pytest.fixture
def good(nlrn):
    write_image(Image(picture((20, 20))), "a.png")
    return nlrn


def one_line(outcome, code: int, text: str) -> None:
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.count("\n") == 1
    assert text in outcome.err


def test_one_long_name_does_not_stop_a_batch(good):
    os.mkdir("in")
    for name in ("a.png", "x" * 246 + ".png"):
        write_image(Image(picture((20, 20))), f"in/{name}")
    outcome = good("denoise", "in", *FAST)
    assert outcome.code == 3
    assert "File name too long" in outcome.err
    assert os.path.exists("in/a-denoised.png")


def test_an_output_whose_name_is_too_long(good):
    one_line(good("denoise", "a.png", "-o", "y" * 260 + ".png", *FAST), 2, "File name too long")


def test_an_output_that_is_a_link_to_itself(good):
    os.symlink("loop.png", "loop.png")
    one_line(good("denoise", "a.png", "-o", "loop.png", *FAST), 2, "loop.png exists")


def test_closed_standard_input(good, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    one_line(good("denoise", "-", "-o", "x.png", *FAST), 2, "standard input is closed")


def test_a_working_folder_that_is_gone(good, tmp_path):
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir(tmp_path / "gone")
    try:
        for path in ("../a.png", str(tmp_path / "a.png")):
            one_line(good("denoise", path, *FAST), 2, "the working folder does not exist any more")
            # In a process of its own libraries are loaded there.
            command = [sys.executable, "-m", "nlrn", "denoise", path, *FAST]
            own = subprocess.run(command, capture_output=True, text=True)
            assert (own.returncode, own.stderr.count("\n")) == (2, 1)
            assert "the working folder does not exist any more" in own.stderr
    finally:
        os.chdir(tmp_path)


@pytest.mark.parametrize("made", [False, True])
def test_standard_input_into_a_folder(good, monkeypatch, made):
    if made:
        os.mkdir("dir")
    stream = io.TextIOWrapper(io.BytesIO(encode_image(Image(picture((20, 20))))))
    monkeypatch.setattr(sys, "stdin", stream)
    assert good("denoise", "-", "-o", "dir" if made else "dir/", *FAST).code == 0
    assert os.listdir("dir") == ["standard-input.png"]


@pytest.mark.parametrize("name", [":smile:.png", "a\\[b].png", "[red]c.png"])
def test_names_are_no_markup(good, name):
    write_image(Image(picture((20, 20))), name)
    outcome = good("denoise", name, "-o", "o/", *FAST)
    assert outcome.err.startswith(f"{name} -> o/{name} (")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_result_of_a_private_file_is_private(good):
    os.chmod("a.png", 0o600)
    assert good("denoise", "a.png", *FAST).code == 0
    assert os.stat("a-denoised.png").st_mode & 0o777 == 0o600


def test_what_a_format_cannot_hold_is_refused_before_the_work(good, monkeypatch):
    write_image(Image(np.zeros((8, 4200), np.uint8)), "w.webp")
    monkeypatch.setattr("nlrn.restoration.restorer.Restorer.image", None)
    outcome = good("upscale", "w.webp", "--scale", "4")
    assert (outcome.code, "at most 16383 pixels a side" in outcome.err) == (4, True)


def test_compare_names_no_numbers_of_errors(good):
    one_line(good("compare", "a.png", "nope.png"), 2, "nlrn: No such file or directory: nope.png")


@pytest.mark.parametrize("name", ["new\nline.png", "clear\x1b[2J.png"], ids=["line break", "escape"])
def test_a_name_does_not_steer_the_terminal(good, name):
    """It would break lines that programs read, or hide what was said."""
    write_image(Image(picture((20, 20))), name)
    outcome = good("denoise", name, *FAST)
    assert outcome.code == 0, outcome.err
    shown = name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert outcome.err.startswith(f"{shown} -> {shown.replace('.png', '-denoised.png')} (")
    again = good("denoise", name, *FAST)
    one_line(again, 2, "-denoised.png exists")
    assert "\x1b" not in again.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_once(good):
    """As the shell's <(command) gives it."""
    data = encode_image(Image(picture((20, 20))), "PNG")
    os.mkfifo("pipe.png")
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(data), daemon=True)
    writer.start()
    outcome = good("denoise", "pipe.png", "-o", "b.png", *FAST)
    assert outcome.code == 0, outcome.err
    writer.join(10)
    good("denoise", "a.png", "-o", "c.png", *FAST)
    assert (read_image("b.png").pixels == read_image("c.png").pixels).all()
