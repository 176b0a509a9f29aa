"""Running a test file's Triton kernels on the CPU, in Triton's interpreter.

Triton decides when it is imported whether its functions are compiled or interpreted, and anything may have imported it
before in a pytest process that runs many files. So the files' tests run in a process of their own, which
`passes_in_the_interpreter` starts; to see them one by one: `TRITON_INTERPRET=1 pytest tests/ops/test_triton.py`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None

in_interpreter = pytest.mark.skipif(
    not (INTERPRETED and INSTALLED), reason="runs in the interpreter's process (see interpreter.py)"
)
needs_the_compiler = pytest.mark.skipif(INTERPRETED or not INSTALLED, reason="needs triton's compiler")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def passes_in_the_interpreter(file: str) -> None:
    """Runs a file's tests with `TRITON_INTERPRET=1`."""
    if INTERPRETED:
        pytest.skip("this is the interpreter's process")
    if not INSTALLED:
        pytest.skip("needs triton, which is not installed")
    environment = {name: x for name, x in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def repair() -> None:
    """Two faults of the interpreter of Triton 3.6 that its compiler does not have."""
    import triton.language as tl
    from triton.runtime import interpreter

    patch_tensor, dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patched_tensor(tensor, scope):
        patch_tensor(tensor, scope)
        # A scalar is an array of one element, which NumPy 2.4 no longer converts to an int for `range`.
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def patched_dot(self, a, b, *rest):
        return dot(self, float32(a), float32(b), *rest)

    def float32(handle):
        # Bfloat16 is held as its bits in integers, and the product would be one of integers.
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        data = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None)
        return interpreter.TensorHandle(data.view("float32"), tl.float32)

    interpreter._patch_lang_tensor = patched_tensor
    interpreter.InterpreterBuilder.create_dot = patched_dot


if INTERPRETED and INSTALLED:
    repair()
