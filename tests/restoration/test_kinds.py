"""Kinds of images in Python: channels that are no colours, missing data, Pillow images, open files, lists."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PillowImage

import nlrn
from nlrn.files.images import Image, encode_image, write_image
from nlrn.restoration import Restorer
from pictures import picture

FAST = {"model": "gaussian"}


@pytest.mark.parametrize("count", [1, 2, 4, 5])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_are_restored_one_by_one(count, axis):
    channels = [picture((20, 24)) // (index + 1) for index in range(count)]
    result = nlrn.denoise(np.stack(channels, axis), 20, channel_axis=axis, **FAST)
    for index, channel in enumerate(channels):
        assert np.array_equal(np.take(result, index, axis), nlrn.denoise(channel, 20, **FAST))


def test_three_channels_are_rgb():
    array = picture((20, 24, 3))
    expected = nlrn.denoise(array, 20, model="nlrn-small-color", steps=2)
    result = nlrn.denoise(np.moveaxis(array, -1, 0), 20, model="nlrn-small-color", steps=2, channel_axis=0)
    assert np.array_equal(np.moveaxis(result, 0, -1), expected)


@pytest.mark.parametrize(("count", "dtype"), [(4, "uint8"), (4, "uint16"), (2, "float32")])
def test_a_channel_taken_for_alpha_is_named(count, dtype):
    array = picture((20, 24, count), dtype)
    _, report = Restorer("gaussian").array(array, 0.1)
    assert "channel_axis=-1 restores all" in report.notes[0]
    _, report = Restorer("gaussian").array(array, 0.1, channel_axis=-1)
    assert report.notes == ()


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [((8, 8), -1, "three axes"), ((8, 8, 5), 3, "between -3 and 2"), ((8, 8, 5), True, "whole number")],
)
def test_no_such_axis(shape, axis, message):
    with pytest.raises(ValueError, match=message):
        nlrn.denoise(picture(shape), 20, channel_axis=axis)


@pytest.mark.parametrize(("nodata", "missing"), [("nan", np.nan), (-9999, -9999.0)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_missing_data_come_back_and_reach_nothing(nodata, missing, channels):
    clean = np.full((32, 32, *channels), 0.5)
    clean[:, 16:] = 0.6
    with_holes = clean.copy()
    with_holes[8:12, 8:20] = missing
    result = nlrn.denoise(with_holes, 0.1, nodata=nodata, **FAST)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result[8:12, 8:20], with_holes[8:12, 8:20])
    result[8:12, 8:20] = 0.5
    assert result.min() > 0.49
    assert result.max() < 0.61


def test_nodata_enlarged():
    holes = np.full((16, 16), 0.5, np.float32)
    holes[:4, :4] = np.nan
    result = nlrn.upscale(holes, 2, nodata="nan", steps=2)
    assert np.isnan(result[:8, :8]).all()
    assert np.isfinite(result[8:, 8:]).all()


@pytest.mark.parametrize("nodata", [True, "none"])
def test_what_is_no_nodata(nodata):
    with pytest.raises(ValueError, match="nodata must be 'nan' or a number, got "):
        nlrn.denoise(picture((20, 20)), 20, nodata=nodata, **FAST)


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (20, 24)), ("LA", (20, 24, 2)), ("RGB", (20, 24, 3)), ("RGBA", (20, 24, 4))]
)
def test_pillow_images(mode, shape):
    array = picture(shape)
    result = nlrn.denoise(PillowImage.fromarray(array), 20, **FAST)
    assert (result.mode, result.size) == (mode, (24, 20))
    assert np.array_equal(np.asarray(result), nlrn.denoise(array, 20, **FAST))


def test_pillow_palettes_and_modes_that_are_no_pictures():
    given = PillowImage.fromarray(picture((20, 24, 3)))
    assert nlrn.denoise(given.quantize(8), 20, **FAST).mode == "RGB"
    assert nlrn.upscale(given, 2, steps=2).size == (48, 40)
    with pytest.raises(ValueError, match="must be grey or RGB, got mode CMYK"):
        nlrn.denoise(given.convert("CMYK"), 20, **FAST)


def test_open_files_and_lists_of_all_kinds(tmp_path):
    arrays = [picture((20, 24)), picture((17, 30, 3))]
    files = [io.BytesIO(encode_image(Image(array))) for array in arrays]
    write_image(Image(arrays[0]), tmp_path / "a.png")
    expected = [nlrn.denoise(array, 20, **FAST) for array in arrays]
    found = nlrn.denoise([*arrays, *files, tmp_path / "a.png"], 20, **FAST)
    for one, right in zip(found, [*expected, *expected, expected[0]], strict=True):
        assert np.array_equal(one, right)
    with pytest.raises(ValueError, match="not those of a list"):
        nlrn.denoise(arrays, 20, output=tmp_path / "b.png", **FAST)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("steps", "two"), ("steps", 2.0), ("steps", True), ("ensemble", "no"), ("device", 0)),
        *(("precision", 16), ("max_memory", "4G"), ("max_memory", 1e9), ("window_size", 4.5)),
    ],
)
def test_options_of_wrong_types_are_named(option, value):
    with pytest.raises(TypeError, match=f"{option} must be "):
        nlrn.denoise(picture((20, 20)), 20, **{option: value})
