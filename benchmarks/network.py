"""Whole networks: every backend and precision against the official patch protocol, first the numbers, then time and memory.

    python -m benchmarks.network --sides 64,128,256,512 --model nlrn-small-gray --out results

`full` is the network of the paper (T = 12, 128 channels, window 45) with random weights. The official protocol restores the same network's
45x45 patches at a stride of 7 with whole-patch attention and averages them. Here the same kernels compute it, in the same precisions; its time
is that of some patches, times their number.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.inference import restore
from nlrn.inference.patches import patch_positions
from nlrn.ops.nonlocal_attention import native_operators

from .common import peak_memory, plot, seconds, show, write

PATCHES = (45, 7)
BATCH = 32


@contextmanager
def without_kernel() -> Iterator[None]:
    kept = native_operators.loaded_kernel
    native_operators.loaded_kernel = lambda dtype: "switched off"
    try:
        yield
    finally:
        native_operators.loaded_kernel = kept


def official(
    model: NLRN, image: Tensor, sigma: float | None, precision: torch.dtype
) -> tuple[Callable[[], Tensor], float]:
    """A batch of patches, and how many such batches an image takes."""
    size, stride = PATCHES
    side = image.shape[2]
    whole_patch = NLRN(dataclasses.replace(model.config, window_size=None)).eval().to(image.device)
    whole_patch.load_state_dict(model.state_dict())
    positions = patch_positions(side, min(size, side), stride)
    patches = torch.rand(BATCH, image.shape[1], min(size, side), min(size, side), device=image.device)
    return lambda: restore(whole_patch, patches, sigma, precision=precision), len(positions) ** 2 / BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sides", default="64,128,256")
    parser.add_argument("--model", default="full", help="full, or a name of nlrn models")
    parser.add_argument("--out", type=Path, help="folder for network.jsonl and network.png")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    full = NLRNConfig(initialization="official")  # the other one adds nothing to an image
    model = NLRN(full).eval() if options.model == "full" else load_model(options.model)
    model.to(device)
    sigma = None if model.config.sigma_range is None else 25 / 255

    def image(side: int) -> Tensor:
        return torch.rand(1, model.config.channels, side, side, device=device)

    sample = image(100)
    with without_kernel():
        plain = restore(model, sample, sigma)
    exact = restore(model, sample, sigma)

    def check(name: str, other: Tensor, allowed: float) -> None:
        """Relative to what the network adds to the image."""
        error = ((other - exact).square().mean() / (exact - sample).square().mean()).sqrt().item()
        if not error <= allowed:
            raise SystemExit(f"wrong numbers, no times: {name} is off by {error:.1e} of the residual")

    check("chunked PyTorch", plain, 1e-4)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    half_name = str(half).removeprefix("torch.")
    kernel = native_operators.loaded_kernel(half) if device.type == "cpu" else ""
    fast = not isinstance(kernel, str) or device.type == "cuda"
    if fast:
        check(str(half), restore(model, sample, sigma, precision=half), 3e-2)
    else:
        print(f"bfloat16: {kernel}")

    rows: list[dict[str, object]] = []

    def measure(name: str, side: int, run: Callable[[], Tensor], times: float = 1.0) -> None:
        took = seconds(run, device, repeats=2) * times
        memory = peak_memory(run, device)
        rows.append(
            {"path": name, "side": side, "seconds": took, "us/pixel": 1e6 * took / side**2, "MiB": memory}
        )

    for side in map(int, options.sides.split(",")):
        picture = image(side)
        first = len(rows)
        measure("nlrn", side, lambda picture=picture: restore(model, picture, sigma))
        if fast:
            measure(
                f"nlrn, {half_name}",
                side,
                lambda picture=picture: restore(model, picture, sigma, precision=half),
            )
        if device.type == "cpu":
            with without_kernel():
                measure("nlrn, chunked PyTorch", side, lambda picture=picture: restore(model, picture, sigma))
        protocols = {"official patches": torch.float32, f"official patches, {half_name}": half}
        for name, dtype in protocols.items():
            if fast or dtype == torch.float32:
                batch, batches = official(model, picture, sigma, dtype)
                measure(name, side, batch, batches)
        for row in rows[first:]:
            row["times nlrn"] = row["seconds"] / rows[first]["seconds"]
    about = f"{options.model}, window {model.config.window_size}, {model.config.num_steps} steps"
    show(f"{about}, {device}", rows)
    if options.out:
        write(options.out / "network.jsonl", rows, device, about)
        plot(options.out / f"network-{options.model}.png", rows, "path", "side", "seconds")


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)
    main()
