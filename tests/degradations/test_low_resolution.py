"""The low resolution from which super-resolution starts."""

from __future__ import annotations

import pytest
import torch

from nlrn.degradations.resize import low_resolution
from nlrn.ops.resize import bicubic_resize


def test_low_resolution_is_of_8_bit():
    image = torch.rand(2, 1, 24, 36, dtype=torch.float64)
    small = bicubic_resize(image, 8, 12).clamp(0, 1)
    expected = bicubic_resize((255 * small).round() / 255, 24, 36)
    torch.testing.assert_close(low_resolution(image, 3), expected)


def test_refusals():
    with pytest.raises(ValueError, match="multiples of the scale 3, got 24x35"):
        low_resolution(torch.zeros(1, 24, 35), 3)
