"""Properties of readers and writers, from generated pictures and generated damage (hypothesis).

What a format holds comes back as it was written. Damaged files are read, or refused by `ImageError`: no other error, no
hang, and no more memory than a picture of the size that the header may claim.
"""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from image_files import FILES, SRGB, STACKS, exif_block

from nlrn.files.image import FORMATS, WRITTEN
from nlrn.files.images import Image, ImageError, encode_image, image_size, read_image
from nlrn.files.pages import read_pages, stream_pages

# The formats that keep every value, for the types that they hold.
LOSSLESS = {"PNG", "TIFF", "BMP", "FITS", "JXL", "WEBP"}
KEEPS_EXIF = {"PNG", "TIFF", "WEBP", "JPEG", "AVIF", "JXL"}
# Time for a file; and bytes for one, and for each pixel that it claims to have.
DEADLINE, MEMORY, A_PIXEL = timedelta(seconds=20), 64 << 20, 16
QUICK = settings(
    max_examples=40,
    deadline=DEADLINE,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
MANY = settings(QUICK, max_examples=300, derandomize=False)


@st.composite
def images(draw: st.DrawFn, name: str, dtypes: tuple[str, ...] | None = None) -> Image:
    """A picture that a format holds, with metadata."""
    target = FORMATS[name]
    dtype = np.dtype(draw(st.sampled_from(dtypes or target.dtypes)))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    shape = (height, width, 3) if target.colors and draw(st.booleans()) else (height, width)

    def pixels(size: tuple[int, ...]) -> np.ndarray:
        if dtype.kind == "f":
            elements = st.floats(allow_nan=False, allow_infinity=False, width=8 * dtype.itemsize)
            return draw(arrays.arrays(dtype, size, elements=elements))
        return draw(arrays.arrays(dtype, size))

    alpha = pixels(shape[:2]) if target.alpha and dtype.kind == "u" and draw(st.booleans()) else None
    return Image(
        pixels(shape),
        alpha,
        format=name,
        exif=draw(st.sampled_from([None, exif_block(1), exif_block(6)])),
        icc=draw(st.sampled_from([None, SRGB])),
        xmp=draw(st.sampled_from([None, b"<x:xmpmeta/>"])),
        resolution=draw(st.sampled_from([None, (72.0, 72.0), (300.0, 150.0)])),
    )


def check_round_trip(image: Image) -> None:
    """Writes and reads a picture: what its format holds is the same afterwards."""
    name = image.format
    data = encode_image(image, name)
    read = read_image(data)
    assert read.format == name
    assert image_size(data) == read.pixels.shape[1::-1]
    turned = image.exif == exif_block(6) and name in ("BMP", "JXL")
    if not turned:
        assert read.pixels.shape[:2] == image.pixels.shape[:2]
    assert read.pixels.dtype == image.pixels.dtype
    if name in LOSSLESS:
        same = [image.pixels, *([] if image.alpha is None else [image.alpha])]
        if turned:  # upright, as those formats are shown
            same = [np.rot90(one, -1) for one in same]
        pixels = read.pixels
        if pixels.ndim < same[0].ndim:  # a format may store a grey picture of three equal channels as grey
            pixels = np.repeat(pixels[..., None], 3, 2)
        elif pixels.ndim > same[0].ndim:
            assert (pixels == pixels[..., :1]).all()
            pixels = pixels[..., 0]
        assert np.array_equal(pixels, same[0])
        if image.alpha is not None:
            opacity = np.full_like(same[1], np.iinfo(same[1].dtype).max) if read.alpha is None else read.alpha
            assert np.array_equal(opacity, same[1])
    if name in KEEPS_EXIF:
        assert read.exif is not None or image.exif is None  # where the resolution stands, too
    if name in ("PNG", "TIFF", "WEBP", "JPEG"):
        assert (read.icc, read.xmp) == (image.icc, image.xmp)


def _round_trip(name: str) -> Callable[[st.DataObject], None]:
    return lambda data: check_round_trip(data.draw(images(name)))


@pytest.mark.parametrize("count", [QUICK, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("name", WRITTEN)
def test_pictures_come_back(name, count):
    if name == "FITS":
        pytest.importorskip("astropy", reason="FITS needs the package astropy")
    count(given(st.data())(_round_trip(name)))()


@pytest.mark.parametrize("name", ["TIFF", "FITS", "PNG"])
def test_pages_come_back(name):
    if name == "FITS":
        pytest.importorskip("astropy", reason="FITS needs the package astropy")

    @QUICK
    @given(
        st.integers(2, 4),
        st.sampled_from(["uint8", "uint16"]),
        st.tuples(st.integers(1, 9), st.integers(2, 9)),
    )
    def check(count: int, dtype: str, size: tuple[int, int]) -> None:
        planes = np.random.default_rng(0).integers(0, 255, (count, *size), dtype)
        first = [Image(one) for one in planes]
        source = Listed(first, loop=0 if name == "PNG" else None)
        if name == "PNG" and dtype == "uint16":
            return
        file = io.BytesIO()
        stream_pages(first, file, name, source)
        with read_pages(file.getvalue()) as pages:
            assert np.array_equal(np.stack([page.pixels for page in pages]), planes)

    check()


class Listed:
    """Pages in memory, as a writer asks about them."""

    format = "PNG"

    def __init__(self, pages: list[Image], loop: int | None) -> None:
        self._pages, self.loop = pages, loop

    def __len__(self) -> int:
        return len(self._pages)

    def are_alike(self) -> bool:
        return True

    def nbytes(self) -> int:
        return sum(page.pixels.nbytes for page in self._pages)


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of a file with some changed, left out, doubled or cut off; mostly in the header."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(damaged), draw(st.sampled_from([64, 400, len(data)]))) - 1))
        kind = draw(st.sampled_from(["change", "change", "text", "number", "cut", "leave out", "double"]))
        if kind == "change":
            damaged[place] = draw(st.integers(0, 255))
        elif kind == "text":
            damaged[place] = draw(st.sampled_from(b"0123456789 -.="))
        elif kind == "number":
            number = draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF]))
            damaged[place : place + 4] = number.to_bytes(4, draw(st.sampled_from(["little", "big"])))
        elif kind == "cut":
            del damaged[place + 1 :]
        elif kind == "leave out":
            del damaged[place : place + draw(st.integers(1, 40))]
        else:
            damaged[place:place] = damaged[place : place + draw(st.integers(1, 40))]
        if not damaged:
            return b"\0"
    return bytes(damaged)


