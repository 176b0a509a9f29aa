"""The CPU backend, in float32 or bfloat16, with stored logits or a history; the kernel in C++ is in `csrc/`.

Gradients are for bfloat16, on processors with AMX or AVX512-BF16. Each step then stores its logits for its backward
pass, which hands their gradient to that of the step before; where memory is short, it computes them anew from the
history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from . import native_operators as operators
from .constant import constant_when_compiled
from .native_operators import (
    GRADIENT_BLOCK,
    PRECISIONS,
    QUERIES,
    TILE,
    gradient_shape,
    state_shape,
    step_in_place,
    up,
    window_attention,
    window_attention_backward,
    window_step,
)
from .state import AttentionState, History, StoredLogits, check_shape, needs_grad


@constant_when_compiled
def _library_refuses(dtype: torch.dtype, differentiable: bool) -> str | None:
    """Why the library for a dtype is not there, or has no gradients."""
    loaded = operators.loaded_kernel(dtype)
    if isinstance(loaded, str):
        return loaded
    if differentiable and not loaded.has_gradients:
        return "has gradients in bfloat16 only, on processors with AMX or AVX512-BF16"
    return None


@constant_when_compiled
def _threads() -> int:
    return torch.get_num_threads()


@final
class RecordedLogits(AttentionState):
    """Logits that backward passes need, and the history that other backends read.

    Autograd does not see the logits. The token stands for them in its graph: a step returns one, takes that of the
    step before, and gets its gradient from the step after.
    """

    def __init__(self, history: History, logits: Tensor, token: Tensor) -> None:
        super().__init__("native", history.steps, history.turn)
        self._history, self.logits, self.token = history, logits, token

    @property
    def history(self) -> History:
        return self._history

    @property
    def tensors(self) -> Sequence[Tensor]:
        return (*self._history.tensors, self.token)


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
    steps = 1 if state is None or state.history is None else 1 + state.steps
    if isinstance(state, StoredLogits) and state.logits.dtype != PRECISIONS[value.dtype].logits:
        return f"cannot read logits in {state.logits.dtype} for images in {value.dtype}"
    if differentiable:
        if isinstance(state, StoredLogits):
            return "cannot differentiate stored logits"
        if _differentiates_stored(query, key, value, window_size, state, max_memory):
            return None
        needed = gradient_workspace_bytes(query, key, value, window_size, steps)
    else:
        needed = workspace_bytes(query, value, window_size, steps)
    return (
        f"needs {needed} bytes of working memory, max_memory is {max_memory}" if needed > max_memory else None
    )


def _radius(window_size: int | None, height: int, width: int) -> int:
    """The radius of the window, and no more than the whole image needs."""
    largest = max(height, width)
    return largest if window_size is None else min(window_size // 2, largest)


class _Step(torch.autograd.Function):
    """One step under autograd, with the logits of the step before and what stands for them in the graph.

    The logits themselves are float16, to which autograd would round their gradient.
    """

    @staticmethod
    def forward(ctx, query, key, value, earlier, token, radius, row_offset):  # type: ignore[no-untyped-def]
        output, normaliser, logits = window_attention(
            [query], [key], value, earlier, radius, row_offset, True
        )
        ctx.save_for_backward(query, key, value, output, normaliser, logits)
        ctx.radius, ctx.row_offset, ctx.propagate = radius, row_offset, token is not None
        ctx.mark_non_differentiable(logits)
        ctx.set_materialize_grads(False)
        # One number in memory.
        token = output.new_zeros(()).expand(gradient_shape(value, query.shape[2], radius))
        return output.to(value.dtype), logits, token

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, output_grad, _, later):  # type: ignore[no-untyped-def]
        query, key, value, output, normaliser, logits = ctx.saved_tensors
        if output_grad is None:
            output_grad = torch.zeros_like(output, dtype=value.dtype)
        later = output.new_empty(0) if later is None else later.contiguous()
        value_grad, query_grad, key_grad, logits_grad = window_attention_backward(
            output_grad,
            [query],
            [key],
            value,
            output,
            normaliser,
            logits,
            later,
            ctx.radius,
            ctx.row_offset,
            ctx.propagate,
        )
        return query_grad, key_grad, value_grad, None, logits_grad if ctx.propagate else None, None, None


class _StepOfHistory(torch.autograd.Function):
    """The last step of a history under autograd; `images` are its value, queries and keys."""

    @staticmethod
    def forward(ctx, radius, row_offset, *images):  # type: ignore[no-untyped-def]
        value, queries, keys = _parts(images)
        output, normaliser, _ = window_attention(
            queries, keys, value, value.new_empty(0), radius, row_offset, False
        )
        ctx.save_for_backward(output, normaliser, *images)
        ctx.radius, ctx.row_offset = radius, row_offset
        return output.to(value.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, output_grad):  # type: ignore[no-untyped-def]
        output, normaliser, *images = ctx.saved_tensors
        value, queries, keys = _parts(images)
        none = value.new_empty(0)
        *grads, _ = window_attention_backward(
            output_grad,
            queries,
            keys,
            value,
            output,
            normaliser,
            none,
            none,
            ctx.radius,
            ctx.row_offset,
            False,
        )
        return None, None, *grads


def _parts(images: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    steps = len(images) // 2
    return images[0], list(images[1 : 1 + steps]), list(images[1 + steps :])


def workspace_bytes(query: Tensor, value: Tensor, window_size: int | None, steps: int = 1) -> int:
    """Bytes that all threads allocate besides inputs, output and stored state; `steps` is the length of the history."""
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
    """Bytes that the backward pass of a step allocates besides inputs, outputs and gradients."""
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


def stored_gradient_bytes(
    query: Tensor, key: Tensor, value: Tensor, window_size: int | None, step: int
) -> int:
    """Bytes of a step with stored logits, with its backward pass and the logits of the steps before it."""
    radius = _radius(window_size, *value.shape[2:])
    logits = PRECISIONS[value.dtype].logits.itemsize * math.prod(state_shape(value, query.shape[2], radius))
    # The gradient that comes from the step after, and the one that goes to the step before.
    gradients = 2 * 4 * math.prod(gradient_shape(value, query.shape[2], radius))
    return step * logits + gradients + gradient_workspace_bytes(query, key, value, window_size, 1)


def _differentiates_stored(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> bool:
    """True where a step of a recurrence under autograd stores its logits, given those of the step before."""
    if not (state is None or isinstance(state, RecordedLogits)):
        return False
    step = 1 if state is None else state.steps + 1
    return stored_gradient_bytes(query, key, value, window_size, step) <= max_memory


def _step_under_autograd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    row_offset: int,
    keep_state: bool,
    max_memory: int,
) -> tuple[Tensor, AttentionState | None]:
    radius = _radius(window_size, *value.shape[2:])
    alone = state is None and not keep_state
    if not alone and _differentiates_stored(query, key, value, window_size, state, max_memory):
        earlier, token = value.new_empty(0), None
        if isinstance(state, RecordedLogits):
            check_shape(state.logits.shape, state_shape(value, query.shape[2], radius))
            earlier, token = state.logits, state.token
        output, logits, token = _Step.apply(query, key, value, earlier, token, radius, row_offset)  # type: ignore[no-untyped-call]
        if not keep_state:
            return output, None
        history = History.extended(state, query, key)
        return output, RecordedLogits(history, logits, token)
    history = History.extended(state, query, key)
    output = _StepOfHistory.apply(radius, row_offset, value, *history.queries, *history.keys)  # type: ignore[no-untyped-call]
    return output, history if keep_state else None


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
    if needs_grad(query, key, value, state):
        return _step_under_autograd(query, key, value, window_size, state, row_offset, keep_state, max_memory)
    radius = _radius(window_size, *value.shape[2:])
    shape = state_shape(value, query.shape[2], radius)

    def step(queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Tensor, fresh: bool) -> Tensor:
        compute = window_step if torch.compiler.is_compiling() else step_in_place
        output: Tensor = compute(list(queries), list(keys), value, logits, radius, row_offset, fresh)
        return output

    if isinstance(state, StoredLogits):
        check_shape(state.logits.shape, shape)
        state.consume()
        output = step([query], [key], state.logits, False)
        return output, state.after_a_step(state.logits) if keep_state else None

    stored = PRECISIONS[value.dtype].logits
    needed = workspace_bytes(query, value, window_size) + stored.itemsize * math.prod(shape)
    if state is None and keep_state and needed <= max_memory:
        logits = torch.empty(shape, dtype=stored)
        return step([query], [key], logits, True), StoredLogits(logits, "native")

    # Logits that backward passes need are not to be written to: their history takes their place.
    history = History.extended(state, query, key)
    if state is not None:
        state.consume()
    output = step(history.queries, history.keys, value.new_empty(0), True)
    return output, history if keep_state else None
