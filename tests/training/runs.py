"""What the tests of training share: a tiny configuration, and runs of it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from nlrn.training.config import Phase, load_config
from nlrn.training.loop import Intervals, Run
from nlrn.training.schedule import Length

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


def config(**changes):
    small = load_config(CONFIGS / "tiny.yaml", {"statistics_batches": 2, "hold_out": 1})
    model = dataclasses.replace(small.model, width=8, embedding=4, window_size=5)
    changes = {"phases": (Phase(0.5, 12, 4), Phase(0.5, 16, 2)), **changes}
    return dataclasses.replace(small, model=model, **changes)


def blind(**changes):
    """The tiny configuration for a network that takes no noise level."""
    channels = changes.pop("channels", 1)
    model = dataclasses.replace(config().model, noise_channel=False, sigma_range=None, channels=channels)
    return dataclasses.replace(config(), model=model, **changes)


def options(data, out, steps, **fields):
    return Run(data, out, Length(steps), CPU, intervals=Intervals(10, 0.0, 1e9), **fields)


def command(data, out, *more):
    return [
        *(sys.executable, "-m", "nlrn", "train", str(CONFIGS / "tiny.yaml")),
        *("--data", str(data), "--out", str(out), "--device", "cpu", *more),
    ]
