"""The operation as two dense products over all pairs of pixels, for training on crops.

In a crop most pairs lie within the window anyway, and autograd keeps what its backward pass needs: `O(N^2)` memory in
each step, no recomputation. The state is a value and holds the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..windows import window_mask
from .state import AttentionState


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    row_offset: int,
) -> tuple[Tensor, AttentionState]:
    """One step; the window enters as logits of -inf with which the first step starts."""
    rows, width = query.shape[-2:]
    if state is None:
        mask = window_mask(rows, key.shape[-2], width, window_size, row_offset, query.device)
        start = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
        start = start.expand(query.shape[0], *start.shape)
    else:
        assert state.logits is not None
        start = state.logits.flatten(3).flatten(1, 2)
    logits = torch.baddbmm(start, query.flatten(2).transpose(1, 2), key.flatten(2))
    output = (logits.softmax(-1) @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
    # [batch, query y, query x, key y, key x]: a state of another image is noticed by its shape.
    logits = logits.view(-1, rows, width, key.shape[-2], width)
    new_state = (
        AttentionState(logits=logits, backend="dense") if state is None else state.successor(logits=logits)
    )
    return output.reshape(*output.shape[:2], rows, width), new_state
