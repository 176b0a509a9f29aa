"""`nlrn.compare`: what it takes, what it refuses, and the page without a browser."""

from __future__ import annotations

import base64
import html
import re

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import nlrn
from nlrn.files import exif
from nlrn.files.images import Image, read_image, write_image
from nlrn.viewer import embedded
from nlrn.viewer.comparison import picture_of
from pictures import picture


def test_kinds_of_images(tmp_path):
    """All give the same pixels."""
    pixels = picture((20, 30, 3))
    write_image(Image(pixels), tmp_path / "a.png")
    kinds = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "batch": torch.from_numpy(pixels).permute(2, 0, 1)[None],
        "pillow": Pillow.fromarray(pixels),
        "path": tmp_path / "a.png",
        "text": str(tmp_path / "a.png"),
    }
    for kind in kinds.values():
        np.testing.assert_array_equal(picture_of(kind).pixels, pixels)
    assert repr(nlrn.compare(kinds["pillow"], kinds["text"])).startswith(
        "<Comparison of 30x20 pixels, 0.0 MB"
    )
    grey = picture_of(Pillow.fromarray(pixels).convert("LA"))
    assert (grey.pixels.shape, grey.alpha.shape) == ((20, 30), (20, 30))
    assert picture_of(torch.rand(1, 5, 6, dtype=torch.bfloat16)).pixels.shape == (5, 6)


def test_pictures_are_upright(tmp_path):
    pixels = picture((20, 30, 3))
    block = exif.build(exif.Directories(main={exif.ORIENTATION: exif.Tag(3, b"\6\0")}))
    write_image(Image(pixels, exif=block), tmp_path / "a.png")
    turned = np.rot90(pixels, -1)
    np.testing.assert_array_equal(picture_of(tmp_path / "a.png").pixels, turned)
    np.testing.assert_array_equal(picture_of(Pillow.open(tmp_path / "a.png")).pixels, turned)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((20, 30), (21, 30), "before has 30x20 pixels and after has 30x21"),
        ((20, 30), (40, 90), "before has 30x20 pixels and after has 90x40"),
        ((20, 30), (10, 15), "before has 30x20 pixels and after has 15x10"),
    ],
)
def test_sizes(before, after, words):
    with pytest.raises(ValueError, match=words):
        nlrn.compare(picture(before), picture(after))


def test_refusals(monkeypatch):
    pixels = picture((20, 30))
    with pytest.raises(TypeError, match="must be a path, a NumPy array, a tensor or a Pillow image, got int"):
        nlrn.compare(pixels, 3)
    with pytest.raises(ValueError, match="one image is compared at a time, got a batch of 2"):
        nlrn.compare(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="NaN or infinite"):
        nlrn.compare(np.full((4, 4), np.nan), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="the reference has 3x2 pixels and after has 30x20"):
        nlrn.compare(pixels, pixels, reference=picture((2, 3)))
    with pytest.raises(ValueError, match="labels must be two texts, one for either side, got 'ab'"):
        nlrn.compare(pixels, pixels, labels="ab")
    with pytest.raises(FileNotFoundError):
        nlrn.compare("no-such.png", pixels)
    monkeypatch.setattr("nlrn.viewer.comparison.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="these have 0 MB; compare a part"):
        nlrn.compare(pixels, pixels)


def test_figures_against_a_clean_image():
    clean = np.full((20, 30), 100, np.uint8)
    made = nlrn.compare(clean + np.uint8(10), clean + np.uint8(2), reference=clean)
    assert [round(score.psnr, 2) for score in made.scores] == [28.13, 42.11]
    assert "Before: PSNR 28.13 dB, SSIM" in made.html.decode()
    larger = nlrn.compare(clean[:10, :15], clean, reference=clean)
    assert larger.scores[0] is None
    assert "After: identical" in larger.html.decode()


def test_a_notebook_gets_a_frame_with_the_page():
    made = nlrn.compare(picture((20, 30)), picture((20, 30)), labels=('"one" & <two>', "b"))
    frame = re.fullmatch(
        r'<iframe srcdoc="([^"]*)" title="Before and after" style="[^"]*"></iframe>', made._repr_html_()
    )
    assert html.unescape(frame[1]) == made.html.decode()


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    made = nlrn.compare(picture((20, 30)), picture((20, 30)))
    path = made.save(tmp_path / "a.html")
    assert path.read_bytes() == made.html
    with pytest.raises(FileExistsError, match="exists"):
        made.save(path)
    made.save(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.html"]
    assert b"http" not in re.sub(rb"http-equiv", b"", made.html)


@pytest.mark.parametrize(
    ("dtype", "count"), [("uint8", 1), ("uint16", 2), ("float32", 4), ("float64", 4), ("int64", 4)]
)
def test_the_bytes_that_are_counted(dtype, count):
    assert embedded.embedded_bytes(Image(np.zeros((5, 6, 3), dtype))) == 90 * count
    assert embedded.embedded_bytes(Image(np.zeros((5, 6), dtype), np.zeros((5, 6), dtype))) == 60 * count


def test_one_range_for_both():
    """Or a restored picture would be brighter than the noisy one, which reaches further."""
    noisy = np.array([[0, 100], [500, 1000]] * 8, np.uint16)
    page = nlrn.compare(noisy, np.full_like(noisy, 500)).html.decode()
    shown = dict(re.findall(r'<script type="text/plain" id="([\w-]+)">([^<]+)', page))
    before, after, numbers = (
        read_image(base64.b64decode(shown[name])).pixels for name in ("before", "after", "before-values")
    )
    assert after[0, 0] == before[1, 0] == pytest.approx(255 * 500 / 1050, abs=3)
    np.testing.assert_array_equal(numbers, noisy)
