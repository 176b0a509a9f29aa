"""The operation as two dense products over all pairs of pixels, for training on crops.

In a crop most pairs lie within the window anyway, and autograd keeps what its backward pass needs: `O(N^2)` memory in
each step, no recomputation. The state is a value and holds the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..windows import window_mask
from .memory import dense_step_bytes
from .state import AttentionState, History, StoredLogits, dense_logits, needs_grad


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> str | None:
    """Why this call is not for dense attention, or `None`."""
    if not value.is_floating_point():
        return f"needs a floating point dtype, got {value.dtype}"
    if not needs_grad(query, key, value, state):
        return "serves training; there are no gradients here"
    if value.dtype in (torch.float16, torch.bfloat16):
        return f"adds logits up in {value.dtype}, which is too coarse"
    if isinstance(state, History):
        return "cannot continue a history"
    needed = dense_step_bytes(query, key)
    return f"needs {needed} bytes a step, max_memory is {max_memory}" if needed > max_memory else None


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    row_offset: int,
    *,
    keep_state: bool,
    max_memory: int,
) -> tuple[Tensor, AttentionState | None]:
    """One step; the window enters as logits of -inf with which the first step starts."""
    rows, width = query.shape[-2:]
    if state is None:
        mask = window_mask(rows, key.shape[-2], width, window_size, row_offset, query.device)
        start = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
        start = start.expand(query.shape[0], *start.shape)
    else:
        start = dense_logits(state, query, key, value).flatten(3).flatten(1, 2)
    logits = torch.baddbmm(start, query.flatten(2).transpose(1, 2), key.flatten(2))
    output = (logits.softmax(-1) @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
    # [batch, query y, query x, key y, key x]: a state of another image is noticed by its shape.
    logits = logits.view(-1, rows, width, key.shape[-2], width)
    new_state = StoredLogits(logits, "dense")
    if isinstance(state, StoredLogits):
        new_state = state.after_a_step(logits)
    return output.reshape(*output.shape[:2], rows, width), new_state if keep_state else None
