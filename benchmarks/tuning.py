"""Ways of launching the Triton kernels, one against the other on a GPU: stages, warps, registers.

    python -m benchmarks.tuning
    python -m benchmarks.tuning --dtype bfloat16 --size 28x48x48

`triton_kernels.py` launches them as `BLOCKS` there says, which is the first row of each kernel here. Every other way is
compared with its results before it is timed: one that differs has no time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlrn.ops.nonlocal_attention import nonlocal_attention, triton_operators

from .common import seconds, show, tell, write

STEPS = 3
WAYS: list[dict[str, int]] = [
    {"num_warps": warps, "num_stages": stages, **registers}
    for warps, stages, registers in itertools.product((4, 8), (1, 2, 3), ({}, {"maxnreg": 168}))
]


def recurrence(images: list[list[Tensor]], window: int) -> list[Tensor]:
    """The outputs of all steps: logits are stored, taken and handed on, taken for the last time."""
    outputs, state = [], None
    for step in images:
        output, state = nonlocal_attention(*step, window, state, backend="triton", max_memory=64 << 30)
        outputs.append(output)
    return outputs


def forward(images: list[list[Tensor]], window: int) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        with torch.no_grad():
            return recurrence(images, window)

    return run


def backward(images: list[list[Tensor]], window: int) -> Callable[[], list[Tensor]]:
    leaves = [[x.detach().requires_grad_() for x in step] for step in images]

    def run() -> list[Tensor]:
        loss = torch.stack([x.float().square().sum() for x in recurrence(leaves, window)]).sum()
        return list(torch.autograd.grad(loss, [x for step in leaves for x in step]))

    return run


def largest_difference(results: list[Tensor], expected: list[Tensor]) -> float:
    """Of any two, relative to the largest number of each."""
    pairs = zip(results, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1x512x512", help="of the images: number x height x width")
    parser.add_argument("--channels", default="64,128", help="of queries and keys, and of values")
    parser.add_argument("--window", type=int, default=45)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--kernels", default="nonlocal_forward,nonlocal_backward_query,nonlocal_backward_key")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="folder for tuning.jsonl")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    number, height, width = map(int, options.size.split("x"))
    embedding, values = map(int, options.channels.split(","))
    generator = torch.Generator().manual_seed(0)
    images = [
        [
            (scale * torch.randn(number, channels, height, width, generator=generator))
            .to(device, dtype)
            .contiguous(memory_format=torch.channels_last)
            for channels, scale in ((embedding, 0.3), (embedding, 0.3), (values, 1.0))
        ]
        for _ in range(STEPS)
    ]
    kernels: Any = triton_operators.loaded_kernels()
    rows: list[dict[str, object]] = []
    for kernel in options.kernels.split(","):
        run = (forward if kernel == "nonlocal_forward" else backward)(images, options.window)
        shipped = kernels.BLOCKS[kernel][dtype.itemsize]
        expected = run()
        for way in ({}, *WAYS):
            launch = shipped | way
            if way and launch == shipped:
                continue
            kernels.BLOCKS[kernel][dtype.itemsize] = launch
            row: dict[str, object] = {"kernel": kernel, "shipped": "" if way else "yes"}
            row |= {name: launch.get(name, "") for name in ("num_warps", "num_stages", "maxnreg")}
            try:
                difference = largest_difference(run(), expected)
                # Another order of sums; anything more is a mistake.
                right = difference <= 4 * torch.finfo(dtype).eps
                row["ms"] = 1e3 * seconds(run, device) if right else "wrong"
                row["difference"] = difference
            except Exception as error:  # no room for it: what Triton and the driver raise has no common type
                row |= {"ms": type(error).__name__, "difference": ""}
            rows.append(row)
            tell(", ".join(f"{name} {x}" for name, x in row.items() if x != ""))
        kernels.BLOCKS[kernel][dtype.itemsize] = shipped
    about = f"{STEPS} steps, {options.size}, {options.dtype}, forward or forward and backward"
    show(f"Launches of the Triton kernels: {about}", rows)
    if options.out:
        write(options.out / "tuning.jsonl", rows, device, about)


if __name__ == "__main__":
    main()
