"""Images in units of [0, 1], and what is known of them before a restoration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inference.noise_level import NoiseEstimate
from ..inference.noise_spectrum import NoiseSpectrum
from .choice import noise_of
from .levels import Levels
from .plan import Plan
from .value_range import Sigma


@dataclass(frozen=True)
class UnitImage:
    """Images of one size in units of [0, 1], and what is known of them.

    Args:
        pixels: `[B, C, H, W]`, float32, C = 1 or 3.
        sigma: noise level; `"auto"` for white noise of a level to be estimated, `None` for noise of an unknown kind.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        estimate: of the noise, where there is one.
        quality: of the JPEG file that the pixels come from.
        plan: steps of the task `"restore"`, where they are decided.
        spectrum: of noise that is not white, where it is removed by its spectrum.
        shares: of sigma, where it is the strongest of several levels, as `Levels` has them.

    Raises:
        ValueError: other channels.
    """

    pixels: Tensor
    sigma: Sigma | None = None
    hidden: Tensor | None = None
    estimate: NoiseEstimate | None = None
    quality: int | None = None
    plan: Plan | None = None
    spectrum: NoiseSpectrum | None = None
    shares: Tensor | None = None

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"an image must have 1 (grey) or 3 (RGB) channels, got {self.channels}")

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.pixels.shape[1]

    @property
    def is_constant(self) -> bool:
        """True where no channel of any image has two values."""
        return bool((self.pixels.amax((2, 3)) == self.pixels.amin((2, 3))).all())

    def noise(self, *, drawings: bool) -> NoiseEstimate | None:
        """The estimate, made where there is none yet as `noise_of` does it."""
        return self.estimate or noise_of(self.pixels, self.hidden, drawings=drawings)

    def each(self) -> list[UnitImage]:
        """The images of the batch, one by one."""
        masks = [None] * len(self.pixels) if self.hidden is None else list(torch.split(self.hidden, 1))
        parts = []
        for index, (pixels, mask) in enumerate(zip(torch.split(self.pixels, 1), masks, strict=True)):
            own = Levels(self.sigma, self.shares).of(index)
            part = dataclasses.replace(
                self, pixels=pixels, hidden=mask, sigma=own.strongest, shares=own.shares
            )
            parts.append(part)
        return parts
