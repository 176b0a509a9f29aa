"""The plan of a batch, without a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlrn.batch import job as job_module
from nlrn.batch.job import Job, PlanError, Work
from nlrn.batch.plan import OutputExists, plan_jobs
from nlrn.files.images import Image, write_image


def plan(*inputs: str, output: str | None = None, **options: Any) -> Work:
    flags = {"recursive": False, "overwrite": False, "skip_existing": False} | options
    return plan_jobs(inputs, output, "-out", **flags)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/a.png"):
        write_image(Image(np.zeros((2, 2), np.uint8)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_jobs_beside_their_inputs(folder: Path):
    assert plan("a.png").jobs == (Job(Path("a.png"), Path("a-out.png")),)
    (folder / "a-out.png").write_bytes((folder / "a.png").read_bytes())
    work = plan(".", skip_existing=True)
    assert work.jobs == (Job(Path("b.png"), Path("b-out.png")),)
    assert work.notes == (
        "results of an earlier run (*-out.*) left out: 1",
        "existing outputs skipped: 1",
    )


def test_plan_jobs_into_a_folder_with_subfolders(folder: Path):
    work = plan(".", output="results", recursive=True)
    assert {str(job.target) for job in work.jobs} == {
        str(Path("results", name)) for name in ("a.png", "b.png", "sub/a.png")
    }
    assert not (folder / "results").exists()
    work.make_folders()
    assert (folder / "results" / "sub").is_dir()


def test_plan_jobs_of_standard_streams(folder: Path):
    assert plan("-").jobs == (Job("-", "-"),)
    assert plan("a.png", output="-").jobs == (Job(Path("a.png"), "-"),)
    assert plan("-", output="c.png").jobs == (Job("-", Path("c.png")),)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (("",), None, "empty name"),
        (("-", "a.png"), None, "must be the only input"),
        ((".",), "-", "one file only"),
        (("a.png",), "a.png", "is the input itself"),
        (("a.png",), "c.xyz", "unknown suffix"),
        (("a.png",), "none/c.png", "does not exist"),
        ((".",), "c.png", "cannot take several results"),
        (("a.png", "sub/a.png"), "results", "would both be written"),
        (("c.png",), None, "does not exist"),
    ],
)
def test_plan_jobs_refuses(folder: Path, inputs: tuple[str, ...], output: str | None, message: str):
    with pytest.raises(PlanError, match=message):
        plan(*inputs, output=output)


def test_plan_jobs_says_whether_an_existing_output_is_one_of_several(folder: Path):
    (folder / "results").mkdir()
    (folder / "results" / "a.png").touch()
    for inputs, several in ((("a.png",), False), (("a.png", "b.png"), True)):
        with pytest.raises(OutputExists, match=r"^results/a\.png exists$") as caught:
            plan(*inputs, output="results")
        assert caught.value.several is several
        assert len(plan(*inputs, output="results", overwrite=True).jobs) == len(inputs)


def test_names_that_a_file_system_takes_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Upper and lower case, and the two ways to write an umlaut."""
    (folder / "more").mkdir()
    for name in ("A.png", "\u00e4.png", "sub/a\u0308.png"):
        (folder / "more" / Path(name).name).write_bytes(b"")
    for inputs in (("a.png", "more/A.png"), ("more/\u00e4.png", "more/a\u0308.png")):
        work = plan(*inputs, output="results")
        with monkeypatch.context() as patched:
            patched.setattr(job_module, "_merges_names", lambda folder: True)
            with pytest.raises(PlanError, match="does not tell their names apart"):
                work.make_folders()
            plan("a.png", "b.png", output="results").make_folders()
        if not job_module._merges_names(folder):
            work.make_folders()
    assert list((folder / "results").iterdir()) == []


def test_room_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch):
    work = plan("a.png", "b.png", output="results/of/today")
    size = sum((folder / name).stat().st_size for name in ("a.png", "b.png"))
    free = 4 * size
    monkeypatch.setattr(
        job_module.shutil,
        "disk_usage",
        lambda path: type("Usage", (), {"free": free, "total": 100 * size, "path": path}),
    )
    assert work.room_note() is None
    assert work.room_note(4) is None
    assert work.room_note(4.1).startswith("results as large as the inputs need ")
    assert plan("a.png", output="-").room_note() is None


@pytest.mark.parametrize(
    ("source", "format_", "target"),
    [
        ("a.png", "JPEG", "a-out.jpg"),
        ("a.png", "PNG", "a-out.png"),
        ("a.JPEG", "JPEG", "a-out.JPEG"),
        ("a.ome.tif", "PNG", "a-out.png"),
        ("a.ome.tif", None, "a-out.ome.tif"),
        ("a.heic", None, "a-out.png"),
        ("a.avif", None, "a-out.png"),
        ("a.avif", "AVIF", "a-out.avif"),
        ("a.fit", None, "a-out.fit"),
        ("a", "WEBP", "a-out.webp"),
    ],
)
def test_names_of_results_by_their_format(source, format_, target, folder: Path):
    (folder / source).touch()
    assert plan(source, format_=format_).jobs == (Job(Path(source), Path(target)),)
    (job,) = plan(source, output="results/", format_=format_).jobs
    assert job.target == Path("results", target.replace("-out", ""))


def test_a_name_against_the_format_is_refused(folder: Path):
    assert plan("a.png", output="b.jpeg", format_="JPEG").jobs[0].target == Path("b.jpeg")
    with pytest.raises(PlanError, match=r"b\.png is named as PNG, and the format is to be JPEG"):
        plan("a.png", output="b.png", format_="JPEG")
    (folder / "b.jpg").touch()
    with pytest.raises(PlanError, match="would both be written"):
        plan("b.png", "b.jpg", output="results", format_="WEBP")
