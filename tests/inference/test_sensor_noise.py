"""Gain and read noise from pictures whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from nlrn.inference.sensor_noise import Known, NoiseUnknown, estimate_sensor_noise
from nlrn.ops.anscombe import SensorNoise

SENSORS = {
    "counts": (SensorNoise(1.0), 16),
    "read noise": (SensorNoise(1.0, 3.0), 64),
    "adu on a pedestal": (SensorNoise(2.0, 10.0, 100.0), 1000),
    "floats": (SensorNoise(1e-4, 5e-4), 0.02),
    "8 bit": (SensorNoise(0.4, 2.0), 255),
}


def ramp() -> np.ndarray:
    return np.linspace(0.05, 1, 300) * np.ones((300, 1))


def discs() -> np.ndarray:
    """Two hundred discs of random size and brightness, over one another: edges and constant areas."""
    rng, image = np.random.default_rng(4), np.full((320, 320), 0.5)
    y, x = np.mgrid[:320, :320]
    for _ in range(200):
        row, column, radius = rng.uniform(0, 320), rng.uniform(0, 320), rng.uniform(8, 50)
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = rng.uniform(0.05, 1)
    return image


# Of pictures that have hardly any noise of their own, which would be found as well.
PICTURES = {
    "ramp": ramp,
    "discs": discs,
    "camera": lambda: data.camera() / 255,
    "cell": lambda: data.cell() / 255,
}


def taken(picture: np.ndarray, noise: SensorNoise, peak: float, seed: int = 0) -> np.ndarray:
    """A picture as a sensor takes it, with `peak` units at white above the offset."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(picture * peak / noise.gain)
    return noise.offset + noise.gain * counts + noise.read_noise * rng.standard_normal(picture.shape)


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))[None, None]


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("picture", PICTURES)
def test_within_a_tenth(picture, sensor):
    """The gain, and the variance at the brightness of each quarter of the picture."""
    noise, peak = SENSORS[sensor]
    values = taken(PICTURES[picture](), noise, peak)
    found = estimate_sensor_noise(planes(values))
    assert found.noise.gain == pytest.approx(noise.gain, rel=0.1)
    levels = torch.from_numpy(
        np.quantile(PICTURES[picture](), [0.1, 0.25, 0.5, 0.75, 0.9]) * peak + noise.offset
    )
    assert torch.allclose(found.noise.variance(levels), noise.variance(levels), rtol=0.1)
    assert not found.warnings


@pytest.mark.parametrize("seed", range(5))
def test_intercept(seed):
    """b within a tenth, where read noise is a good part of the noise of the dark."""
    noise = SensorNoise(2.0, 20.0)
    found = estimate_sensor_noise(planes(taken(ramp(), noise, 1000, seed)))
    assert found.noise.intercept == pytest.approx(400, rel=0.1)
    assert found.noise.read_noise == pytest.approx(20, rel=0.05)
    assert found.noise.offset == 0
    assert abs(found.noise.gain - 2) < 4 * found.gain_error
    assert abs(found.noise.intercept - 400) < 4 * found.intercept_error


def test_errors_are_honest():
    """Over forty pictures gain and b scatter as much as their standard errors say, and are right on average."""
    noise = SensorNoise(1.0, 3.0)
    found = [estimate_sensor_noise(planes(taken(ramp()[:128, ::2], noise, 100, seed))) for seed in range(40)]
    for values, errors, truth in (
        ([f.noise.gain for f in found], [f.gain_error for f in found], 1.0),
        ([f.noise.intercept for f in found], [f.intercept_error for f in found], 9.0),
    ):
        assert np.std(values) == pytest.approx(np.mean(errors), rel=0.4)
        assert np.mean(values) == pytest.approx(truth, abs=4 * np.mean(errors) / np.sqrt(40) + 0.03 * truth)


