"""RGB and luma: MATLAB's `rgb2gray` and `rgb2ycbcr`, in floats of [0, 1]."""

from __future__ import annotations

import numpy as np

# rgb2gray.
GRAY = np.array([0.2989, 0.5870, 0.1140])
# rgb2ycbcr (ITU-R BT.601, Y in 16..235, chroma in 16..240 of 255).
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
YCBCR_OFFSET = np.array([16.0, 128.0, 128.0]) / 255


def rgb_to_ycbcr(rgb: np.ndarray) -> np.ndarray:
    """MATLAB's `rgb2ycbcr` without rounding: `[..., 3]` float in units of [0, 1] in and out, float64.

    Example:
        >>> import numpy as np
        >>> from nlrn.ops.color import rgb_to_ycbcr
        >>> (255 * rgb_to_ycbcr(np.ones(3))).round(6)
        array([235., 128., 128.])
    """
    converted: np.ndarray = rgb.astype(np.float64) @ YCBCR.T + YCBCR_OFFSET
    return converted


def ycbcr_to_rgb(ycbcr: np.ndarray) -> np.ndarray:
    """The inverse of `rgb_to_ycbcr`, not clipped."""
    converted: np.ndarray = (ycbcr.astype(np.float64) - YCBCR_OFFSET) @ np.linalg.inv(YCBCR).T
    return converted


def rgb_to_y(rgb: np.ndarray) -> np.ndarray:
    """Y of `rgb_to_ycbcr` alone: `[..., 3]` to `[...]`."""
    y: np.ndarray = rgb.astype(np.float64) @ YCBCR[0] + YCBCR_OFFSET[0]
    return y
