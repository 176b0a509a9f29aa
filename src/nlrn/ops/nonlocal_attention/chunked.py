"""Memory-bounded non-local attention in plain PyTorch, any device, forward and backward.

The image is cut into tiles of 8x8 queries; a tile's logits are one matrix product with the block of keys that
its windows cover. The window and the image border enter as a bias of 0 or -inf with which the logits start:
it survives every addition, so propagated steps need no mask. The backward pass computes the logits anew
from the history of queries and keys, hence gradients need O(N) memory for any number of steps.

All workspaces belong to one call: allocated once in it, reused for every tile, gone when it returns.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..windows import DoesNotFit, Layout, WindowBias, plan_tiling
from .state import AttentionState, History, StoredLogits, check_shape, needs_grad


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of logits: they add up over the steps, so those of half precision are float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _walk(
    query: list[Tensor],
    key: list[Tensor],
    value: Tensor,
    layout: Layout,
    state: Tensor | None,
    fresh: bool,
    with_normalizer: bool,
) -> tuple[Tensor, Tensor | None]:
    """Output, and the log of the softmax normalizer per query if asked for.

    `query` and `key` are the images whose products are summed (the whole history, or only the newest pair on
    top of the logits in `state`); `fresh` says that `state` holds nothing yet.
    """
    tiling, dtype, device = layout.tiling, _compute_dtype(value.dtype), value.device
    batch, value_channels = value.shape[:2]
    logit_channels = sum(q.shape[1] for q in query)
    queries, keys = [layout.view(q) for q in query], [layout.view(k) for k in key]
    output = torch.empty(
        (batch, *query[0].shape[2:], value_channels), dtype=value.dtype, device=device
    ).permute(0, 3, 1, 2)
    bias = WindowBias.of(tiling, dtype, device)

    def workspace(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    inner_tile, outer_tile = tiling.inner.tile, tiling.outer.tile
    extent = tiling.inner.extent(tiling.segment)
    query_column = workspace(tiling.segment * inner_tile, outer_tile, logit_channels)
    output_column = workspace(tiling.segment * inner_tile, outer_tile, value_channels)
    key_column = workspace(extent, tiling.outer.span, logit_channels)
    value_column = workspace(extent, tiling.outer.span, value_channels)
    weights = workspace(tiling.chunk, tiling.queries, tiling.keys)
    own_logits = None if state is not None else torch.empty_like(weights)
    normalizer = (
        workspace(batch, tiling.outer.count, tiling.inner.count, tiling.queries) if with_normalizer else None
    )

    for where in tiling.segments(batch):
        image, outer, start, tiles = where
        layout.gather_queries(query_column, queries, where)
        layout.gather_keys(key_column, keys, where)
        layout.gather_keys(value_column, [layout.view(value)], where)
        q = query_column.view(-1, tiling.queries, logit_channels)
        result = output_column.view(-1, tiling.queries, value_channels)
        for a, b in tiling.chunks(tiles):
            if state is None:
                assert own_logits is not None
                logits = own_logits[: b - a]
            else:
                logits = state[image, outer, start + a : start + b].view(b - a, tiling.queries, tiling.keys)
            if fresh:
                bias.write(logits, outer, start + a)
            torch.baddbmm(logits, q[a:b], layout.tile_keys(key_column, a, b).transpose(1, 2), out=logits)
            torch.softmax(logits, -1, out=weights[: b - a])
            torch.bmm(weights[: b - a], layout.tile_keys(value_column, a, b), out=result[a:b])
            if normalizer is not None:
                torch.logsumexp(logits, -1, out=normalizer[image, outer, start + a : start + b])
        layout.scatter_queries(output_column, layout.view(output), where)
    return output, normalizer


class _HistoryAttention(torch.autograd.Function):
    """Attention whose logits are the summed products of a history of queries and keys."""

    @staticmethod
    def forward(ctx, layout, value, *history):  # type: ignore[no-untyped-def]
        steps = len(history) // 2
        query, key = list(history[:steps]), list(history[steps:])
        output, normalizer = _walk(query, key, value, layout, None, True, True)
        ctx.save_for_backward(value, output, normalizer, *history)
        ctx.layout = layout
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        value, output, normalizer, *history = ctx.saved_tensors
        steps = len(history) // 2
        grads = _walk_back(
            list(history[:steps]), list(history[steps:]), value, output, normalizer, grad_output, ctx.layout
        )
        return None, *grads


def _walk_back(
    query: list[Tensor],
    key: list[Tensor],
    value: Tensor,
    output: Tensor,
    normalizer: Tensor,
    grad_output: Tensor,
    layout: Layout,
) -> list[Tensor]:
    """Gradients of value, every query and every key, with the logits computed anew tile by tile."""
    tiling, dtype, device = layout.tiling, _compute_dtype(value.dtype), value.device
    batch, value_channels = value.shape[:2]
    logit_channels = sum(q.shape[1] for q in query)
    bias = WindowBias.of(tiling, dtype, device)
    queries, keys = [layout.view(q) for q in query], [layout.view(k) for k in key]
    # Accumulated in the compute dtype: overlapping windows add up many terms.
    grad_value, *grad_history = (torch.zeros_like(x, dtype=dtype) for x in (value, *query, *key))
    grad_queries = [layout.view(g) for g in grad_history[: len(query)]]
    grad_keys = [layout.view(g) for g in grad_history[len(query) :]]
    # Per query: sum_j P_j dP_j = <grad_output, output>, the part of the softmax gradient all keys share.
    shared = (grad_output.to(dtype) * output.to(dtype)).sum(1, keepdim=True)

    def workspace(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    inner_tile, outer_tile = tiling.inner.tile, tiling.outer.tile
    extent, span = tiling.inner.extent(tiling.segment), tiling.outer.span
    query_column = workspace(tiling.segment * inner_tile, outer_tile, logit_channels)
    grad_query_column = torch.empty_like(query_column)
    grad_output_column = workspace(tiling.segment * inner_tile, outer_tile, value_channels)
    shared_column = workspace(tiling.segment * inner_tile, outer_tile, 1)
    key_column, grad_key_column = (workspace(extent, span, logit_channels) for _ in range(2))
    value_column, grad_value_column = (workspace(extent, span, value_channels) for _ in range(2))
    weights, grad_weights = (workspace(tiling.chunk, tiling.queries, tiling.keys) for _ in range(2))

    for where in tiling.segments(batch):
        image, outer, start, tiles = where
        layout.gather_queries(query_column, queries, where)
        layout.gather_queries(grad_output_column, [layout.view(grad_output)], where)
        layout.gather_queries(shared_column, [layout.view(shared)], where)
        layout.gather_keys(key_column, keys, where)
        layout.gather_keys(value_column, [layout.view(value)], where)
        grad_key_column.zero_()
        grad_value_column.zero_()
        q, grad_q = (c.view(-1, tiling.queries, logit_channels) for c in (query_column, grad_query_column))
        grad_out = grad_output_column.view(-1, tiling.queries, value_channels)
        delta = shared_column.view(-1, tiling.queries, 1)
        for a, b in tiling.chunks(tiles):
            p, ds = weights[: b - a], grad_weights[: b - a]
            tile_keys = layout.tile_keys(key_column, a, b)
            bias.write(p, outer, start + a)
            torch.baddbmm(p, q[a:b], tile_keys.transpose(1, 2), out=p)
            p.sub_(normalizer[image, outer, start + a : start + b, :, None]).exp_()
            torch.bmm(grad_out[a:b], layout.tile_keys(value_column, a, b).transpose(1, 2), out=ds)
            ds.sub_(delta[a:b]).mul_(p)
            torch.bmm(ds, tile_keys, out=grad_q[a:b])
            # Neighbouring tiles share keys, so their gradients are added one tile after the other.
            for i in range(b - a):
                layout.tile_keys(grad_value_column, a + i, a + i + 1)[0].addmm_(p[i].T, grad_out[a + i])
                layout.tile_keys(grad_key_column, a + i, a + i + 1)[0].addmm_(ds[i].T, q[a + i])
        layout.add_keys(grad_value_column, layout.view(grad_value), where)
        for grad_column, grads, add in (
            (grad_query_column, grad_queries, False),
            (grad_key_column, grad_keys, True),
        ):
            channel = 0
            for view in grads:
                part = grad_column[..., channel : channel + view.shape[-1]]
                (layout.add_keys if add else layout.scatter_queries)(part, view, where)
                channel += view.shape[-1]
    return [g.to(x.dtype) for g, x in zip((grad_value, *grad_history), (value, *query, *key), strict=True)]


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> str | None:
    """Why this call is not for this backend, or `None`."""
    return None if value.is_floating_point() else f"needs a floating point dtype, got {value.dtype}"


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
    """One step; chooses between a stored and a recomputed state (see `AttentionState`)."""
    dtype = _compute_dtype(value.dtype)
    plan = partial(
        plan_tiling,
        (query.shape[-2], query.shape[-1]),
        key.shape[-2],
        row_offset,
        window_size,
        value_channels=value.shape[1],
        element_size=dtype.itemsize,
    )
    layout = partial(Layout, transposed=query.shape[-2] >= query.shape[-1])
    differentiable = needs_grad(query, key, value, state)

    if isinstance(state, StoredLogits):
        if differentiable:
            raise ValueError(
                "a state made without gradients holds stored logits and cannot be differentiated; "
                "run all steps of a recurrence under autograd, or none"
            )
        tile = (state.logits.shape[4], state.logits.shape[3])
        tiling = plan(logit_channels=query.shape[1], logit_buffers=1, max_memory=max_memory, tile=tile)
        check_shape(state.logits.shape, tiling.state_shape(query.shape[0]))
        state.consume()
        output, _ = _walk([query], [key], value, layout(tiling), state.logits, False, False)
        return output, state.after_a_step(state.logits) if keep_state else None

    if state is None and keep_state and not differentiable:
        try:
            tiling = plan(
                logit_channels=query.shape[1],
                logit_buffers=1,
                max_memory=max_memory,
                state_batch=query.shape[0],
            )
        except DoesNotFit:
            pass  # a history it is
        else:
            logits = torch.empty(tiling.state_shape(query.shape[0]), dtype=dtype, device=value.device)
            output, _ = _walk([query], [key], value, layout(tiling), logits, True, False)
            return output, StoredLogits(logits, "chunked")

    history = History.extended(state, query, key)
    # The backward pass holds a gradient beside each gathered query, key and value, and one for the logits.
    factor = 2 if differentiable else 1
    channels = factor * sum(q.shape[1] for q in history.queries)
    tiling = plan(logit_channels=channels, logit_buffers=2, max_memory=max_memory)
    if differentiable:
        output = _HistoryAttention.apply(layout(tiling), value, *history.queries, *history.keys)  # type: ignore[no-untyped-call]
    else:
        if state is not None:
            state.consume()
        queries, keys = list(history.queries), list(history.keys)
        output, _ = _walk(queries, keys, value, layout(tiling), None, True, False)
    return output, history if keep_state else None
