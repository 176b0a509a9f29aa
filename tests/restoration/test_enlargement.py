"""Sizes and factors of an enlargement, and what is as large as the picture afterwards."""

from __future__ import annotations

import dataclasses
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from skimage import data

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files import exif
from nlrn.files.images import Image, read_image, write_image
from nlrn.ops.resize import bicubic_resize
from nlrn.restoration import Restorer
from nlrn.restoration.enlargement import LARGEST, PASSES, Enlargement

SIZES = [(1, 1), (7, 9), (10, 1), (31, 17), (480, 641), (2999, 4001)]
FACTORS = [
    "1.1",
    "1.25",
    "1.5",
    "1.7",
    "2",
    "2.1",
    "3",
    "3.3",
    "4",
    "4.01",
    "5",
    "6",
    "7.7",
    "12",
    "15.9",
    "16",
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("factor", FACTORS)
def test_factors(size, factor):
    """Sides are rounded up from the exact product, and the smallest scales that reach them are taken."""
    target = Enlargement(float(factor)).of(*size)
    assert target.size == tuple(math.ceil(Fraction(factor) * length) for length in size)

    def reach(scales):
        return all(math.prod(scales) * old >= new for old, new in zip(size, target.size, strict=True))

    assert reach(target.scales)
    assert not any(reach(scales) for scales in PASSES if math.prod(scales) < math.prod(target.scales))
    assert target.exact == (target.size == tuple(math.prod(target.scales) * length for length in size))
    assert len(target.notes) == (len(target.scales) > 1)


def test_twice_with_the_exact_product_where_there_is_one():
    for factor, scales in {
        6: (3, 2),
        8: (4, 2),
        9: (3, 3),
        12: (4, 3),
        16: (4, 4),
        5: (3, 2),
        10: (4, 3),
    }.items():
        target = Enlargement(factor).of(20, 30)
        assert (target.scales, target.exact) == (scales, math.prod(scales) == factor)
    assert Enlargement(6).of(20, 30).notes == (
        "the network enlarges by 4 at most and is applied twice, by 3 and 2",
    )
    assert Enlargement(5).of(20, 30).notes[0].endswith("by 3 and 2, then bicubic down")


@pytest.mark.parametrize(
    ("image", "wanted", "size"),
    [
        ((480, 641), {"size": (None, 4096)}, (3067, 4096)),
        ((480, 641), {"size": (2160, None)}, (2160, 2885)),
        ((480, 641), {"size": (3067, 4096)}, (3067, 4096)),
        ((480, 641), {"size": (3068, 4096)}, (3068, 4096)),
        ((480, 641), {"fit": (2160, 3840)}, (2160, 2885)),
        ((480, 641), {"fit": (3840, 2160)}, (1617, 2160)),
        ((1, 1000), {"size": (None, 1001)}, (1, 1001)),
        ((1080, 1920), {"fit": (2160, 3840)}, (2160, 3840)),
        ((7, 9), {"size": np.array([14, 18])}, None),
        ((7, 9), {"size": [np.int64(14), np.int64(18)]}, (14, 18)),
    ],
)
def test_sizes(image, wanted, size):
    if size is None:
        with pytest.raises(TypeError, match=r"must be \(height, width\)"):
            Enlargement(**wanted)
        return
    target = Enlargement(**wanted).of(*image)
    assert target.size == size
    turned = Enlargement(**wanted, on_side=True).of(*image[::-1])
    assert turned.size == size[::-1]


@pytest.mark.parametrize("height", range(20, 60))
def test_the_largest_that_fits(height):
    """It touches a side of the box, lies within it, and has the proportions of the image to half a pixel."""
    for width in range(14, 50):
        high, wide = Enlargement(fit=(300, 200)).of(height, width).size
        assert high == 300 or wide == 200
        assert high <= 300
        assert wide <= 200
        assert 2 * abs(high * width - wide * height) <= max(height, width)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"scale": 1.00000001}, r"must be larger than the image, 40x30 \(width x height\), got 40x30"),
        ({"size": (30, 40)}, "must be larger than the image, 40x30"),
        ({"size": (None, 39)}, "must be larger than the image, 40x30"),
        ({"fit": (29, 4000)}, "must be larger than the image, 40x30"),
        ({"size": (481, 641)}, "must be at most 16 times as large as the image, 40x30"),
        ({"fit": (3000, 3000)}, "must be at most 16 times as large"),
        (
            {"size": (62, 80)},
            "the size 80x62 has other proportions than the image, 40x30 .*; 80x60 has the same",
        ),
    ],
)
def test_what_an_image_cannot_have(wanted, message, tiny_upscaler):
    with pytest.raises(ValueError, match=message):
        nlrn.upscale(np.zeros((30, 40), np.uint8), model=tiny_upscaler, **wanted)


