"""PSNR of noisy pictures restored by the released model, and by the same model adapted to them with `nlrn.adapt`.

    OMP_NUM_THREADS=1 python -m benchmarks.adapt --out results

The cases are those of `benchmarks.adapt_cases`. A network is adapted to the noisy picture alone, and restores that one
and another of the same kind. The noise level is given to both, or with `--estimated` estimated by both. With `--pairs`
the frames of a stack are targets of one another.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nlrn
from nlrn.training.adapt import START

from .adapt_cases import BUDGET, SEED, Case, cases
from .common import show, tell, write


def main() -> None:
    """Prints the table, and appends it to `adapt.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for adapt.jsonl")
    parser.add_argument("--cases", help="some cases, separated by commas; by default all")
    parser.add_argument("--model", help="the model to start from; by default by channels")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="processor seconds for a case")
    parser.add_argument("--pairs", action="store_true", help="learn from pairs of frames; for stacks")
    parser.add_argument("--estimated", action="store_true", help="estimate the noise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = {case.name: case for case in cases()}
    chosen = list(every) if options.cases is None else options.cases.split(",")
    if unknown := set(chosen) - set(every):
        parser.error(f"no case is named {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    if options.pairs and (single := [name for name in chosen if not every[name].frames]):
        parser.error(f"--pairs is for stacks, got {', '.join(single)}")
    rows = []
    for name in chosen:
        case = every[name]
        model = options.model or START[3 if case.clean.ndim == 3 else 1]
        rows.append(row(case, model, options.seconds, options.estimated, options.pairs))
        tell(str(rows[-1]))
        if options.out:
            about = f"{model}, {options.seconds:g} processor seconds, seed {SEED}"
            write(options.out / "adapt.jsonl", rows[-1:], torch.device("cpu"), about)
    show(f"PSNR in dB, {options.seconds:g} processor seconds", rows)


def row(case: Case, model: str, seconds: float, estimated: bool, pairs: bool) -> dict[str, object]:
    """The figures of one case."""
    noisy = case.noisy(case.clean, SEED)
    noise = noise_of(case, estimated)
    budget = {"minutes": seconds / 60, "clock": time.process_time}
    adaptation = nlrn.adapt(noisy, **noise, **budget, model=model, axes=case.axes, pairs=pairs)
    figures: dict[str, object] = {"case": case.name, "noise": f"{case.noise} {case.strength:g}"}
    figures |= {"model": model, "estimated": estimated, "pairs": pairs}
    with tempfile.TemporaryDirectory() as folder:
        adapted = str(adaptation.save(Path(folder) / "adapted.safetensors"))
        pictures = {"": (case.clean, noisy)}
        if case.another is not None:
            pictures["another "] = (case.another, case.noisy(case.another, SEED + 1))
        for title, (clean, degraded) in pictures.items():
            before, after = (
                psnr(case, nlrn.denoise(degraded, **noise, model=name, axes=case.axes), clean)
                for name in (model, adapted)
            )
            figures |= {f"{title}released": before, f"{title}adapted": after, f"{title}gain": after - before}
    return figures | {
        "improved": adaptation.improved,
        "estimate": adaptation.gain,
        "uncertainty": adaptation.uncertainty,
        "steps": adaptation.steps,
    }


def noise_of(case: Case, estimated: bool) -> dict[str, Any]:
    """The noise of a case as `nlrn.denoise` takes it."""
    if case.noise == "poisson":
        return {"noise": "poisson-gaussian", **({} if estimated else {"gain": 1.0, "read_noise": 0.0})}
    return {"sigma": "auto" if estimated else case.strength / 255}


def psnr(case: Case, restored: np.ndarray, clean: np.ndarray) -> float:
    """PSNR to the brightest value of counts, or to 1."""
    peak = 1.0 if case.noise == "gaussian" else case.strength
    reference = clean if case.noise == "gaussian" else clean / clean.max() * peak
    return float(10 * np.log10(peak**2 / np.mean((restored - reference) ** 2)))


if __name__ == "__main__":
    main()
