"""Camera raw: a DNG file that the test writes, developed, denoised and written as TIFF with its EXIF data."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from image_files import SIDE, dng, ramp
from skimage.data import astronaut

from nlrn.evaluation.metrics import psnr
from nlrn.files import exif
from nlrn.files.codecs import sniff
from nlrn.files.images import ImageError, encode_image, image_size, read_image
from nlrn.files.pages import read_pages


def srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture(autouse=True)
def _needs_rawpy():
    pytest.importorskip("rawpy", reason="camera raw needs the package rawpy")


def test_a_dng_is_developed_to_the_colours_that_it_saw():
    data = dng(ramp())
    image = read_image(data)
    assert (image.format, image.pixels.dtype, image.pixels.shape) == ("RAW", np.uint16, (SIDE, SIDE, 3))
    inner = np.s_[4:-4, 4:-4]
    error = np.abs(image.pixels[inner] / 65535 - srgb(ramp())[inner])
    assert error.max() < 0.002
    assert image.notes == ("camera raw developed to 16 bit, with the white balance of the camera",)
    assert image_size(data) == (SIDE, SIDE)


def test_it_is_written_as_tiff_with_its_exif():
    data = dng(ramp())
    written = read_image(encode_image(read_image(data)))
    assert written.format == "TIFF"
    main = exif.parse(written.exif).main
    assert main[exif.MAKE].data == b"Maker\0"
    assert main[exif.DATE_TIME].data == b"2001:02:03 04:05:06\0"
    assert not {50706, 50721, 33421} & set(exif.main_tags(encode_image(read_image(data))))


def test_a_turned_one_is_turned_once():
    wide = ramp()[:40]
    image = read_image(dng(wide, orientation=6))
    assert image.pixels.shape == (SIDE, 40, 3)
    assert image.pixels[-8, 20].mean() > 2 * image.pixels[8, 20].mean()
    assert exif.ORIENTATION not in exif.parse(image.exif).main
    assert image_size(dng(wide, orientation=6)) == (40, SIDE)


def test_it_is_one_page_and_known_by_its_content(tmp_path):
    for data in (dng(ramp()), dng(ramp(), byteorder=">")):
        assert sniff(data, "a") == "RAW"
        (tmp_path / "a.dng").write_bytes(data)
        with read_pages(tmp_path / "a.dng") as pages:
            assert len(pages) == 1
            assert pages[0].notes == ("camera raw developed to 16 bit, with the white balance of the camera",)


def test_noise_of_the_sensor_is_removed(nlrn_command, tmp_path):
    seen = astronaut()[:96, 100:196] / 255
    linear = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    noise = np.random.default_rng(0).normal(0, 1, seen.shape) * np.sqrt(0.005 * linear)
    (tmp_path / "a.dng").write_bytes(dng(linear + noise))
    nlrn_command("denoise", "a.dng")
    clean = read_image(dng(linear)).pixels
    before, after = read_image(tmp_path / "a.dng").pixels, read_image(tmp_path / "a-denoised.tif").pixels
    assert after.dtype == np.uint16
    assert psnr(after / 257, clean / 257) > psnr(before / 257, clean / 257) + 3


@pytest.fixture
def nlrn_command(tmp_path, monkeypatch):
    from nlrn.cli import main

    def run(*arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        assert stopped.value.code == 0

    return run


def header(order: str, tags: dict[int, tuple[int, bytes]]) -> bytes:
    """The first bytes of a TIFF file with these tags of up to four bytes."""
    entries = b"".join(
        struct.pack(f"{order}HHI", code, kind, len(value)) + value.ljust(4, b"\0")
        for code, (kind, value) in sorted(tags.items())
    )
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(64)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(64), "RAW"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(64), "RAW"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(64), "RAW"),
        (header("<", {254: (1, b"\1"), 271: (2, b"SONY"), 330: (1, b"\0")}), "RAW"),
        (header("<", {254: (1, b"\0"), 271: (2, b"SONY"), 330: (1, b"\0")}), "TIFF"),
        (header("<", {254: (1, b"\1"), 271: (2, b"ACME"), 330: (1, b"\0")}), "TIFF"),
        (header(">", {271: (2, b"SONY")}), "TIFF"),
    ],
    ids=["cr2", "raf", "cr3", "arw", "tiff of a maker", "another maker", "big-endian"],
)
def test_raw_files_are_told_from_other_tiff_files(head, kind):
    assert sniff(head, "a") == kind


def test_damaged_and_missing(monkeypatch):
    with pytest.raises(ImageError, match=r"the image is a damaged (or unsupported )?raw file"):
        read_image(b"FUJIFILMCCD-RAW 0201" + bytes(5000))
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"camera raw needs the package rawpy: .*'nlrn\[raw\]'"):
        read_image(dng(ramp()))


def test_a_result_is_never_raw(tmp_path):
    from nlrn.files.images import check_writable

    with pytest.raises(ImageError, match="RAW files are only read"):
        check_writable(read_image(dng(ramp())), tmp_path / "a.dng")
