"""Figures and a picture of the images held out, restored with a run's averaged weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..evaluation.benchmark import run, score, sigma_for
from ..evaluation.contact_sheet import contact_sheet
from ..evaluation.protocol import DENOISING, JPEG_REMOVAL, SUPER_RESOLUTION, Trial, to_bytes
from ..files.images import Image, to_float, to_planes, write_image
from ..files.planes import read_planes
from .step import Trainer

# The task that measures a degradation; others are measured as they train.
TASKS = {"gaussian": DENOISING, "bicubic": SUPER_RESOLUTION, "jpeg": JPEG_REMOVAL}
OWN_TRIAL_SIDE = 256


def validate(trainer: Trainer, held: list[Path], picture: Path) -> dict[str, float]:
    """PSNR in dB of the averaged weights on images, by level as text; by `""` where there are no levels.

    Writes the first image, degraded and restored at every level, as `picture`.

    Raises:
        OSError: images that cannot be read, or a picture that cannot be written.
    """
    config, scores = trainer.config, {}
    rows = []
    task = TASKS.get(config.degradation)
    for level in config.validation_levels if task else (None,):
        values = []
        for index, path in enumerate(held):
            trial = (
                task.trial(path, config.model.channels, level, index) if task else _own(trainer, path, index)
            )
            sigma = sigma_for(trainer.average, trial)
            restored, _ = run(trainer.average, trial.degraded, sigma, trainer.device)
            figures = score(trial, restored)
            values.append(figures.psnr)
            if index == 0:
                before = f"{task.level} {level:g}: " if task else ""
                rows.append(
                    [
                        (path.name, trial.inside(trial.reference)),
                        (f"{before}{figures.input_psnr:.2f} dB", trial.inside(to_bytes(trial.degraded))),
                        (f"{figures.psnr:.2f} dB", trial.inside(to_bytes(restored))),
                    ]
                )
        if values:
            scores["" if level is None else f"{level:g}"] = float(np.mean(values))
    if rows:
        picture.parent.mkdir(exist_ok=True)
        write_image(Image(contact_sheet(rows)), picture, overwrite=True)
    return scores


def as_text(scores: Mapping[str, float]) -> str:
    """Scores of `validate`, such as `15: 31.20 dB, 25: 28.61 dB`."""
    return ", ".join(f"{level}: {psnr:.2f} dB".removeprefix(": ") for level, psnr in scores.items())


def _own(trainer: Trainer, path: Path, index: int) -> Trial:
    """The training's degradation on the middle of an image, the same every time."""
    config = trainer.config
    clean = read_planes(path, config.model.channels, config.luma)
    side = min(*clean.shape[:2], OWN_TRIAL_SIDE) // 16 * 16
    top, left = ((length - side) // 2 for length in clean.shape[:2])
    clean = clean[top : top + side, left : left + side]
    planes = to_planes(to_float(clean))
    # Four of them: some degradations differ within a batch.
    batch = torch.from_numpy(planes)[None].repeat(4, 1, 1, 1)
    degraded, strength = trainer.degrade(batch, torch.Generator().manual_seed(index))
    chosen = index % 4
    sigma = None if strength is None else 255 * float(strength[chosen])
    return Trial(clean, degraded[chosen].float().numpy(), sigma, config.margin)
