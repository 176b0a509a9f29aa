"""What reading or writing has to change: palettes, CMYK, transparent colours, orientation, previews."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from image_files import SRGB, exif_block, noise, saved, tags_of, tiff
from PIL import Image as PillowImage
from PIL import ImageOps
from PIL.PngImagePlugin import PngInfo

from nlrn.files.images import Image, encode_image, read_image


@pytest.mark.parametrize("colour", ["grey", "RGB"])
def test_png8_transparent_colour_becomes_alpha(colour):
    pixels = noise((6, 6) if colour == "grey" else (6, 6, 3))
    key = int(pixels[1, 2]) if colour == "grey" else tuple(int(v) for v in pixels[1, 2])
    image = read_image(saved(PillowImage.fromarray(pixels), "PNG", transparency=key))
    assert np.array_equal(image.pixels, pixels)
    assert image.alpha is not None
    assert image.alpha[1, 2] == 0
    assert image.alpha.max() == 255


@pytest.mark.parametrize("entries", ["RGB", "grey", "grey with an RGB profile", "transparent"])
def test_palette_becomes_rgb_or_grey(entries):
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    palette = noise((16, 3)) if entries in ("RGB", "transparent") else np.repeat(noise((16, 1)), 3, 1)
    picture = PillowImage.fromarray(indices)
    picture.putpalette(palette.tobytes())
    options = {"transparency": bytes(range(16))} if entries == "transparent" else {}
    icc = {"icc_profile": SRGB} if "profile" in entries else {}
    image = read_image(saved(picture, "PNG", **options, **icc))
    expected = palette[indices]
    assert np.array_equal(image.pixels, expected[..., 0] if entries == "grey" else expected)
    assert "palette" in image.notes[0]
    if entries == "transparent":
        assert np.array_equal(image.alpha, indices)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_one_bit_becomes_grey(format_):
    bits = noise((9, 13)) > 127
    image = read_image(saved(PillowImage.fromarray(bits), format_))
    assert np.array_equal(image.pixels, bits * np.uint8(255))
    assert image.notes


def test_cmyk_becomes_srgb():
    cmyk = PillowImage.new("CMYK", (8, 8), (0, 255, 255, 0))
    for format_ in ("JPEG", "TIFF"):
        image = read_image(saved(cmyk, format_))
        assert image.pixels.shape == (8, 8, 3)
        assert image.pixels[0, 0].tolist()[0] > 200
        assert image.pixels[0, 0].tolist()[1] < 50
        assert (image.icc, image.notes) == (None, ("CMYK image converted to sRGB without a profile",))
    broken = read_image(saved(cmyk, "JPEG", icc_profile=SRGB))  # an RGB profile cannot be that of CMYK values
    assert (broken.icc, broken.notes) == (None, ("CMYK image converted to sRGB without a profile",))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_kept_and_pixels_are_not_turned(format_, orientation):
    source = Image(noise((5, 7, 3)), format=format_, exif=exif_block(orientation), lossless=True)
    image = read_image(encode_image(source))
    assert image.pixels.shape == (5, 7, 3)
    again = read_image(encode_image(image))
    data = encode_image(again)
    if format_ == "TIFF":  # Pillow reports a TIFF file's size and tag as they are after turning
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            assert file.pages[0].tags.valueof(0x0112) == orientation
            assert file.pages[0].shape == (5, 7, 3)
        return
    with PillowImage.open(io.BytesIO(data)) as picture:
        assert picture.getexif()[0x0112] == orientation
        assert picture.size == (7, 5)


@pytest.mark.parametrize("orientation", [1, 6])
def test_cmyk_tiff_is_turned_once(orientation):
    tags = PillowImage.Exif()
    tags[0x0112], tags[0x013B] = orientation, "Ada"
    stored = np.zeros((5, 7, 4), np.uint8)
    stored[0, 0, :3] = 255  # black in the corner
    data = saved(PillowImage.frombytes("CMYK", (7, 5), stored.tobytes()), "TIFF", exif=tags)
    image = read_image(data)
    dark = [int(v) for v in np.argwhere(image.pixels[..., 0] == 0)[0]]
    assert (image.pixels.shape[:2], dark) == (((5, 7), [0, 0]) if orientation == 1 else ((7, 5), [0, 4]))
    assert tags_of(image.exif)[0] == {0x013B: "Ada"}
    assert ("picture turned upright" in image.notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bmp_has_no_orientation_so_the_picture_is_turned(orientation):
    image = Image(noise((5, 7, 3)), exif=exif_block(orientation))
    with PillowImage.open(io.BytesIO(encode_image(image, "PNG"))) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(read_image(encode_image(image, "BMP")).pixels, expected)


def test_orientation_in_imagemagick_text_is_found():
    block = b"Exif\0\0" + exif_block(8)
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n")
    image = read_image(saved(PillowImage.fromarray(noise((4, 4))), "PNG", pnginfo=text))
    assert tags_of(image.exif)[0][0x0112] == 8


def test_premultiplied_colours_stay_so_in_tiff_and_are_divided_elsewhere():
    alpha = np.array([[0, 51, 255]], np.uint8)
    colours = np.array([[[0] * 3, [10, 20, 51], [1, 2, 3]]], np.uint8)
    data = tiff(
        np.concatenate([colours, alpha[..., None]], -1), photometric="rgb", extrasamples=["assocalpha"]
    )
    image = read_image(data)
    assert image.premultiplied
    assert read_image(encode_image(image)).premultiplied
    assert np.array_equal(read_image(encode_image(image)).pixels, colours)
    straight = read_image(encode_image(image, "PNG"))
    assert straight.pixels.tolist() == [[[0] * 3, [50, 100, 255], [1, 2, 3]]]
    assert np.array_equal(straight.alpha, alpha)


def test_previews_that_a_camera_adds_are_left_out_with_a_note():
    main, preview = (PillowImage.fromarray(noise((size, size, 3))) for size in (32, 8))
    image = read_image(saved(main, "MPO", save_all=True, append_images=[preview]))
    assert image.pixels.shape == (32, 32, 3)
    assert "main picture" in image.notes[0]
