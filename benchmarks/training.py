"""Training steps: how fast, how near to the machine's limit, and where the time goes.

    python -m benchmarks.training configs/denoise_gray.yaml --crops 40x40,80x10 --out results

A step is everything: crops, degradation, forward, loss, backward, clipping, optimiser, average. The images are random.
Peers in the same run: the same network with dense masked attention in plain PyTorch and, with `--compile`, that under
torch.compile; `--fuse` adds `nlrn train --fuse`. Losses must agree before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from nlrn.models.nlrn import NLRNConfig
from nlrn.training.config import Phase, TrainingConfig, load_config
from nlrn.training.crops import Crops
from nlrn.training.graph import Steps
from nlrn.training.step import Trainer

from .common import only, peak_memory, seconds, show, write

RATE = 1e-4
Compiled = Literal["", "norms", "network"]
# By name: the only backend (`None`: what serves), whether the step is captured, what torch.compile compiles.
Peers = dict[str, tuple[str | None, bool, Compiled]]
Row = dict[str, Any]
# Parts of a step by what their operations or kernels are called; the first that fits counts.
PARTS = {
    "non-local": ("nonlocal", "nlrn", "_window", "bmm", "matmul", "softmax", "masked_fill"),
    "convolutions": ("conv", "cudnn", "xmma", "cutlass", "implicit", "gemm"),
    "norms": ("batch_norm", "bn_"),
    "optimiser": ("adam", "foreach", "multi_tensor", "norm"),
}


def flops(config: NLRNConfig, crop: int) -> float:
    """Of a step forward and backward for one pixel: each product counts once forward and twice backward."""
    places = np.arange(crop)
    radius = crop if config.window_size is None else config.window_size // 2
    seen = np.minimum(places + radius, crop - 1) - np.maximum(places - radius, 0) + 1
    keys = seen.mean() ** 2
    width, embedding = config.width, config.embedding
    convolutions = 2 * 9 * width * width + width * (2 * embedding + width)
    ends = 9 * width * (config.channels + config.noise_channel + len(config.heads) * config.channels)
    step = convolutions + keys * (embedding + width)
    return float(3 * 2 * (config.num_steps * step + ends))


def stepper(
    config: TrainingConfig, phase: Phase, device: torch.device, *, captured: bool, compiled: Compiled
) -> Callable[[], float]:
    """A function that takes a training step on random images and returns its loss (on the device)."""
    side = phase.crop + 2 * config.margin
    shape = (side + 24, side + 40) if config.model.channels == 1 else (side + 24, side + 40, 3)
    rng = np.random.default_rng(0)
    crops = Crops([rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(8)], device)
    trainer = Trainer(config, device)
    if compiled == "norms":
        trainer.fuse_norms()
    elif compiled == "network":
        trainer.model.all_heads = torch.compile(trainer.model.all_heads)
    take, step = Steps(trainer, crops, phase, captured=captured), 0

    def run() -> torch.Tensor:
        nonlocal step
        step += 1
        return take(step, RATE)[0]

    return run


def parts(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """The share of each part in the time of the device."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    total = dict.fromkeys([*PARTS, "the rest"], 0.0)
    for event in recorded.key_averages():
        name, spent = event.key.lower(), event.self_cpu_time_total
        if device.type == "cuda":
            # What was launched; what launched it has the same time once more.
            spent = event.self_device_time_total if event.device_type == DeviceType.CUDA else 0.0
        part = next((part for part, words in PARTS.items() if any(w in name for w in words)), "the rest")
        total[part] += spent
    whole = sum(total.values()) or 1.0
    return {part: 100 * spent / whole for part, spent in total.items()}


def in_one_phase(
    config: TrainingConfig, phase: Phase, peers: Peers, device: torch.device, repeats: int
) -> tuple[list[Row], list[Row]]:
    """Times and shares of every peer; none before all their losses agree."""
    made, losses, memory = {}, {}, {}
    for name, (backend, captured, compiled) in peers.items():
        with only(backend) if backend else nullcontext():

            def begin(name: str = name, captured: bool = captured, compiled: Compiled = compiled) -> None:
                run = made[name] = stepper(config, phase, device, captured=captured, compiled=compiled)
                losses[name] = [run().item() for _ in range(6)]

            memory[name] = peak_memory(begin, device)  # a captured step takes its memory at its capture
    allowed = 1e-4 if config.precision == "float32" else 3e-2
    wrong = {n: x for n, x in losses.items() if not np.allclose(x, losses["plain PyTorch"], rtol=allowed)}
    if wrong:
        raise SystemExit(f"the losses of {phase} differ, no times: {losses}")
    pixels, crops = phase.batch * phase.crop**2, f"{phase.batch} of {phase.crop}x{phase.crop}"
    rows: list[Row] = []
    shares: list[Row] = []
    for name, (backend, *_) in peers.items():
        with only(backend) if backend else nullcontext():
            took = seconds(made[name], device, repeats)
            row: Row = {
                "path": name,
                "crops": crops,
                "Mpixel/s": pixels / took / 1e6,
                "ms": 1e3 * took,
                "TFLOP/s": pixels * flops(config.model, phase.crop) / took / 1e12,
                "MiB": memory[name],
            }
            rows.append(row)
            shares.append({"path": name, "crops": crops, **parts(made.pop(name), device)})
    plain = next(row["ms"] for row in rows if row["path"] == "plain PyTorch")
    for row in rows:
        row["speed-up"] = plain / row["ms"]
    return rows, shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--crops", help="sides x numbers, such as 40x40,80x10; by default the configuration's phases"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", action="store_true", help="plain PyTorch under torch.compile as one more peer"
    )
    parser.add_argument("--fuse", action="store_true", help="fused norms as one more peer")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="folder for training.jsonl")
    options = parser.parse_args()
    device, config = torch.device(options.device), load_config(options.config)
    phases = config.phases
    if options.crops:
        phases = tuple(Phase(1.0, *map(int, crop.split("x"))) for crop in options.crops.split(","))
    cuda = device.type == "cuda"
    peers: Peers = {"nlrn": (None, cuda, "")}
    if options.fuse:
        peers["nlrn, fused"] = (None, cuda, "norms")
    if cuda:
        peers["nlrn, no graph"] = (None, False, "")
    peers["plain PyTorch"] = ("dense", False, "")
    if options.compile:
        peers["plain PyTorch, compiled"] = ("dense", False, "network")
    about = f"{options.config.stem}, {config.precision}"
    for phase in phases:
        rows, shares = in_one_phase(config, phase, peers, device, options.repeats)
        show(f"Training steps: {about}, {device}", rows)
        show("Shares of the time in percent", shares)
        if options.out:
            whole = [row | share for row, share in zip(rows, shares, strict=True)]
            write(options.out / "training.jsonl", whole, device, about)


if __name__ == "__main__":
    main()
