"""A degradation of your own for `nlrn train`: the noise of photons and of reading them out.

In a configuration, with `noise_channel: false` and no `sigma_range` in the model:

    degradation: examples.poisson_gaussian:degrade
"""

from __future__ import annotations

import torch
from torch import Tensor

PHOTONS = 50.0  # that make white
READ_NOISE = 0.01


def degrade(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """Clean crops `[B, C, P, P]` in [0, 1] -> noisy crops; `None`, because the model takes no sigma."""
    shot = torch.poisson(clean * PHOTONS, generator=generator) / PHOTONS
    read = READ_NOISE * torch.randn(clean.shape, generator=generator, device=clean.device)
    return shot + read, None
