"""Counts of a sensor through the restorer: units, types, averages, and what goes with other options."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch

import nlrn
from nlrn.ops.anscombe import SensorNoise, anscombe
from nlrn.restoration import Restorer
from nlrn.restoration.sensor import PASSES, binned, unbinned, working_range

GIVEN = {"noise": "poisson-gaussian", "gain": 2.0, "read_noise": 3.0, "offset": 100.0}
COUNTS = {"noise": "poisson-gaussian", "gain": 1.0, "read_noise": 0.0}


def scene(side: int = 64) -> np.ndarray:
    """Soft spots on a dark background, brightest 1."""
    y, x = np.mgrid[:side, :side]
    spots = np.exp(-((y - side / 3) ** 2 + (x - side / 3) ** 2) / 60)
    spots += 0.5 * np.exp(-((y - side / 1.5) ** 2 + (x - side / 1.6) ** 2) / 150)
    return 0.1 + 0.9 * spots / spots.max()


def taken(clean: np.ndarray, photons: float, seed: int = 0) -> np.ndarray:
    """The scene by a sensor of GIVEN."""
    rng = np.random.default_rng(seed)
    return 100 + 2.0 * rng.poisson(clean * photons) + 3.0 * rng.standard_normal(clean.shape)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.mean((np.asarray(image, np.float64) - truth) ** 2)))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("model", [None, "bm3d", "gaussian"])
def test_gain_and_type(dtype, model):
    """The same scene in every type, better by several decibels, in the units that it had."""
    truth = 100 + 200 * scene()
    noisy = taken(scene(), 100)
    noisy = (noisy.round() if "int" in dtype else noisy).astype(dtype)
    clean = nlrn.denoise(noisy, model=model, **GIVEN)
    assert (clean.dtype, clean.shape) == (noisy.dtype, noisy.shape)
    assert psnr(clean, truth) > psnr(noisy, truth) + (4 if model == "gaussian" else 8)
    assert clean.mean() == pytest.approx(noisy.mean(), rel=0.005)


def test_uint8():
    noisy = np.random.default_rng(0).poisson(60 * scene()).astype(np.uint8)
    clean = nlrn.denoise(noisy, **COUNTS)
    assert clean.dtype == np.uint8
    assert psnr(clean, 60 * scene()) > psnr(noisy, 60 * scene()) + 8


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_units_do_not_matter(factor):
    noisy = taken(scene(), 50)
    scaled = {
        "gain": 2 * factor,
        "read_noise": 3 * factor,
        "offset": 100 * factor,
        "noise": "poisson-gaussian",
    }
    expected, found = nlrn.denoise(noisy, **GIVEN), nlrn.denoise(noisy * factor, **scaled)
    assert np.allclose(found, expected * factor, rtol=1e-4)


@pytest.mark.parametrize("model", ["bm3d", None])
def test_better_than_without(model):
    """Where noise is ten times as strong in one place as in another, white noise of one level is wrong in both."""
    clean = np.linspace(0.01, 1, 96) ** 2 * np.ones((96, 1))
    noisy, truth = taken(clean, 1000), 100 + 2000 * clean
    assert psnr(nlrn.denoise(noisy, model=model, **GIVEN), truth) > psnr(
        nlrn.denoise(noisy, "auto", model=model), truth
    )


@pytest.mark.parametrize("photons", [0.5, 1, 2, 8, 100, 10_000])
def test_flat_fields_keep_their_mean(photons):
    """Within 1% from one photon on; at half a photon chance alone is 1.5%."""
    counts = np.random.default_rng(1).poisson(photons, (96, 96)).astype(np.float32)
    restored = nlrn.denoise(counts, **COUNTS)
    assert restored.mean() == pytest.approx(counts.mean(), rel=0.01)
    assert restored.std() < 0.3 * counts.std()


@pytest.mark.parametrize(("model", "least"), [(None, 1.0), ("bm3d", 0.3)])
def test_iterating_pays_where_electrons_are_few(monkeypatch, model, least):
    from skimage.data import camera

    clean = camera()[100:228, 150:278] / 255
    noisy = np.random.default_rng(2).poisson(clean).astype(np.float64)
    iterated = psnr(nlrn.denoise(noisy, model=model, **COUNTS), clean)
    monkeypatch.setattr("nlrn.restoration.sensor.PASSES", PASSES[-1:])
    assert iterated > psnr(nlrn.denoise(noisy, model=model, **COUNTS), clean) + least


def test_estimated(caplog):
    clean = np.kron(np.linspace(0.05, 1, 16).reshape(4, 4), np.ones((48, 48)))
    with caplog.at_level(logging.INFO, "nlrn"):
        found = nlrn.denoise(taken(clean, 500), noise="poisson-gaussian", model="gaussian")
    assert "estimated variance of the noise: " in caplog.text
    given = nlrn.denoise(taken(clean, 500), model="gaussian", **GIVEN)
    assert np.abs(found - given).mean() < 0.02 * given.std()


def test_what_is_given_is_not_estimated():
    result, report = Restorer("gaussian", **GIVEN).array(taken(scene(), 100))
    assert not [note for note in report.notes if "estimated" in note]
    assert report.sigma is None
    assert result.shape == (64, 64)


def test_color_tensors_batches_and_axes():
    colors = torch.stack([torch.from_numpy(taken(scene(), 100, seed)) for seed in range(3)])
    batch = torch.stack([colors, colors.flip(-1)])
    found = nlrn.denoise(batch, model="gaussian", **GIVEN)
    assert torch.allclose(found[0], nlrn.denoise(colors, model="gaussian", **GIVEN))
    assert torch.allclose(found[0], found[1].flip(-1), atol=0.05)
    stack = torch.cat([colors, colors])[:5].numpy()
    one_by_one = nlrn.denoise(stack, channel_axis=0, model="gaussian", **GIVEN)
    assert np.array_equal(one_by_one[3], nlrn.denoise(stack[3], model="gaussian", **GIVEN))


def test_grey_stored_as_rgb_stays_grey():
    noisy = np.repeat(taken(scene(), 100)[..., None], 3, -1)
    clean = nlrn.denoise(noisy, **GIVEN)
    assert np.array_equal(clean[..., 0], clean[..., 2])


def test_strength_is_taken_in_the_units_of_the_data():
    noisy = taken(scene(), 5)
    whole, half, none = (nlrn.denoise(noisy, model="gaussian", strength=s, **GIVEN) for s in (1, 0.5, 0))
    assert np.allclose(half, (noisy + whole) / 2, rtol=1e-6)
    assert np.array_equal(none, noisy)


def test_hidden_pixels_and_nodata():
    noisy = taken(scene(), 100)
    hole = np.zeros(noisy.shape, bool)
    hole[20:30, 20:30] = True
    spoilt = np.where(hole, np.nan, noisy)
    clean = nlrn.denoise(spoilt, nodata="nan", model="gaussian", **GIVEN)
    assert np.array_equal(np.isnan(clean), hole)
    masked = nlrn.denoise(np.ma.MaskedArray(np.where(hole, 1e9, noisy), hole), model="gaussian", **GIVEN)
    assert np.array_equal(masked.mask, hole)
    assert np.allclose(masked[~hole], clean[~hole])


def test_a_very_bright_star_comes_back_as_it_was():
    """Its noise is far below what can be seen, and without it the sky has all of the range."""
    noisy = np.random.default_rng(0).poisson(20.0, (96, 96)).astype(np.float64)
    noisy[40, 40] = 3e6
    clean = nlrn.denoise(noisy, **COUNTS)
    assert clean[40, 40] == 3e6
    sky = np.ones(noisy.shape, bool)
    sky[30:51, 30:51] = False
    assert clean[sky].std() < 0.3 * noisy[sky].std()


def test_data_range():
    noisy = taken(scene(), 100)
    noisy[5, 5] = 5e4
    clean = nlrn.denoise(noisy, model="gaussian", data_range=(100, 320), **GIVEN)
    assert clean[5, 5] == 5e4
    with pytest.raises(ValueError, match="far beyond its range, data_range=10"):
        nlrn.denoise(noisy, data_range=10, **GIVEN)


def test_negative_floats_are_not_cut_off():
    """A background of nothing but read noise keeps its mean, 0."""
    noisy = 3.0 * np.random.default_rng(0).standard_normal((96, 96))
    clean = nlrn.denoise(noisy, noise="poisson-gaussian", gain=1.0, read_noise=3.0)
    assert clean.min() < 0
    assert abs(clean.mean() - noisy.mean()) < 0.1


def test_constant_pictures_come_back(caplog):
    flat = np.full((40, 40), 7.5)
    with caplog.at_level(logging.INFO, "nlrn"):
        assert np.array_equal(nlrn.denoise(flat, noise="poisson-gaussian"), flat)
        assert np.array_equal(nlrn.denoise(flat, **COUNTS), flat)
    assert "constant and has no noise" in caplog.text


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3), (17, 5)], ids=str)
@pytest.mark.parametrize("model", ["gaussian", "bm3d", None])
def test_tiny_pictures(shape, model):
    counts = np.random.default_rng(0).poisson(1.0, shape).astype(np.float32)
    clean = nlrn.denoise(counts, model=model, hot_pixels=True, **COUNTS)
    assert clean.shape == shape
    assert np.isfinite(clean).all()


class Model:
    """A user's own method, which returns NaN."""

    def __call__(self, image, sigma=None):
        return image * float("nan")


