"""Noise levels of pixels, which are cut, turned and flipped as their image is."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

from torch import Tensor

Level = TypeVar("Level", Tensor, Tensor | None)


def is_map(sigma: object) -> TypeGuard[Tensor]:
    """True for noise levels with the axes of an image, `[B or 1, 1, H, W]` or `[B, 1, 1, 1]`."""
    return isinstance(sigma, Tensor) and sigma.ndim == 4


def part_of_map(sigma: Level, rows: slice, columns: slice = slice(None)) -> Level:
    """The levels of a part of an image; those that are not of pixels are handed through."""
    if is_map(sigma) and sigma.shape[2:] != (1, 1):
        return sigma[:, :, rows, columns]
    return sigma