def test_a_stack_is_one_sensor():
    noise = SensorNoise(1.5, 4.0)
    stack = np.stack(
        [taken(ramp()[:64, :64] * share, noise, 400, seed) for seed, share in enumerate((0.2, 1, 3))]
    )
    found = estimate_sensor_noise(torch.from_numpy(stack)[:, None])
    assert found.noise.gain == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize(
    ("known", "field", "truth"),
    [
        (Known(gain=2.0, offset=100.0), "read_noise", 10.0),
        (Known(read_noise=10.0, offset=100.0), "gain", 2.0),
        (Known(offset=100.0), "read_noise", 10.0),
    ],
    ids=["read noise", "gain", "both"],
)
def test_what_is_known_stays(known, field, truth):
    found = estimate_sensor_noise(planes(taken(ramp(), SensorNoise(2.0, 10.0, 100.0), 400)), None, known)
    assert getattr(found.noise, field) == pytest.approx(truth, rel=0.1)
    for name in ("gain", "read_noise", "offset"):
        if getattr(known, name) is not None:
            assert getattr(found.noise, name) == getattr(known, name)


def test_one_brightness_is_enough_for_one_number():
    flat = planes(taken(np.full((128, 128), 0.5), SensorNoise(2.0, 10.0, 100.0), 400))
    found = estimate_sensor_noise(flat, None, Known(read_noise=10.0, offset=100.0))
    assert found.noise.gain == pytest.approx(2, rel=0.1)


def test_hidden_pixels_do_not_count():
    values = planes(taken(ramp(), SensorNoise(1.0, 3.0), 100))
    hidden = torch.zeros(1, 1, 300, 300, dtype=torch.bool)
    hidden[..., 100:200, :] = True
    spoilt = torch.where(hidden, 5000 * torch.rand(values.shape, dtype=torch.float64), values)
    assert estimate_sensor_noise(spoilt, hidden).noise.gain == pytest.approx(1, rel=0.1)


def test_hot_pixels_hardly_count():
    values = taken(ramp(), SensorNoise(1.0, 3.0), 100)
    hot = np.random.default_rng(5).random(values.shape) < 0.002
    values[hot] += np.random.default_rng(6).uniform(100, 5000, hot.sum())
    assert estimate_sensor_noise(planes(values)).noise.gain == pytest.approx(1, rel=0.1)


RNG = np.random.default_rng(9)
UNKNOWN = {
    "it is constant": np.full((64, 64), 7.0),
    "about the same brightness": RNG.poisson(10.0, (256, 256)),
    "hardly grows with brightness": 100 * ramp() + 5 * RNG.standard_normal((300, 300)),
    "only 16 blocks": taken(ramp()[:40, ::8], SensorNoise(1.0), 100),
    "only 0 blocks": np.where(RNG.random((64, 64)) > 0.5, 1.0, 0.0),
    "without texture": np.kron(RNG.random((150, 150)), np.ones((2, 2)))[:, :-1] * 1e6,
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_says_when_it_cannot_know(reason):
    with pytest.raises(NoiseUnknown, match=reason) as error:
        estimate_sensor_noise(planes(UNKNOWN[reason]))
    assert "give gain= and read_noise=" in str(error.value)


def test_says_when_noise_was_cut_off_at_black():
    noise = SensorNoise(1.0, 8.0)
    values = taken(PICTURES["camera"](), noise, 100).clip(0)
    found = estimate_sensor_noise(planes(values))
    assert any("cut off" in caution for caution in found.warnings)


def test_a_few_cut_off_values_do_not_mislead():
    """Too bright for the sensor in a third of the picture, which a caution names."""
    values = taken(ramp(), SensorNoise(1.0, 3.0), 1000).clip(0, 700)
    found = estimate_sensor_noise(planes(values))
    assert found.noise.gain == pytest.approx(1, rel=0.1)
    assert any("cut off at 700" in caution for caution in found.warnings)


def test_says_when_the_noise_is_not_white():
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(taken(ramp(), SensorNoise(1.0), 500), 1.0)
    try:
        found = estimate_sensor_noise(planes(values))
    except NoiseUnknown:
        return
    assert any("not white" in caution for caution in found.warnings)


def test_points_lie_on_the_line():
    found = estimate_sensor_noise(planes(taken(ramp(), SensorNoise(2.0, 10.0), 1000)))
    means, variances = np.array(found.means), np.array(found.variances)
    assert (np.diff(means) > 0).all()
    assert variances == pytest.approx(2 * means + 100, rel=0.2)
    assert 0.5 < found.used <= 1
