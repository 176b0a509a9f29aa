"""Noise levels that differ between the pixels, the channels or the images of a batch.

They are the strongest of them and shares of it. The strongest goes the way of a level that is one number, through units
and ranges of values; shares have no unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..files.image import Image
from .value_range import Sigma, check_sigma

# A number or "auto", one number for each channel, or an array with one for each pixel.
AnySigma = Sigma | Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Levels:
    """Noise levels.

    Args:
        strongest: the highest, or the only one; `"auto"` or `None` where it is not given.
        shares: `[B or 1, 1, H, W]` of pixels, or `[B or 1, C, 1, 1]` of channels, 1 for the strongest; `None` where the
            level is the same everywhere.
    """

    strongest: Sigma | None
    shares: Tensor | None = None

    def of(self, first: int, count: int = 1) -> Levels:
        """The levels of some images of a batch, with the strongest of these."""
        if self.shares is None or self.strongest is None or self.strongest == "auto":
            return self
        shares = self.shares if len(self.shares) == 1 else self.shares[first : first + count]
        most = float(shares.max())
        if most == float(shares.min()):
            return Levels(self.strongest * most)
        return Levels(self.strongest * most, shares / most)

    @property
    def of_channels(self) -> bool:
        """True where the channels of an image have levels of their own."""
        return self.shares is not None and self.shares.shape[1] > 1


def are_several(sigma: AnySigma | None) -> TypeGuard[Sequence[float] | np.ndarray | Tensor]:
    """True for a sequence, and for an array that has axes."""
    return isinstance(sigma, list | tuple) or (isinstance(sigma, np.ndarray | Tensor) and sigma.ndim > 0)


def strongest_of(sigma: AnySigma | None) -> Sigma | None:
    """The highest of some noise levels, or the only one."""
    if are_several(sigma):
        return float(numbers_of(sigma).max())
    return None if sigma is None else check_sigma(sigma)


def known_or_auto(levels: Levels) -> Sigma:
    """The strongest level, `"auto"` for one that is not given."""
    return "auto" if levels.strongest is None else levels.strongest


def sigma_of_channel(sigma: AnySigma | None, axis: int, index: int, count: int) -> AnySigma | None:
    """The noise level of a channel that is restored by itself, of that of an array with three axes.

    Args:
        sigma: as `levels_of` has it.
        axis: the axis of the channels.
        index: the channel; 3 channels are restored together.
        count: of channels.

    Raises:
        ValueError: another number of levels than of channels.
    """
    if not are_several(sigma):
        return sigma
    given = numbers_of(sigma).numpy()
    if given.ndim == 3:
        given = np.moveaxis(given, axis, -1)
    if given.ndim == 2 or count == 3:
        return given
    if given.shape[-1] not in (1, count):
        raise ValueError(f"sigma must have a number for each of {count} channels, got {given.shape[-1]}")
    return given[..., min(index, given.shape[-1] - 1)]


def sigma_of_plane(
    sigma: AnySigma | None, shape: tuple[int, ...], order: tuple[int, ...], place: tuple[int, ...]
) -> AnySigma | None:
    """The noise levels of a plane of a stack; those with other axes than the stack are those of every plane.

    Args:
        sigma: as `levels_of` has it, or with the axes of the stack, each as long as there or 1.
        shape: of the stack, an array.
        order: its axes, those of planes last.
        place: of the plane, along the axes before those.

    Raises:
        ValueError: a sigma with the axes of the stack whose lengths do not fit.
    """
    if not are_several(sigma):
        return sigma
    given = numbers_of(sigma).numpy()
    if given.ndim != len(shape):
        return given
    if any(own not in (1, whole) for own, whole in zip(given.shape, shape, strict=True)):
        raise ValueError(
            f"sigma must have the shape of the stack, {shape}, or 1 in place of a length; got {given.shape}"
        )
    moved = given.transpose(order)
    plane: np.ndarray = moved[
        tuple(0 if length == 1 else index for length, index in zip(moved.shape, place, strict=False))
    ]
    return plane


def levels_of(sigma: AnySigma | None, image: np.ndarray | Tensor | Image, color: Tensor) -> Levels:
    """The noise levels of an image, in the units that they are given in.

    Args:
        sigma: a number or `"auto"`; a number for each channel of a single image; or an array, of height and width, or
            with the axes of the image, each as long as there or 1, the one of channels or both others 1.
        image: the image, whose axes count.
        color: its planes `[B, C, H, W]`.

    Raises:
        ValueError: another shape or type, or a level that is negative or not finite.
    """
    if not are_several(sigma):
        return Levels(strongest_of(sigma))
    given = numbers_of(sigma)
    batch, channels, height, width = color.shape
    pixels = image.pixels if isinstance(image, Image) else image
    planes = None
    if given.shape == (channels,) and batch == 1:
        planes = given.view(1, -1, 1, 1)
    elif given.shape == (height, width):
        planes = given[None, None]
    elif given.ndim == pixels.ndim:
        # As the image: channels last in an array, first in a tensor.
        last = given if isinstance(pixels, Tensor) or given.ndim == 2 else given.permute(2, 0, 1)
        planes = last.view(*[1] * (4 - given.ndim), *last.shape)
    fits = planes is not None and all(
        own in (1, whole) for own, whole in zip(planes.shape, color.shape, strict=True)
    )
    if planes is None or not fits or (planes.shape[1] > 1 and planes.shape[2:] != (1, 1)):
        of_channels = f", or {channels} numbers for the channels" if channels > 1 and batch == 1 else ""
        raise ValueError(
            f"sigma must be a number, 'auto', or of each pixel of {height} rows and {width} columns{of_channels}; "
            f"got an array of shape {tuple(given.shape)}"
        )
    if planes.shape[2:] != (1, 1):
        planes = planes.expand(-1, -1, height, width)
    strongest = float(planes.max())
    shares = planes / strongest if strongest else torch.ones_like(planes)
    return Levels(strongest, shares.float().to(color.device)).of(0, batch)


def numbers_of(sigma: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    """An array of noise levels as float64.

    Raises:
        ValueError: a type that has no numbers, or one that is negative or not finite.
    """
    if isinstance(sigma, Tensor):
        kind, real = (
            str(sigma.dtype).removeprefix("torch."),
            not sigma.is_complex() and sigma.dtype is not torch.bool,
        )
        given = sigma.detach().double().cpu() if real else None
    else:
        try:
            array = sigma if isinstance(sigma, np.ndarray) else np.asarray(sigma)
        except ValueError:  # lists of unlike lengths
            raise ValueError(f"sigma must be numbers, got {sigma!r}") from None
        kind, real = array.dtype.name, array.dtype.kind in "iuf"
        # What is masked is no level.
        given = torch.from_numpy(np.ma.filled(array.astype(np.float64), np.nan)) if real else None
    if given is None:
        raise ValueError(f"sigma must be numbers, got an array of {kind}")
    if not given.numel():
        raise ValueError(f"sigma must not be empty, got shape {tuple(given.shape)}")
    least, most = float(given.min()), float(given.max())
    if not (math.isfinite(least) and math.isfinite(most) and least >= 0):
        worst = least if not math.isfinite(least) or least < 0 else most
        raise ValueError(f"sigma must be finite and >= 0 everywhere, got {worst:g}")
    return given
