"""What the classical denoisers share: one call, its checks, and a noise level for each image of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor


class Config(Protocol):
    """What every method's parameters say of it besides.

    Args:
        task: what the method is for.
        channels: of the images; `None` is any number that the method takes.
        sigma_range: noise levels it knows, in units of [0, 1].
    """

    @property
    def task(self) -> str: ...
    @property
    def channels(self) -> int | None: ...
    @property
    def sigma_range(self) -> tuple[float, float]: ...


C = TypeVar("C", bound=Config, covariant=True)


class Denoiser(ABC, Generic[C]):
    """A method without learned weights for white Gaussian noise: `model(image, sigma) -> restored`.

    A subclass has a name and restores one image at a positive noise level.
    """

    config: C
    name: ClassVar[str]
    channels: ClassVar[tuple[int, ...] | None] = None

    def check_steps(self, steps: int | None) -> None:
        """Raises `ValueError` unless `steps` is `None`: there are none to choose from."""
        if steps is not None:
            raise ValueError(f"{self.name} has no steps to choose from, got steps={steps}")

    @torch.no_grad()
    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """The restored image, not clipped, in the shape, dtype and device of `image`.

        Args:
            image: `[B, C, H, W]`, float in [0, 1].
            sigma: noise standard deviation in the same units, a number or `[B]`; at 0 the image stays as it is.

        Raises:
            ValueError: an image of another form, or a sigma that is missing, negative or not finite.
        """
        allowed = "C" if self.channels is None else " or ".join(map(str, self.channels))
        wrong = self.channels is not None and image.ndim == 4 and image.shape[1] not in self.channels
        if image.ndim != 4 or wrong or 0 in image.shape or not image.is_floating_point():
            raise ValueError(
                f"image must be [B, {allowed}, H, W], floating point and not empty, "
                f"got {image.dtype} {tuple(image.shape)}"
            )
        if sigma is None:
            raise ValueError(f"{self.name} needs sigma (in units of [0, 1])")
        levels = torch.as_tensor(sigma, dtype=torch.float64).expand(image.shape[0]).tolist()
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
