"""Small networks that differ in one thing, trained alike: window, number of steps, propagation, affinity.

    python -m benchmarks.ablation --data BSD400 --steps 600 --seeds 3 --out ablation

Every cell is a network of 32 channels for sigma 25, trained from nothing on the same crops with the same noise, and
measured on the middle 128 x 128 pixels of twelve images held out. Crops are wider than the widest window. Cells of one
seed see the same crops, so that differences are compared within a seed. A run that is interrupted goes on where it was;
cells that are done are not repeated, and more seeds or cells add to the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from nlrn.evaluation.benchmark import provenance, run, score
from nlrn.evaluation.chart import LEFT, Axis, Chart
from nlrn.evaluation.protocol import Trial, noisy_version
from nlrn.files.images import Image, write_image
from nlrn.files.planes import read_planes
from nlrn.models.learned_affinities import AFFINITIES, DEFAULT
from nlrn.models.nlrn import NLRN, NLRNConfig
from nlrn.models.zoo import load_model
from nlrn.training.checkpoint import CheckpointError
from nlrn.training.config import Phase, TrainingConfig
from nlrn.training.crops import Crops
from nlrn.training.logs import CHECKPOINT, WEIGHTS
from nlrn.training.loop import Intervals, Run, train
from nlrn.training.schedule import Length

from .common import show, tell

CPU = torch.device("cpu")
SIGMA, CROP, BATCH, SIDE, HELD = 25, 64, 2, 128, 12
BASE = NLRNConfig(width=32, embedding=16, num_steps=4, window_size=15)
WINDOWS = (1, 5, 15, 31, 61, None)
STEPS = (1, 2, 4, 8, 12)
BLUE, GRAY = (31, 119, 180), (120, 120, 120)


@dataclass(frozen=True)
class Question:
    """A group of cells: its name, and the network of each answer."""

    name: str
    answers: Mapping[str, NLRNConfig]


def questions() -> list[Question]:
    """All comparisons; each has the answer that `BASE` is."""

    def changed(**values: Any) -> NLRNConfig:
        return dataclasses.replace(BASE, heads=(), **values)

    windows = {"whole image" if w is None else str(w): changed(window_size=w) for w in WINDOWS}
    # The dot product has no logits to propagate, so no affinity does here.
    affinities = {str(name): changed(affinity=name, correlation_propagation=False) for name in AFFINITIES}
    return [
        Question("window", windows),
        Question("steps", {str(n): changed(num_steps=n) for n in STEPS}),
        Question("propagation", {"on": BASE, "off": changed(correlation_propagation=False)}),
        Question("affinity", affinities),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of clean images")
    parser.add_argument("--out", type=Path, required=True, help="folder for cells, table and plots")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="training steps of a cell")
    length.add_argument("--minutes", type=float, help="minutes of training of a cell")
    parser.add_argument("--seeds", type=int, default=1, help="networks of each cell")
    parser.add_argument("--questions", help="some questions, separated by commas; by default all")
    options = parser.parse_args()
    every = {question.name: question for question in questions()}
    names = list(every) if options.questions is None else options.questions.split(",")
    if unknown := set(names) - set(every):
        parser.error(f"no question is named {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    _, held = Crops.of_folder(options.data, 1, HELD, CPU)
    images = link_others(options.data, held, options.out / "images")
    trials = [trial(path, index) for index, path in enumerate(held)]
    for seed in range(options.seeds):
        for name in names:
            for answer, network in every[name].answers.items():
                folder = options.out / "cells" / f"{key(network)}-seed-{seed}"
                if not (folder / "result.json").exists():
                    train_cell(configuration(network, seed), images, folder, options)
                    measure_cell(folder, trials)
                psnr = json.loads((folder / "result.json").read_text())["psnr"]
                tell(f"seed {seed}, {name} {answer}: {psnr:.2f} dB")
    rows = table(options.out, list(every.values()))
    show(f"PSNR in dB, sigma {SIGMA}, {HELD} images of {SIDE}x{SIDE}", rows)
    (options.out / "table.json").write_text(
        json.dumps({"rows": rows, **provenance(CPU, "ablation")}, indent=1)
    )
    for name in ("window", "steps"):
        if (plot := chart(rows, name)) is not None:
            write_image(Image(plot), options.out / f"{name}.png", overwrite=True)


def key(network: NLRNConfig) -> str:
    """The name of a cell: the questions share cells of equal networks."""
    window = "whole" if network.window_size is None else network.window_size
    propagation = "" if network.correlation_propagation else "-no-propagation"
    affinity = "" if network.affinity == DEFAULT else f"-{network.affinity}"
    return f"window-{window}-steps-{network.num_steps}{propagation}{affinity}"


def configuration(network: NLRNConfig, seed: int) -> TrainingConfig:
    """The recipe that all cells share."""
    return TrainingConfig(
        model=network,
        sigma=(SIGMA, SIGMA),
        phases=(Phase(0.75, CROP, BATCH), Phase(0.25, CROP, BATCH, frozen_norms=True)),
        learning_rate=2e-3,
        warmup_steps=50,
        ema=0.99,
        seed=seed,
        hold_out=0,
        statistics_batches=20,
    )


def link_others(data: Path, held: list[Path], folder: Path) -> Path:
    """A folder of links to the images that are not held out."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.iterdir()):
        link = folder / path.name
        if path.is_file() and path not in held and not link.is_symlink():
            link.symlink_to(path.resolve())
    return folder


