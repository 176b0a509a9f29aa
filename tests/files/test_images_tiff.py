"""TIFF in its many layouts, and EXIF as bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from image_files import SRGB, exif_block, noise, tags_of, tiff

import nlrn
from nlrn.files import exif
from nlrn.files.images import Image, ImageError, encode_image, read_image

DTYPES = ["uint8", "uint16", "float32"]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_byte_orders(dtype, bigtiff, byteorder):
    array = noise((9, 7, 3), dtype)
    artist = [(315, 2, 0, "Ada", True)]
    options = {"resolution": (300, 300), "resolutionunit": 2, "iccprofile": SRGB, "extratags": artist}
    data = tiff(array, photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, **options)
    image = read_image(data)
    assert image.pixels.dtype.isnative
    assert np.array_equal(image.pixels, array)
    assert image.icc == SRGB
    with_alpha = read_image(tiff(noise((5, 4, 4), dtype), byteorder=byteorder, photometric="rgb"))
    assert with_alpha.alpha is not None
    assert with_alpha.alpha.dtype.isnative
    for block in (image.exif, read_image(encode_image(image)).exif):
        main, _, _ = tags_of(block)
        assert (main[282], main[283], main[296], main[315]) == (300, 300, 2, "Ada")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("layout", ["contig", "separate", "tiled"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_and_compressions(dtype, layout, compression):
    array = noise((33, 17, 3), dtype)
    stored = np.moveaxis(array, -1, 0) if layout == "separate" else array
    options = {"tile": (16, 16)} if layout == "tiled" else {}
    planar = "separate" if layout == "separate" else "contig"
    data = tiff(stored, photometric="rgb", planarconfig=planar, compression=compression, **options)
    image = read_image(data)
    assert np.array_equal(image.pixels, array)
    assert image.exif is None or 270 not in tags_of(image.exif)[0]  # tifffile's note on this layout
    assert np.array_equal(tifffile.imread(io.BytesIO(encode_image(image))), array)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "int32", "float16", "float64"])
def test_types_of_measurements(dtype, tmp_path):
    """They come back as they were, and restored as the same numbers in an array are."""
    values = np.random.default_rng(0).normal(100, 10, (24, 28))
    array = (values - 100 if dtype.startswith("int") else values).astype(dtype)
    image = read_image(tiff(array))
    assert image.pixels.dtype == dtype
    again = tifffile.imread(io.BytesIO(encode_image(image)))
    assert again.dtype == dtype
    assert np.array_equal(again, array)
    (tmp_path / "a.tif").write_bytes(tiff(array))
    ends = (float(array.min()), float(array.max()))
    restored = nlrn.denoise(tmp_path / "a.tif", 40, model="gaussian", data_range=ends)
    assert restored.dtype == dtype
    assert restored.astype(float).std() < 0.6 * array.astype(float).std()


def test_white_is_zero_is_not_known_of_every_type():
    with pytest.raises(
        ImageError, match="int16 pixels with 0 as white; of this type 0 as black is supported"
    ):
        read_image(tiff(np.zeros((6, 5), np.int16), photometric="miniswhite"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_white_is_zero(dtype):
    array = noise((6, 5), dtype)
    image = read_image(tiff(array, photometric="miniswhite"))
    white = 1 if dtype == "float32" else np.iinfo(dtype).max
    assert np.array_equal(image.pixels, white - array)
    assert image.notes == ("image with 0 as white turned into one with 0 as black",)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_span_the_whole_range(bits):
    array = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    image = read_image(tiff(array, bitspersample=bits))
    assert image.pixels.ravel().tolist() == np.rint(np.linspace(0, 255, 2**bits)).tolist()
    assert image.notes == (f"{bits}-bit image restored as 8-bit grey",)


def test_colour_palette():
    indices, palette = noise((5, 6)), noise((3, 256), "uint16") & 0xFF00
    image = read_image(tiff(indices, photometric="palette", colormap=palette))
    assert np.array_equal(image.pixels, (palette.T[indices] >> 8).astype(np.uint8))


def test_a_reduced_copy_is_no_page():
    buffer = io.BytesIO()
    array = noise((32, 32), "uint16")
    with tifffile.TiffWriter(buffer) as file:
        file.write(array)
        file.write(array[::4, ::4], subfiletype=1)
    image = read_image(buffer.getvalue())
    assert np.array_equal(image.pixels, array)
    assert any("reduced copies" in note for note in image.notes)


def test_exif_goes_from_jpeg_to_tiff_and_back():
    image = Image(noise((8, 8, 3)), format="JPEG", exif=exif_block(3))
    through = read_image(encode_image(image, "TIFF"))
    back = read_image(encode_image(through, "JPEG"))
    assert tags_of(back.exif) == tags_of(image.exif)
    assert tags_of(image.exif)[1][0x8827] == 800
    with tifffile.TiffFile(io.BytesIO(encode_image(image, "TIFF"))) as file:
        assert file.pages[0].tags["ExifTag"].value["ISOSpeedRatings"] == 800
        assert file.pages[0].tags["GPSTag"].value["GPSLatitudeRef"] == "N"


def test_exif_values_keep_type_and_bytes():
    directories = exif.Directories(
        {315: exif.Tag(2, "Zoë Müller\0".encode()), 282: exif.Tag(5, bytes(range(8)))},
        {36864: exif.Tag(7, b"0232"), 37500: exif.Tag(7, bytes(range(99)))},
        {0: exif.Tag(1, b"\2\3\0\0")},
    )
    block = exif.build(directories)
    assert block is not None
    assert exif.parse(block) == directories
    stored = encode_image(Image(noise((3, 3), "uint16"), exif=block), "TIFF")
    assert exif.parse(stored).main[315] == directories.main[315]
    assert exif.parse(stored).camera == directories.camera
    assert exif.parse(stored).gps == directories.gps


def test_exif_tags_cannot_replace_the_layout():
    block = exif.build(exif.Directories({256: exif.Tag(3, b"\xff\xff"), 315: exif.Tag(2, b"Ada\0")}))
    image = read_image(encode_image(Image(noise((3, 4)), exif=block), "TIFF"))
    assert image.pixels.shape == (3, 4)
    assert tags_of(image.exif)[0] == {315: "Ada"}


def test_damaged_exif_is_read_as_far_as_it_goes():
    block = exif_block()
    rng = np.random.default_rng(0)
    for size in range(0, len(block), 7):
        exif.parse(block[:size])
    for _ in range(300):
        damaged = bytearray(block)
        for place in rng.integers(0, len(block), 5):
            damaged[place] = rng.integers(256)
        found = exif.parse(bytes(damaged))
        assert 1 <= found.orientation <= 8
        built = exif.build(found)
        assert built is None or exif.parse(built) == found
        encode_image(Image(noise((2, 2)), exif=bytes(damaged)), "TIFF")


@pytest.mark.parametrize("planes", [3, 4])
def test_planes_that_a_program_takes_for_colours(planes):
    """tifffile writes bytes of [4, H, W] as RGB and alpha, which may have been a stack of four."""
    array = noise((planes, 20, 30))
    (note,) = read_image(tiff(array, photometric="rgb", planarconfig="separate")).notes
    assert note.startswith("the planes are taken as red, green")
    assert ("alpha" in note) == (planes == 4)
    assert read_image(tiff(array, photometric="rgb", planarconfig="separate", metadata=None)).notes == ()
