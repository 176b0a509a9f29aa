"""Estimates of time, from a short trial on this machine, and settings that take less of it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from ..inference import restore
from ..inference.patches import patch_positions
from ..models.contract import Model, info_of
from ..ops.nonlocal_attention import has_native_kernel

# The side of the image from which a time is estimated. On a GPU a small one takes as long as launching the kernels.
TRIAL_SIDE, TRIAL_SIDE_ON_GPU = 64, 512


def seconds_for(
    model: Model,
    shape: tuple[int, int, int],
    *,
    device: torch.device,
    precision: torch.dtype,
    steps: int | None,
) -> float:
    """Seconds that a model will take for `C x H x W` pixels."""
    info = info_of(model)
    channels, height, width = shape
    model_channels = info.channels or channels
    protocol = info.patch_protocol
    side = TRIAL_SIDE if device.type == "cpu" else TRIAL_SIDE_ON_GPU
    units = height * width / side**2
    if protocol is not None:
        side = protocol[0]
        units = math.prod(len(patch_positions(length, *protocol)) for length in (height, width))
    trial = torch.full((1, model_channels, side, side), 0.5, device=device)
    level = None if info.sigma_range is None else info.sigma_range[1]
    trials = []
    for _ in range(3):  # the first one warms up
        started = time.perf_counter()
        restore(model, trial, level, steps=steps, precision=precision)
        if device.type == "cuda":
            torch.cuda.synchronize()
        trials.append(time.perf_counter() - started)
    return min(trials) * units * (channels // model_channels)


def faster_settings(
    model: Model, *, device: torch.device, precision: torch.dtype, steps: int | None
) -> dict[str, Any]:
    """Settings of `Restorer` for the same model that would take less time, each by itself."""
    info, settings = info_of(model), dict[str, Any]()
    if (
        device.type == "cpu"
        and precision is torch.float32
        and torch.bfloat16 in info.precisions
        and has_native_kernel(torch.bfloat16)
    ):
        settings["precision"] = "bfloat16"
    if fewer := [count for count in info.steps if count < (steps or info.steps[-1])]:
        settings["steps"] = fewer[-1]
    if info.patch_protocol is not None:
        settings["window_size"] = 45
    return settings
