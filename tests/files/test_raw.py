"""Camera raw: a DNG file that the test writes, developed, denoised and written as TIFF with its EXIF data."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import tifffile
from skimage.data import astronaut

from nlrn.evaluation.metrics import psnr
from nlrn.files import exif
from nlrn.files.codecs import sniff
from nlrn.files.images import ImageError, encode_image, image_size, read_image
from nlrn.files.pages import read_pages

SIDE = 64
# From sRGB's primaries to XYZ: with its inverse as a color matrix, the camera sees as sRGB does.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def dng(linear: np.ndarray, orientation: int = 1, **options: object) -> bytes:
    """A DNG file of linear RGB in [0, 1] that a sensor with the pattern RGGB has seen in 12 bit, with a pedestal."""
    mosaic = linear[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = linear[::2, ::2, 0], linear[1::2, 1::2, 2]
    counts = (256 + mosaic * (4095 - 256)).round().clip(0, 4095).astype(np.uint16)
    matrix = [int(x) for value in np.linalg.inv(TO_XYZ).ravel() for x in (round(value * 10000), 10000)]
    tags = [
        (271, "s", 0, "Maker", True),
        (272, "s", 0, "Model 1", True),
        (274, "H", 1, orientation, True),
        (306, "s", 0, "2001:02:03 04:05:06", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, b"\0\1\1\2", True),
        (50706, "B", 4, b"\1\4\0\0", True),
        (50707, "B", 4, b"\1\1\0\0", True),
        (50708, "s", 0, "Maker Model 1", True),
        (50714, "H", 1, 256, True),
        (50717, "I", 1, 4095, True),
        (50721, "2i", 9, tuple(matrix), True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, 21, True),
    ]
    file = io.BytesIO()
    tifffile.imwrite(
        file, counts, photometric=32803, extratags=tags, metadata=None, software=False, **options
    )
    return file.getvalue()


def ramp() -> np.ndarray:
    """Linear RGB: brighter to the right, in three colours."""
    light = np.linspace(0.05, 0.9, SIDE)[None, :, None]
    return np.broadcast_to(light * np.array([0.9, 0.7, 0.5]), (SIDE, SIDE, 3)).copy()


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
