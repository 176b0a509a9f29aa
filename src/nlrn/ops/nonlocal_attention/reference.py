"""Ground truth of the non-local operation: dense, obvious, any dtype and device, never optimised."""

from __future__ import annotations

from torch import Tensor

from ..windows import window_mask
from .state import AttentionState, History, StoredLogits, dense_logits


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> str | None:
    """Why this call is not for the reference, or `None`."""
    return "cannot continue a history" if isinstance(state, History) else None


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
    """`softmax(S) value` with `S = S_previous + query^T key` inside the window; keeps `S` dense."""
    rows, width = query.shape[-2:]
    logits = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # [batch, queries, keys]
    if state is not None:
        logits = logits + dense_logits(state, query, key, value).flatten(3).flatten(1, 2)
    mask = window_mask(rows, key.shape[-2], width, window_size, row_offset, query.device)
    weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)
    output = (weights @ value.flatten(2).transpose(1, 2)).transpose(1, 2)
    logits = logits.view(-1, rows, width, key.shape[-2], width)  # [batch, query y, x, key y, x]
    new_state = StoredLogits(logits, "reference")
    if isinstance(state, StoredLogits):
        new_state = state.after_a_step(logits)
    return output.reshape(*output.shape[:2], rows, width), new_state if keep_state else None
