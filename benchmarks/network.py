"""Whole networks: every backend and precision against the official patch protocol: numbers, time, memory.

    python -m benchmarks.network --sizes 64,128,256,512 --model nlrn-small-gray --out results
    python -m benchmarks.network --sizes 4096x6144 --max-memory 16G --dtype float16 --longest 0

`full` is the network of the paper (T = 12, 128 channels, window 45) with random weights. The official protocol restores
the same network's 45x45 patches at a stride of 7 with whole-patch attention and averages them. Here the same kernels
compute it, in the same precisions; its time is that of some patches, times their number. `--compile` adds the module
under `torch.compile`, anew for every size, on a GPU as a CUDA graph: what a program gains that restores many images of
one size.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.cli.parsing import parse_memory
from nlrn.inference import restore
from nlrn.inference.patches import patch_positions
from nlrn.ops.nonlocal_attention import native_operators

from .common import only, peak_memory, plot, seconds, show, tell, write

PATCHES = (45, 7)
CHUNKED, OFFICIAL, COMPILED = "chunked PyTorch", "official patches", "torch.compile"
# Patches at once: on a GPU as many as it takes to keep it busy.
BATCH = {"cpu": 32, "cuda": 256}


def official(
    model: NLRN, image: Tensor, sigma: float | None, precision: torch.dtype
) -> tuple[Callable[[], Tensor], float]:
    """A batch of patches, and how many such batches an image takes."""
    size, stride = PATCHES
    batch, (height, width) = BATCH[image.device.type], image.shape[2:]
    whole_patch = NLRN(dataclasses.replace(model.config, window_size=None)).eval().to(image.device)
    whole_patch.load_state_dict(model.state_dict())
    count = math.prod(len(patch_positions(length, min(size, length), stride)) for length in (height, width))
    patches = torch.rand(batch, image.shape[1], min(size, height), min(size, width), device=image.device)
    return lambda: restore(whole_patch, patches, sigma, precision=precision), count / batch


def compiled(model: NLRN, image: Tensor, sigma: float | None, precision: torch.dtype) -> Callable[[], Tensor]:
    """The network as a module, for images of one size."""
    torch.compiler.reset()  # the limit of compilations is one of the process
    module = copy.deepcopy(model).to(precision)
    mode = "reduce-overhead" if image.is_cuda else "default"
    run = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)
    rounded = image.to(precision)
    return lambda: restore(run, rounded, sigma)


def psnr(other: Tensor, exact: Tensor) -> float:
    return -10 * math.log10((other.double() - exact).square().mean().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", default="64,128,256", help="sides, or heights x widths such as 4096x6144")
    parser.add_argument("--dtype", help="one, or several to compare; by default float32 and half precision")
    parser.add_argument("--max-memory", help="for nlrn, such as 16G; by default half of what is free")
    parser.add_argument("--longest", type=float, default=300, help="seconds that a peer may take; 0 for none")
    parser.add_argument("--model", default="full", help="full, or a name of nlrn models")
    parser.add_argument("--compile", action="store_true", help="torch.compile as one more peer")
    parser.add_argument("--out", type=Path, help="folder for network.jsonl and network.png")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    full = NLRNConfig(initialization="official")  # the other one adds nothing to an image
    model = NLRN(full).eval() if options.model == "full" else load_model(options.model)
    model.to(device)
    sigma = None if model.config.sigma_range is None else 25 / 255

    memory = parse_memory(options.max_memory)

    def image(height: int, width: int) -> Tensor:
        return torch.rand(1, model.config.channels, height, width, device=device)

    sample = image(100, 100)
    with only("chunked"):
        plain = restore(model, sample, sigma)
        # The same network in float64: what all others are held against.
        exact = restore(copy.deepcopy(model).double(), sample.double(), sigma)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    kernel = native_operators.loaded_kernel(half) if device.type == "cpu" else None
    named = options.dtype.split(",") if options.dtype else ["float32", str(half).removeprefix("torch.")]
    dtypes = {"" if name == "float32" else f", {name}": getattr(torch, name) for name in named}
    if isinstance(kernel, str) and not options.dtype:
        print(f"{half}: {kernel}")
        dtypes.popitem()
    results = {CHUNKED: plain}
    for suffix, dtype in dtypes.items():
        results["nlrn" + suffix] = restore(model, sample, sigma, precision=dtype)
        if options.compile:
            results[COMPILED + suffix] = compiled(model, sample, sigma, dtype)()
    exactness = {}
    for name, result in results.items():
        # Relative to what the network adds to the image.
        error = ((result - exact).square().mean() / (exact - sample).square().mean()).sqrt().item()
        exactness[name] = psnr(result, exact)
        if not error <= (1e-4 if name in ("nlrn", CHUNKED, COMPILED) else 3e-2):
            raise SystemExit(f"wrong numbers, no times: {name} is off by {error:.1e} of the residual")

    rows: list[dict[str, object]] = []
    per_pixel: dict[str, float] = {}

    def measure(name: str, picture: Tensor, run: Callable[[], Tensor], times: float = 1.0) -> None:
        height, width = picture.shape[2:]
        if not name.startswith("nlrn") and per_pixel.get(name, 0.0) * height * width >= options.longest:
            print(f"{name}: more than {options.longest:g} s at {height}x{width}")
            return
        took = seconds(run, device, repeats=2) * times
        per_pixel[name] = took / (height * width)
        tell(f"{name}, {height}x{width}: {took:.4g} s")
        rows.append(
            {
                "path": name,
                "size": f"{height}x{width}",
                "megapixels": height * width / 1e6,
                "seconds": took,
                "us/pixel": 1e6 * took / (height * width),
                "MiB": peak_memory(run, device),
                "PSNR to float64": exactness.get(name, ""),
            }
        )

    for size in options.sizes.split(","):
        height, _, width = size.partition("x")
        picture, first = image(int(height), int(width or height)), len(rows)

        def whole(dtype: torch.dtype, picture: Tensor = picture) -> Callable[[], Tensor]:
            return lambda: restore(model, picture, sigma, precision=dtype, max_memory=memory)

        for suffix, dtype in dtypes.items():
            measure("nlrn" + suffix, picture, whole(dtype))
        with only("chunked"):
            measure(CHUNKED, picture, whole(torch.float32))
        for suffix, dtype in dtypes.items():
            if options.compile:
                measure(COMPILED + suffix, picture, compiled(model, picture, sigma, dtype))
            measure(OFFICIAL + suffix, picture, *official(model, picture, sigma, dtype))
        for row in rows[first:]:
            row["times nlrn"] = row["seconds"] / rows[first]["seconds"]
    about = f"{options.model}, window {model.config.window_size}, {model.config.num_steps} steps"
    show(f"{about}, {device}", rows)
    if options.out:
        write(options.out / "network.jsonl", rows, device, about)
        plot(options.out / f"network-{options.model}.png", rows, "path", "megapixels")


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)
    main()
