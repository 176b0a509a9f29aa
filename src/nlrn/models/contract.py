"""The contract of restoration methods: one call, `model(image, sigma=None) -> restored`, and a declaration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Shape = tuple[int, int, int, int]


class Model(Protocol):
    """A restoration method."""

    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """The restored image.

        Args:
            image: `[B, C, H, W]`, float in [0, 1].
            sigma: noise standard deviation in the same units, a number or `[B]`; for a method that says so also that of
                each pixel, `[B, 1, H, W]`.

        Returns:
            A tensor of the shape, dtype and device of `image`, not clipped.
        """


@dataclass(frozen=True)
class ModelInfo:
    """The declaration of a method.

    Args:
        name: name of the method.
        task: `"denoise"`, `"photo"`, `"upscale"` or `"dejpeg"`; any other word fits every task.
        channels: channels of the images it restores; `None` where it takes 1 or 3.
        sigma_range: the noise levels it is made for, in units of [0, 1]; `None` for a method that takes none.
        sigma_map: whether sigma may be that of each pixel, `[B, 1, H, W]`.
        steps: the numbers of steps after which it may stop, in rising order; empty for a method without steps.
        cut: the way to cut a large image without changing the result: `"bands"` for an `NLRN`, whose stages hand on
            rows; `"tiles"` that overlap by `halo`; `"whole"` for a method that must see the whole image.
        halo: distance in pixels beyond which an input pixel cannot change an output pixel; `None` where there is no
            limit.
        grid: tiles begin at multiples of so many pixels.
        memory: the bytes that a call takes for an image of a shape `[B, C, H, W]` in float32; `None` where it is not
            known, and then an image is never cut.
        patch_protocol: `(size, stride)` where whole images are restored as averages of overlapping patches.
        precisions: the dtypes in which it computes.
        symmetric: whether flipping and turning the image flips and turns the result.
    """

    name: str
    task: str
    channels: int | None = None
    sigma_range: tuple[float, float] | None = (0.0, 1.0)
    sigma_map: bool = False
    steps: tuple[int, ...] = ()
    cut: Literal["bands", "tiles", "whole"] = "whole"
    halo: int | None = None
    grid: int = 1
    memory: Callable[[Shape], int] | None = None
    patch_protocol: tuple[int, int] | None = None
    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    symmetric: bool = False

    def check_steps(self, steps: int | None) -> int | None:
        """The steps to take: `steps`, or the last of the method's for `None`; `None` for a method without steps.

        Raises:
            ValueError: steps after which the method cannot stop.
        """
        if steps is None:
            return self.steps[-1] if self.steps else None
        if not self.steps:
            raise ValueError(f"{self.name} has no steps to choose from, got steps={steps}")
        if steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise ValueError(f"this model can stop after {known} steps, got steps={steps}")
        return steps


class DeclaredModel(Model, Protocol):
    """A method that declares itself; each that comes with nlrn does."""

    @property
    def info(self) -> ModelInfo:
        """The declaration."""


def info_of(model: Model) -> ModelInfo:
    """The declaration of a method.

    A function or module of a user's own without one, `model(image, sigma)`, is taken for a method that restores any
    image at any noise level for any task, in float32, and is called with the whole image.
    """
    declared = getattr(model, "info", None)
    if isinstance(declared, ModelInfo):
        return declared
    return ModelInfo(type(model).__name__, "any", precisions=(torch.float32,))


def nearest_known(sigma: float, known: tuple[float, float]) -> tuple[float, str | None]:
    """The noise level nearest to `sigma` in a model's range, and a sentence about it if it is another.

    Raises:
        ValueError: a sigma that is negative or not finite.
    """
    low, high = known
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be finite and >= 0, got {sigma}")
    nearest = min(max(sigma, low), high)
    if abs(nearest - sigma) <= 1e-6 + 1e-3 * high:
        return nearest, None
    return nearest, (
        f"sigma {sigma * 255:.1f} is outside the range this model was trained for "
        f"({low * 255:.0f}..{high * 255:.0f}, in 8-bit grey levels); using {nearest * 255:.0f}"
    )
