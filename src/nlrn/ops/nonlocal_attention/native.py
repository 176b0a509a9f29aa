"""The CPU kernel in C++: float32 or bfloat16, stored logits or a history.

Gradients are for bfloat16 on processors with tile registers (AMX). A state is then the history: its products are computed anew
in less time than stored logits would take to come from memory.

The libraries are compiled by `compile.py`, one for each dtype and instruction set; the best one that this processor
can run is loaded when a dtype is first asked for. They know nothing of PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .compile import LIBRARIES, VARIANTS
from .state import AttentionState, needs_grad

INTERFACE = 3
TILE = 4
QUERIES = TILE * TILE
# Keys side by side of a block in the backward pass: no row may be shorter.
GRADIENT_BLOCK = 32


class Precision(NamedTuple):
    """What the kernel for one dtype wants.

    Args:
        logits: the dtype of stored logits.
        channels: query and key channels come in multiples of this.
        value_channels: the same for values.
        narrowest: keys whose rows are shorter than this get zeros at the right.
    """

    logits: torch.dtype
    channels: int
    value_channels: int
    narrowest: int


PRECISIONS = {
    torch.float32: Precision(torch.float32, 1, 16, 1),
    torch.bfloat16: Precision(torch.float16, 32, 32, 16),
}


class _Image(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("row", c_int64), ("column", c_int64))


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("batch", "rows", "height", "width", "row_offset", "radius")),
        *((name, c_int32) for name in ("channels", "value_channels", "steps", "fresh")),
        *((name, POINTER(_Image)) for name in ("query", "key", "value")),
        ("output", c_void_p),
        ("state", c_void_p),
        ("state_tile", c_int64),
        ("normaliser", c_void_p),
    )


class _Gradients(ctypes.Structure):
    _fields_ = (
        ("step", POINTER(_Problem)),
        *((name, POINTER(_Image)) for name in ("output", "output_grad")),
        *((name, POINTER(c_void_p)) for name in ("query_grad", "key_grad")),
        ("value_grad", c_void_p),
    )


@dataclass(frozen=True)
class Library:
    """A loaded library and the instruction set that it was compiled for."""

    name: str
    functions: ctypes.CDLL

    @property
    def has_gradients(self) -> bool:
        return VARIANTS[self.name].gradients


@functools.cache
def loaded_kernel(dtype: torch.dtype = torch.float32) -> Library | str:
    """The best library for a dtype on this processor, or why there is none."""
    name_of_dtype = str(dtype).removeprefix("torch.")
    paths = {
        name: LIBRARIES / f"{name}.so" for name, variant in VARIANTS.items() if variant.dtype == name_of_dtype
    }
    found = {name: path for name, path in paths.items() if path.is_file()}
    if not found:
        reasons = [path.with_suffix(".txt") for path in paths.values()]
        failed = next((path.read_text() for path in reasons if path.is_file()), None)
        return failed or "it was not compiled (python -m nlrn.ops.nonlocal_attention.compile)"
    generic = LIBRARIES / "generic.so"
    for name, path in found.items():
        # The generic library runs anywhere, so it is the one to ask.
        asked = _open(generic if generic.is_file() else path)
        if isinstance(asked, str):
            return asked
        if asked.nlrn_supports(name.encode()):
            loaded = _open(path)
            return loaded if isinstance(loaded, str) else Library(name, loaded)
    return f"this processor has no {name_of_dtype} instructions of {', '.join(found)}"


def _open(path: object) -> ctypes.CDLL | str:
    try:
        functions = ctypes.CDLL(str(path))
        if functions.nlrn_interface() != INTERFACE:
            return f"{path} is of another version of nlrn; compile it again"
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error})"
    functions.nlrn_supports.argtypes = [c_char_p]
    functions.nlrn_window_step.argtypes = [POINTER(_Problem), c_int]
    return functions


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _library_refuses(dtype: torch.dtype, differentiable: bool) -> str | None:
    """Why the library for a dtype is not there, or has no gradients."""
    loaded = loaded_kernel(dtype)
    if isinstance(loaded, str):
        return loaded
    if differentiable and not loaded.has_gradients:
        return "has gradients in bfloat16 on processors with AMX only"
    return None


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


class _Call:
    """The arguments of a kernel, and what holds their memory."""

    def __init__(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        value: Tensor,
        radius: int,
        row_offset: int,
        narrowest: int,
    ) -> None:
        loaded, self.precision = loaded_kernel(value.dtype), PRECISIONS[value.dtype]
        assert isinstance(loaded, Library)
        self.functions = loaded.functions
        self.batch, self.value_channels, self.height, self.width = value.shape
        self.rows, self.channels = queries[0].shape[2], queries[0].shape[1]
        queries = _side_by_side(queries, self.precision.channels)
        keys = _side_by_side(keys, self.precision.channels, narrowest)
        values = _side_by_side([value], self.precision.value_channels, narrowest)
        self.padded_channels, self.padded_values = queries[0].shape[1], values[0].shape[1]
        self._held = [*queries, *keys, *values]
        self.problem = _Problem(
            batch=self.batch,
            rows=self.rows,
            height=self.height,
            width=self.width,
            row_offset=row_offset,
            radius=radius,
            channels=self.padded_channels,
            value_channels=self.padded_values,
            steps=len(queries),
            fresh=True,
            query=_images(queries),
            key=_images(keys),
            value=_images(values),
            state_tile=state_tile(self.height, self.width, radius, value.dtype),
        )

    def image(self, rows: int, channels: int, dtype: torch.dtype) -> Tensor:
        """An empty result `[batch, rows, width, channels]`."""
        return torch.empty((self.batch, rows, self.width, channels), dtype=dtype)

    @staticmethod
    def run(function: Callable[..., int], argument: ctypes.Structure) -> None:
        if function(ctypes.byref(argument), c_int(torch.get_num_threads())):
            raise MemoryError("the non-local kernel could not allocate its workspace: can't allocate memory")


@library.custom_op("nlrn::window_step", mutates_args={"logits"})
def window_step(
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    logits: Tensor,
    radius: int,
    row_offset: int,
    fresh: bool,
) -> Tensor:
    """A step without gradients; an empty `logits` means that they are not to be kept."""
    call = _Call(queries, keys, value, radius, row_offset, PRECISIONS[value.dtype].narrowest)
    output = call.image(call.rows, call.padded_values, value.dtype)
    call.problem.output, call.problem.fresh = output.data_ptr(), fresh
    call.problem.state = logits.data_ptr() if logits.numel() else None
    call.run(call.functions.nlrn_window_step, call.problem)
    return output[..., : call.value_channels].permute(0, 3, 1, 2)


@window_step.register_fake
def _(
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    logits: Tensor,
    radius: int,
    row_offset: int,
    fresh: bool,
) -> Tensor:
    return _channels_last_like(value, queries[0].shape[2])


@library.custom_op("nlrn::window_attention", mutates_args=())
def window_attention(
    queries: list[Tensor], keys: list[Tensor], value: Tensor, radius: int, row_offset: int
) -> tuple[Tensor, Tensor]:
    """The last step of a history, and the log of the softmax's normaliser `[B, rows, W]`, which gradients need."""
    call = _Call(queries, keys, value, radius, row_offset, PRECISIONS[value.dtype].narrowest)
    output = call.image(call.rows, call.padded_values, value.dtype)
    normaliser = torch.empty(output.shape[:3], dtype=torch.float32)
    call.problem.output, call.problem.normaliser = output.data_ptr(), normaliser.data_ptr()
    call.run(call.functions.nlrn_window_step, call.problem)
    return output[..., : call.value_channels].permute(0, 3, 1, 2), normaliser


