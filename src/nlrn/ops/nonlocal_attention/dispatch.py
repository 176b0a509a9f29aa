"""The choice of the backend that serves a call, and of the precision under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from . import chunked, dense, native, native_operators, reference, triton, triton_operators
from .state import AttentionState


class Backend(Protocol):
    """The functions that a module of a backend has."""

    def refusal(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window_size: int | None,
        state: AttentionState | None,
        max_memory: int,
    ) -> str | None:
        """Why the backend cannot do a call, or `None`."""

    def attention(
        self,
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
        """One step."""


# The fastest first.
_MODULES: dict[str, Backend] = {
    "triton": triton,
    "native": native,
    "dense": dense,
    "chunked": chunked,
    "reference": reference,
}
BACKENDS = tuple(_MODULES)
# Those that take images in half precision and add logits up in a finer one.
_TAKES_HALF = ("triton", "native")

DEFAULT_MAX_MEMORY = 2 << 30
ON_REQUEST = "serves only when asked for by name"


def choose_backend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> str:
    """The fastest backend that can do this call.

    Raises:
        ValueError: no backend fits; the message lists each one with its reason.
    """
    reasons = refusals(query, key, value, window_size, state, max_memory)
    for name, reason in reasons.items():
        if reason is None and not serves_on_request(name, value, state):
            return name
    listed = "; ".join(f"{name}: {reason or ON_REQUEST}" for name, reason in reasons.items())
    raise ValueError(f"no backend can compute this non-local attention ({listed})")


def serves_on_request(name: str, value: Tensor, state: AttentionState | None = None) -> bool:
    """True for a backend that is for tests, unless it goes on with logits of its own."""
    if state is not None and state.backend == name:
        return False
    # Triton's interpreter runs kernels on the CPU.
    return name == "reference" or (name == "triton" and value.device.type == "cpu")


def refusals(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> dict[str, str | None]:
    """The reason, by backend, why it cannot do this call, or `None`."""
    reasons: dict[str, str | None] = {}
    for name, backend in _MODULES.items():
        own = None if state is None else state.read_by(name)
        if state is not None and own is None:
            reasons[name] = f"cannot read logits that the {state.backend} backend stored"
        else:
            reasons[name] = backend.refusal(query, key, value, window_size, own, max_memory)
    return reasons


def nonlocal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None = None,
    *,
    keep_state: bool = True,
    row_offset: int = 0,
    max_memory: int = DEFAULT_MAX_MEMORY,
    backend: str | None = None,
) -> tuple[Tensor, AttentionState | None]:
    """Averages of each pixel's window, weighted by how well the pixel's query matches the keys in it.

    `output_i = sum_j softmax_j(S_ij) value_j` with `S_ij = query_i . key_j + S'_ij`, where j runs over the
    `window_size x window_size` pixels centred on i and `S'` are the logits of the previous step (`state`):
    the correlation propagation of the NLRN. Logits are not scaled. In the paper's symbols the query is
    `theta(x_i)`, the key `psi(x_j)`, the value `g(x_j)`, and `window_size` is q.

    The window is truncated at the image border: a neighbour outside the image does not exist.

    Args:
        query: `[B, D, rows, W]`.
        key: `[B, D, H, W]`.
        value: `[B, V, H, W]`; V may differ from D.
        window_size: odd side of the window in pixels; `None` is the whole image.
        state: the state that the previous step returned, for the same shapes; `None` at the first step. Without
            gradients it is consumed (see `AttentionState`). Under autograd it is a value, except in the triton
            backend, which consumes it too.
        keep_state: `False` at the last step, or without propagation, saves the memory of the new state.
        row_offset: the row of `key` at which the first row of `query` lies, when `query` is a band of rows.
            By default both start at the same row and `rows == H`.
        max_memory: bytes that this call may allocate for its workspace and a new state; in the native backend under
            autograd those of the steps before count too. A state that would
            not fit is kept as the history of queries and keys instead of logits. Tensors of
            the size of the image (result, gradients) are not counted.
        backend: one of `BACKENDS`; by default `choose_backend` decides. A state stays with its backend.

    Returns:
        The output `[B, V, rows, W]` and the state for the next step (`None` if not kept). Under autocast the
        output is of autocast's half precision in the triton and native backends, and float32 in all others.

    Cost: `2 * q^2 * (D + V)` flops per pixel with stored logits, `2 * q^2 * (t D + V)` at step t with a
    history; `4 * 1.34 * q^2` bytes per pixel for stored logits at q = 45.

    Raises:
        ValueError: shapes that do not fit each other, an even window, a state used twice or of other shapes,
            `max_memory` too small for one tile, an unknown backend.
        RuntimeError: in the backward pass of the triton backend, see `AttentionState`.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018, section 3.

    Example:
        >>> import torch
        >>> from nlrn import nonlocal_attention
        >>> query, key, value = torch.randn(3, 1, 8, 20, 30).unbind()
        >>> output, state = nonlocal_attention(query, key, value, 7)
        >>> output, state = nonlocal_attention(query, key, value, 7, state)
        >>> output.shape
        torch.Size([1, 8, 20, 30])
    """
    _check(query, key, value, window_size, row_offset)
    device = query.device.type
    without_autocast: AbstractContextManager[object] = nullcontext()
    if torch.is_autocast_enabled(device):
        without_autocast = torch.autocast(device, enabled=False)
        query, key, value = autocast_inputs(query, key, value, window_size, state, max_memory, backend)
    with without_autocast:
        name = backend or choose_backend(query, key, value, window_size, state, max_memory)
        if name not in _MODULES:
            raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(BACKENDS)}")
        if backend is not None:
            reason = refusals(query, key, value, window_size, state, max_memory)[name]
            if reason is not None:
                raise ValueError(f"backend {name!r} cannot compute this: {reason}")
        if state is not None:
            state = state.read_by(name)
        return _MODULES[name].attention(
            query, key, value, window_size, state, row_offset, keep_state=keep_state, max_memory=max_memory
        )


def autocast_inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window_size: int | None,
    state: AttentionState | None,
    max_memory: int,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The images in autocast's half precision for backends that add up logits in float32; in float32 for all others.

    Logits add up over the steps, and half precision is too coarse for their sums.
    """
    dtype = torch.get_autocast_dtype(value.device.type)
    half = query.to(dtype), key.to(dtype), value.to(dtype)
    reasons = refusals(*half, window_size, state, max_memory)
    for name in _TAKES_HALF:
        asked = backend == name or (backend is None and not serves_on_request(name, value, state))
        if asked and reasons[name] is None:
            return half
    return query.float(), key.float(), value.float()


