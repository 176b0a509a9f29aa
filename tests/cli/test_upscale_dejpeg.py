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


def test_dejpeg(nlrn, folder, tiny_dejpeg):
    outcome = nlrn("dejpeg", "a.png", "-o", "clean/", "--model", tiny_dejpeg)
    assert outcome.code == 0, outcome.err
    assert read_image(folder / "clean" / "a.png").pixels.shape == (20, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upscale",), "no input; give files, folders or -"),
        (("dejpeg",), "no input; give files, folders or -"),
        (("upscale", "a.png", "--scale", 5), "--scale must be one of 2, 3, 4, got 5"),
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
