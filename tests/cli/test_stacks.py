"""Stacks and animations on the command line."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from rich.console import Console

from nlrn.cli import pace, progress_bar

RNG = np.random.default_rng(0)
NOISY = (1000 + 40 * np.arange(20) + RNG.normal(0, 25, (6, 24, 20))).astype("uint16")
SAID = {"axes": "ZCYX", "unit": "um", "spacing": 0.5}


@pytest.fixture
def stack(tmp_path):
    """A hyperstack of ImageJ."""
    tifffile.imwrite(
        tmp_path / "s.tif", NOISY.reshape(3, 2, 24, 20), imagej=True, resolution=(10, 10), metadata=SAID
    )
    return tmp_path / "s.tif"


def animation(path, count: int = 3, **options: object) -> None:
    frames = [PillowImage.fromarray(RNG.integers(0, 256, (20, 24, 3), np.uint8)) for _ in range(count)]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=[40, 50, 60, 70][:count], **options
    )


def test_a_hyperstack_is_restored_and_described(nlrn, stack):
    outcome = nlrn("denoise", "s.tif", "-o", "out.tif")
    assert outcome.code == 0, outcome.err
    assert "s.tif -> out.tif (6 pages, nlrn-small-gray, sigma " in outcome.err
    with tifffile.TiffFile("out.tif") as file, tifffile.TiffFile(stack) as before:
        assert file.series[0].axes == "ZCYX"
        assert file.series[0].shape == (3, 2, 24, 20)
        assert file.imagej_metadata == before.imagej_metadata
        restored = file.series[0].asarray().reshape(6, 24, 20).astype(float)
    clean = 1000 + 40 * np.arange(20)
    assert np.std(restored - clean) < 0.5 * np.std(NOISY - clean)


def test_a_stack_without_directories_is_restored_as_a_whole(nlrn, stack):
    """ImageJ writes such files, of which once only the first plane was read."""
    data = bytearray(stack.read_bytes())
    with tifffile.TiffFile(stack) as file:
        end = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    data[end : end + 4] = bytes(4)
    stack.write_bytes(data)
    assert "(6 pages, " in nlrn("denoise", "s.tif", "--model", "gaussian", "-o", "out.tif").err
    assert tifffile.imread("out.tif").shape == (3, 2, 24, 20)


def test_enlarging_a_stack_rewrites_its_sizes(nlrn, stack, tiny_upscaler):
    assert nlrn("upscale", "s.tif", "--model", tiny_upscaler).code == 0
    with tifffile.TiffFile("s-x2.tif") as file:
        assert file.series[0].shape == (3, 2, 48, 40)
        assert file.pages[0].tags["XResolution"].value == (20, 1)
    shaped = {"axes": "TYX"}
    tifffile.imwrite("t.tif", NOISY, photometric="minisblack", metadata=shaped)
    tifffile.imwrite("o.ome.tif", NOISY, photometric="minisblack", metadata={**shaped, "PhysicalSizeX": 0.2})
    assert nlrn("upscale", "t.tif", "o.ome.tif", "--model", tiny_upscaler).code == 0
    for name in ("t-x2.tif", "o-x2.ome.tif"):
        with tifffile.TiffFile(name) as file:
            assert (file.series[0].axes, file.series[0].shape) == ("TYX", (6, 48, 40))
    with tifffile.TiffFile("o-x2.ome.tif") as file:
        assert 'PhysicalSizeX="0.1"' in file.ome_metadata


def test_a_part_of_the_pages(nlrn, stack):
    assert nlrn("denoise", "s.tif", "--pages", "1-2,5", "--model", "gaussian", "-o", "out.tif").code == 0
    assert tifffile.imread("out.tif").shape == (3, 24, 20)
    outcome = nlrn("denoise", "s.tif", "--pages", "4", "--model", "gaussian", "-o", "one.png")
    assert outcome.code == 0, outcome.err
    with PillowImage.open("one.png") as picture:
        assert picture.size == (20, 24)


@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
@pytest.mark.parametrize("command", ["denoise", "dejpeg"])
def test_animations_keep_their_timing(nlrn, tmp_path, kind, command, tiny_dejpeg):
    animation(tmp_path / f"a.{kind}", loop=0)
    model = "gaussian" if command == "denoise" else tiny_dejpeg
    outcome = nlrn(command, f"a.{kind}", "--model", model, "-o", "out/")
    assert outcome.code == 0, outcome.err
    times = []
    with PillowImage.open("out/a.png" if kind == "gif" else f"out/a.{kind}") as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            times.append(picture.info["duration"])
        assert picture.info["loop"] == 0
    assert times == [40, 50, 60]


def test_names_of_results(nlrn, tmp_path, stack):
    animation(tmp_path / "a.gif", loop=0)
    tifffile.imwrite("x.ome.tif", NOISY, photometric="minisblack")
    outcome = nlrn("denoise", "a.gif", "x.ome.tif", "--model", "gaussian")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "a-denoised.png").exists()
    assert (tmp_path / "x-denoised.ome.tif").exists()
    again = nlrn("denoise", ".", "--model", "gaussian", "--overwrite")
    assert "results of an earlier run (*-denoised.*) left out: 2" in again.err
    PillowImage.new("L", (20, 20)).save("a.png")
    outcome = nlrn("denoise", "a.gif", "a.png", "-o", "out")
    assert outcome.code == 2
    assert "would both be written to out/a.png" in outcome.err


def test_one_estimate_or_one_a_page(nlrn, tmp_path):
    noise = RNG.normal(0, 1, (4, 32, 32)) * np.array([2, 6, 10, 14])[:, None, None]
    tifffile.imwrite("t.tif", (128 + noise).clip(0, 255).astype("uint8"), photometric="minisblack")
    levels = {}
    for per in ("stack", "page"):
        outcome = nlrn("denoise", "t.tif", "--estimate", per, "-o", f"{per}.tif", "--sigma", "auto", "--json")
        levels[per] = json.loads(outcome.out.splitlines()[0])["sigma"]
    assert levels["page"] == pytest.approx(8, rel=0.2)  # the mean of four
    assert levels["stack"] == pytest.approx(8, rel=0.2)  # the median of four
    first = {per: tifffile.imread(f"{per}.tif")[0].astype(float) for per in levels}
    assert not np.array_equal(first["stack"], first["page"])


def test_pages_are_foreseen_and_counted(nlrn, stack):
    foreseen = nlrn("denoise", "s.tif", "--dry-run", "--model", "gaussian").err
    assert "s.tif -> s-denoised.tif (6 pages, gaussian, " in foreseen
    lines = {
        name: json.loads(nlrn("denoise", "s.tif", *extra, "--dry-run", "--json").out.splitlines()[0])
        for name, extra in (("all", ()), ("one", ("--pages", "1")))
    }
    assert (lines["all"]["pages"], lines["one"]["pages"]) == (6, 1)
    assert lines["all"]["seconds"] > 2 * lines["one"]["seconds"]
    outcome = nlrn("denoise", "s.tif", "--model", "gaussian", "--json")
    assert json.loads(outcome.out.splitlines()[0])["pages"] == 6


def test_a_long_stack_says_so(nlrn, stack, monkeypatch):
    monkeypatch.setattr(pace, "MEASURED_SECONDS", 0)
    monkeypatch.setattr(pace, "LONG_JOB_SECONDS", 0)
    assert "seconds left" in nlrn("denoise", "s.tif", "--model", "gaussian").err


def test_the_bar_names_the_page(monkeypatch):
    monkeypatch.setattr(progress_bar, "PROGRESS_AFTER_SECONDS", 0)
    screen = io.StringIO()
    bar = progress_bar.ProgressBar(Console(file=screen, force_terminal=True, width=80), 1)
    bar.file(0, "s.tif")
    bar.pages = 6
    assert bar.progress is not None
    for fraction in (0.0, 0.55, 1.0):
        bar.progress(fraction)
        bar._bar.refresh()
    bar.close()
    assert "page 4 of 6" in screen.getvalue()
    assert "page 7" not in screen.getvalue()


def test_standard_input_and_output(nlrn, stack, monkeypatch):
    source = io.TextIOWrapper(io.BytesIO(stack.read_bytes()))
    target = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", source)
    monkeypatch.setattr(sys, "stdout", target)
    assert nlrn("denoise", "-", "--model", "gaussian").code == 0
    target.flush()
    assert tifffile.imread(io.BytesIO(target.buffer.getvalue())).shape == (3, 2, 24, 20)


def test_batches_with_stacks_are_resumed(nlrn, tmp_path, stack):
    (tmp_path / "in").mkdir()
    stack.rename(tmp_path / "in" / "s.tif")
    animation(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "broken.tif").write_bytes((tmp_path / "in" / "s.tif").read_bytes()[:2000])
    batch = ("denoise", "-r", "in", "-o", "out", "--model", "gaussian")
    outcome = nlrn(*batch)
    assert outcome.code == 3
    assert "2 of 3 files restored" in outcome.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".nlrn", "a.png", "s.tif"]
    again = nlrn(*batch, "--resume")
    assert "2 done before" in again.err
    other = nlrn(*batch, "--resume", "--pages", "1-2")
    assert other.code == 2
    assert "pages was not given and is [[1, 2]]" in other.err
    assert nlrn(*batch, "--jobs", 2, "--overwrite").code == 3
    assert tifffile.imread("out/s.tif").shape == (3, 2, 24, 20)


def test_a_failure_halfway_leaves_no_file(nlrn, tmp_path):
    """The NaN shows when the fourth page is read."""
    planes = RNG.random((5, 24, 20)).astype("float32")
    planes[3, 2, 2] = np.nan
    tifffile.imwrite("t.tif", planes, photometric="minisblack")
    outcome = nlrn("denoise", "t.tif", "--model", "gaussian", "--sigma", 5, "-o", "out.tif")
    assert outcome.code == 4
    assert "t.tif, page 4 has NaN or infinite values" in outcome.err
    assert [p.name for p in tmp_path.iterdir()] == ["t.tif"]


def test_a_path_of_several_pages_in_python(stack, tmp_path):
    import nlrn

    pages = nlrn.denoise(stack, 0.1, model="gaussian")
    assert pages.shape == (6, 24, 20)
    written = nlrn.denoise(stack, 0.1, model="gaussian", output=tmp_path / "o.tif")
    assert np.array_equal(tifffile.imread(written).reshape(6, 24, 20), pages)
    with pytest.raises(ValueError, match="PNG cannot hold 6 pages; TIFF can"):
        nlrn.denoise(stack, 0.1, model="gaussian", output=tmp_path / "o.png")
    with tifffile.TiffWriter(tmp_path / "d.tif") as file:
        for side in (20, 30):
            file.write(np.zeros((side, side), np.uint8))
    with pytest.raises(ValueError, match="differ in size or type and are no array; output= writes a file"):
        nlrn.denoise(tmp_path / "d.tif", 5, model="gaussian")
    assert nlrn.denoise(tmp_path / "d.tif", 5, model="gaussian", output=tmp_path / "e.tif").exists()