def trial(path: Path, index: int) -> Trial:
    """The middle of an image with noise, the same for every cell."""
    clean = read_planes(path, 1)
    top, left = ((length - SIDE) // 2 for length in clean.shape[:2])
    clean = clean[top : top + SIDE, left : left + SIDE]
    noisy = noisy_version(clean, SIGMA, index)
    return Trial(clean, noisy, float(SIGMA))


def train_cell(config: TrainingConfig, images: Path, folder: Path, options: argparse.Namespace) -> None:
    """Trains a cell, from its checkpoint where there is one."""
    length = Length(options.steps, options.minutes)
    # No validation on whole images: with the whole image as a window each would take minutes.
    intervals = Intervals(checkpoint_seconds=60, validation_seconds=math.inf)
    run_options = Run(images, folder, length, CPU, intervals=intervals)
    try:
        train(config, run_options, resume=(folder / CHECKPOINT).exists())
    except CheckpointError as error:
        tell(f"{error}; from the start")
        train(config, run_options)


def measure_cell(folder: Path, trials: list[Trial]) -> None:
    """Writes the PSNR of a trained cell, with its steps, minutes and parameters."""
    model = load_model(folder / WEIGHTS)
    assert isinstance(model, NLRN)
    started = time.perf_counter()
    values = [score(one, run(model, one.degraded, None, CPU)[0]).psnr for one in trials]
    took = time.perf_counter() - started
    with safe_open(folder / WEIGHTS, "pt") as file:
        about = file.metadata()
    result = {
        "psnr": float(np.mean(values)),
        "images": values,
        "seconds": took / len(trials),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": int(about["steps"]),
        "minutes": float(about["minutes"]),
    }
    (folder / "result.json").write_text(json.dumps(result))


def table(out: Path, every: list[Question]) -> list[dict[str, object]]:
    """A row for each answer that has results: the mean, the seeds' figures, and the difference to `BASE` by seed."""
    rows: list[dict[str, object]] = []
    base = results_of(out, BASE)
    for question in every:
        for answer, network in question.answers.items():
            found = results_of(out, network)
            if not found:
                continue
            shared = [found[seed]["psnr"] - base[seed]["psnr"] for seed in found.keys() & base.keys()]
            spread = statistics.stdev(shared) if len(shared) > 1 else math.nan
            rows.append(
                {
                    "question": question.name,
                    "answer": answer,
                    "PSNR": round(statistics.mean(r["psnr"] for r in found.values()), 3),
                    "difference": round(statistics.mean(shared), 3) if shared else "",
                    "deviation": round(spread, 3) if len(shared) > 1 else "",
                    "seeds": len(found),
                    "steps": round(statistics.mean(r["steps"] for r in found.values())),
                    "minutes": round(statistics.mean(r["minutes"] for r in found.values()), 1),
                    "parameters": next(iter(found.values()))["parameters"],
                }
            )
    return rows


def results_of(out: Path, network: NLRNConfig) -> dict[int, dict[str, Any]]:
    """The results of a network by seed."""
    paths = (out / "cells").glob(f"{key(network)}-seed-*/result.json")
    return {int(path.parent.name.rpartition("-")[2]): json.loads(path.read_text()) for path in paths}


def chart(rows: list[dict[str, object]], question: str) -> np.ndarray | None:
    """PSNR against a question's numbers; an answer that is none is a dashed line. `None` of fewer than two."""
    own = [row for row in rows if row["question"] == question]
    points = [
        (float(str(row["answer"])), float(str(row["PSNR"]))) for row in own if str(row["answer"]).isdigit()
    ]
    if len(points) < 2:
        return None
    heights = [float(str(row["PSNR"])) for row in own]
    plot = Chart(
        Axis.linear(question, 0, max(x for x, _ in points)),
        Axis.linear("PSNR, dB", min(heights), max(heights)),
    )
    plot.line(points, BLUE)
    for point in points:
        plot.dot(*point, BLUE)
    for row in own:
        if not str(row["answer"]).isdigit():
            psnr = float(str(row["PSNR"]))
            plot.dashed(psnr, GRAY)
            plot.text((LEFT + 4, plot.place(0, psnr)[1] - 2), str(row["answer"]), GRAY, "lb")
    return plot.pixels()


if __name__ == "__main__":
    main()
