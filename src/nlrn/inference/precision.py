"""In which precision networks are computed, and how exact float32 is, whatever the process has allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

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


@contextmanager
def float32_products(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Within: how float32 matrix products and convolutions are computed, exactly or in TF32 where the GPU has it.

    The settings belong to the process, so they are restored on the way out.
    """
    gpu = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]  # type: ignore[attr-defined]
    cpu = [torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv]  # type: ignore[attr-defined]
    backends = gpu if precision == "tf32" else [*gpu, *cpu]  # the CPU has no TF32
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, setting in zip(backends, before, strict=True):
            backend.fp32_precision = setting


def ieee_float32() -> AbstractContextManager[None]:
    """Within: float32 matrix products and convolutions are computed in float32 (no TF32, no bfloat16)."""
    return float32_products("ieee")
