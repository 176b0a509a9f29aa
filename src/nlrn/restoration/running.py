"""A model on an image tensor, with the device, the precision and the memory of a restoration's options."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..inference import Progress, part_of, restore
from ..models.contract import Model, info_of
from .options import Options

log = logging.getLogger(__name__)


class Runner:
    """Runs models.

    Args:
        options: of the restoration.
        device: on which the models are.
        precision: in which an `NLRN` is computed.
    """

    def __init__(self, options: Options, device: torch.device, precision: torch.dtype) -> None:
        self._options, self._device, self._precision = options, device, precision

    def __call__(
        self, model: Model, image: Tensor, sigma: float | Tensor | None, progress: Progress
    ) -> Tensor:
        """`[B, C, H, W]` restored, on its own device; what overflows is computed again in float32."""
        channels = image.shape[1]
        if channels == 3 and info_of(model).channels == 1:
            # One channel at a time: three in a batch would triple the memory for the same time.
            planes = [self(model, image[:, c : c + 1], sigma, part_of(progress, c, 3)) for c in range(3)]
            return torch.cat(planes, 1)
        moved = image.to(self._device)

        def run(precision: torch.dtype) -> Tensor:
            return restore(
                model,
                moved,
                sigma,
                steps=self._options.steps,
                ensemble=self._options.ensemble,
                precision=precision,
                max_memory=self._options.max_memory,
                progress=progress,
            )

        result = run(self._precision)
        if self._precision is not torch.float32 and not torch.isfinite(result).all():
            log.warning("%s overflowed; restoring again in float32", str(self._precision).split(".")[1])
            result = run(torch.float32)
        return result.to(image.device)
