"""`nlrn restore`."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from skimage.data import astronaut

from nlrn.files.images import Image, read_image, write_image

CLEAN = astronaut()[3:67, 61:125]


@pytest.fixture
def folder(tmp_path):
    """A clean picture, one with blocks and a JPEG file of a quality that is left."""
    write_image(Image(CLEAN), tmp_path / "clean.png")
    file = io.BytesIO()
    Pillow.fromarray(CLEAN).save(file, "JPEG", quality=25)
    write_image(Image(read_image(file.getvalue()).pixels), tmp_path / "blocks.png")
    Pillow.fromarray(CLEAN).save(tmp_path / "fine.jpg", quality=98, comment=b"untouched")
    return tmp_path


def test_a_batch_says_what_it_did_and_why(nlrn, folder):
    outcome = nlrn("restore", "clean.png", "blocks.png", "fine.jpg", "-o", "out/")
    assert outcome.code == 0, outcome.err
    assert "clean.png -> out/clean.png (no model, " in outcome.err
    assert "note: no noise and no compression found that a restoration would improve" in outcome.err
    assert "blocks.png -> out/blocks.png (nlrn-small-dejpeg-color, " in outcome.err
    assert "note: blocks of JPEG compression, seams of " in outcome.err
    assert "note: a JPEG file of quality 98: dejpeg would take more than it gives" in outcome.err
    assert (read_image(folder / "out/clean.png").pixels == CLEAN).all()
    assert (read_image(folder / "out/blocks.png").pixels != CLEAN).any()


def test_a_jpeg_file_that_stays_is_not_compressed_again(nlrn, folder):
    outcome = nlrn("restore", "fine.jpg")
    assert outcome.code == 0, outcome.err
    assert "note: the picture is what it was, and the file is copied" in outcome.err
    assert (folder / "fine-restored.jpg").read_bytes() == (folder / "fine.jpg").read_bytes()
    as_png = nlrn("restore", "fine.jpg", "--format", "png")
    assert "is copied" not in as_png.err
    assert (read_image(folder / "fine-restored.png").pixels == read_image(folder / "fine.jpg").pixels).all()
    assert nlrn("restore", "fine.jpg", "--scale", 2).code == 0
    assert read_image(folder / "fine-restored-x2.jpg").pixels.shape == (128, 128, 3)


def test_an_animation_that_stays_is_not_compressed_again(nlrn, folder):
    frames = [Pillow.new("RGB", (40, 30), (40 * n, 90, 20)) for n in range(1, 4)]
    frames[0].save(folder / "still.webp", save_all=True, append_images=frames[1:], quality=30)
    outcome = nlrn("restore", "still.webp")
    assert outcome.code == 0, outcome.err
    assert "the file is copied" in outcome.err
    assert (folder / "still-restored.webp").read_bytes() == (folder / "still.webp").read_bytes()
    assert "is copied" not in nlrn("restore", "still.webp", "-o", "still.png").err


def test_a_dry_run_foresees_the_steps(nlrn, folder):
    outcome = nlrn("restore", "clean.png", "blocks.png", "--scale", 2, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "clean.png -> clean-restored-x2.png (nlrn-small-upscale, " in outcome.err
    assert (
        "blocks.png -> blocks-restored-x2.png (nlrn-small-dejpeg-color, nlrn-small-upscale, " in outcome.err
    )
    assert not list(folder.glob("*restored*"))


def test_a_dry_run_of_small_files_takes_no_time_of_zero(nlrn, folder):
    assert (
        "clean.png -> clean-restored.png (no model, less than a second)"
        in nlrn("restore", "clean.png", "--dry-run").err
    )


@pytest.mark.parametrize("estimate", ["stack", "page"])
def test_a_dry_run_looks_at_the_pages(nlrn, tmp_path, estimate):
    """At those from which the steps of a stack follow, or at all: the first page says nothing of the others."""
    noise = np.random.default_rng(0).normal(0, 15, (3, 64, 64))
    pages = np.stack([np.full((64, 64), 128.0), *(CLEAN[:64, :64, 0] + noise)]).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pages, metadata={"axes": "ZYX"}, imagej=True)
    foreseen = json.loads(
        nlrn("restore", "s.tif", "--estimate", estimate, "--dry-run", "--json").out.splitlines()[0]
    )
    done = json.loads(nlrn("restore", "s.tif", "--estimate", estimate, "--json").out.splitlines()[0])
    assert foreseen["pages"] == done["pages"] == 4
    assert foreseen["model"] == "nlrn-small-gray"
    assert "nlrn-small-gray" in done["model"]


def test_json_and_resume(nlrn, folder):
    batch = ("restore", "clean.png", "blocks.png", "-o", "out/")
    lines = [json.loads(line) for line in nlrn(*batch, "--json").out.splitlines()]
    assert [line["model"] for line in lines[:2]] == ["no model", "nlrn-small-dejpeg-color"]
    assert nlrn(*batch, "--resume").err.count("2 done before") == 1
    other = nlrn(*batch, "--resume", "--strength", "0.5,1")
    assert other.code == 2
    assert "strength" in other.err


def test_pages_share_the_steps(nlrn, tmp_path):
    pages = np.stack([CLEAN[..., 0], CLEAN[..., 1]])
    tifffile.imwrite(tmp_path / "stack.tif", pages, metadata={"axes": "ZYX"}, imagej=True)
    outcome = nlrn("restore", "stack.tif")
    assert outcome.code == 0, outcome.err
    assert (tifffile.imread(tmp_path / "stack-restored.tif") == pages).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", 1), "--scale must be above 1 and at most 16, got 1"),
        (("--scale", 2, "--fit", "90x90"), "--scale and --fit contradict each other"),
        (
            ("--strength", "1,2"),
            "strength must be a number from 0 to 1, or two (luma, colour), got (1.0, 2.0)",
        ),
        (("--estimate", "none"), "--estimate must be stack or page, got 'none'"),
        (("--model", "bm3d"), "No such option: --model"),
    ],
)
def test_bad_options(nlrn, folder, arguments, message):
    outcome = nlrn("restore", "clean.png", *arguments)
    assert (outcome.code, "Traceback" in outcome.err) == (2, False)
    assert message in outcome.err
    assert not (folder / "clean-restored.png").exists()
