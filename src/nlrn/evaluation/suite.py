"""Several models over several image sets, levels and numbers of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..files.images import read_image
from ..models.contract import Model, info_of
from ..models.zoo import check_task, default_model, fitting_models, load_model
from .benchmark import Result, measure, run, sigma_for
from .contact_sheet import contact_sheet
from .protocol import SUPER_RESOLUTION, DataSet, Task, to_bytes

# In place of a model's name: every model that fits a task and the channels of a set.
ALL = "all"


@dataclass(frozen=True)
class Conditions:
    """The conditions under which all models are measured.

    Args:
        device: the device of the models.
        precision: dtype of an NLRN's arithmetic.
        patches: `(size, stride)` of the official patch protocol, `None` for whole images.
        max_memory: bytes for inference; by default half of what is available.
    """

    device: torch.device
    precision: torch.dtype = torch.float32
    patches: tuple[int, int] | None = None
    max_memory: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A model for a set: its name in tables, and the channels of the images that it gets."""

    dataset: DataSet
    model: Model
    name: str
    channels: int


@dataclass(frozen=True)
class Cell:
    """The result of a candidate at one level and number of steps."""

    candidate: Candidate
    result: Result


def candidates(
    task: Task,
    sets: Sequence[DataSet],
    models: Sequence[str | None],
    heads: Sequence[int | None],
    device: torch.device,
) -> list[Candidate]:
    """Every model for every set, loaded.

    Args:
        task: the task to measure.
        sets: image sets.
        models: names or weight files; `None` is the default for a task and the channels of a set, `ALL` all of them.
        heads: numbers of steps after which every model must be able to stop; `None` is its last.
        device: the device of the models.

    Raises:
        ValueError: a model that cannot be loaded, is for another task, or cannot stop there.
        OSError, ImageError: a set whose first image cannot be read.
    """
    found = []
    for dataset in sets:
        color = task is not SUPER_RESOLUTION and read_image(dataset.files[0]).pixels.ndim == 3
        channels = 3 if color else 1
        for model in models:
            names = (
                fitting_models(task.name, channels)
                if model == ALL
                else [model or default_model(task.name, channels)]
            )
            for name in names:
                loaded = load_model(name, device=device)
                check_task(name, loaded, task.name)
                info = info_of(loaded)
                for head in heads:
                    info.check_steps(head)
                found.append(Candidate(dataset, loaded, Path(name).stem, info.channels or channels))
    return found


def measure_all(
    task: Task,
    chosen: Sequence[Candidate],
    levels: Sequence[float | None],
    heads: Sequence[int | None],
    conditions: Conditions,
    *,
    on_cell: Callable[[str], None] = lambda place: None,
    on_image: Callable[[], None] = lambda: None,
) -> Iterator[Cell]:
    """Measures candidates at every level and number of steps, one after the other.

    Args:
        task: the task to measure.
        chosen: what `candidates` found.
        levels: levels of the degradation in the task's units; `None` where there are none.
        heads: numbers of steps; `None` is a model's last.
        conditions: those of all measurements.
        on_cell: called with the place of a cell, such as `Set12, sigma 25`, before it is measured.
        on_image: called after each image.
    """
    for candidate in chosen:
        for level in levels:
            for head in heads:
                name = candidate.dataset.name
                on_cell(name if level is None else f"{name}, {task.level} {level:g}")
                result = measure(
                    candidate.model,
                    candidate.name,
                    candidate.dataset,
                    level,
                    task=task,
                    channels=candidate.channels,
                    device=conditions.device,
                    steps=head,
                    patches=conditions.patches,
                    precision=conditions.precision,
                    max_memory=conditions.max_memory,
                    on_image=lambda *_: on_image(),
                )
                yield Cell(candidate, result)


def best_and_worst(task: Task, cells: Sequence[Cell], conditions: Conditions) -> np.ndarray:
    """A picture of each result's images with the largest and the smallest gain: clean, degraded, restored.

    Returns:
        uint8 `H x W x 3`.
    """
    rows = []
    for cell in cells:
        candidate, result = cell.candidate, cell.result
        gains = [image.psnr - image.input_psnr for image in result.images]
        for kind, index in {"best": gains.index(max(gains)), "worst": gains.index(min(gains))}.items():
            trial = task.trial(candidate.dataset.files[index], candidate.channels, result.level, index)
            restored, _ = run(
                candidate.model,
                trial.degraded,
                sigma_for(candidate.model, trial),
                conditions.device,
                result.steps,
                conditions.patches,
                conditions.precision,
                conditions.max_memory,
            )
            image = result.images[index]
            before = task.degraded if result.level is None else f"{task.level} {result.level:g}"
            rows.append(
                [
                    (f"{kind}: {result.dataset}/{image.name}", trial.inside(trial.reference)),
                    (f"{before}: {image.input_psnr:.2f} dB", trial.inside(to_bytes(trial.degraded))),
                    (f"{result.model}: {image.psnr:.2f} dB", trial.inside(to_bytes(restored))),
                ]
            )
    return contact_sheet(rows)
