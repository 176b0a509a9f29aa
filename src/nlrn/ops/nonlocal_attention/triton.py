"""The GPU backend, for inference and training; the kernels are in `triton_kernels.py`.

Without gradients the logits are stored and updated in place, or computed anew from the history where memory is short.
Under autograd all steps of a recurrence share two buffers, whatever their number: the summed logits, which each step's
forward pass moves one step on and its backward pass one step back (`S_{t-1} = S_t - query_t key_t^T`), and their
gradient, which runs back along with them (`triton_training.py`, `Tape`). Both are in half precision where the images
are.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .constant import constant_when_compiled
from .memory import history_bytes
from .state import AttentionState, History, StoredLogits, check_shape, needs_grad
from .triton_layout import TILE, Geometry, no_logits, stored_dtype, tiles
from .triton_operators import interpreted, loaded_kernels, triton_attention
from .triton_tape import TapedLogits

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COMPUTE_CAPABILITY = (8, 0)


@constant_when_compiled
def device_refusal(device: torch.device) -> str | None:
    """Why kernels cannot run on a GPU."""
    # Not cached itself: the compiler would look into a cache, and trace what it holds.
    return _probe(device)


@functools.cache
def _probe(device: torch.device) -> str | None:
    """Why kernels cannot run on a GPU, found out by running one."""
    kernels = loaded_kernels()
    if isinstance(kernels, str):
        return kernels
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < COMPUTE_CAPABILITY:
        return "needs a GPU of compute capability 8.0 or higher"
    # No C compiler, no Python headers, a driver too old: what Triton raises then has no common type.
    try:
        with torch.cuda.device(device):
            kernels.probe[(1,)](2)
    except Exception as error:
        return f"triton cannot build kernels here ({error})"
    return None


def refusal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
) -> str | None:
    """Why this call is not for the kernels, or `None`."""
    device = value.device.type
    if device != "cuda" and not (device == "cpu" and interpreted()):
        return f"runs on CUDA devices, not on {device}"
    if value.dtype not in DTYPES:
        return f"computes in float32, float16 and bfloat16, not in {value.dtype}"
    reason: str | None = device_refusal(value.device) if device == "cuda" else None
    if reason is not None:
        return reason
    if not needs_grad(query, key, value, state):
        if not isinstance(state, History):
            return None
        channels = query.shape[1] * (state.steps + 1)
        needed = history_bytes(value.shape, channels, window_size, value.element_size())
        purpose = "a history"
    elif state is None:
        stored = stored_dtype(value)
        shape = Geometry.of(query, key, window_size, aligned=True).state_shape(stored)
        needed, purpose = 2 * stored.itemsize * math.prod(shape), "the logits of all steps and their gradient"
    elif not isinstance(state, TapedLogits):
        return (
            "needs logits made under autograd, and this state's cannot be differentiated; "
            "run all steps of a recurrence under autograd, or none"
        )
    else:
        return None
    return f"needs {needed} bytes for {purpose}, max_memory is {max_memory}" if needed > max_memory else None


def _attention_of_history(
    history: History,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    row_offset: int,
    max_memory: int,
) -> Tensor:
    """Bands of rows, as high as the memory allows: to the kernel, a history is one query with many channels."""
    (rows, height), radius = (query.shape[2], key.shape[2]), Geometry.of(query, key, window_size).radius
    band, item = tiles(rows) * TILE, value.element_size()
    channels = query.shape[1] * history.steps
    while band > TILE and history_bytes(value.shape, channels, window_size, item, band) > max_memory:
        band = tiles(band // 2) * TILE
    shape = (query.shape[0], rows, query.shape[3], value.shape[1])
    output = torch.empty(shape, dtype=value.dtype, device=value.device).permute(0, 3, 1, 2)
    for a in range(0, rows, band):
        b = min(rows, a + band)
        first, last = max(0, a + row_offset - radius), min(height, b + row_offset + radius)
        output[:, :, a:b], _ = triton_attention(
            _side_by_side(history.queries, a, b),
            _side_by_side(history.keys, first, last),
            value[:, :, first:last],
            no_logits(value),
            radius,
            a + row_offset - first,
            False,
            False,
            False,
            False,
        )
    return output


def _side_by_side(images: tuple[Tensor, ...], a: int, b: int) -> Tensor:
    """Rows `a .. b-1` with the channels of all images, channels-last."""
    parts = [image[:, :, a:b].permute(0, 2, 3, 1) for image in images]
    shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
    return torch.cat(parts, 3, out=parts[0].new_empty(shape)).permute(0, 3, 1, 2)


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
    recorded = needs_grad(query, key, value, state)
    # Logits that a tape keeps are aligned, also in steps that are not recorded.
    aligned = recorded or isinstance(state, TapedLogits)
    geometry = Geometry.of(query, key, window_size, aligned=aligned)
    if isinstance(state, StoredLogits | TapedLogits):
        check_shape(state.logits.shape, geometry.state_shape(state.logits.dtype))
        if state.logits.dtype == torch.float16 and value.dtype == torch.float32:
            raise ValueError("the attention state belongs to half precision, this call is in torch.float32")
        state.consume()

    if recorded:
        from .triton_training import step_under_autograd  # with the compiler, which takes seconds to import

        # Any: what `torch.compiler.disable` makes of a function.
        result: tuple[Tensor, AttentionState | None] = step_under_autograd(
            query, key, value, geometry, state, row_offset, keep_state
        )
        return result

    def step(logits: Tensor, load: bool, store: bool) -> Tensor:
        output: Tensor = triton_attention(
            query, key, value, logits, geometry.radius, row_offset, load, store, aligned, False
        )[0]
        return output

    if isinstance(state, TapedLogits):
        state.tape.advance()
        return step(state.logits, True, keep_state), state.after_a_step(state.token) if keep_state else None
    if isinstance(state, StoredLogits):
        return step(state.logits, True, keep_state), state.after_a_step(state.logits) if keep_state else None

    if state is None:
        dtype = stored_dtype(value)
        shape = geometry.state_shape(dtype)
        if not keep_state:
            return step(no_logits(value), False, False), None
        if dtype.itemsize * math.prod(shape) <= max_memory:
            logits = torch.empty(shape, dtype=dtype, device=value.device)
            return step(logits, False, True), StoredLogits(logits, "triton")
        return step(no_logits(value), False, False), History.extended(None, query, key)

    history = History.extended(state, query, key)
    state.consume()
    output = _attention_of_history(history, query, key, value, window_size, row_offset, max_memory)
    return output, history if keep_state else None
