"""What makes images worse."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.degradations import gaussian_noise


def test_statistics():
    noise = gaussian_noise((512, 512), 0.1, np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 1e-3
    assert noise.std() == pytest.approx(0.1, rel=0.01)


def test_one_generator_one_noise():
    first, second = (gaussian_noise((8, 8), sigma, np.random.default_rng(5)) for sigma in (0.25, 0.5))
    assert np.array_equal(2 * first, second)


@pytest.mark.parametrize("sigma", [-1, np.nan, np.inf])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma must be finite and >= 0"):
        gaussian_noise((2, 2), sigma, np.random.default_rng(0))
