"""Restoring an image from overlapping pieces: exact square tiles, and the official patch protocol."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .maps import part_of_map

Restore = Callable[[Tensor, Tensor | None], Tensor]


def restore_tiles(
    restore: Restore,
    image: Tensor,
    sigma: Tensor | None,
    tile: int,
    halo: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Tensor:
    """The image put together from square tiles, each restored with `halo` more pixels on every side.

    Exact if `halo` is at least the method's (`ModelInfo.halo`), and it and `tile` are multiples of its grid: no pixel
    of a tile then depends on anything that was cut off. With a smaller one the result is an approximation.

    Args:
        restore: image `[B, C, h, w]` and sigma -> result of the same shape.
        image: `[B, C, H, W]`.
        sigma: `[B]` or `None`, handed through, or a map `[B, 1, H, W]`.
        tile: side of a tile in pixels.
        halo: pixels of context.
        progress: called with the fraction done.
    """
    height, width = image.shape[2:]
    result = torch.empty_like(image)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            top, left = max(0, y - halo), max(0, x - halo)
            place = slice(top, y + tile + halo), slice(left, x + tile + halo)
            piece = image[:, :, *place]
            target = result[:, :, y : y + tile, x : x + tile]
            rows, columns = target.shape[2:]
            restored = restore(piece, part_of_map(sigma, *place))
            target.copy_(restored[:, :, y - top : y - top + rows, x - left : x - left + columns])
            progress((y * width + (x + columns) * rows) / (height * width))
    return result


def patch_positions(length: int, size: int, stride: int) -> list[int]:
    """The first pixels of patches along an axis: every `stride` pixels, the last one flush with the border."""
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def restore_patches(
    restore: Restore,
    image: Tensor,
    sigma: Tensor | None,
    patches: tuple[int, int],
    batch: int,
    progress: Callable[[float], None],
) -> Tensor:
    """The official protocol: all patches `size x size` at every `stride` pixels, restored alone and averaged.

    Args:
        restore: a batch of patches `[n, C, size, size]` and their sigma -> results.
        image: `[B, C, H, W]`; patches of a smaller image are as large as the image.
        sigma: `[B, 1, 1, 1]`, a map `[B, 1, H, W]` or `None`.
        patches: `(size, stride)`; official are (45, 7) and, for the new code, (43, 7).
        batch: patches restored at once.
        progress: called with the fraction done.
    """
    size, stride = patches
    count, _, height, width = image.shape
    rows, columns = min(size, height), min(size, width)
    places = [
        (b, y, x)
        for b in range(count)
        for y in patch_positions(height, size, stride)
        for x in patch_positions(width, size, stride)
    ]
    total, weight = torch.zeros_like(image), torch.zeros_like(image[:, :1])
    for i in range(0, len(places), batch):
        chunk = places[i : i + batch]
        parts = [(b, slice(y, y + rows), slice(x, x + columns)) for b, y, x in chunk]
        stack = torch.stack([image[b, :, down, across] for b, down, across in parts])
        sigmas = None
        if sigma is not None:
            sigmas = torch.cat([part_of_map(sigma[b : b + 1], down, across) for b, down, across in parts])
        for (b, y, x), restored in zip(chunk, restore(stack, sigmas), strict=True):
            total[b, :, y : y + rows, x : x + columns] += restored
            weight[b, :, y : y + rows, x : x + columns] += 1
        progress((i + len(chunk)) / len(places))
    return total / weight