def _check(query: Tensor, key: Tensor, value: Tensor, window_size: int | None, row_offset: int) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4 or 0 in tensor.shape:
            raise ValueError(f"{name} must be [B, C, H, W] and not empty, got shape {tuple(tensor.shape)}")
        if tensor.dtype != value.dtype or tensor.device != value.device:
            raise ValueError(
                f"{name} must have the dtype and device of value ({value.dtype}, {value.device}), "
                f"got {tensor.dtype}, {tensor.device}"
            )
    if key.shape[1] != query.shape[1]:
        raise ValueError(f"query and key need the same channels, got {query.shape[1]} and {key.shape[1]}")
    if key.shape[2:] != value.shape[2:] or key.shape[0] != value.shape[0]:
        raise ValueError(f"key {tuple(key.shape)} and value {tuple(value.shape)} must cover the same pixels")
    if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        raise ValueError(
            f"query {tuple(query.shape)} must have the batch and width of key {tuple(key.shape)}"
        )
    if window_size is not None and (window_size < 1 or window_size % 2 == 0):
        raise ValueError(f"window_size must be odd and positive, or None, got {window_size}")
    if row_offset < 0 or row_offset + query.shape[2] > key.shape[2]:
        raise ValueError(
            f"query rows {row_offset}..{row_offset + query.shape[2] - 1} "
            f"do not lie within the {key.shape[2]} rows of key"
        )


def has_native_kernel(dtype: torch.dtype) -> bool:
    """True where the C++ kernel for images of a dtype is compiled and runs on this processor."""
    return not isinstance(native_operators.loaded_kernel(dtype), str)


def native_kernels() -> dict[torch.dtype, str]:
    """The C++ library in use for each dtype, or why there is none; one line each."""
    loaded = {dtype: native_operators.loaded_kernel(dtype) for dtype in native_operators.PRECISIONS}
    return {
        dtype: kernel if isinstance(kernel, str) else kernel.name + ", with gradients" * kernel.has_gradients
        for dtype, kernel in loaded.items()
    }


def runs_triton(device: torch.device) -> bool:
    """True where Triton kernels run on a device; on a CPU they run in Triton's interpreter."""
    if device.type == "cuda":
        return triton.device_refusal(device) is None
    return bool(triton_operators.interpreted())