@pytest.mark.parametrize(
    "wanted", [{"size": (20, 20.5)}, {"size": 20}, {"scale": "2"}, {"scale": True}, {"fit": (1, 2, 3)}]
)
def test_what_is_no_number(wanted):
    with pytest.raises(TypeError, match="must be"):
        Enlargement(**wanted)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_scale_of_the_network_is_exactly_what_it_makes(scale, tiny_upscaler):
    """Nothing is resized afterwards; a size and a box that say the same give the same bits."""
    pixels = np.random.default_rng(0).random((11, 13), dtype=np.float32)
    large = nlrn.upscale(pixels, scale, model=tiny_upscaler)
    begun = bicubic_resize(torch.from_numpy(pixels), scale * 11, scale * 13)
    expected = nlrn.load_model(tiny_upscaler)(begun[None, None])[0, 0]
    np.testing.assert_allclose(large, expected.numpy(), atol=1e-6)
    for same in (
        {"size": (scale * 11, scale * 13)},
        {"size": (None, scale * 13)},
        {"fit": (scale * 11, 999)},
    ):
        assert np.array_equal(large, nlrn.upscale(pixels, model=tiny_upscaler, **same))


def test_the_network_and_then_bicubic_down(tiny_upscaler):
    pixels = np.random.default_rng(0).random((12, 15), dtype=np.float32)
    once = nlrn.upscale(pixels, 2, model=tiny_upscaler)
    expected = bicubic_resize(torch.from_numpy(once), 18, 23).numpy()
    np.testing.assert_allclose(nlrn.upscale(pixels, 1.5, model=tiny_upscaler), expected, atol=1e-6)
    twice = nlrn.upscale(nlrn.upscale(pixels, 3, model=tiny_upscaler), 2, model=tiny_upscaler)
    np.testing.assert_allclose(nlrn.upscale(pixels, 6, model=tiny_upscaler), twice, atol=1e-5)
    fractions = []
    nlrn.upscale(pixels, 6, model=tiny_upscaler, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "floor"),
    [("camera", 3.3), ("astronaut", 3.6), ("coffee", 2.9), ("chelsea", 1.2)],
    ids=lambda value: str(value),
)
def test_one_and_a_half_beats_bicubic(name, floor):
    """Measured: 3.8, 4.1, 3.4 and 1.5 dB."""
    rows, columns = {
        "camera": (100, 130),
        "astronaut": (60, 130),
        "coffee": (100, 200),
        "chelsea": (60, 130),
    }[name]
    pixels = getattr(data, name)()
    pixels = pixels if pixels.ndim == 2 else pixels[..., 1]
    clean = pixels[rows : rows + 192, columns : columns + 192].astype(float)
    small = bicubic_resize(torch.from_numpy(clean), 128, 128).round().clamp(0, 255)
    bicubic = bicubic_resize(small, 192, 192).clamp(0, 255).numpy()
    large = nlrn.upscale(small.byte().numpy(), 1.5)
    assert psnr(large.astype(float), clean) > psnr(bicubic, clean) + floor


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32"])
@pytest.mark.parametrize("scale", [1.5, 2.3, 5])
def test_kinds_of_images(dtype, scale, tiny_upscaler):
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1000 if dtype == "int32" else 1)
    values = (np.random.default_rng(0).uniform(0.2, 0.8, (9, 7, 4)) * white).astype(dtype)
    values[..., 3] = white
    wanted = (math.ceil(round(scale * 9, 6)), math.ceil(round(scale * 7, 6)))
    options = {"model": tiny_upscaler, "data_range": float(white)}
    large = nlrn.upscale(values, scale, **options)
    assert (large.shape, large.dtype) == ((*wanted, 4), values.dtype)
    if dtype in ("uint8", "uint16"):
        assert (large[..., 3] == white).all()
    tensor = torch.from_numpy(np.moveaxis(values, -1, 0).copy())
    np.testing.assert_array_equal(nlrn.upscale(tensor, scale, **options).numpy(), np.moveaxis(large, -1, 0))
    planes = nlrn.upscale(np.stack([values[..., 0]] * 2), scale, axes="ZYX", **options)
    assert planes.shape == (2, *wanted)
    both = nlrn.upscale([values[..., 0], values[:5, :, 0]], size=(None, 2 * 7), **options)
    assert [one.shape for one in both] == [(18, 14), (10, 14)]


