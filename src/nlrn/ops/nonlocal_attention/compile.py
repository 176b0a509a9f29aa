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
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
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
AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")
BFLOAT16 = (*AVX512, "-mavx512bw", "-mavx512bf16")


class Variant(NamedTuple):
    """A library: its sources, the options of the compiler, and its purpose.

    Args:
        dtype: dtype of its images.
        sources: its files in `csrc`, beside the one that every library has.
        options: options of the compiler.
        optional: whether to go on without it where the compiler does not support these options.
        gradients: whether it computes gradients.
    """

    dtype: str
    sources: tuple[str, ...]
    options: tuple[str, ...]
    optional: bool = False
    gradients: bool = False


# By instruction set, for each dtype the best first. LANES: floats in a vector; GROUP: queries in a register block.
VARIANTS = {
    "avx512": Variant("float32", ("window.cpp",), (*AVX512, "-DLANES=16", "-DGROUP=8")),
    "avx2": Variant("float32", ("window.cpp",), ("-mavx2", "-mfma", "-DLANES=8", "-DGROUP=4")),
    "generic": Variant("float32", ("window.cpp",), ("-DLANES=4", "-DGROUP=4")),
    "amx": Variant(
        "bfloat16",
        ("window_bf16.cpp", "gradients_bf16.cpp"),
        (*BFLOAT16, "-mamx-tile", "-mamx-bf16"),
        optional=True,
        gradients=True,
    ),
    "avx512bf16": Variant(
        "bfloat16", ("window_bf16.cpp", "gradients_bf16.cpp"), BFLOAT16, optional=True, gradients=True
    ),
}


class CompileError(RuntimeError):
    """There is no compiler, or it failed."""


def compile_kernels(folder: Path = LIBRARIES) -> list[Path]:
    """Compiles every variant that this machine's processor family has.

    An optional variant that the compiler cannot make is left out; a text file in its place says why.

    Args:
        folder: folder of the libraries, made if it is missing.

    Raises:
        CompileError: no C++ compiler (`$CXX`, c++, g++, clang++), or one that fails.
    """
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++")
    compiler = next((found for name in compilers if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise CompileError("no C++ compiler (looked for $CXX, c++, g++, clang++)")
    folder.mkdir(parents=True, exist_ok=True)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    compiled = []
    for name, variant in VARIANTS.items():
        if not x86 and name != "generic":
            continue
        reason = folder / f"{name}.txt"
        reason.unlink(missing_ok=True)
        try:
            compiled.append(_compile(compiler, name, variant, folder))
        except CompileError as error:
            if not variant.optional:
                raise
            (folder / f"{name}.so").unlink(missing_ok=True)  # of an earlier version
            reason.write_text(str(error))
    return compiled


def _compile(compiler: str, name: str, variant: Variant, folder: Path) -> Path:
    target = folder / f"{name}.so"
    partial = target.with_suffix(f".{os.getpid()}.part")
    sources = [str(SOURCES / source) for source in ("library.cpp", *variant.sources)]
    command = [compiler, *COMMON, *variant.options, *sources, "-o", str(partial)]
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
        for left_out in sorted(LIBRARIES.glob("*.txt")):
            print(f"left out: {left_out.read_text()}")
    except CompileError as error:
        sys.exit(f"{error}")
