"""One call of the classical denoisers, with its checks and a noise level for each image of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ..contract import ModelInfo


class Denoiser(ABC):
    """A method without learned weights for white Gaussian noise: `model(image, sigma) -> restored`.

    A subclass has a name and restores one image at a positive noise level. It takes any number of channels, unless it
    names those that it takes.
    """

    name: ClassVar[str]
    channels: ClassVar[tuple[int, ...] | None] = None

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        return ModelInfo(self.name, "denoise")

    @torch.no_grad()
    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """The restored image, not clipped, in the shape, dtype and device of `image`.

        Args:
            image: `[B, C, H, W]`, float in [0, 1].
            sigma: noise standard deviation in the same units, a number or `[B]`; at 0 the image stays as it is.

        Raises:
            ValueError: an image or a sigma of another form, or a sigma that is missing, negative or not finite.
        """
        allowed = "C" if self.channels is None else " or ".join(map(str, self.channels))
        wrong = self.channels is not None and image.ndim == 4 and image.shape[1] not in self.channels
        if image.ndim != 4 or wrong or 0 in image.shape or not image.is_floating_point():
            raise ValueError(
                f"image must be [B, {allowed}, H, W], floating point and not empty, "
                f"got shape {tuple(image.shape)} of {image.dtype}"
            )
        if sigma is None:
            raise ValueError(f"{self.name} needs sigma (in units of [0, 1])")
        given = torch.as_tensor(sigma, dtype=torch.float64)
        if given.shape not in ((), (1,), image.shape[:1]):
            raise ValueError(
                f"sigma must be a number or one per image ({image.shape[0]},), got shape {tuple(given.shape)}"
            )
        levels = given.expand(image.shape[0]).tolist()
        if not all(math.isfinite(level) and level >= 0 for level in levels):
            raise ValueError(f"sigma must be finite and >= 0, got {levels}")
        return torch.stack(
            [
                self._restore(planes, level).to(image.dtype) if level else planes.clone()
                for planes, level in zip(image, levels, strict=True)
            ]
        )

    @abstractmethod
    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        """One image `[C, H, W]` at a noise level above 0."""