@pytest.mark.parametrize("size", [(13, 11), (18, 14), (20, 16), (90, 70)], ids=str)
def test_masks(size, tiny_upscaler):
    """A pixel of the result is masked where its middle lies in one that was; an object of two pixels stays one."""
    mask = np.zeros((9, 7), bool)
    mask[3:5, 2:4] = True
    masked = np.ma.MaskedArray(np.random.default_rng(0).random((9, 7), dtype=np.float32), mask)
    large = nlrn.upscale(masked, size=size, model=tiny_upscaler)
    for row in range(size[0]):
        for column in range(size[1]):
            middle = int((row + 0.5) * 9 / size[0]), int((column + 0.5) * 7 / size[1])
            assert large.mask[row, column] == mask[middle]


def test_hidden_pixels_do_not_bleed(tiny_upscaler):
    """What lies under alpha 0 has no influence on what is visible."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 160, (16, 20, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:, 12:, 3] = 0
    other = pixels.copy()
    other[:, 12:, :3] = 255 - other[:, 12:, :3]
    one, two = (nlrn.upscale(image, 1.5, model=tiny_upscaler) for image in (pixels, other))
    assert np.array_equal(one, two)
    assert one.shape == (24, 30, 4)


def _photo(tmp_path, orientation: int):
    camera = {
        exif.PIXEL_X_DIMENSION: exif.Tag(3, struct.pack("<H", 12)),
        exif.PIXEL_Y_DIMENSION: exif.Tag(3, struct.pack("<H", 9)),
    }
    main = {exif.ORIENTATION: exif.Tag(3, struct.pack("<H", orientation))}
    pixels = np.random.default_rng(0).integers(60, 190, (9, 12, 3), dtype=np.uint8)
    write_image(
        Image(pixels, exif=exif.build(exif.Directories(main, camera))), tmp_path / "a.png", overwrite=True
    )
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("orientation", "wanted", "stored"),
    [
        (1, {"size": (None, 20)}, (15, 20)),
        (6, {"size": (None, 20)}, (20, 27)),
        (6, {"fit": (24, 1000)}, (18, 24)),
        (6, {"size": (16, 12)}, (12, 16)),
        (6, {"scale": 1.5}, (14, 18)),
    ],
)
def test_sizes_of_a_file_are_as_viewers_show_it(orientation, wanted, stored, tmp_path, tiny_upscaler):
    path = _photo(tmp_path, orientation)
    nlrn.upscale(path, model=tiny_upscaler, output=tmp_path / "b.png", **wanted)
    large = read_image(tmp_path / "b.png")
    assert large.pixels.shape[:2] == stored
    found = exif.parse(large.exif)
    assert found.orientation == orientation
    codes = (exif.PIXEL_Y_DIMENSION, exif.PIXEL_X_DIMENSION)
    assert tuple(int.from_bytes(found.camera[code].data, "little") for code in codes) == stored


def test_errors_on_a_file_are_in_the_words_of_viewers(tmp_path, tiny_upscaler):
    with pytest.raises(
        ValueError, match=r"size 30x30 has other proportions than the image, 9x12 .* 30x40 has"
    ):
        nlrn.upscale(_photo(tmp_path, 6), size=(30, 30), model=tiny_upscaler)
    with pytest.raises(ValueError, match=r"larger than the image, 9x12 \(width x height\), got 8x11"):
        nlrn.upscale(_photo(tmp_path, 8), size=(None, 8), model=tiny_upscaler)


def test_time_of_two_passes(tiny_upscaler, monkeypatch):
    """The pixels of both count."""
    monkeypatch.setattr("nlrn.restoration.unit.time.perf_counter", iter(range(100)).__next__)
    restorer = Restorer(tiny_upscaler, task="upscale", scale=6)
    assert restorer.estimate_seconds((128, 128)) == 9 + 36
    assert max(math.prod(scales) for scales in PASSES) == LARGEST


def test_options_of_a_journal_name_the_size():
    restorer = Restorer(task="upscale", size=(None, 4096))
    said = restorer.options.that_change_results()
    assert (said["scale"], said["size"], said["fit"]) == (None, "4096x", None)
    again = Restorer(
        **{f.name: getattr(restorer.options, f.name) for f in dataclasses.fields(restorer.options)}
    )
    assert again.enlargement == restorer.enlargement