@window_attention.register_fake
def _(
    queries: list[Tensor], keys: list[Tensor], value: Tensor, radius: int, row_offset: int
) -> tuple[Tensor, Tensor]:
    batch, rows, width = value.shape[0], queries[0].shape[2], value.shape[3]
    return _channels_last_like(value, rows), value.new_empty((batch, rows, width), dtype=torch.float32)


@library.custom_op("nlrn::window_attention_backward", mutates_args=())
def window_attention_backward(
    output_grad: Tensor,
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    radius: int,
    row_offset: int,
) -> list[Tensor]:
    """Gradients of value, all queries and all keys."""
    call = _Call(queries, keys, value, radius, row_offset, GRADIENT_BLOCK)
    outputs = _side_by_side([output], call.precision.value_channels)
    output_grads = _side_by_side([output_grad], call.precision.value_channels)
    grads = [call.image(call.rows, call.padded_channels, value.dtype) for _ in queries]
    key_grads = [call.image(call.height, call.padded_channels, value.dtype) for _ in keys]
    value_grad = call.image(call.height, call.padded_values, value.dtype)
    call.problem.normaliser = normaliser.data_ptr()
    pointers = c_void_p * len(queries)
    gradients = _Gradients(
        step=ctypes.pointer(call.problem),
        output=_images(outputs),
        output_grad=_images(output_grads),
        query_grad=pointers(*(x.data_ptr() for x in grads)),
        key_grad=pointers(*(x.data_ptr() for x in key_grads)),
        value_grad=value_grad.data_ptr(),
    )
    call.run(call.functions.nlrn_window_gradients, gradients)
    of_products = [x[..., : call.channels].permute(0, 3, 1, 2) for x in (*grads, *key_grads)]
    return [value_grad[..., : call.value_channels].permute(0, 3, 1, 2), *of_products]


