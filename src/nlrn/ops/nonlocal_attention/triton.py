"""The GPU backend: Triton kernels for inference and training, the operators around them, and their use.

Without gradients the logits are stored and updated in place, or computed anew from the history where memory is short.
Under autograd all steps of a recurrence share two buffers, whatever their number: the summed logits, which each step's
forward pass moves one step on and its backward pass one step back (`S_{t-1} = S_t - query_t key_t^T`), and their
gradient, which runs back along with them (`Tape`).
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, library

from .state import AttentionState, Tape, needs_grad

# Side of a tile.
TILE = 8
# Stored rows of logits are padded to a multiple of this, so that each begins where vector loads may begin.
ROW_MULTIPLE = 16
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COMPUTE_CAPABILITY = (8, 0)


@functools.cache
def loaded_kernels() -> ModuleType | str:
    """The module of the kernels, or why there is none."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        from . import triton_kernels
    except ImportError as error:
        return f"triton cannot be loaded ({error})"
    return triton_kernels


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU: slow, for tests."""
    # Triton need not be imported to know that it would not interpret.
    if os.environ.get("TRITON_INTERPRET") != "1":
        return False
    kernels = loaded_kernels()
    return not isinstance(kernels, str) and bool(kernels.INTERPRETED)


@functools.cache
def _device_refuses(device: torch.device) -> str | None:
    """Why kernels cannot run on a GPU, found out by running one."""
    kernels = loaded_kernels()
    if isinstance(kernels, str):
        return kernels
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < COMPUTE_CAPABILITY:
        return "needs a GPU of compute capability 8.0 or higher"
    try:
        with torch.cuda.device(device):
            kernels.probe[(1,)](torch.empty(1, dtype=torch.int32, device=device))
    except Exception as error:  # no C compiler, no Python headers, a driver too old: Triton has no type for these
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
    if device == "cuda" and (reason := _device_refuses(value.device)):
        return reason
    if not needs_grad(query, key, value, state):
        if state is None or state.logits is not None:
            return None
        needed = history_bytes(state, query, value, window_size, TILE)
        return f"needs {needed} bytes for a history, {_allowed(max_memory)}" if needed > max_memory else None
    if state is None:
        needed = 2 * 4 * math.prod(_Geometry.of(query, key, window_size).state_shape(torch.float32))
        return (
            f"needs {needed} bytes for the logits of all steps and their gradient, {_allowed(max_memory)}"
            if needed > max_memory
            else None
        )
    if state.tape is None:
        return (
            "needs logits made under autograd, and this state's cannot be differentiated; "
            "run all steps of a recurrence under autograd, or none"
        )
    return None


def _allowed(max_memory: int) -> str:
    return f"max_memory is {max_memory}"


@dataclass(frozen=True)
class _Geometry:
    """How many tiles there are, and how many keys their windows cover."""

    batch: int
    rows: int
    height: int
    width: int
    radius: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, window_size: int | None) -> _Geometry:
        (batch, _, rows, width), height = query.shape, key.shape[2]
        # No larger than it takes to see the whole image.
        largest = max(height, width)
        return cls(
            batch,
            rows,
            height,
            width,
            largest if window_size is None else min(window_size // 2, largest),
        )

    @property
    def query_tiles(self) -> int:
        return self.batch * _tiles(self.rows) * _tiles(self.width)

    @property
    def key_tiles(self) -> int:
        return self.batch * _tiles(self.height) * _tiles(self.width)

    @property
    def stored_keys(self) -> int:
        """Keys of the largest span."""
        reach = TILE + 2 * self.radius
        return _up(min(reach, self.height) * min(reach, self.width))

    def state_shape(self, dtype: torch.dtype) -> tuple[int, ...]:
        """`[tiles, queries, keys]`; float16 logits have their float32 references behind them (see the kernel)."""
        keys = self.stored_keys
        if dtype == torch.float16:
            keys = _up(keys + 2 * -(-keys // _kernels().KEYS_PER_REFERENCE))
        return self.query_tiles, TILE * TILE, keys


def _tiles(length: int) -> int:
    return -(-length // TILE)


def _up(keys: int) -> int:
    return -(-keys // ROW_MULTIPLE) * ROW_MULTIPLE


def _kernels() -> Any:
    kernels = loaded_kernels()
    assert not isinstance(kernels, str)
    return kernels


def _pixels(image: Tensor) -> Tensor:
    """`[B, H, W, C]`, dense; no copy of an image that is channels-last."""
    return image.permute(0, 2, 3, 1).contiguous()


@library.custom_op("nlrn::triton_attention", mutates_args={"logits"})
def triton_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logits: Tensor,
    radius: int,
    row_offset: int,
    load: bool,
    store: bool,
) -> tuple[Tensor, Tensor]:
    """Output `[B, V, rows, W]` and the log of the softmax's normaliser `[B, rows, W]`.

    `load` adds the stored `logits` to those of this step, `store` writes the sums back; with neither, `logits` may be
    empty.
    """
    geometry = _Geometry(query.shape[0], query.shape[2], key.shape[2], key.shape[3], radius)
    query, key, value = _pixels(query), _pixels(key), _pixels(value)
    channels, value_channels = query.shape[3], value.shape[3]
    output = torch.empty((*query.shape[:3], value_channels), dtype=value.dtype, device=value.device)
    normaliser = torch.empty(query.shape[:3], dtype=torch.float32, device=value.device)
    relative = logits.dtype == torch.float16 and logits.numel() > 0
    blocks = _kernels().blocks("forward", value, channels, value_channels)
    for first_value in range(0, value_channels, blocks["BLOCK_VALUES"]):
        # The first block of values brings the stored logits up to date; nothing is to be added to them after that.
        finished = store and first_value > 0
        _kernels().forward[(geometry.query_tiles,)](
            query,
            key,
            value,
            logits,
            logits.view(torch.float32) if relative else logits,
            output,
            normaliser,
            geometry.rows,
            geometry.height,
            geometry.width,
            radius,
            row_offset,
            0 if finished else channels,
            value_channels,
            first_value,
            geometry.stored_keys,
            logits.shape[-1],
            LOAD=load or finished,
            STORE=store and not finished,
            RELATIVE=relative,
            ONE_BLOCK=channels <= blocks["BLOCK_CHANNELS"],
            TILE=TILE,
            **blocks,
        )
    return output.permute(0, 3, 1, 2), normaliser


@triton_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logits: Tensor,
    radius: int,
    row_offset: int,
    load: bool,
    store: bool,
) -> tuple[Tensor, Tensor]:
    batch, _, rows, width = query.shape
    output = value.new_empty((batch, rows, width, value.shape[1]))
    return output.permute(0, 3, 1, 2), value.new_empty((batch, rows, width), dtype=torch.float32)


@library.custom_op("nlrn::triton_attention_backward", mutates_args={"logits", "logits_grad"})
def triton_attention_backward(
    output_grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    logits: Tensor,
    logits_grad: Tensor,
    later: list[Tensor],
    computed: bool,
    radius: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; moves `logits` and `logits_grad` to this step.

    `later` are the query and key of the step that both belong to on entry. It is empty for the last step: its logits
    are there (or `computed` here, where there was no other step), and their gradient has yet to be written.
    """
    geometry = _Geometry(query.shape[0], query.shape[2], key.shape[2], key.shape[3], radius)
    # Per query: sum_j P_j dP_j = <output_grad, output>, the part of the softmax gradient that all keys share.
    shared = (output_grad.float() * output.float()).sum(1)
    query, key, value, output_grad = (_pixels(x) for x in (query, key, value, output_grad))
    other_query, other_key = [_pixels(x) for x in later] if later else (query, key)
    source = "rewound" if later else "computed" if computed else "stored"
    query_grad, key_grad, value_grad = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    channels, value_channels = query.shape[3], value.shape[3]
    sizes = (geometry.rows, geometry.height, geometry.width, radius, row_offset, channels, value_channels)

    blocks = _kernels().blocks("backward_query", value, channels, value_channels)
    for first_channel in range(0, channels, blocks["BLOCK_CHANNELS"]):
        _kernels().backward_query[(geometry.query_tiles,)](
            key,
            value,
            output_grad,
            shared,
            normaliser,
            other_query,
            other_key,
            logits,
            logits_grad,
            query_grad,
            *sizes,
            first_channel,
            logits.shape[-1],
            UPDATE=first_channel == 0,
            LOGITS=source,
            ADD=bool(later),
            ONE_BLOCK=channels <= blocks["BLOCK_CHANNELS"],
            ONE_VALUE_BLOCK=value_channels <= blocks["BLOCK_VALUES"],
            TILE=TILE,
            **blocks,
        )

    blocks = _kernels().blocks("backward_key", value, channels, value_channels)
    step, value_step = blocks["BLOCK_CHANNELS"], blocks["BLOCK_VALUES"]
    for i in range(max(-(-channels // step), -(-value_channels // value_step))):
        _kernels().backward_key[(geometry.key_tiles,)](
            query,
            output_grad,
            normaliser,
            logits,
            logits_grad,
            key_grad,
            value_grad,
            *sizes,
            i * step,
            i * value_step,
            logits.shape[-1],
            TILE=TILE,
            **blocks,
        )
    return query_grad.permute(0, 3, 1, 2), key_grad.permute(0, 3, 1, 2), value_grad.permute(0, 3, 1, 2)


@triton_attention_backward.register_fake
def _(
    output_grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    logits: Tensor,
    logits_grad: Tensor,
    later: list[Tensor],
    computed: bool,
    radius: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor]:
    def like(image: Tensor) -> Tensor:
        batch, channels, rows, width = image.shape
        return image.new_empty((batch, rows, width, channels)).permute(0, 3, 1, 2)

    return like(query), like(key), like(value)


class _Step(torch.autograd.Function):
    """One step under autograd. The token is an output of one step and an input of the next: it holds nothing, but
    makes autograd run the backward passes in the order in which `Tape` can be wound back."""

    @staticmethod
    def forward(ctx, query, key, value, token, tape, radius, row_offset):  # type: ignore[no-untyped-def]
        tape.advance()
        alone = tape.logits is None
        logits = _no_logits(query) if alone else tape.logits
        output, normaliser = triton_attention(
            query, key, value, logits, radius, row_offset, tape.position > 1, not alone
        )
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.tape, ctx.step, ctx.radius, ctx.row_offset = tape, tape.position, radius, row_offset
        return output, query.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, output_grad, _):  # type: ignore[no-untyped-def]
        tape = ctx.tape
        tape.rewind(ctx.step)
        query, key, value, output, normaliser = ctx.saved_tensors
        alone = tape.logits is None
        if alone:
            geometry = _Geometry(query.shape[0], query.shape[2], key.shape[2], key.shape[3], ctx.radius)
            logits = torch.empty(
                geometry.state_shape(torch.float32), dtype=torch.float32, device=query.device
            )
        else:
            logits = tape.logits
        if tape.gradient is None:
            tape.gradient = torch.empty_like(logits)
        grads = triton_attention_backward(
            output_grad,
            query,
            key,
            value,
            output,
            normaliser,
            logits,
            tape.gradient,
            tape.later,
            alone,
            ctx.radius,
            ctx.row_offset,
        )
        tape.later = [query.detach(), key.detach()]
        if tape.position == 0:
            tape.gradient, tape.later = None, []
        return *grads, query.new_empty(0), None, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _step_under_autograd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    geometry: _Geometry,
    state: AttentionState | None,
    row_offset: int,
    keep_state: bool,
) -> tuple[Tensor, AttentionState | None]:
    if state is not None:
        assert state.tape is not None
        tape, token = state.tape, state.token
    else:
        # A step alone computes its logits anew in the backward pass.
        shape = geometry.state_shape(torch.float32)
        tape = Tape(torch.empty(shape, dtype=torch.float32, device=query.device) if keep_state else None)
        token = query.new_empty(0)
    output, token = _Step.apply(query, key, value, token, tape, geometry.radius, row_offset)  # type: ignore[no-untyped-call]
    if not keep_state:
        return output, None
    if state is None:
        return output, AttentionState(logits=tape.logits, backend="triton", tape=tape, token=token)
    return output, state.successor(logits=tape.logits, token=token)


def history_bytes(
    state: AttentionState, query: Tensor, value: Tensor, window_size: int | None, band: int
) -> int:
    """Memory of the queries and keys of all steps side by side, and of the values, for `band` rows of queries."""
    batch, value_channels, height, width = value.shape
    channels = query.shape[1] * (len(state.queries) + 1)
    seen = height if window_size is None else min(height, band + window_size - 1)
    return value.element_size() * batch * width * (channels * (band + seen) + value_channels * seen)


def _attention_of_history(
    state: AttentionState,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    row_offset: int,
    max_memory: int,
) -> Tensor:
    """Bands of rows, as high as the memory allows: to the kernel, a history is one query with many channels."""
    (rows, height), radius = (query.shape[2], key.shape[2]), _Geometry.of(query, key, window_size).radius
    band = _tiles(rows) * TILE
    while band > TILE and history_bytes(state, query, value, window_size, band) > max_memory:
        band = _tiles(band // 2) * TILE
    queries, keys = (*state.queries, query), (*state.keys, key)
    shape = (query.shape[0], rows, query.shape[3], value.shape[1])
    output = torch.empty(shape, dtype=value.dtype, device=value.device).permute(0, 3, 1, 2)
    for a in range(0, rows, band):
        b = min(rows, a + band)
        first, last = max(0, a + row_offset - radius), min(height, b + row_offset + radius)
        output[:, :, a:b], _ = triton_attention(
            _side_by_side(queries, a, b),
            _side_by_side(keys, first, last),
            value[:, :, first:last],
            _no_logits(value),
            radius,
            a + row_offset - first,
            False,
            False,
        )
    return output


def _side_by_side(images: tuple[Tensor, ...], a: int, b: int) -> Tensor:
    """Rows `a .. b-1` with the channels of all images, channels-last."""
    parts = [image[:, :, a:b].permute(0, 2, 3, 1) for image in images]
    shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
    return torch.cat(parts, 3, out=parts[0].new_empty(shape)).permute(0, 3, 1, 2)


def _no_logits(image: Tensor) -> Tensor:
    return image.new_empty(0, dtype=torch.float32)


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
    geometry = _Geometry.of(query, key, window_size)
    if state is not None and state.logits is not None:
        state.check_shape(state.logits.shape, geometry.state_shape(state.logits.dtype))
        if state.logits.dtype == torch.float16 and value.dtype == torch.float32:
            raise ValueError("the attention state belongs to half precision, this call is in torch.float32")
        state.consume()

    if needs_grad(query, key, value, state):
        return _step_under_autograd(query, key, value, geometry, state, row_offset, keep_state)

    def step(logits: Tensor, load: bool, store: bool) -> Tensor:
        output: Tensor = triton_attention(
            query, key, value, logits, geometry.radius, row_offset, load, store
        )[0]
        return output

    if state is not None and state.logits is not None:
        if state.tape is not None:
            state.tape.advance()
        output = step(state.logits, True, keep_state)
        return output, state.successor(logits=state.logits, token=state.token) if keep_state else None

    if state is None:
        dtype = torch.float32 if value.dtype == torch.float32 else torch.float16
        shape = geometry.state_shape(dtype)
        if not keep_state:
            return step(_no_logits(value), False, False), None
        if dtype.itemsize * math.prod(shape) <= max_memory:
            logits = torch.empty(shape, dtype=dtype, device=value.device)
            return step(logits, False, True), AttentionState(logits=logits, backend="triton")
        return step(_no_logits(value), False, False), AttentionState.extended(None, query, key)

    history = AttentionState.extended(state, query, key)
    state.consume()
    output = _attention_of_history(state, query, key, value, window_size, row_offset, max_memory)
    return output, history if keep_state else None
