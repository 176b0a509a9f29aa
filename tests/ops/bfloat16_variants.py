"""The kernels for bfloat16 that run here: what this processor has, and tile registers (AMX) emulated without."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_native import variants

from nlrn.ops.nonlocal_attention import compile as compiling
from nlrn.ops.nonlocal_attention import native_operators

HEADER = Path(__file__).parent / "emulated_tiles.h"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@functools.cache
def emulated() -> native_operators.Library:
    """The code for AMX on vectors."""
    options = (*compiling.BFLOAT16, "-D__AMX_BF16__", "-include", str(HEADER))
    variant = compiling.VARIANTS["amx"]._replace(options=options)
    with tempfile.TemporaryDirectory() as folder:
        functions = native_operators._open(compiling._compile(COMPILER, "amx", variant, Path(folder)))
    if isinstance(functions, str):
        pytest.fail(functions)
    return native_operators.Library("amx", functions)


def bfloat16_variants() -> dict[str, Callable[[], native_operators.Library]]:
    """By name, functions that give the library."""
    found = {name: functools.partial(lambda x: x, library) for name, library in variants("bfloat16").items()}
    if "avx512bf16" in found and "amx" not in found and COMPILER:
        found["amx-emulated"] = emulated
    return found


def use(library: native_operators.Library, monkeypatch: pytest.MonkeyPatch) -> native_operators.Library:
    """All that computes in bfloat16 now does so with this library; float32 keeps its own."""
    in_float32 = native_operators.loaded_kernel(torch.float32)
    monkeypatch.setattr(
        native_operators, "loaded_kernel", lambda dtype: library if dtype == torch.bfloat16 else in_float32
    )
    return library
