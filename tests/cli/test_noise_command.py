"""`nlrn noise`, and counts of a sensor through `nlrn denoise`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from nlrn.files.images import Image, read_image, write_image


@pytest.fixture
def counts(tmp_path):
    """A 16-bit TIFF of gain 2, read noise 10 and offset 100, with three hot pixels."""
    light = np.linspace(20, 500, 200) * np.ones((200, 1))
    rng = np.random.default_rng(0)
    pixels = 100 + 2.0 * rng.poisson(light) + 10 * rng.standard_normal(light.shape)
    pixels[[20, 90, 150], [30, 60, 190]] = 50000
    path = tmp_path / "counts.tif"
    write_image(Image(pixels.round().clip(0).astype(np.uint16)), path)
    return path


@pytest.fixture
def flat(tmp_path):
    path = tmp_path / "flat.png"
    write_image(Image(np.full((64, 64), 9, np.uint8)), path)
    return path


def test_lines(nlrn, counts, flat):
    done = nlrn("noise", counts, flat)
    assert done.code == 0
    assert "units per electron (values are 0..65535), for --gain" in done.out
    assert "whiteness" in done.out
    assert "it is constant; give --gain and --read-noise" in done.out


def test_what_rows_share(nlrn, counts, tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (64, 96)) + rng.normal(0, 8, (64, 1))
    write_image(Image((128 + noise).round().astype(np.uint8)), tmp_path / "rows.png")
    done = nlrn("noise", tmp_path / "rows.png", counts)
    assert [line.split()[:2] for line in done.out.splitlines() if "--decorrelate" in line] == [
        ["lines", "rows"]
    ]
    found = [
        json.loads(line) for line in nlrn("noise", tmp_path / "rows.png", counts, "--json").out.splitlines()
    ]
    assert [one["lines"] for one in found] == [["rows"], []]


def test_json_and_plot(nlrn, counts, tmp_path):
    done = nlrn("noise", counts, "--json", "--plot", "plot.png")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["a"] == pytest.approx(2, rel=0.1)
    assert found["b"] == pytest.approx(100 - 200, abs=60)
    assert found["unknown"] is None
    plot = read_image(tmp_path / "plot.png").pixels
    assert plot.shape == (480, 720, 3)
    red = (plot == (214, 39, 40)).all(-1)
    blue = (plot == (31, 119, 180)).all(-1)
    # The line goes up, and the points lie along it.
    rows, columns = np.nonzero(red[60:])
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    slope, start = np.polyfit(columns, rows, 1)
    down, across = np.nonzero(blue[60:])
    assert np.median(np.abs(down - slope * across - start)) < 15


def test_failures(nlrn, counts, flat, tmp_path):
    done = nlrn("noise", counts, "nothing.png")
    assert (done.code, done.err) == (3, "nlrn: No such file or directory: nothing.png\n")
    assert nlrn("noise", "nothing.png").code == 4
    done = nlrn("noise", flat, "--plot", "plot.png")
    assert done.code == 4
    assert "no plot of" in done.err
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "b.png", "--plot", "plot.png"), "--plot draws one image, got 2"),
        (("a.png", "--plot", "plot.jpg"), "the plot must be named *.png, got plot.jpg"),
        (("a.png", "--plot", "there.png"), "there.png exists; pass --overwrite to replace it"),
    ],
    ids=["two", "format", "exists"],
)
def test_refused(nlrn, tmp_path, arguments, message):
    (tmp_path / "there.png").write_bytes(b"")
    done = nlrn("noise", *arguments)
    assert (done.code, done.err) == (2, f"nlrn: {message}\n")


def test_denoise(nlrn, counts, tmp_path):
    options = ("--noise", "poisson-gaussian", "--hot-pixels", "--model", "gaussian")
    done = nlrn("denoise", counts, *options)
    assert done.code == 0
    assert "3 hot or dead pixels are replaced by the median of the neighbours" in done.err
    assert "--gain and --read-noise set another" in done.err
    clean = read_image(tmp_path / "counts-denoised.tif").pixels
    assert clean.dtype == np.uint16
    assert clean.max() < 1300
    done = nlrn(
        "denoise",
        counts,
        *options[:2],
        "--gain",
        2,
        "--read-noise",
        10,
        "--offset",
        100,
        "--json",
        "--overwrite",
    )
    assert done.code == 0
    assert json.loads(done.out.splitlines()[0])["sigma"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--noise", "poisson-gaussian", "--sigma", "5"),
            "--sigma is for white noise and --noise for a sensor's; give one of them",
        ),
        (("--noise", "poisson"), "noise must be 'poisson-gaussian', got 'poisson'"),
        (("--gain", "2"), "--gain describes --noise poisson-gaussian; give --noise too"),
        (("--noise", "poisson-gaussian", "--gain", "0"), "gain must be finite and > 0, got 0"),
    ],
    ids=["sigma", "kind", "alone", "zero"],
)
def test_denoise_refuses(nlrn, counts, tmp_path, arguments, message):
    done = nlrn("denoise", counts, *arguments)
    assert (done.code, done.err) == (2, f"nlrn: {message}\n")
    assert not (tmp_path / "counts-denoised.tif").exists()


def test_unknown_noise_fails_the_file(nlrn, tmp_path):
    write_image(
        Image(np.random.default_rng(0).poisson(9.0, (96, 96)).astype(np.uint8)), tmp_path / "even.png"
    )
    done = nlrn("denoise", "even.png", "--noise", "poisson-gaussian")
    assert done.code == 4
    assert "about the same brightness; give --gain and --read-noise" in done.err
    assert not (tmp_path / "even-denoised.png").exists()


def test_the_demo_has_white_noise(nlrn):
    assert nlrn("denoise", "--demo", "--noise", "poisson-gaussian").code == 2


def test_the_pages_of_a_stack_are_measured_together(nlrn, tmp_path):
    rng = np.random.default_rng(0)
    pages = (2000 + rng.normal(0, 257 * np.arange(1, 7)[:, None, None], (6, 48, 48))).clip(0).astype("uint16")
    tifffile.imwrite(tmp_path / "s.tif", 20000 + pages)
    found = json.loads(nlrn("noise", "s.tif", "--json").out)
    assert found["pages"] == "6 of 6 pages"
    assert found["sigma"] == pytest.approx(3.5, rel=0.2)  # the median of 1 to 6
    assert json.loads(nlrn("noise", "s.tif", "--json", "--pages", "1-2").out)["sigma"] < 2
    tifffile.imwrite(
        tmp_path / "c.tif", 20000 + pages.reshape(3, 2, 48, 48), imagej=True, metadata={"axes": "ZCYX"}
    )
    lines = [json.loads(line) for line in nlrn("noise", "c.tif", "--json").out.splitlines()]
    assert [line["pages"] for line in lines] == [
        f"3 of 3 pages, channel or size {number} of 2" for number in (1, 2)
    ]
    assert lines[0]["sigma"] < lines[1]["sigma"]
    outcome = nlrn("noise", "c.tif", "--plot", "plot.png")
    assert outcome.code == 4
    assert "are of 2 kinds" in outcome.err
