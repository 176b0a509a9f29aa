"""`--format`, and formats that the commands read and write."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from nlrn.files.images import Image, encode_image, read_image, write_image

RNG = np.random.default_rng(0)
NOISY = np.clip(120 + RNG.normal(0, 15, (32, 40, 3)), 0, 255).astype(np.uint8)
FAST = ("--model", "gaussian", "--sigma", "15")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("jxl", "JXL"), ("avif", "AVIF"), ("JPG", "JPEG"), ("webp", "WEBP"), ("tif", "TIFF")],
)
def test_results_in_another_format(name, expected, nlrn, tmp_path):
    write_image(Image(NOISY), tmp_path / "a.png")
    outcome = nlrn("denoise", "a.png", *FAST, "--format", name)
    assert outcome.code == 0, outcome.err
    (result,) = tmp_path.glob("a-denoised.*")
    read = read_image(result)
    assert read.format == expected
    assert read.notes == ()
    assert read.pixels.std() < NOISY.std() / 2


def test_the_format_of_standard_output_and_of_a_folder(nlrn, tmp_path, monkeypatch):
    data = encode_image(Image(NOISY))
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out, isatty=lambda: False, flush=lambda: None))
    assert nlrn("denoise", "-", *FAST, "--format", "jxl").code == 0
    assert read_image(out.getvalue()).format == "JXL"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    (tmp_path / "clean").mkdir()
    assert nlrn("denoise", "-", *FAST, "--format", "tiff", "-o", "clean").code == 0
    assert read_image(tmp_path / "clean" / "standard-input.tif").format == "TIFF"


def test_a_format_that_cannot_hold_the_result(nlrn, tmp_path):
    write_image(Image(NOISY.astype(np.uint16)), tmp_path / "a.png")
    outcome = nlrn("denoise", "a.png", *FAST, "--format", "avif")
    assert outcome.code == 4
    assert "AVIF cannot hold uint16 pixels; PNG, TIFF or JXL can" in outcome.err
    outcome = nlrn("denoise", "a.png", "--format", "heic")
    assert outcome.code == 2
    assert (
        "--format must be one of png, jpeg, tiff, webp, bmp, jxl, avif, fits, jpg, tif, got 'heic'"
        in outcome.err
    )


def test_a_folder_of_photographs_of_a_phone(nlrn, tmp_path):
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the package pillow-heif")
    from PIL import Image as PillowImage

    package.from_pillow(PillowImage.fromarray(NOISY)).save(tmp_path / "a.heic", quality=90)
    (tmp_path / "b.avif").write_bytes(encode_image(Image(NOISY), "AVIF"))
    outcome = nlrn("denoise", ".", *FAST, "-o", "clean")
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "clean").glob("*.png")) == ["a.png", "b.png"]


def test_a_cube_of_measurements(nlrn, tmp_path):
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the package astropy")
    cube = (1000 + RNG.normal(0, 20, (3, 32, 40))).astype("float32")
    cube[1, 4:6, 7:9] = np.nan
    fits.PrimaryHDU(cube, fits.Header({"OBJECT": "x"})).writeto(tmp_path / "a.fits")
    outcome = nlrn("denoise", "a.fits", "--model", "gaussian")
    assert outcome.code == 0, outcome.err
    with fits.open(tmp_path / "a-denoised.fits") as file:
        clean, header = file[0].data, file[0].header
    assert np.array_equal(np.isnan(clean), np.isnan(cube))
    assert np.nanstd(clean) < np.nanstd(cube) / 2
    assert abs(np.nanmean(clean) - 1000) < 2
    assert header["OBJECT"] == "x"
    outcome = nlrn("noise", "a.fits", "--json")
    found = json.loads(outcome.out)
    assert found["pages"] == "3 of 3 pages"
    assert nlrn("noise", "a.fits", "--pages", "2-").out.startswith("a.fits (2 of 2 pages)")
