"""Machine code of the Triton kernels, for GPUs that need not be there: what a block of keys costs to issue.

    python -m benchmarks.instructions
    python -m benchmarks.instructions --gpu A100 --dtypes bfloat16

A multiprocessor issues four instructions a cycle, each for the 32 threads of a warp. `floor` is how long it takes to
issue those of the kernel's loop, and nothing else, for one step on 512x512 pixels at window 45; what a step waits for
memory or tensor cores comes on top where it does not overlap. `waits` beside `products`: tensor cores are kept busy
where there are fewer of the first, because products are then waited for in groups.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlrn.ops.nonlocal_attention import triton_operators
from nlrn.ops.nonlocal_attention.triton_layout import KEY_BLOCK, TILE

from .common import show


@dataclass(frozen=True)
class GPU:
    """Compute capability times ten, bytes of shared memory of a program, multiprocessors, clock in GHz."""

    architecture: int
    shared_memory: int
    processors: int
    clock: float


GPUS = {
    "A100": GPU(80, 163 << 10, 108, 1.41),
    "RTX 4090": GPU(89, 99 << 10, 128, 2.52),
    "H100": GPU(90, 227 << 10, 132, 1.755),
}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
KERNELS = ("nonlocal_forward", "nonlocal_backward_query", "nonlocal_backward_key")
CHANNELS, VALUE_CHANNELS = 64, 128
SIDE, WINDOW = 512, 45

Constants = dict[str, Any]


def launches(kernel: str, dtype: torch.dtype) -> dict[str, Constants]:
    """Every way in which a kernel is launched for images of a dtype; first that of most steps of the full network."""
    half = dtype != torch.float32
    if kernel == "nonlocal_forward":
        found = {
            f"{'stored' if load else 'first'}{' and handed on' if store else ''}{', aligned' if aligned else ''}": {
                "LOAD": load,
                "STORE": store,
                "HALF": half,
                "ALIGNED": aligned,
                "ONE_BLOCK": half,
            }
            for load in (True, False)
            for store in (True, False)
            for aligned in (False, True)
        }
        history = {"LOAD": False, "STORE": False, "HALF": half, "ALIGNED": False, "ONE_BLOCK": False}
        return found | {"history": history}
    if kernel == "nonlocal_backward_query":
        channels = {"HALF": half, "ONE_BLOCK": True, "ONE_VALUE_BLOCK": half}
        return {
            "rewound": {"LOGITS": "rewound", "ADD": True, "UPDATE": True, **channels},
            "last step": {"LOGITS": "forward", "ADD": False, "UPDATE": True, **channels},
            "computed": {"LOGITS": "computed", "ADD": False, "UPDATE": True, **channels},
            "more channels": {"LOGITS": "forward", "ADD": False, "UPDATE": False, **channels},
        }
    return {"": {"HALF": half}}


def compiled(kernel: str, dtype: torch.dtype, constants: Constants, gpu: GPU) -> Any:
    """One of `KERNELS`, as it is launched for images of a dtype."""
    kernels: Any = triton_operators.loaded_kernels()
    image = torch.empty(0, dtype=dtype)
    constants = constants | kernels.blocks(kernel, image, CHANNELS, VALUE_CHANNELS, gpu.shared_memory)
    options = {x: constants.pop(x) for x in ("num_warps", "num_stages")}
    types = dict.fromkeys(("references", "normaliser", "other_normaliser", "shared", "scale"), "*fp32")
    types |= dict.fromkeys(("logits", "logits_grad"), "*fp16" if constants["HALF"] else "*fp32")
    images = ("query", "key", "value", "output", "output_grad", "other_query", "other_key")
    types |= dict.fromkeys((*images, "query_grad", "key_grad", "value_grad"), "*" + NAMES[dtype])
    return built(getattr(kernels, kernel), types, constants, gpu, options, unaligned=kernels.SIZES)


def built(
    function: Any,
    types: dict[str, str],
    constants: Constants,
    gpu: GPU,
    options: dict[str, int],
    unaligned: tuple[str, ...],
) -> Any:
    """A kernel for a GPU, told what a launch tells: pointers and numbers are multiples of 16, but the `unaligned`."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {x: "constexpr" if x in constants else types.get(x, "i32") for x in function.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(function.arg_names)
        if signature[name] != "constexpr" and name not in unaligned
    }
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    return compile_kernel(source, target=GPUTarget("cuda", gpu.architecture, 32), options=options)


@dataclass(frozen=True)
class MachineCode:
    """Registers of a thread, bytes spilled, instructions of the longest loop, and in it products and waits for them."""

    registers: int
    spilled: int
    loop: int
    products: int
    waits: int


def machine_code(kernel: Any) -> MachineCode:
    """What the disassembler says of a compiled kernel; it comes with Triton."""
    from triton.backends import nvidia

    tools = Path(nvidia.__file__).parent / "bin"

    def output(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        resources = output(str(tools / "cuobjdump"), "-res-usage", file.name)
        listing = output(str(tools / "nvdisasm"), "-c", file.name)
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    loops = [
        instructions[labels[jump[1]] : i + 1]
        for i, instruction in enumerate(instructions)
        if (jump := re.search(r"BRA\b.*?(\.L_x_\d+)", instruction)) and labels[jump[1]] < i
    ]
    loop = max(loops, key=len)
    (registers,), (stack,) = (re.findall(rf"{word}:(\d+)", resources) for word in ("REG", "STACK"))
    return MachineCode(
        int(registers),
        int(stack),
        len(loop),
        sum("MMA" in x for x in loop),
        sum("WARPGROUP.DEPBAR" in x for x in loop),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="H100", choices=GPUS)
    parser.add_argument("--dtypes", default="float16", help="of float32, float16, bfloat16")
    options = parser.parse_args()
    gpu, rows = GPUS[options.gpu], []
    for name in options.dtypes.split(","):
        dtype = getattr(torch, name)
        keys = KEY_BLOCK[dtype.itemsize]
        blocks = (SIDE // TILE) ** 2 * -(-((WINDOW + TILE - 1) ** 2) // keys)
        for kernel in KERNELS:
            for way, constants in launches(kernel, dtype).items():
                found = compiled(kernel, dtype, constants, gpu)
                code, warps = machine_code(found), found.metadata.num_warps
                rows.append(
                    {
                        "kernel": kernel,
                        "launch": way,
                        "dtype": name,
                        "registers": code.registers,
                        "spilled": code.spilled,
                        "KiB": found.metadata.shared / 1024,
                        "instructions": code.loop * warps,
                        "a logit": 32 * code.loop * warps / (TILE * TILE * keys),
                        "floor, ms": 1e3
                        * blocks
                        * code.loop
                        * warps
                        / (4 * gpu.processors * gpu.clock * 1e9),
                        "products": code.products,
                        "waits": code.waits,
                    }
                )
    show(f"Instructions of a block of keys, {options.gpu}", rows)


if __name__ == "__main__":
    main()
