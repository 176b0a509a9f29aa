"""The Triton kernels as PyTorch operators, so that `torch.compile` and export see through them.

Triton is imported when a kernel is first asked for: the package works without it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, library

from .constant import constant_when_compiled
from .triton_layout import CHUNK, Geometry


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


@constant_when_compiled
def interpreted() -> bool:
    """True where kernels run in Triton's interpreter, on the CPU: slow, for tests."""
    # Triton need not be imported to know that it would not interpret.
    if os.environ.get("TRITON_INTERPRET") != "1":
        return False
    kernels = loaded_kernels()
    return not isinstance(kernels, str) and bool(kernels.INTERPRETED)


def _kernels() -> Any:
    kernels = loaded_kernels()
    assert not isinstance(kernels, str)
    return kernels


def _blocks(kernel: str, query: Tensor, value: Tensor) -> dict[str, int]:
    """The compile-time numbers of a kernel for `[B, H, W, C]` images."""
    kernels = _kernels()
    shared_memory = kernels.shared_memory(value.device.index) if value.is_cuda else 0
    blocks: dict[str, int] = kernels.blocks(kernel, value, query.shape[3], value.shape[3], shared_memory)
    return blocks


def _references(logits: Tensor) -> Tensor:
    """Stored float16 logits as the float32 numbers among them; any others as they are."""
    return logits.view(torch.float32) if logits.dtype == torch.float16 else logits


def _stored(logits: Tensor) -> tuple[int, int]:
    """Blocks of a tile of stored logits, and their length; for kernels that neither load nor store, any numbers."""
    return (logits.shape[1], logits.shape[2]) if logits.ndim == 3 else (0, CHUNK)


def _pixels(image: Tensor, *, apart: bool = False) -> Tensor:
    """`[B, H, W, C]`, dense; no copy of an image that is channels-last.

    Pixels may be farther `apart` than they have channels: no copy either of some channels of such an image.
    """
    pixels = image.permute(0, 2, 3, 1)
    _, height, width, _ = pixels.shape
    a_batch, a_row, a_pixel, a_channel = pixels.stride()
    if apart and a_channel == 1 and a_row == width * a_pixel and a_batch == height * a_row:
        return pixels
    return pixels.contiguous()


def _stride(pixels: Tensor) -> int:
    """From one pixel to the next; the strides of dense images do not say it where these are one pixel wide."""
    return pixels.shape[3] if pixels.is_contiguous() else pixels.stride(2)


def _device_of(image: Tensor) -> AbstractContextManager[object]:
    """Kernels run on the current device: makes it that of the images."""
    context: AbstractContextManager[object] = torch.cuda.device_of(image)  # type: ignore[no-untyped-call]
    return context


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
    aligned: bool,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    """Output `[B, V, rows, W]` and the softmax's normaliser `[B, rows, W, 2]` (see the kernel).

    `load` adds the stored `logits` to those of this step, `store` writes the sums back; with neither, `logits` may be
    empty. `aligned` logits are those of an aligned geometry. An `exact` output is float32 whatever the images are.
    """
    geometry = Geometry.with_radius(query, key, radius, aligned=aligned)
    query, key, value = (_pixels(x, apart=True) for x in (query, key, value))
    channels, value_channels = query.shape[3], value.shape[3]
    dtype = torch.float32 if exact else value.dtype
    output = torch.empty((*query.shape[:3], value_channels), dtype=dtype, device=value.device)
    normaliser = torch.empty((*query.shape[:3], 2), dtype=torch.float32, device=value.device)
    blocks = _blocks("nonlocal_forward", query, value)
    with _device_of(value):
        for first_value in range(0, value_channels, blocks["BLOCK_VALUES"]):
            # The first block of values brings the stored logits up to date; nothing is to be added to them after that.
            finished = store and first_value > 0
            _kernels().nonlocal_forward[(geometry.query_tiles,)](
                query,
                key,
                value,
                logits,
                _references(logits),
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
                *(_stride(x) for x in (query, key, value)),
                *_stored(logits),
                LOAD=load or finished,
                STORE=store and not finished,
                HALF=value.dtype != torch.float32,
                ALIGNED=aligned,
                ONE_BLOCK=channels <= blocks["BLOCK_CHANNELS"],
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
    aligned: bool,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    batch, _, rows, width = query.shape
    dtype = torch.float32 if exact else value.dtype
    output = value.new_empty((batch, rows, width, value.shape[1]), dtype=dtype)
    return output.permute(0, 3, 1, 2), value.new_empty((batch, rows, width, 2), dtype=torch.float32)


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
    scale: Tensor,
    later: list[Tensor],
    computed: bool,
    radius: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; moves `logits` and `logits_grad` to this step.

    `later` are query, key and normaliser of the step that both belong to on entry. It is empty for the last step: its
    logits are as the forward pass left them (or `computed` here, where there was no other step), and their gradient has
    yet to be written. What this leaves in `logits` is relative to the normaliser's reference.
    `logits_grad` holds `scale` (`[1]`, float32) times the gradient.
    """
    geometry = Geometry.with_radius(query, key, radius, aligned=True)
    # Per query: sum_j P_j dP_j = <output_grad, output>, the part of the softmax gradient that all keys share. The
    # output is the exact one: what rounding it takes from the gradients, they take from all keys alike, and keys have
    # much in common.
    shared = (output_grad.float() * output.float()).sum(1)
    query, key, value, output_grad = (_pixels(x) for x in (query, key, value, output_grad))
    other_query, other_key = [_pixels(x) for x in later[:2]] if later else (query, key)
    other_normaliser = later[2] if later else normaliser
    source = "rewound" if later else "computed" if computed else "forward"
    query_grad, key_grad, value_grad = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    channels, value_channels = query.shape[3], value.shape[3]
    sizes = (geometry.rows, geometry.height, geometry.width, radius, row_offset, channels, value_channels)

    with _device_of(value):
        blocks = _blocks("nonlocal_backward_query", query, value)
        for first_channel in range(0, channels, blocks["BLOCK_CHANNELS"]):
            _kernels().nonlocal_backward_query[(geometry.query_tiles,)](
                key,
                value,
                output_grad,
                shared,
                normaliser,
                other_query,
                other_key,
                other_normaliser,
                logits,
                _references(logits),
                logits_grad,
                scale,
                query_grad,
                *sizes,
                first_channel,
                *_stored(logits),
                UPDATE=first_channel == 0,
                LOGITS=source,
                ADD=bool(later),
                HALF=value.dtype != torch.float32,
                ONE_BLOCK=channels <= blocks["BLOCK_CHANNELS"],
                ONE_VALUE_BLOCK=value_channels <= blocks["BLOCK_VALUES"],
                **blocks,
            )

        blocks = _blocks("nonlocal_backward_key", query, value)
        step, value_step = blocks["BLOCK_CHANNELS"], blocks["BLOCK_VALUES"]
        for i in range(max(-(-channels // step), -(-value_channels // value_step))):
            _kernels().nonlocal_backward_key[(geometry.key_tiles,)](
                query,
                output_grad,
                normaliser,
                logits,
                logits_grad,
                scale,
                key_grad,
                value_grad,
                *sizes,
                i * step,
                i * value_step,
                *_stored(logits),
                HALF=value.dtype != torch.float32,
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
    scale: Tensor,
    later: list[Tensor],
    computed: bool,
    radius: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor]:
    def like(image: Tensor) -> Tensor:
        batch, channels, rows, width = image.shape
        return image.new_empty((batch, rows, width, channels)).permute(0, 3, 1, 2)

    return like(query), like(key), like(value)
