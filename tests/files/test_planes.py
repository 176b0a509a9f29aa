"""Clean images as grey, luma and RGB."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2ycbcr

from nlrn.files.images import Image, write_image
from nlrn.files.planes import read_planes


def test_y_of_a_file(tmp_path):
    pixels = np.rint(255 * np.random.default_rng(0).random((12, 9, 3))).astype(np.uint8)
    write_image(Image(pixels), tmp_path / "a.png")
    expected = np.rint(rgb2ycbcr(pixels)[..., 0])
    assert np.array_equal(read_planes(tmp_path / "a.png", 1, "y"), expected)