@window_attention_backward.register_fake
def _(
    output_grad: Tensor,
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    radius: int,
    row_offset: int,
) -> list[Tensor]:
    of_products = [
        _channels_last_like(x, x.shape[2], PRECISIONS[x.dtype].channels) for x in (*queries, *keys)
    ]
    return [_channels_last_like(value, value.shape[2]), *of_products]


def _channels_last_like(image: Tensor, rows: int, multiple: int | None = None) -> Tensor:
    """What the operators return: channels side by side, the first of a multiple."""
    batch, channels, _, width = image.shape
    padded = _up(channels, multiple or PRECISIONS[image.dtype].value_channels)
    return image.new_empty((batch, rows, width, padded))[..., :channels].permute(0, 3, 1, 2)


class _Differentiable(torch.autograd.Function):
    """The last step of a history under autograd; `images` are its value, queries and keys."""

    @staticmethod
    def forward(ctx, radius, row_offset, *images):  # type: ignore[no-untyped-def]
        value, queries, keys = _parts(images)
        output, normaliser = window_attention(queries, keys, value, radius, row_offset)
        ctx.save_for_backward(output, normaliser, *images)
        ctx.radius, ctx.row_offset = radius, row_offset
        return output

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


def _side_by_side(images: list[Tensor], multiple: int, narrowest: int = 1) -> list[Tensor]:
    """With the channels of a pixel side by side in memory, and zeros to fill channels and columns up."""
    _, channels, _, width = images[0].shape
    more, right = -channels % multiple, max(0, narrowest - width)
    if more or right:
        images = [F.pad(x, (0, right, 0, 0, 0, more)) for x in images]
    return [x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last) for x in images]


def _images(images: list[Tensor]) -> ctypes.Array[_Image]:
    entries = [
        _Image(image[b].data_ptr(), image.stride(2), image.stride(3))
        for image in images
        for b in range(image.shape[0])
    ]
    return (_Image * len(entries))(*entries)


def state_tile(height: int, width: int, radius: int, dtype: torch.dtype = torch.float32) -> int:
    """Numbers that the logits of one tile take."""
    side = 2 * radius + TILE
    rows, columns = min(side, height), min(side, width)
    if dtype == torch.float32:
        return rows * columns * QUERIES
    # For every eight rows of keys, a float32 for each query from which float16 logits count.
    return (rows * columns + -(-rows // 8) * 2) * QUERIES


def _up(n: int, multiple: int) -> int:
    return n + -n % multiple


def workspace_bytes(query: Tensor, value: Tensor, window_size: int | None, steps: int = 1) -> int:
    """What all threads allocate besides inputs, output and stored state; `steps` is the length of the history."""
    batch, value_channels, height, width = value.shape
    channels, threads = query.shape[1], torch.get_num_threads()
    radius = _radius(window_size, height, width)
    span = min(width, 2 * radius + TILE)
    if value.dtype == torch.float32:
        # Sixteen tiles with their queries, sums and columns; logits of eight rows, and weights of one, for four of them.
        return 4 * QUERIES * threads * (16 * (steps * channels + value_channels + span) + 4 * 9 * span)
    value_channels = _up(value_channels, 32)
    interleaved = 2 * batch * height * value_channels * (width + 34)
    numbers = steps * _up(channels, 32) // 2 + value_channels + span
    # The weights of nine rows, and the products of eight.
    numbers += 9 * _up(min(width, span + TILE) + 1, 32) // 2 + 8 * (span + 32)
    return interleaved + 4 * 2 * QUERIES * numbers * threads


def gradient_workspace_bytes(
    query: Tensor, key: Tensor, value: Tensor, window_size: int | None, steps: int
) -> int:
    """What the backward pass of a step allocates besides inputs, outputs and gradients."""
    batch, _, rows, _ = query.shape
    _, value_channels, height, width = value.shape
    value_channels, channels = _up(value_channels, 32), steps * _up(query.shape[1], 32)
    threads, width = torch.get_num_threads(), max(width, GRADIENT_BLOCK)
    bands = min(-(-threads // batch), -(-rows // TILE))
    seen = min(height, -(-rows // bands) + TILE + 2 * _radius(window_size, height, width))
    sums = 4 * seen * width * (channels + value_channels) * (threads if bands == 1 else batch * bands)
    planes = 2 * seen * width * channels * threads
    span = _up(min(width, 2 * _radius(window_size, height, width) + 2 * TILE), 32)
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
