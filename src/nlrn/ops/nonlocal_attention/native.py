"""The CPU backend, in float32 or bfloat16, with stored logits or a history; the kernel in C++ is in `csrc/`.

Gradients are for bfloat16, on processors with AMX or AVX512-BF16. A state is then the history, whose products are
computed anew: that takes less memory, and with tile registers less time, than stored logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import native_operators as operators
from .native_operators import (
    GRADIENT_BLOCK,
    PRECISIONS,
    QUERIES,
    TILE,
    state_tile,
    up,
    window_attention,
    window_attention_backward,
    window_step,
)
from .state import AttentionState, needs_grad


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _library_refuses(dtype: torch.dtype, differentiable: bool) -> str | None:
    """Why the library for a dtype is not there, or has no gradients."""
    loaded = operators.loaded_kernel(dtype)
    if isinstance(loaded, str):
        return loaded
    if differentiable and not loaded.has_gradients:
        return "has gradients in bfloat16 only, on processors with AMX or AVX512-BF16"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _threads() -> int:
    return torch.get_num_threads()


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> str | None:
    """Why this call is not for the kernel, or `None`."""
    if value.device.type != "cpu":
        return f"runs on the CPU, not on {value.device.type}"
    if value.dtype not in PRECISIONS:
        return f"computes in float32 or bfloat16, not in {value.dtype}"
    differentiable = needs_grad(query, key, value, state)
    reason: str | None = _library_refuses(value.dtype, differentiable)
    if reason is not None:
        return reason
    stored = None if state is None else state.logits
    if stored is not None and stored.dtype != PRECISIONS[value.dtype].logits:
        return f"cannot read logits in {stored.dtype} for images in {value.dtype}"
    steps = 1 if state is None else 1 + len(state.queries)
    if differentiable:
        if stored is not None:
            return "cannot differentiate stored logits"
        needed = gradient_workspace_bytes(query, key, value, window_size, steps)
    else:
        needed = workspace_bytes(query, value, window_size, steps)
    return (
        f"needs {needed} bytes of working memory, max_memory is {max_memory}" if needed > max_memory else None
    )


def _radius(window_size: int | None, height: int, width: int) -> int:
    """Of the window, and no larger than it takes to see the whole image."""
    largest = max(height, width)
    return largest if window_size is None else min(window_size // 2, largest)


class _Differentiable(torch.autograd.Function):
    """The last step of a history under autograd; `images` are its value, queries and keys."""

    @staticmethod
    def forward(ctx, radius, row_offset, *images):  # type: ignore[no-untyped-def]
        value, queries, keys = _parts(images)
        output, normaliser = window_attention(queries, keys, value, radius, row_offset)
        ctx.save_for_backward(output, normaliser, *images)
        ctx.radius, ctx.row_offset = radius, row_offset
        return output.to(value.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, output_grad):  # type: ignore[no-untyped-def]
        output, normaliser, *images = ctx.saved_tensors
        value, queries, keys = _parts(images)
        grads = window_attention_backward(
            output_grad, queries, keys, value, output, normaliser, ctx.radius, ctx.row_offset
        )
        return None, None, *grads


def _parts(images: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    steps = len(images) // 2
    return images[0], list(images[1 : 1 + steps]), list(images[1 + steps :])


def workspace_bytes(query: Tensor, value: Tensor, window_size: int | None, steps: int = 1) -> int:
    """What all threads allocate besides inputs, output and stored state; `steps` is the length of the history."""
    batch, value_channels, height, width = value.shape
    channels: int = query.shape[1]
    threads: int = _threads()
    radius = _radius(window_size, height, width)
    span = min(width, 2 * radius + TILE)
    if value.dtype == torch.float32:
        # Sixteen tiles with queries, sums and columns; for four of them logits of eight rows, and weights of one.
        return 4 * QUERIES * threads * (16 * (steps * channels + value_channels + span) + 4 * 9 * span)
    value_channels = up(value_channels, 32)
    interleaved = 2 * batch * height * value_channels * (width + 34)
    numbers = steps * up(channels, 32) // 2 + value_channels + span
    # The weights of nine rows, and the products of eight.
    numbers += 9 * up(min(width, span + TILE) + 1, 32) // 2 + 8 * (span + 32)
    return interleaved + 4 * 2 * QUERIES * numbers * threads


def gradient_workspace_bytes(
    query: Tensor, key: Tensor, value: Tensor, window_size: int | None, steps: int
) -> int:
    """What the backward pass of a step allocates besides inputs, outputs and gradients."""
    batch, _, rows, _ = query.shape
    _, value_channels, height, width = value.shape
    value_channels, channels = up(value_channels, 32), steps * up(query.shape[1], 32)
    threads: int = _threads()
    width = max(width, GRADIENT_BLOCK)
    bands = min(-(-threads // batch), -(-rows // TILE))
    seen = min(height, -(-rows // bands) + TILE + 2 * _radius(window_size, height, width))
    sums = 4 * seen * width * (channels + value_channels) * (threads if bands == 1 else batch * bands)
    planes = 2 * seen * width * channels * threads
    span = up(min(width, 2 * _radius(window_size, height, width) + 2 * TILE), 32)
    group = 4 * 32 * (2 * channels + value_channels) + 4 * span + 12 * 32 * 32 + 2048
    return sums + planes + group * threads


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
    (batch, _, rows, width), height = query.shape, key.shape[2]
    radius = _radius(window_size, height, width)
    shape = (batch, -(-rows // TILE), -(-width // TILE), state_tile(height, width, radius, value.dtype))

    if needs_grad(query, key, value, state):
        history = AttentionState.extended(state, query, key)
        output = _Differentiable.apply(radius, row_offset, value, *history.queries, *history.keys)  # type: ignore[no-untyped-call]
        return output, history if keep_state else None

    def step(queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Tensor, fresh: bool) -> Tensor:
        output: Tensor = window_step(list(queries), list(keys), value, logits, radius, row_offset, fresh)
        return output

    if state is not None and state.logits is not None:
        state.check_shape(state.logits.shape, shape)
        state.consume()
        output = step([query], [key], state.logits, False)
        return output, state.successor(logits=state.logits) if keep_state else None

    stored = PRECISIONS[value.dtype].logits
    needed = workspace_bytes(query, value, window_size) + stored.itemsize * math.prod(shape)
    if state is None and keep_state and needed <= max_memory:
        logits = torch.empty(shape, dtype=stored)
        return step([query], [key], logits, True), AttentionState(logits=logits, backend="native")

    history = AttentionState.extended(state, query, key)
    if state is not None:
        state.consume()
    output = step(history.queries, history.keys, value.new_empty(0), True)
    return output, history if keep_state else None
