"""`--keep-time`, and permissions: a result has those of its input."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import tifffile
import torch

from nlrn.batch.file_options import FileOptions
from nlrn.batch.job import Job
from nlrn.batch.ray_engine import _restore
from nlrn.files.images import Image, write_image
from nlrn.restoration.options import Options
from nlrn.version import __version__

# In nanoseconds, which all file systems here keep.
LONG_AGO = 1_000_000_000_123_456_789
PIXELS = np.full((24, 24), 90, np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.jpg"):
        write_image(Image(PIXELS), tmp_path / name)
    tifffile.imwrite(tmp_path / "c.tif", np.stack([PIXELS, PIXELS]), photometric="minisblack")
    for path in tmp_path.iterdir():
        path.chmod(0o640)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return tmp_path


def kept(path) -> tuple[bool, int]:
    status = path.stat()
    return status.st_mtime_ns == LONG_AGO, stat.S_IMODE(status.st_mode)


@pytest.mark.parametrize("command", ["denoise", "dejpeg", "upscale", "restore"])
def test_a_batch_keeps_times_and_permissions(nlrn, folder, command):
    """Of a picture, of a JPEG file that is copied, and of a stack."""
    outcome = nlrn(command, "a.png", "b.jpg", "c.tif", "-o", "out/", "--keep-time")
    assert outcome.code == 0, outcome.err
    for name in ("a.png", "b.jpg", "c.tif"):
        assert kept(folder / "out" / name) == (True, 0o640), name


def test_without_it_the_time_is_that_of_the_work(nlrn, folder):
    assert nlrn("dejpeg", "a.png", "-o", "b.png").code == 0
    assert kept(folder / "b.png") == (False, 0o640)


def test_other_processes_keep_it(folder):
    """Those of `--jobs` and of Ray are given these options with each file."""
    threads = torch.get_num_threads()
    files = FileOptions(None, 95, overwrite=False, keep_time=True)
    _restore(Job(folder / "a.png", folder / "d.png"), files, (Options(task="dejpeg"), __version__, threads))
    assert kept(folder / "d.png") == (True, 0o640)


def test_it_is_the_time_of_what_was_read(nlrn, folder, monkeypatch):
    """An input that changes during the work has a new time, which is not that of the result."""
    from nlrn.batch import one_file

    read = one_file.read_pages

    def changed(*arguments):
        os.utime(folder / "a.png")
        return read(*arguments)

    monkeypatch.setattr(one_file, "read_pages", changed)
    assert nlrn("dejpeg", "a.png", "-o", "d.png", "--keep-time").code == 0
    assert kept(folder / "d.png")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "-o", "-"), "--keep-time is for files, and standard input and output have no time"),
        (("-", "-o", "x.png"), "--keep-time is for files, and standard input and output have no time"),
        (("a.png", "-o", "memory://out/"), "--keep-time is for files of this computer, and not for URLs"),
        (("memory://a.png", "-o", "out/"), "--keep-time is for files of this computer, and not for URLs"),
    ],
)
def test_what_has_no_time_is_refused(nlrn, folder, arguments, message):
    outcome = nlrn("dejpeg", *arguments, "--keep-time")
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