def test_a_model_of_ones_own_that_fails():
    counts = np.random.default_rng(0).poisson(9.0, (32, 32)).astype(np.uint16)
    with pytest.raises(ValueError, match="NaN or infinite"):
        nlrn.denoise(counts, model=Model(), **COUNTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 5, "noise": "poisson-gaussian"}, "sigma= is for white noise.*give one of them"),
        ({"sigma": "auto", "noise": "poisson-gaussian"}, "sigma= is for white noise"),
        ({"noise": "poisson"}, "noise must be 'poisson-gaussian', got 'poisson'"),
        ({"gain": 2.0}, "gain= describes noise='poisson-gaussian'; give noise= too"),
        ({"offset": 2.0}, "offset= describes noise="),
        ({"noise": "poisson-gaussian", "gain": 0}, "gain must be finite and > 0, got 0"),
        ({"noise": "poisson-gaussian", "read_noise": -1}, "read_noise must be finite and >= 0, got -1"),
        (
            {"noise": "poisson-gaussian", "gain": "2"},
            "gain must be a number in the units of the data, got '2'",
        ),
        ({"noise": "poisson-gaussian", "gain": True}, "gain must be a number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nlrn.denoise(taken(scene(), 100), **options)


@pytest.mark.parametrize(
    "function", [nlrn.dejpeg, lambda image, **options: nlrn.upscale(image, 2, **options)]
)
def test_only_denoise_knows_sensors(function):
    with pytest.raises(ValueError, match="noise= is for denoise, not for"):
        function(np.zeros((20, 20)), noise="poisson-gaussian")
    with pytest.raises(ValueError, match="hot_pixels is for denoise, not for"):
        function(np.zeros((20, 20)), hot_pixels=True)
    with pytest.raises(TypeError, match="hot_pixels must be True, False, 'frame' or 'stack', got 1"):
        nlrn.denoise(np.zeros((20, 20)), hot_pixels=1)


def test_nan_is_refused():
    noisy = taken(scene(), 100)
    noisy[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        nlrn.denoise(noisy, **GIVEN)
    with pytest.raises(ValueError, match="NaN or infinite"):
        nlrn.estimate_noise(noisy, noise="poisson-gaussian")


def test_unknown_noise_is_an_error():
    with pytest.raises(nlrn.NoiseUnknown, match="about the same brightness; give gain= and read_noise="):
        nlrn.denoise(np.random.default_rng(0).poisson(9.0, (96, 96)), noise="poisson-gaussian")


@pytest.mark.parametrize(
    "options", [{"sigma": 5.0}, {"sigma": "auto"}, {}, GIVEN], ids=["given", "auto", "own", "sensor"]
)
def test_hot_pixels(options, caplog):
    """Without `hot_pixels` they stay, as outliers do; with it they go, and a note says how many."""
    noisy = taken(scene(), 100)
    where = (np.array([5, 20, 41]), np.array([7, 50, 9]))
    spoilt = noisy.copy()
    spoilt[where] = 40000
    with caplog.at_level(logging.INFO, "nlrn"):
        clean = nlrn.denoise(spoilt, hot_pixels=True, **options)
    assert "3 hot or dead pixels are replaced" in caplog.text
    assert np.abs(clean[where] - (100 + 200 * scene()[where])).max() < 30
    assert (nlrn.denoise(spoilt, **options)[where] > 1000).all()


def test_too_many_hot_pixels_are_none(caplog):
    spoilt = taken(scene(), 100)
    spoilt[::5, ::5] = 40000
    with caplog.at_level(logging.INFO, "nlrn"):
        clean = nlrn.denoise(spoilt, hot_pixels=True, model="gaussian", **GIVEN)
    assert "too many for faults" in caplog.text
    assert (clean[::5, ::5] > 1000).mean() > 0.9


def test_hot_pixels_of_uint16_and_hidden_ones():
    noisy = taken(scene(), 100).round().astype(np.uint16)
    noisy[30, 30] = noisy[10, 10] = 60000
    hole = np.zeros(noisy.shape, bool)
    hole[10, 10] = True
    clean = nlrn.denoise(np.ma.MaskedArray(noisy, hole), hot_pixels=True, model="gaussian", **GIVEN)
    assert clean.data[10, 10] == 60000
    assert clean[30, 30] < 400


@pytest.mark.parametrize("photons", [100, 10_000])
def test_never_worse_than_the_counts(photons):
    """Bright peaks that the range left out once came through the network with more error than noise."""
    counts = np.random.default_rng(24).poisson(scene(96) ** 2 * photons).astype(np.float64)
    assert (
        psnr(nlrn.denoise(counts, **COUNTS), scene(96) ** 2 * photons)
        > psnr(counts, scene(96) ** 2 * photons) + 2
    )


def test_binning():
    values = torch.arange(35, dtype=torch.float64).view(1, 1, 5, 7)
    sums, noise = binned(values, SensorNoise(2.0, 3.0, 10.0), 2)
    assert sums.shape == (1, 1, 3, 4)
    assert float(sums[0, 0, 0, 0]) == 0 + 1 + 7 + 8
    assert (noise.gain, noise.read_noise, noise.offset) == (2.0, 6.0, 40.0)
    assert unbinned(sums, 2, values.shape).shape == values.shape
    flat, _ = binned(torch.full((1, 1, 9, 9), 4.0), SensorNoise(1.0), 3)
    assert torch.allclose(unbinned(flat, 3, torch.Size((1, 1, 9, 9))), torch.full((1, 1, 9, 9), 4.0))


@pytest.mark.parametrize("photons", [0.5, 30.0, 1e4])
def test_working_range_holds_the_picture(photons):
    """Noise of 1 is neither stronger than models know nor, where that can be, too faint to be removed."""
    counts = torch.from_numpy(np.random.default_rng(0).poisson(scene() * photons).astype(np.float64))[
        None, None
    ]
    span = working_range(anscombe(counts, SensorNoise(1.0)))
    assert span.excess(anscombe(counts, SensorNoise(1.0))) is None
    assert 1 / 255 < 1 / span.span <= 0.2001


@pytest.mark.parametrize("bright", [20, 200, 5000])
@pytest.mark.parametrize("dark", [0.1, 0.5, 2.0])
def test_a_dark_area_beside_a_bright_one_keeps_its_mean(dark, bright):
    """The network alone takes half of a tenth of a photon away."""
    truth = np.full((96, 96), dark)
    truth[:, 48:] = bright
    counts = np.random.default_rng(0).poisson(truth).astype(np.float32)
    restored = nlrn.denoise(counts, noise="poisson-gaussian", gain=1, read_noise=0)
    assert restored[:, :40].mean() == pytest.approx(counts[:, :40].mean(), rel=0.1)
    assert np.square(restored - truth)[:, :40].mean() < np.square(counts - truth)[:, :40].mean() / 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 100}, "less noise .* than gain=100"),
        ({"gain": 1, "read_noise": 40}, "less noise .* read_noise=40"),
        ({"gain": 1, "offset": 50}, "of the values lie below offset=50"),
        ({"gain": 1, "offset": 200}, "100% of the values lie below offset=200"),
    ],
)
def test_numbers_of_another_sensor_are_cautioned(options, message):
    counts = np.random.default_rng(0).poisson(np.linspace(5, 100, 96) * np.ones((96, 1))).astype(np.float32)
    with pytest.warns(UserWarning, match=message):
        nlrn.denoise(counts, noise="poisson-gaussian", **{"read_noise": 0} | options)


@pytest.mark.parametrize("photons", [0.01, 1, 100])
def test_right_numbers_are_not_cautioned(photons):
    clean = np.random.default_rng(0).poisson(np.full((96, 96), float(photons))).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored = nlrn.denoise(clean, noise="poisson-gaussian", gain=1, read_noise=0)
    assert restored.mean() == pytest.approx(clean.mean(), rel=0.02)
