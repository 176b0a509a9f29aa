"""Random pictures of any shape and type."""

from __future__ import annotations

import numpy as np


def picture(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.random(shape)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    return (values * white).astype(dtype)
