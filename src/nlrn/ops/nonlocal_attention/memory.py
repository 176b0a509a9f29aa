"""Estimates of the bytes that backends take, for planning; `native.py` has those of the C++ kernels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .triton_layout import KEY_BLOCK as KEY_BLOCK
from .triton_layout import TILE

# Matrices of logits that a step of dense attention keeps for its backward pass: logits, weights, and their gradients.
KEPT = 4


def dense_step_bytes(query: Tensor, key: Tensor) -> int:
    """Memory of one step of dense attention under autograd."""
    queries, keys = query.shape[2] * query.shape[3], key.shape[2] * key.shape[3]
    return KEPT * query.element_size() * query.shape[0] * queries * keys


def history_bytes(
    value_shape: Sequence[int], channels: int, window_size: int | None, itemsize: int, band: int = TILE
) -> int:
    """Memory in which the triton backend computes logits from a history, `band` rows of queries at a time.

    Args:
        value_shape: `[B, V, H, W]`.
        channels: channels of the queries of all steps together.
        window_size: side of the window, `None` for the whole image.
        itemsize: bytes of a number.
        band: rows of queries, a multiple of `TILE`.
    """
    batch, value_channels, height, width = value_shape
    seen = height if window_size is None else min(height, band + window_size - 1)
    return itemsize * batch * width * (channels * (band + seen) + value_channels * seen)
