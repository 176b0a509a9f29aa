"""`--html` of the restoring commands."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile

from nlrn.files.images import Image, write_image
from nlrn.viewer.sheet import Sheet


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, noise in (("a.png", 4), ("b.png", 20)):
        pixels = (128 + rng.normal(0, noise, (32, 40))).clip(0, 255).astype(np.uint8)
        write_image(Image(pixels), tmp_path / name)
    tifffile.imwrite(tmp_path / "c.tif", rng.integers(0, 2, (3, 32, 40), np.uint8), photometric="minisblack")
    return tmp_path


def shown(page) -> list[dict]:
    return json.loads(re.search(rb'id="about-data">(.*?)</script>', page.read_bytes())[1])


def test_the_page_of_a_batch(nlrn, folder):
    outcome = nlrn(
        "denoise", "a.png", "b.png", "c.tif", "-o", "out/", "--html", "out/page.html", "--model", "gaussian"
    )
    assert outcome.code == 0, outcome.err
    found = shown(folder / "out/page.html")
    assert [row["name"] for row in found] == ["b.png", "a.png", "c.tif"]
    assert re.fullmatch(r"gaussian, sigma \d+\.\d \(estimated\)", found[0]["about"])
    assert found[2]["about"].startswith("3 pages, gaussian")
    assert all(row["pictures"] for row in found)


def test_one_file_that_fails_is_not_on_it(nlrn, folder):
    (folder / "bad.png").write_bytes(b"no picture")
    outcome = nlrn("denoise", "a.png", "bad.png", "--html", "page.html", "--model", "gaussian")
    assert outcome.code == 3
    assert [row["name"] for row in shown(folder / "page.html")] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--html", "-"), "--html takes the name of a file"),
        (("--html", "a.png"), "the page a.png is an input itself"),
        (("--html", "a-denoised.png"), "the page a-denoised.png is a result itself"),
        (("--html", "out/", "-o", "out/"), "the page out is the folder of the results, and must be a file"),
        (("--html", "page.png"), "--html names a page, and page.png has the suffix of an image"),
        (("--html", "both", "--log", "./both"), "--log and --html name the same file, ./both"),
        (("--html", "none/page.html"), "the folder of the page none/page.html does not exist"),
        (("--html", "old.html"), "old.html exists; pass --overwrite to replace it"),
        (("--html", "page.html", "--dry-run"), "--dry-run and --html contradict each other"),
        (("--html", "page.html", "-o", "-"), "--html shows files of this computer"),
    ],
)
def test_a_page_that_cannot_be_is_refused_before_the_work(nlrn, folder, arguments, message):
    (folder / "old.html").write_text("old")
    outcome = nlrn("denoise", "a.png", *arguments, "--model", "gaussian")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (folder / "a-denoised.png").exists()
    assert (folder / "old.html").read_text() == "old"


def test_watching_has_no_page(nlrn, folder):
    outcome = nlrn("denoise", ".", "-o", "out/", "--watch", "--html", "page.html")
    assert (outcome.code, "--watch and --html contradict each other" in outcome.err) == (2, True)


@pytest.mark.parametrize("resumed", [("--resume",), ("--skip-existing",), ()])
def test_an_interrupted_batch_shows_what_is_done(nlrn, folder, monkeypatch, resumed):
    """And the command that goes on has another page."""
    add, names = Sheet.add, []

    def interrupted(self, name, *others):
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        add(self, name, *others)

    monkeypatch.setattr(Sheet, "add", interrupted)
    batch = ("denoise", "a.png", "b.png", "c.tif", "-o", "out/", "--model", "gaussian", "--html", "page.html")
    monkeypatch.setattr("sys.argv", ["nlrn", *batch, *resumed])
    outcome = nlrn(*batch, *resumed)
    assert outcome.code == 130
    assert sorted(row["name"] for row in shown(folder / "page.html")) == ["a.png", "b.png"]
    assert "page.html shows the 2 files that are done" in outcome.err
    again = next(line for line in outcome.err.splitlines() if "to go on: " in line)
    assert "--html page-2.html" in again
    assert again.endswith(resumed[0] if resumed else "--resume")


def test_a_batch_that_is_interrupted_before_its_first_result_has_no_page(nlrn, folder, monkeypatch):
    def interrupted(self, *others):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sheet, "add", interrupted)
    batch = ("denoise", "a.png", "b.png", "-o", "out/", "--model", "gaussian", "--html=page.html")
    monkeypatch.setattr("sys.argv", ["nlrn", *batch])
    outcome = nlrn(*batch)
    assert (outcome.code, (folder / "page.html").exists()) == (130, False)
    assert "--html=page.html" in outcome.err
