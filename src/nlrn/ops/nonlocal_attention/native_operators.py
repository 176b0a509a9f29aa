"""The C++ kernel's libraries, and its functions as PyTorch operators, which `torch.compile` and export see through.

The libraries are compiled by `compile.py`, one for each dtype and instruction set; the best one that this processor
can run is loaded when a dtype is first asked for. They know nothing of PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .compile import LIBRARIES, VARIANTS

INTERFACE = 5
TILE = 4
QUERIES = TILE * TILE
# Keys side by side of a block in the backward pass: no row may be shorter.
GRADIENT_BLOCK = 32


class Precision(NamedTuple):
    """The requirements of the kernel for one dtype.

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
        *((name, c_int32) for name in ("channels", "value_channels", "steps", "fresh", "exact")),
        *((name, POINTER(_Image)) for name in ("query", "key", "value")),
        ("output", c_void_p),
        ("earlier", c_void_p),
        ("state", c_void_p),
        ("state_tile", c_int64),
        ("normaliser", c_void_p),
    )


class _Gradients(ctypes.Structure):
    _fields_ = (
        ("step", POINTER(_Problem)),
        ("output", POINTER(_Image)),
        ("output_grad", POINTER(_Image)),
        ("later", c_void_p),
        ("logits_grad", c_void_p),
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


def step_in_place(
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
    call.problem.state = _pointer(logits)
    call.problem.earlier = None if fresh else call.problem.state
    call.run(call.functions.nlrn_window_step, call.problem)
    return output[..., : call.value_channels].permute(0, 3, 1, 2)


# The same as an operator, which `torch.compile` and export see. Its first call imports the compiler, which takes
# as long as PyTorch itself.
window_step = library.custom_op("nlrn::window_step", step_in_place, mutates_args={"logits"})


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
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    earlier: Tensor,
    radius: int,
    row_offset: int,
    store: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The last step of a history in float32, the log of the softmax's normaliser `[B, rows, W]`, and its logits.

    With the logits of an `earlier` step, instead of an empty tensor, the history is what came after that step. Nothing
    is written to them. The new logits are empty but for `store`.
    """
    call = _Call(queries, keys, value, radius, row_offset, PRECISIONS[value.dtype].narrowest)
    output = call.image(call.rows, call.padded_values, torch.float32)
    normaliser = torch.empty(output.shape[:3], dtype=torch.float32)
    shape = state_shape(value, call.rows, radius) if store else (0,)
    logits = torch.empty(shape, dtype=call.precision.logits)
    call.problem.output, call.problem.normaliser = output.data_ptr(), normaliser.data_ptr()
    call.problem.earlier, call.problem.state = _pointer(earlier), _pointer(logits)
    call.problem.fresh, call.problem.exact = not earlier.numel(), True
    call.run(call.functions.nlrn_window_step, call.problem)
    return output[..., : call.value_channels].permute(0, 3, 1, 2), normaliser, logits


@window_attention.register_fake
def _(
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    earlier: Tensor,
    radius: int,
    row_offset: int,
    store: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, rows, width = value.shape[0], queries[0].shape[2], value.shape[3]
    normaliser = value.new_empty((batch, rows, width), dtype=torch.float32)
    shape = state_shape(value, rows, radius) if store else (0,)
    logits = value.new_empty(shape, dtype=PRECISIONS[value.dtype].logits)
    return _channels_last_like(value, rows, dtype=torch.float32), normaliser, logits


@library.custom_op("nlrn::window_attention_backward", mutates_args=())
def window_attention_backward(
    output_grad: Tensor,
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    logits: Tensor,
    later: Tensor,
    radius: int,
    row_offset: int,
    propagate: bool,
) -> list[Tensor]:
    """Gradients of value, all queries and all keys, and last of stored logits, which is empty but for `propagate`.

    `output`, `normaliser` and `logits` are those of `window_attention`; without logits they are computed from the
    history. `later` is the gradient of the logits from the steps after this one, or empty.
    """
    call = _Call(queries, keys, value, radius, row_offset, GRADIENT_BLOCK)
    output_grads = _side_by_side([output_grad], call.precision.value_channels)
    outputs = _side_by_side([output], call.precision.value_channels)
    grads = [call.image(call.rows, call.padded_channels, value.dtype) for _ in queries]
    key_grads = [call.image(call.height, call.padded_channels, value.dtype) for _ in keys]
    value_grad = call.image(call.height, call.padded_values, value.dtype)
    shape = gradient_shape(value, call.rows, radius) if propagate else (0,)
    logits_grad = torch.empty(shape, dtype=torch.float32)
    call.problem.normaliser, call.problem.state = normaliser.data_ptr(), _pointer(logits)
    pointers = c_void_p * len(queries)
    gradients = _Gradients(
        step=ctypes.pointer(call.problem),
        output=_images(outputs),
        output_grad=_images(output_grads),
        later=_pointer(later),
        logits_grad=_pointer(logits_grad),
        query_grad=pointers(*(x.data_ptr() for x in grads)),
        key_grad=pointers(*(x.data_ptr() for x in key_grads)),
        value_grad=value_grad.data_ptr(),
    )
    call.run(call.functions.nlrn_window_gradients, gradients)
    of_products = [x[..., : call.channels].permute(0, 3, 1, 2) for x in (*grads, *key_grads)]
    return [value_grad[..., : call.value_channels].permute(0, 3, 1, 2), *of_products, logits_grad]


@window_attention_backward.register_fake
def _(
    output_grad: Tensor,
    queries: list[Tensor],
    keys: list[Tensor],
    value: Tensor,
    output: Tensor,
    normaliser: Tensor,
    logits: Tensor,
    later: Tensor,
    radius: int,
    row_offset: int,
    propagate: bool,
) -> list[Tensor]:
    of_products = [
        _channels_last_like(x, x.shape[2], PRECISIONS[x.dtype].channels) for x in (*queries, *keys)
    ]
    shape = gradient_shape(value, queries[0].shape[2], radius) if propagate else (0,)
    logits_grad = value.new_empty(shape, dtype=torch.float32)
    return [_channels_last_like(value, value.shape[2]), *of_products, logits_grad]


def _pointer(tensor: Tensor) -> int | None:
    return tensor.data_ptr() if tensor.numel() else None


def _channels_last_like(
    image: Tensor, rows: int, multiple: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """An empty result of the operators: channels side by side, padded to a multiple."""
    batch, channels, _, width = image.shape
    padded = up(channels, multiple or PRECISIONS[image.dtype].value_channels)
    whole = image.new_empty((batch, rows, width, padded), dtype=dtype or image.dtype)
    return whole[..., :channels].permute(0, 3, 1, 2)


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
    rows, columns = _keys(height, width, radius)
    if dtype == torch.float32:
        return rows * columns * QUERIES
    # For every eight rows of keys, a float32 for each query from which float16 logits count.
    return (rows * columns + -(-rows // 8) * 2) * QUERIES


def state_shape(value: Tensor, rows: int, radius: int) -> tuple[int, int, int, int]:
    """The shape of the stored logits of so many rows of queries."""
    height, width = value.shape[2:]
    return (value.shape[0], *_tiles(rows, width), state_tile(height, width, radius, value.dtype))


def gradient_shape(value: Tensor, rows: int, radius: int) -> tuple[int, int, int, int]:
    """The shape of the gradient of such logits."""
    height, width = value.shape[2:]
    return (value.shape[0], *_tiles(rows, width), math.prod(_keys(height, width, radius)) * QUERIES)


def _keys(height: int, width: int, radius: int) -> tuple[int, int]:
    """Rows and columns of keys that a tile sees."""
    side = 2 * radius + TILE
    return min(side, height), min(side, width)


def _tiles(rows: int, width: int) -> tuple[int, int]:
    return -(-rows // TILE), -(-width // TILE)


def up(n: int, multiple: int) -> int:
    return n + -n % multiple
