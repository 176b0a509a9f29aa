"""Formats that are only read, and other names of those that are written too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import noise, saved
from PIL import Image as PillowImage

import nlrn
from nlrn.files.images import (
    Image,
    ImageError,
    check_writable,
    encode_image,
    find_images,
    image_size,
    read_image,
    write_image,
)

GREY, RGB = noise((7, 10)), noise((7, 10, 3))


def netpbm(kind: int, pixels: np.ndarray, white: int | None, comment: str = "") -> bytes:
    """A file made by hand, so that no library's reading is checked by its own writing."""
    size = f"P{kind}\n{comment}{pixels.shape[1]} {pixels.shape[0]}" + ("" if white is None else f"\n{white}")
    if kind > 3:
        content = pixels.astype(">u2" if white and white > 255 else np.uint8).tobytes()
        return size.encode() + b"\n" + (np.packbits(pixels, axis=1).tobytes() if white is None else content)
    return f"{size}\n{' '.join(str(int(value)) for value in pixels.ravel())}\n".encode()


BITS = GREY > 127
NETPBM = {
    "PBM": (lambda: netpbm(4, BITS, None), np.where(BITS, 0, 255), "uint8"),
    "PBM as text": (lambda: netpbm(1, BITS, None), np.where(BITS, 0, 255), "uint8"),
    "PBM as text without spaces": (lambda: b"P1 3 2 101010", np.array([[0, 255, 0], [255, 0, 255]]), "uint8"),
    "PGM": (lambda: netpbm(5, GREY, 255, "# a comment\n# another\n"), GREY, "uint8"),
    "PGM as text": (lambda: netpbm(2, GREY, 255), GREY, "uint8"),
    "PGM of 16 bit": (lambda: netpbm(5, noise((7, 10), "uint16"), 65535), noise((7, 10), "uint16"), "uint16"),
    "PGM of 10 bit": (lambda: netpbm(5, GREY.astype(int) * 4, 1023), np.rint(GREY * 4.0 * 65535 / 1023), "uint16"),
    "PGM of white 100": (lambda: netpbm(5, GREY % 101, 100), np.rint((GREY % 101) * 2.55), "uint8"),
    "PPM": (lambda: netpbm(6, RGB, 255), RGB, "uint8"),
    "PPM as text": (lambda: netpbm(3, RGB, 255), RGB, "uint8"),
    "PPM of 16 bit": (lambda: netpbm(6, noise((7, 10, 3), "uint16"), 65535), noise((7, 10, 3), "uint16"), "uint16"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETPBM)
def test_netpbm(kind):
    make, expected, dtype = NETPBM[kind]
    image = read_image(make())
    assert image.pixels.dtype == dtype
    assert np.array_equal(image.pixels, expected)
    assert image_size(make()) == expected.shape[1::-1]
    assert bool(image.notes) == (kind.startswith("PBM") or "10 bit" in kind or "100" in kind)
    assert np.array_equal(read_image(encode_image(image)).pixels, expected)  # as PNG


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P5 10", "header should have 3 numbers"),
        (b"P5 10 7 255\n" + bytes(69), "truncated: expected 70 bytes of pixels, found 69"),
        (b"P5 0 7 255\n", "no pixels"),
        (b"P5 99999 99999 255\n", "the limit is"),
        (b"P5 10 7 70000\n", "its white is 70000"),
        (b"P5 1 1 100\n\xff", "values of 255, and its white is 100"),
        (b"P2 2 1 255\n1 2 3", "should have 2 values and has 3"),
        (b"P2 2 1 255\n1 x", "damaged"),
        (2 * (b"P5 1 1 255\n" + b"\1"), "several images"),
    ],
)
def test_broken_netpbm(data, words):
    with pytest.raises(ImageError, match=words):
        read_image(data)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_gif(mode):
    picture = PillowImage.fromarray(noise((7, 10, 4)))
    picture.putalpha(255)
    data = saved(picture.convert("RGB").convert(mode), "GIF")
    image = read_image(data)
    with PillowImage.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("L" if mode == "L" else "RGB"))
    assert np.array_equal(image.pixels, expected)
    assert image_size(data) == (10, 7)


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".jif", ".JPG"])
def test_other_names_of_jpeg(suffix, tmp_path: Path):
    write_image(Image(RGB), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes()[:2] == b"\xff\xd8"
    assert find_images([tmp_path]) == [tmp_path / f"a{suffix}"]
    assert read_image(tmp_path / f"a{suffix}").notes == ()
    nlrn.dejpeg(tmp_path / f"a{suffix}", model="nlrn-small-dejpeg-color", steps=2, output=tmp_path / "b.png")


def test_the_first_picture_of_an_mpo_file(tmp_path: Path):
    pictures = [PillowImage.fromarray(noise((16, 16, 3), seed=seed)) for seed in (0, 1)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:], quality=100)
    image = read_image(tmp_path / "a.jpg")
    pictures[0].save(tmp_path / "b.jpg", quality=100)
    assert np.array_equal(image.pixels, read_image(tmp_path / "b.jpg").pixels)
    assert len(image.notes) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.ppm", "a.pgm"])
def test_only_read(name):
    with pytest.raises(ImageError, match="files are only read; expected one of"):
        check_writable(Image(GREY), name)
