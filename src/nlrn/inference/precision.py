"""In which precision networks are computed, and how exact float32 is, whatever the process has allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype for a name; `"auto"` is float16 on a CUDA device, else float32.

    Raises:
        ValueError: an unknown name, or float16 on a CPU, where it is far slower than float32.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {name!r}")
    if name == "float16" and device.type == "cpu":
        raise ValueError("precision float16 is for GPUs; on a CPU take float32 or bfloat16")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bfloat16(device: torch.device) -> bool:
    """True where a device has instructions for products of bfloat16, which otherwise are slower than float32.

    Processors other than x86-64 are taken to have none.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return True


_lock = threading.Lock()
_exact = 0  # how many computations, in all threads, are within `ieee_float32`
_allowed: list[str] = []  # what the process had set before the first of them


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Within: float32 matrix products and convolutions are computed in float32 (no TF32, no bfloat16).

    The settings belong to the process: the first thread that comes in makes them, the last one out restores them.
    """
    global _exact, _allowed
    backends = [*_on_gpu(), *_on_cpu()]
    with _lock:
        if not _exact:
            _allowed = _set(backends, ["ieee"] * len(backends))
        _exact += 1
    try:
        yield
    finally:
        with _lock:
            _exact -= 1
            if not _exact:
                _set(backends, _allowed)


@contextmanager
def tf32() -> Iterator[None]:
    """Within: a GPU may compute float32 products and convolutions in TF32; for training, one thread at a time."""
    backends = _on_gpu()
    before = _set(backends, ["tf32"] * len(backends))
    try:
        yield
    finally:
        _set(backends, before)


def _on_gpu() -> list[Any]:
    return [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]


def _on_cpu() -> list[Any]:
    return [torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv]  # type: ignore[attr-defined]


def _set(backends: list[Any], settings: list[str]) -> list[str]:
    """Returns what was set before."""
    before = [backend.fp32_precision for backend in backends]
    for backend, setting in zip(backends, settings, strict=True):
        backend.fp32_precision = setting
    return before