def read_all(data: bytes) -> int:
    """Reads a file in every way there is; returns the most pixels that it claims or has."""
    claimed = 0
    with contextlib.suppress(ImageError):
        claimed = max(claimed, prod(image_size(data)))
    with contextlib.suppress(ImageError):
        image = read_image(data)
        assert image.pixels.dtype.name in FORMATS[image.format].dtypes
        claimed = max(claimed, image.pixels.size)
    with contextlib.suppress(ImageError), read_pages(data) as pages:
        for index in range(min(len(pages), 3)):
            size = pages[index].pixels.size
            assert size > 0
            claimed = max(claimed, size)
    return claimed


def traced(data: bytes) -> tuple[int, int]:
    """The most bytes that Python and NumPy hold while a file is read, and the pixels that it claims."""
    tracemalloc.start()
    try:
        claimed = read_all(data)
        return tracemalloc.get_traced_memory()[1], claimed
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [QUICK, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("name", [*FILES, *STACKS])
def test_damaged_files_are_read_or_refused(name, count):
    whole = (FILES | STACKS)[name]()
    with read_pages(whole) as pages:
        assert (len(pages) > 1) == (name in STACKS)

    def check(data: st.DataObject) -> None:
        damaged = data.draw(damages(whole))
        peak, claimed = traced(damaged)
        assert peak < MEMORY + A_PIXEL * claimed, f"{peak} bytes for a file of {len(damaged)}"

    count(given(st.data())(check))()
