"""Compiles the CPU kernel: one library for each instruction set, none of which needs PyTorch.

    python -m nlrn.ops.nonlocal_attention.compile

Installing the package does this too, where there is a C++ compiler.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE / "csrc" / "window.cpp"
LIBRARIES = HERE / "_native"

COMMON = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
]
# Instruction set -> floats in a vector, queries in a register block, compiler options; the best first.
VARIANTS: dict[str, tuple[int, int, list[str]]] = {
    "avx512": (16, 8, ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]),
    "avx2": (8, 4, ["-mavx2", "-mfma"]),
    "generic": (4, 4, []),
}


class CompileError(RuntimeError):
    """There is no compiler, or it failed."""


def compile_kernels(folder: Path = LIBRARIES) -> list[Path]:
    """Compiles every variant that this machine's processor family has.

    Args:
        folder: where the libraries go; made if it is not there.

    Raises:
        CompileError: no C++ compiler (`$CXX`, c++, g++, clang++), or one that fails.
    """
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++")
    compiler = next((found for name in compilers if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise CompileError("no C++ compiler (looked for $CXX, c++, g++, clang++)")
    folder.mkdir(parents=True, exist_ok=True)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return [_compile(compiler, name, folder) for name in VARIANTS if x86 or name == "generic"]


def _compile(compiler: str, name: str, folder: Path) -> Path:
    lanes, group, options = VARIANTS[name]
    target = folder / f"{name}.so"
    partial = target.with_suffix(f".{os.getpid()}.part")
    definitions = [f"-DLANES={lanes}", f"-DGROUP={group}"]
    command = [compiler, *COMMON, *options, *definitions, str(SOURCE), "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        partial.unlink(missing_ok=True)
        message = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise CompileError(f"{compiler} cannot compile the {name} kernel: {message}")
    partial.replace(target)  # a process that has the old library open keeps it
    return target


if __name__ == "__main__":
    try:
        for library in compile_kernels():
            print(library)
    except CompileError as error:
        sys.exit(f"{error}")
