"""Files that other programs write and that are a little odd: long texts, a missing end, chunks on colours."""

from __future__ import annotations

import dataclasses
import io
import os
import zlib

import imagecodecs
import numpy as np
import pytest
from image_files import noise, saved
from PIL import Image as Pillow

from nlrn.files.images import (
    Image,
    ImageError,
    check_writable,
    encode_image,
    losses,
    read_image,
    write_image,
)
from nlrn.files.png16 import insert_chunks, png_chunk, read_chunks

LONG = b"x" * 2_000_000
PIXELS = noise((6, 7, 3))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"workflow\0\0" + zlib.compress(LONG)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG)),
        (b"tEXt", b"workflow\0" + LONG),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    ],
    ids=["compressed", "international", "plain", "XMP"],
)
def test_png_with_long_texts(chunk):
    image = read_image(insert_chunks(encode_image(Image(PIXELS)), [chunk]))
    assert np.array_equal(image.pixels, PIXELS)
    assert image.xmp == (LONG if b"XML" in chunk[1] else None)


def test_png_with_a_large_profile():
    profile = np.random.default_rng(0).bytes(1_500_000)
    given = insert_chunks(encode_image(Image(PIXELS)), [(b"iCCP", b"icc\0\0" + zlib.compress(profile))])
    assert read_image(given).icc == profile


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_a_png_says_of_its_colors_is_kept(dtype, tmp_path):
    said = [(b"cICP", bytes([9, 16, 0, 1])), (b"gAMA", (45455).to_bytes(4, "big"))]
    image = read_image(insert_chunks(encode_image(Image(noise((6, 7, 3), dtype))), said))
    assert dict(image.color_chunks) == dict(said)
    chunks = read_chunks(encode_image(image), "it")
    assert {kind: chunks[kind] for kind, _ in said} == dict(said)
    assert any("(cICP, such as HDR)" in note for note in write_image(image, tmp_path / "a.tif"))
    assert write_image(image, tmp_path / "a.png") == ()


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_its_last_two_bytes(progressive):
    from PIL import Image as PillowImage

    data = saved(PillowImage.fromarray(noise((40, 56, 3))), "JPEG", progressive=progressive)
    assert np.array_equal(read_image(data[:-2]).pixels, read_image(data).pixels)
    with pytest.raises(ImageError, match="truncated"):
        read_image(data[: len(data) * 2 // 3])


def test_jpeg_of_12_bits_is_named():
    data = imagecodecs.jpeg_encode(noise((16, 16, 3), "uint16") // 16, bitspersample=12)
    with pytest.raises(ImageError, match="12 bits a channel"):
        read_image(data)


@pytest.mark.parametrize(
    ("image", "name", "size", "message"),
    [
        (Image(np.zeros((8, 4200), np.uint8)), "a.webp", (32, 16800), "WEBP holds at most 16383 pixels a side, the result has 16800"),
        (Image(np.zeros((4, 16500), np.uint8)), "a.jpg", (16, 66000), "JPEG holds at most 65500 pixels a side, the result has 66000"),
        (Image(PIXELS, exif=bytes(70000)), "a.jpg", None, "JPEG has room for 65527 bytes of EXIF data, this image has 70000"),
    ],
    ids=["WebP", "JPEG", "EXIF"],
)  # fmt: skip
def test_what_is_too_large_for_a_format_is_known_before(image, name, size, message):
    with pytest.raises(ImageError, match=message):
        check_writable(image, name, size)
    assert check_writable(image, "a.png", size) == "PNG"


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(OSError, match="File name too long"):
        check_writable(Image(PIXELS), tmp_path / ("x" * 300 + ".png"))


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions(tmp_path):
    write_image(Image(PIXELS), tmp_path / "a.png", mode=0o600)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("bits", "channels", "kept"), [(12, 3, True), (12, 1, False), (17, 3, False)])
def test_the_number_of_significant_bits_is_kept_where_it_fits(bits, channels, kept, capfd):
    """Also what does not fit is read without a word of libpng."""
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (8, 9, 3), np.uint16)
    data = insert_chunks(encode_image(Image(pixels), "PNG"), [(b"sBIT", bytes([bits] * channels))])
    image = read_image(data)
    np.testing.assert_array_equal(image.pixels, pixels)
    written = encode_image(image)
    assert (png_chunk(b"sBIT", bytes([bits] * channels)) in written) is kept
    assert capfd.readouterr().err == ""
    assert any("(sBIT)" in note for note in losses(image, "TIFF"))
    assert b"sBIT" not in encode_image(dataclasses.replace(image, pixels=pixels[..., 0]), "PNG") or not kept


def test_the_quality_of_jpeg_files():
    picture = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))

    def quality(**options):
        file = io.BytesIO()
        picture.save(file, "JPEG", **options)
        return read_image(file.getvalue()).jpeg_quality

    for given in (1, 10, 30, 50, 75, 85, 90, 95, 98):
        assert quality(quality=given) == given
    assert quality(quality=40, progressive=True) == 40
    # Equal steps for all frequencies: by the low ones, which show.
    assert 25 <= quality(qtables=[[20] * 64, [20] * 64]) <= 45
    assert read_image(encode_image(Image(np.zeros((9, 9), np.uint8)), "PNG")).jpeg_quality is None
