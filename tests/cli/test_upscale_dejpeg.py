"""`nlrn upscale` and `nlrn dejpeg`."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.files.images import Image, read_image, write_image


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    write_image(Image(rng.integers(60, 190, (20, 24, 3), dtype=np.uint8)), tmp_path / "a.png")
    write_image(Image(rng.integers(60, 190, (18, 16), dtype=np.uint8)), tmp_path / "b.png")
    return tmp_path


def test_upscale(nlrn, folder, tiny_upscaler):
    outcome = nlrn("upscale", "a.png", "b.png", "--scale", 3, "--model", tiny_upscaler)
    assert outcome.code == 0, outcome.err
    assert "a.png -> a-x3.png" in outcome.err
    assert read_image(folder / "a-x3.png").pixels.shape == (60, 72, 3)
    assert read_image(folder / "b-x3.png").pixels.shape == (54, 48)
    again = nlrn("upscale", "a.png", "--scale", 3, "--model", tiny_upscaler)
    assert again.code == 2
    assert "a-x3.png exists; pass --overwrite" in again.err
    assert nlrn("upscale", "a.png", "--model", tiny_upscaler).code == 0
    assert read_image(folder / "a-x2.png").pixels.shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("arguments", "name", "shape"),
    [
        (("--scale", 1.5), "a-x1.5.png", (30, 36)),
        (("--scale", "2.0"), "a-x2.png", (40, 48)),
        (("--size", "80x"), "a-80w.png", (67, 80)),
        (("--size", "x70"), "a-70h.png", (70, 84)),
        (("--size", "60x50"), "a-60x50.png", (50, 60)),
        (("--fit", "60x90"), "a-fit60x90.png", (50, 60)),
    ],
)
def test_any_size(nlrn, folder, tiny_upscaler, arguments, name, shape):
    outcome = nlrn("upscale", "a.png", *arguments, "--model", tiny_upscaler)
    assert outcome.code == 0, outcome.err
    assert f"a.png -> {name}" in outcome.err
    assert "note:" not in outcome.err
    assert read_image(folder / name).pixels.shape == (*shape, 3)


def test_twice_with_a_note(nlrn, folder, tiny_upscaler):
    outcome = nlrn("upscale", "a.png", "--scale", 5, "--model", tiny_upscaler)
    assert outcome.code == 0, outcome.err
    assert "note: the network enlarges by 4 at most and is applied twice, by 3 and 2" in outcome.err
    assert "by 3 and 2, then bicubic down\n" in outcome.err
    assert read_image(folder / "a-x5.png").pixels.shape == (100, 120, 3)


def test_a_file_that_cannot_have_the_size_fails_alone(nlrn, folder, tiny_upscaler):
    """Before the work: with --dry-run too."""
    write_image(Image(np.full((64, 64), 100, np.uint8)), folder / "large.png")
    batch = ("upscale", "a.png", "large.png", "b.png", "--fit", "48x60", "--model", tiny_upscaler)
    for extra in (("--dry-run",), ()):
        outcome = nlrn(*batch, *extra)
        assert outcome.code == 3
        reason = "the result must be larger than the image, 64x64 (width x height), got 48x48"
        assert f"failed: large.png: {reason}" in outcome.err
        assert "Traceback" not in outcome.err
        assert (folder / "a-fit48x60.png").exists() is (folder / "b-fit48x60.png").exists() is not extra
    assert read_image(folder / "a-fit48x60.png").pixels.shape == (40, 48, 3)
    assert read_image(folder / "b-fit48x60.png").pixels.shape == (54, 48)
    assert not (folder / "large-fit48x60.png").exists()


def test_resume_knows_the_size(nlrn, folder, tiny_upscaler):
    batch = ("upscale", "a.png", "b.png", "-o", "out/", "--model", tiny_upscaler)
    assert nlrn(*batch, "--size", "60x").code == 0
    done = nlrn(*batch, "--size", "60x", "--resume")
    assert (done.code, done.err.count("2 done before")) == (0, 1)
    other = nlrn(*batch, "--size", "x60", "--resume")
    assert other.code == 2
    assert "begun with other options (size was 60x and is x60)" in other.err
    other = nlrn(*batch, "--scale", 1.5, "--resume")
    assert "(scale was not given and is 1.5, size was 60x and is not given)" in other.err


def test_processes_make_the_same(nlrn, folder, tiny_upscaler):
    batch = ("upscale", "a.png", "b.png", "--fit", "30x40", "--model", tiny_upscaler)
    assert nlrn(*batch, "-o", "one/").code == 0
    assert nlrn(*batch, "-o", "two/", "--jobs", 2).code == 0
    for name in ("a.png", "b.png"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def test_pages_each_have_their_size(nlrn, folder, tiny_upscaler):
    import tifffile

    with tifffile.TiffWriter(folder / "p.tif") as file:
        for shape in ((20, 24), (30, 20)):
            file.write(np.full(shape, 3000, np.uint16), metadata=None)
    outcome = nlrn("upscale", "p.tif", "--fit", "60x60", "--model", tiny_upscaler)
    assert outcome.code == 0, outcome.err
    with tifffile.TiffFile(folder / "p-fit60x60.tif") as file:
        assert [page.shape for page in file.pages] == [(50, 60), (60, 40)]
        assert all(page.dtype == np.uint16 for page in file.pages)
        assert not file.is_bigtiff


def test_help_fits_80_columns(nlrn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = nlrn("upscale", "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for option in ("--scale", "--size", "--fit"):
        assert option in shown


def test_dejpeg(nlrn, folder, tiny_dejpeg):
    outcome = nlrn("dejpeg", "a.png", "-o", "clean/", "--model", tiny_dejpeg)
    assert outcome.code == 0, outcome.err
    assert read_image(folder / "clean" / "a.png").pixels.shape == (20, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upscale",), "no input; give files, folders or -"),
        (("dejpeg",), "no input; give files, folders or -"),
        (("upscale", "a.png", "--scale", 1), "--scale must be above 1 and at most 16, got 1"),
        (("upscale", "a.png", "--scale", 16.5), "--scale must be above 1 and at most 16, got 16.5"),
        (("upscale", "a.png", "--scale", "nan"), "--scale must be above 1 and at most 16, got nan"),
        (("upscale", "a.png", "--scale", "inf"), "--scale must be above 1 and at most 16, got inf"),
        (("upscale", "a.png", "--scale", 2, "--fit", "90x90"), "--scale and --fit contradict each other"),
        (
            ("upscale", "a.png", "--size", "90"),
            "--size must be WIDTHxHEIGHT, such as 4096x2160, 4096x or x2160, got '90'",
        ),
        (("upscale", "a.png", "--size", "x"), "--size must be WIDTHxHEIGHT"),
        (
            ("upscale", "a.png", "--size", "0x"),
            "--size must be WIDTHxHEIGHT, such as 4096x2160, 4096x or x2160, got '0x'",
        ),
        (("upscale", "a.png", "--fit", "90x"), "--fit must be WIDTHxHEIGHT, such as 3840x2160, got '90x'"),
        (("upscale", "a.png", "--scale", "x"), "Invalid value for '--scale'"),
        (("upscale", "nosuch.png"), "nosuch.png"),
        (("upscale", "a.png", "--model", "nlrn-small-gray"), "nlrn-small-gray is a model for denoise"),
        (("dejpeg", "a.png", "--model", "nlrn-small-upscale"), "is a model for upscale, not for dejpeg"),
        (("denoise", "a.png", "--model", "nlrn-small-upscale"), "is a model for upscale, not for denoise"),
        (("dejpeg", "a.png", "--data-range", 0), "--data-range must be positive, got 0"),
    ],
)
def test_refusals(nlrn, folder, arguments, message):
    before = sorted(path.name for path in folder.iterdir())
    outcome = nlrn(*arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_benchmarks(nlrn, folder, tiny_upscaler, tiny_dejpeg, tiny_colour):
    rng = np.random.default_rng(0)
    for name in ("Set5/a", "classic5/a", "PolyU/X_1_mean", "PolyU/X_1_real"):
        path = folder / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (24, 20) if "classic5" in name else (24, 20, 3)
        write_image(Image(rng.integers(60, 190, shape, dtype=np.uint8)), path)
    data = ("--data", "data")
    sr = nlrn("benchmark", "sr", *data, "--sets", "Set5", "--model", tiny_upscaler, "--out", "sr")
    assert sr.code == 0, sr.err
    assert "37.53" in sr.out
    table = (folder / "sr" / "table.md").read_text()
    assert "| set | scale | model | steps | bicubic | PSNR | unrounded | SSIM | VDSR |" in table
    assert read_image(folder / "sr" / "sheet.png").pixels.ndim == 3
    jpeg = nlrn("benchmark", "jpeg", *data, "--sets", "PolyU", "--qualities", 10, "--model", tiny_dejpeg)
    assert jpeg.code == 0, jpeg.err
    real = nlrn("benchmark", "real", *data, "--cameras", "X", "--models", tiny_colour)
    assert real.code == 0, real.err
    assert "PolyU X" in real.out
    steps = nlrn("benchmark", "real", *data, "--cameras", "X", "--steps", 2)  # without BM3D, which has none
    assert steps.code == 0, steps.err
    for wrong, message in (
        (("real", "--cameras", "X", "--models", tiny_dejpeg), "is a model for dejpeg, not for photo"),
        (("jpeg", "--sets", "PolyU", "--qualities", "10,10.9"), "--qualities must be whole numbers"),
        (("sr", "--scales", "2.5"), "--scales must be whole numbers, got '2.5'"),
        (("sr", "--scales", "1"), "--scales must lie between 2 and 16"),
        (("jpeg", "--qualities", "0"), "--qualities must lie between 1 and 100"),
        (("real", "--cameras", "Y"), "has a name like Y*_mean.*"),
    ):
        outcome = nlrn("benchmark", *wrong, *data)
        assert outcome.code == 2
        assert message in outcome.err


def test_xmp_of_a_smaller_picture_is_left_out_and_told(nlrn, folder, tiny_upscaler, tiny_dejpeg):
    """It may say the size; where the size stays, so does it."""
    image = Image(np.full((20, 24, 3), 100, np.uint8), xmp=b"<x/>")
    write_image(image, folder / "xmp.png")
    told = "note: XMP data, which may say the old size, is left out"
    assert told in nlrn("upscale", "xmp.png", "--model", tiny_upscaler).err
    assert read_image(folder / "xmp-x2.png").xmp is None
    assert told not in nlrn("dejpeg", "xmp.png", "--model", tiny_dejpeg).err
    assert read_image(folder / "xmp-dejpeg.png").xmp == b"<x/>"
