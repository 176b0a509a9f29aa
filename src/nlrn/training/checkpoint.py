"""Everything that a run needs to go on, in one safetensors file; never pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from ..files.atomic import write_atomically
from ..models.weights_file import save_weights
from .config import TrainingConfig, from_dict, to_dict
from .step import Trainer
from .validation import as_text

KEY = "nlrn.training"
FORMAT = 1


class CheckpointError(ValueError):
    """A file that is not a checkpoint of a training run, or belongs to another one."""


@dataclass
class Progress:
    """The progress of a run: step, seconds of training, bad steps (in a row, and all), and whether norms are frozen."""

    step: int = 0
    seconds: float = 0.0
    skipped_in_a_row: int = 0
    skipped: int = 0
    frozen_norms: bool = False


def save_checkpoint(path: Path, trainer: Trainer, progress: Progress, about: dict[str, Any]) -> None:
    """Writes weights, averaged weights, statistics and optimiser; scalars are JSON in the header.

    Random numbers follow from the seed and the step, so no generator is saved. The file is written
    under another name, synced and renamed.
    """
    tensors: dict[str, Tensor] = {}
    for name, model in (("model", trainer.model), ("average", trainer.average)):
        tensors |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
    for name, parameter in trainer.parameters.items():
        state = trainer.optimizer_state(parameter)
        tensors |= {f"optimizer.{key}.{name}": torch.as_tensor(value) for key, value in state.items()}
    header = {"format": FORMAT, "config": to_dict(trainer.config), "progress": vars(progress), "about": about}
    data = dump_safetensors(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, {KEY: json.dumps(header)}
    )
    write_atomically(path, data, overwrite=True)


def read_header(path: Path) -> tuple[TrainingConfig, Progress, dict[str, Any]]:
    """The configuration of a checkpoint, its progress, and what else was noted.

    Raises:
        CheckpointError: not a checkpoint.
        OSError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata[KEY])
        if header["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {header['format']}, this version reads {FORMAT}")
        return from_dict(header["config"], str(path)), Progress(**header["progress"]), header["about"]
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of a training run ({error})") from error


def load_checkpoint(path: Path, trainer: Trainer) -> None:
    """Puts a checkpoint's tensors into a trainer of the same configuration.

    Raises:
        CheckpointError: tensors that do not fit.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a checkpoint of a training run ({error})") from error
    try:
        for name, model in (("model", trainer.model), ("average", trainer.average)):
            prefix = f"{name}."
            model.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit its configuration: {str(error).splitlines()[0]}"
        ) from error
    for name, parameter in trainer.parameters.items():
        state = {}
        for key in ("step", "exp_avg", "exp_avg_sq", "momentum"):
            value = tensors.get(f"optimizer.{key}.{name}")
            if value is not None:
                layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
                state[key] = value.to(trainer.device).contiguous(memory_format=layout)
        if state:
            trainer.load_optimizer_state(parameter, state)


def export(checkpoint: Path, weights: Path, card: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a checkpoint's averaged weights as a release file, and a model card of what is known about them.

    Args:
        checkpoint: of a run.
        weights: the weight file, replaced if it exists.
        card: the model card, likewise.
        dtype: of the weights in the file; by default that of training.

    Raises:
        CheckpointError: not a checkpoint.
        ValueError: a weight beyond the range of `dtype`.
        OSError: files that cannot be read or written.
    """
    config, progress, about = read_header(checkpoint)
    with safe_open(checkpoint, "pt") as file:
        names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118
        state = {name.removeprefix("average."): file.get_tensor(name) for name in names}
    minutes = f"{progress.seconds / 60:.1f}"
    save_weights(weights, config.model, state, {"steps": str(progress.step), "minutes": minutes}, dtype=dtype)
    parameters = sum(v.numel() for k, v in state.items() if "running_" not in k and "num_batches" not in k)
    recipe = to_dict(config)
    model = recipe.pop("model")
    rows = {
        "architecture": "NLRN: " + ", ".join(f"{name} {value}" for name, value in model.items()),
        "parameters": f"{parameters:,}",
        "training data": f"{about.get('data', 'unknown')}; its terms are to be filled in",
        **({"started from": about["init"]} if about.get("init") else {}),
        "recipe": "; ".join(f"{name}: {value}" for name, value in recipe.items()),
        "hardware and time": f"{about.get('device')}, {minutes} minutes, {progress.step} steps, {about.get('protocol')}",
        "versions": f"nlrn {about.get('nlrn')} ({about.get('commit')}), torch {about.get('torch')}",
        "sha256": f"`{hashlib.sha256(weights.read_bytes()).hexdigest()}`",
        "accuracy": f"PSNR on images held out: {as_text(about.get('validation') or {}) or 'none'}; tables are to be filled in: nlrn benchmark",
    }
    lines = [f"# {weights.stem}", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
    write_atomically(card, ("\n".join(lines) + "\n").encode(), overwrite=True)
