"""Images and options of kinds that people bring: each is restored right, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nlrn

RNG = np.random.default_rng(0)
BASE = (np.linspace(40, 200, 40)[:, None] + RNG.normal(0, 10, (40, 48))).clip(0, 255)
BYTES = BASE.round().astype(np.uint8)


def denoised(image, **options):
    return nlrn.denoise(image, model="gaussian", **options)


WHOLE = denoised(BYTES)


@pytest.mark.parametrize(
    "image",
    [
        BYTES[::-1][::-1],
        np.asfortranarray(BYTES),
        BYTES.view(np.matrix),
        BYTES.repeat(2, 0)[::2],
        np.frombuffer(BYTES.tobytes(), np.uint8).reshape(BYTES.shape),
        np.ma.masked_array(BYTES),
    ],
    ids=["reversed", "fortran", "matrix", "strided", "read only", "masked nowhere"],
)
def test_the_order_and_the_kind_of_an_array_change_nothing(image):
    np.testing.assert_array_equal(np.asarray(denoised(image)), WHOLE)


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">i4", "<f8", "int8", "uint64"])
def test_types_and_their_byte_order_stay(dtype):
    scale, offset = {"u2": (257, 0), "f4": (1 / 255, 0), "f8": (1 / 255, 0)}.get(dtype[1:], (1, 0))
    scale, offset = {"int8": (0.5, -60), "uint64": (10**15, 0)}.get(dtype, (scale, offset))
    image = (BASE * scale + offset).astype(dtype)
    restored = denoised(image)
    assert restored.dtype == np.dtype(dtype)
    noise, left = (np.diff(one.astype(float), axis=1).std() for one in (image, restored))
    assert left < 0.5 * noise


@pytest.mark.parametrize("factor", [1e-310, 1e-30, 1e30, 1e300])
def test_floats_of_any_size(factor):
    np.testing.assert_allclose(
        denoised(BASE * factor, data_range=255 * factor) / factor,
        denoised(BASE, data_range=255.0),
        rtol=1e-4,
    )


@pytest.mark.parametrize("nodata", [0, 0.0, np.int64(0), np.float32(0), np.uint8(0)])
def test_nodata_is_any_number(nodata):
    image = np.where(BYTES < 60, 0, BYTES)
    restored = denoised(image, nodata=nodata)
    assert (restored[image == 0] == 0).all()
    assert (restored[image != 0] != image[image != 0]).any()
    np.testing.assert_array_equal(restored, denoised(image, nodata=0))


@pytest.mark.parametrize("nodata", ["nan", -9999, 1e9])
def test_nodata_that_a_type_cannot_have_is_nowhere(nodata):
    image = np.where(BYTES == 255, 254, BYTES).astype(np.uint8)
    np.testing.assert_array_equal(denoised(image, nodata=nodata), denoised(image))


def test_masked_values_stay_beside_those_without_data():
    """Under the mask there is a value of the user's, and no NaN."""
    image = np.ma.masked_array(BASE.copy(), np.zeros(BASE.shape, bool))
    image.data[3, 3], image.data[5, 5] = np.nan, 77.0
    image.mask[5, 5] = True
    restored = denoised(image, nodata="nan")
    assert np.isnan(restored.data[3, 3])
    assert restored.data[5, 5] == 77.0
    assert restored.mask[5, 5]


def test_nodata_of_what_is_enlarged():
    image = BASE / 255
    image[10:14, 10:14] = np.nan
    large = nlrn.upscale(image, 2, nodata="nan")
    assert np.isnan(large[20:28, 20:28]).all()
    assert np.isnan(large).sum() == 64


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param(
            BASE.astype(np.longdouble),
            "integers or floats of 16, 32 or 64 bits, got float",
            marks=pytest.mark.skipif(np.longdouble(1).itemsize == 8, reason="is float64 here"),
        ),
        (BASE.astype(object), "integers or floats, got object"),
        (np.zeros((20, 20), "datetime64[s]"), "integers or floats, got datetime64"),
        (torch.rand(1, 20, 20).to_sparse(), "must have all its values .strided., got sparse_coo"),
        (torch.rand(1, 20, 20, device="meta"), "must have all its values .strided., got one without values"),
        (np.where(BASE > 200, np.inf, BASE), "NaN or infinite"),
    ],
    ids=["longdouble", "object", "time", "sparse", "meta", "infinite"],
)
def test_images_that_are_none_are_refused_by_name(image, message):
    with pytest.raises(ValueError, match=message):
        denoised(image)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"foo": 1}, TypeError, "there is no option 'foo'"),
        ({"progress": 5}, TypeError, "progress must be a function of the fraction done, got 5"),
        ({"sigma": np.ones((48, 40))}, ValueError, r"of 40 rows and 48 columns; got an array of shape \(48, 40\)"),
        ({"nodata": "none"}, ValueError, "nodata must be 'nan' or a number, got 'none'"),
        ({"nodata": 1j}, ValueError, "nodata must be 'nan' or a number, got 1j"),
        ({"device": None}, TypeError, "device must be"),
    ],
)  # fmt: skip
def test_options_that_are_none_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        denoised(BYTES, **options)


@pytest.mark.parametrize("purpose", [None, "photo", "scan", "screenshot", "measurement"])
def test_another_default_type_changes_nothing(purpose):
    image = np.dstack([BYTES, BYTES // 2, BYTES // 3])[:24, :24]
    expected = nlrn.denoise(image, purpose=purpose)
    torch.set_default_dtype(torch.float64)
    try:
        found = nlrn.denoise(image, purpose=purpose)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)
