"""The C++ kernels that run here: what this processor has, and tile registers (AMX) emulated without."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlrn.ops.nonlocal_attention import compile as compiling
from nlrn.ops.nonlocal_attention import native_operators

HEADER = Path(__file__).parent / "emulated_tiles.h"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


def compiled(dtype: str) -> dict[str, native_operators.Library]:
    """The libraries of the package for a dtype that this machine can run."""
    found = {}
    for name, variant in compiling.VARIANTS.items():
        path = compiling.LIBRARIES / f"{name}.so"
        functions = native_operators._open(path) if variant.dtype == dtype else ""
        if not isinstance(functions, str) and functions.nlrn_supports(name.encode()):
            found[name] = native_operators.Library(name, functions)
    return found


@functools.cache
def emulated_amx() -> native_operators.Library:
    """The code for AMX on vectors."""
    options = (*compiling.BFLOAT16, "-D__AMX_BF16__", "-include", str(HEADER))
    variant = compiling.VARIANTS["amx"]._replace(options=options)
    with tempfile.TemporaryDirectory() as folder:
        functions = native_operators._open(compiling._compile(COMPILER, "amx", variant, Path(folder)))
    if isinstance(functions, str):
        pytest.fail(functions)
    return native_operators.Library("amx", functions)


def _of(library: native_operators.Library) -> Callable[[], native_operators.Library]:
    return lambda: library


FLOAT32 = {name: _of(library) for name, library in compiled("float32").items()}
BFLOAT16 = {name: _of(library) for name, library in compiled("bfloat16").items()}
if "avx512bf16" in BFLOAT16 and "amx" not in BFLOAT16 and COMPILER:
    BFLOAT16["amx-emulated"] = emulated_amx


def use(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the native backend compute in `dtype` by the library `name`; other dtypes keep theirs."""
    library = (FLOAT32 if dtype == torch.float32 else BFLOAT16)[name]()
    real = native_operators.loaded_kernel
    monkeypatch.setattr(
        native_operators,
        "loaded_kernel",
        lambda asked=torch.float32: library if asked == dtype else real(asked),
    )
