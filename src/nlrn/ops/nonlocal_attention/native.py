"""The CPU kernel in C++: float32, forward only, stored logits or a history.

The libraries are compiled by `compile.py`, one for each instruction set; the best one that this processor can run
is loaded when the kernel is first asked for. They know nothing of PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .compile import LIBRARIES, VARIANTS
from .state import AttentionState, needs_grad

INTERFACE = 1
CHANNEL_MULTIPLE = 16
TILE, TILES_TOGETHER = 4, 4


class _Image(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("row", c_int64), ("column", c_int64))


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("batch", "rows", "height", "width", "row_offset", "radius")),
        *((name, c_int32) for name in ("channels", "value_channels", "steps", "fresh")),
        *((name, POINTER(_Image)) for name in ("query", "key", "value")),
        ("output", POINTER(c_float)),
        ("state", POINTER(c_float)),
        ("state_tile", c_int64),
    )


@dataclass(frozen=True)
class Library:
    """A loaded library and the instruction set that it was compiled for."""

    name: str
    functions: ctypes.CDLL


@functools.cache
def loaded_kernel() -> Library | str:
    """The best library for this processor, or why there is none."""
    found = {name: LIBRARIES / f"{name}.so" for name in VARIANTS}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        return "it was not compiled (python -m nlrn.ops.nonlocal_attention.compile)"
    for name, path in found.items():
        # The generic library runs anywhere, so it is the one to ask.
        asked = _open(found.get("generic", path))
        if isinstance(asked, str):
            return asked
        if asked.nlrn_supports(name.encode()):
            loaded = _open(path)
            return loaded if isinstance(loaded, str) else Library(name, loaded)
    return f"this processor has none of {', '.join(found)}"


def _open(path: object) -> ctypes.CDLL | str:
    try:
        functions = ctypes.CDLL(str(path))
        if functions.nlrn_interface() != INTERFACE:
            return f"{path} is of another version of nlrn; compile it again"
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error})"
    functions.nlrn_supports.argtypes = [c_char_p]
    functions.nlrn_state_tile.argtypes = [c_int32, c_int32, c_int32]
    functions.nlrn_state_tile.restype = c_int64
    functions.nlrn_window_step.argtypes = [POINTER(_Problem), c_int]
    return functions


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
    if value.dtype != torch.float32:
        return f"computes in float32, not in {value.dtype}"
    if needs_grad(query, key, value, state):
        return "has no gradients"
    loaded = loaded_kernel()
    if isinstance(loaded, str):
        return loaded
    needed = workspace_bytes(query, value, window_size)
    return (
        f"needs {needed} bytes of working memory, max_memory is {max_memory}" if needed > max_memory else None
    )


def _radius(window_size: int | None, height: int, width: int) -> int:
    """Of the window, and no larger than it takes to see the whole image."""
    largest = max(height, width)
    return largest if window_size is None else min(window_size // 2, largest)


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
    """The kernel's one function; an empty `logits` means that they are not to be kept."""
    loaded = loaded_kernel()
    assert isinstance(loaded, Library)
    batch, value_channels = value.shape[:2]
    channels = queries[0].shape[1]
    padded = -value_channels % CHANNEL_MULTIPLE
    if padded:
        value = F.pad(value, (0, 0, 0, 0, 0, padded))
    queries, keys, values = _side_by_side(queries), _side_by_side(keys), _side_by_side([value])
    rows, (height, width) = queries[0].shape[2], keys[0].shape[2:]
    output = torch.empty((batch, rows, width, value_channels + padded), dtype=value.dtype)
    problem = _Problem(
        batch=batch,
        rows=rows,
        height=height,
        width=width,
        row_offset=row_offset,
        radius=radius,
        channels=channels,
        value_channels=value_channels + padded,
        steps=len(queries),
        fresh=fresh,
        query=_images(queries),
        key=_images(keys),
        value=_images(values),
        output=ctypes.cast(output.data_ptr(), POINTER(c_float)),
        state=ctypes.cast(logits.data_ptr(), POINTER(c_float)) if logits.numel() else None,
        state_tile=state_tile(height, width, radius),
    )
    if loaded.functions.nlrn_window_step(ctypes.byref(problem), torch.get_num_threads()):
        raise MemoryError("the non-local kernel could not allocate its workspace: can't allocate memory")
    return output[..., :value_channels].permute(0, 3, 1, 2)


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
    batch, channels, _, width = value.shape
    padded = channels + -channels % CHANNEL_MULTIPLE
    output = value.new_empty((batch, queries[0].shape[2], width, padded))
    return output[..., :channels].permute(0, 3, 1, 2)


def _side_by_side(images: list[Tensor]) -> list[Tensor]:
    """With the channels of a pixel side by side in memory."""
    return [x if x.stride(1) == 1 else x.contiguous(memory_format=torch.channels_last) for x in images]


def _images(images: list[Tensor]) -> ctypes.Array[_Image]:
    entries = [
        _Image(image[b].data_ptr(), image.stride(2), image.stride(3))
        for image in images
        for b in range(image.shape[0])
    ]
    return (_Image * len(entries))(*entries)


def state_tile(height: int, width: int, radius: int) -> int:
    """Floats of the logits of one tile."""
    loaded = loaded_kernel()
    assert isinstance(loaded, Library)
    return int(loaded.functions.nlrn_state_tile(height, width, radius))


def _tiles(length: int) -> int:
    return -(-length // TILE)


def workspace_bytes(query: Tensor, value: Tensor, window_size: int | None) -> int:
    """What all threads allocate besides inputs, output and stored state."""
    height, width = value.shape[2:]
    radius = _radius(window_size, height, width)
    span = min(width, 2 * radius + TILE)
    numbers = state_tile(height, width, radius) + 16 * (query.shape[1] + value.shape[1] + 2 * span)
    return 4 * TILES_TOGETHER * numbers * torch.get_num_threads()


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
    shape = (batch, _tiles(rows), _tiles(width), state_tile(height, width, radius))

    def step(queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Tensor, fresh: bool) -> Tensor:
        output: Tensor = window_step(list(queries), list(keys), value, logits, radius, row_offset, fresh)
        return output

    if state is not None and state.logits is not None:
        state.check_shape(state.logits.shape, shape)
        state.consume()
        output = step([query], [key], state.logits, False)
        return output, state.successor(logits=state.logits) if keep_state else None

    if (
        state is None
        and keep_state
        and workspace_bytes(query, value, window_size) + 4 * math.prod(shape) <= max_memory
    ):
        logits = torch.empty(shape, dtype=value.dtype)
        return step([query], [key], logits, True), AttentionState(logits=logits, backend="native")

    history = AttentionState.extended(state, query, key)
    if state is not None:
        state.consume()
    output = step(history.queries, history.keys, value.new_empty(0), True)
    return output, history if keep_state else None
