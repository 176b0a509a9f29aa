"""Degradations of a batch at random strengths, as training takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ops.resize import make_taps
from .jpeg import at_random_phase
from .resize import low_resolution

# Clean crops [B, C, P, P] and a generator -> degraded crops and the strength of each as a standard deviation [B], which
# weighs the loss and is the sigma of a model that takes one; or None.
Degradation = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor | None]]


def gaussian(sigma: tuple[float, float]) -> Degradation:
    """White Gaussian noise whose standard deviation lies in a range, in units of [0, 1]."""
    low, high = sigma

    def degrade(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        strength = low + (high - low) * _stratified(clean, generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        return clean + noise * strength.view(-1, 1, 1, 1), strength

    return degrade


def bicubic(scales: Sequence[int]) -> Degradation:
    """Bicubic reduction by each of several scales, and bicubic enlargement to the size before.

    The sides of the crops are multiples of every scale.
    """
    # Never forgotten: copies from the host would stop a step, and a captured one reads them where they lie.
    taps = functools.cache(make_taps)

    def degrade(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        groups = list(zip(clean.tensor_split(len(scales)), scales, strict=True))
        degraded = torch.cat([low_resolution(group, scale, taps=taps) for group, scale in groups])
        strength = [clean.new_full((len(group),), bicubic_strength(scale)) for group, scale in groups]
        return degraded, torch.cat(strength)

    return degrade


def jpeg(quality: tuple[float, float]) -> Degradation:
    """JPEG compression at a quality in a range; every fourth colour image keeps its full chroma.

    The sides of the crops are multiples of 16.
    """
    low, high = quality

    def degrade(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = low + (high - low) * _stratified(clean, generator)
        degraded = at_random_phase(clean, drawn, generator, subsample=True)
        if clean.shape[1] == 3:
            part = slice(3, None, 4)
            degraded[part] = at_random_phase(clean[part], drawn[part], generator, subsample=False)
        return degraded, jpeg_strength(drawn)

    return degrade


def bicubic_strength(scale: float) -> float:
    """About the root mean square error of bicubic interpolation on BSD400, as a share of white."""
    return float(0.048 * (scale / 2) ** 0.6)


def jpeg_strength(quality: Tensor) -> Tensor:
    """About the root mean square error of JPEG on BSD400, as a share of white."""
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return 0.051 * (scale / 500) ** 0.37


def _stratified(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Rising numbers in [0, 1), one for each image: every batch spans all levels."""
    count, device = clean.shape[0], clean.device
    place = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
    return place / count
