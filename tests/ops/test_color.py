"""MATLAB's colour conversions, against scikit-image's."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2ycbcr

from nlrn.ops.color import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb

RGB = np.random.default_rng(0).random((12, 9, 3))


def test_ycbcr():
    np.testing.assert_allclose(255 * rgb_to_ycbcr(RGB), rgb2ycbcr(RGB), atol=1e-12)
    np.testing.assert_allclose(rgb_to_y(RGB), rgb_to_ycbcr(RGB)[..., 0], atol=1e-15)
    np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(RGB)), RGB, atol=1e-12)
