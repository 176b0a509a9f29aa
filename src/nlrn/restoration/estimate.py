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

# The side of the image from which a time is estimated, but no more than that of the image itself. On a GPU a small one
# takes as long as launching the kernels.
TRIAL_SIDE, TRIAL_SIDE_ON_GPU = 128, 512


class Trials:
    """Times of short trials on this machine, each made once.

    Args:
        device: of the models.
        precision: of the arithmetic.
        steps: after which a network stops.
    """

    def __init__(self, device: torch.device, precision: torch.dtype, steps: int | None) -> None:
        self._device, self._precision, self._steps = device, precision, steps
        self._seconds: dict[tuple[Model, int, int], float] = {}

    def seconds_for(self, model: Model, shape: tuple[int, int, int]) -> float:
        """Seconds that a model would take for `C x H x W` pixels if nothing changed what else the machine does."""
        channels, height, width = shape
        info = info_of(model)
        side = TRIAL_SIDE if self._device.type == "cpu" else TRIAL_SIDE_ON_GPU
        rows, columns = min(side, height), min(side, width)
        units = height * width / (rows * columns)
        if info.patch_protocol is not None:
            rows = columns = info.patch_protocol[0]
            units = math.prod(len(patch_positions(n, *info.patch_protocol)) for n in (height, width))
        # A model for RGB restores a grey image once, and a grey one each channel of RGB.
        model_channels = info.channels or channels
        if (model, rows, columns) not in self._seconds:
            self._seconds[model, rows, columns] = self._measured(model, (1, model_channels, rows, columns))
        return self._seconds[model, rows, columns] * units * max(1, channels // model_channels)

    def _measured(self, model: Model, shape: tuple[int, int, int, int]) -> float:
        trial = torch.full(shape, 0.5, device=self._device)
        known = info_of(model).sigma_range
        trials = []
        for _ in range(3):  # the first one warms up
            started = time.perf_counter()
            restore(
                model,
                trial,
                None if known is None else known[1],
                steps=self._steps,
                precision=self._precision,
            )
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            trials.append(time.perf_counter() - started)
        return min(trials)


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
