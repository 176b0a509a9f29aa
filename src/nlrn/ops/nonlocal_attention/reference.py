"""Ground truth of the non-local operation: dense, obvious, any dtype and device, never optimised."""

from __future__ import annotations

import torch
from torch import Tensor

from .state import AttentionState


def window_mask(
    query_rows: int, key_rows: int, width: int, window_size: int | None, row_offset: int, device: torch.device
) -> Tensor:
    """Which keys each query sees: bool `[query_rows * width, key_rows * width]`."""
    if window_size is None:
        return torch.ones(query_rows * width, key_rows * width, dtype=torch.bool, device=device)
    radius = window_size // 2
    query_y = torch.arange(query_rows, device=device) + row_offset
    near_y = (query_y[:, None] - torch.arange(key_rows, device=device)).abs() <= radius
    x = torch.arange(width, device=device)
    near_x = (x[:, None] - x).abs() <= radius
    # [query y, query x, key y, key x]
    near = near_y[:, None, :, None] & near_x[None, :, None, :]
    return near.reshape(query_rows * width, key_rows * width)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    row_offset: int,
) -> tuple[Tensor, AttentionState]:
    """`softmax(S) value` with `S = S_previous + query^T key` inside the window; keeps `S` dense."""
    rows, width = query.shape[-2:]
    logits = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # [batch, queries, keys]
    if state is not None:
        assert state.logits is not None
        logits = logits + state.logits.flatten(3).flatten(1, 2)
    mask = window_mask(rows, key.shape[-2], width, window_size, row_offset, query.device)
    weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)
    output = (weights @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
    logits = logits.view(-1, rows, width, key.shape[-2], width)  # [batch, query y, x, key y, x]
    new_state = (
        AttentionState(logits=logits, backend="reference")
        if state is None
        else state.successor(logits=logits)
    )
    return output.reshape(*output.shape[:2], rows, width), new_state
