"""Patches of an image at chosen positions, and back: an adjoint pair."""

from __future__ import annotations

import torch
from torch import Tensor


def extract_patches(image: Tensor, positions: Tensor, patch_size: int) -> Tensor:
    """Square patches.

    Args:
        image: `[..., H, W]`.
        positions: integers of any shape: upper left pixels, as `y * W + x`.
        patch_size: side of a patch.

    Returns:
        `[..., *positions.shape, patch_size^2]`, pixels of a patch row by row.

    Example:
        >>> import torch
        >>> from nlrn.ops.patches import extract_patches
        >>> extract_patches(torch.arange(12).view(3, 4), torch.tensor([5]), 2).tolist()
        [[5, 6, 9, 10]]
    """
    width = image.shape[-1]
    side = torch.arange(patch_size, device=image.device)
    pixels = (side[:, None] * width + side).flatten()
    return image.flatten(-2)[..., positions[..., None] + pixels]


def mirror(image: Tensor, radius: int) -> Tensor:
    """The image `[..., H, W]` with `radius` more pixels on each side, mirrored at its border pixels.

    Mirrored more than once where the image is smaller than the radius; one pixel is repeated.

    Example:
        >>> import torch
        >>> from nlrn.ops.patches import mirror
        >>> mirror(torch.tensor([[1, 2, 3]]), 3)[0].tolist()
        [2, 3, 2, 1, 2, 3, 2, 1, 2]
    """
    for dim in (-2, -1):
        last = image.shape[dim] - 1
        at = torch.arange(-radius, last + radius + 1, device=image.device)
        # Back and forth along the image.
        at = last - (at.remainder(2 * last) - last).abs() if last else at * 0
        image = image.index_select(dim, at)
    return image


def patches_around(image: Tensor, patch_size: int) -> Tensor:
    """The patch around every pixel: `[B, C, H, W]` to `[B, C patch_size^2, H, W]`, its pixels row by row.

    Beyond the border the image is mirrored (`mirror`); `patch_size` is odd.
    """
    batch, _, height, width = image.shape
    padded = mirror(image, patch_size // 2)
    # [B, C, H, W, patch y, patch x]
    patches = padded.unfold(2, patch_size, 1).unfold(3, patch_size, 1)
    return patches.permute(0, 1, 4, 5, 2, 3).reshape(batch, -1, height, width)


def average_patches(patches: Tensor, patch_size: int) -> Tensor:
    """Every pixel as the mean of what the patches that cover it say: `[B, C patch_size^2, H, W]` to `[B, C, H, W]`.

    The left inverse of `patches_around`; what a patch says of pixels beyond the border is left out.
    """
    batch, _, height, width = patches.shape
    radius = patch_size // 2
    patches = patches.view(batch, -1, patch_size, patch_size, height, width)
    padded = patches.new_zeros(batch, patches.shape[1], height + 2 * radius, width + 2 * radius)
    for y in range(patch_size):
        for x in range(patch_size):
            padded[..., y : y + height, x : x + width] += patches[:, :, y, x]
    down, across = (
        torch.tensor([min(i + radius, n - 1) - max(i - radius, 0) + 1 for i in range(n)]).to(patches)
        for n in (height, width)
    )
    return padded[..., radius : radius + height, radius : radius + width] / (down[:, None] * across)


class Aggregation:
    """Weighted patches added up where they lie.

    The mean is `sum_p R_p^T (w_p window patch_p) / sum_p R_p^T (w_p window)`.

    R_p takes a patch out of the image (`extract_patches`); its adjoint R_p^T puts it back.

    Args:
        shape: `(C, H, W)` of the image.
        window: `[patch_size^2]`, by which the pixels of every patch are weighted.
    """

    def __init__(self, shape: tuple[int, int, int], window: Tensor) -> None:
        self._window, self._size = window, round(window.numel() ** 0.5)
        self._total, self._weight = window.new_zeros(shape), window.new_zeros(shape)

    def add(self, positions: Tensor, patches: Tensor, weights: Tensor, top: int, bottom: int) -> None:
        """Adds patches that lie within the rows from `top` to `bottom`.

        Args:
            positions: `[P]`, as for `extract_patches`.
            patches: `[C, P, patch_size^2]`.
            weights: `[C, P]`.
            top: first row.
            bottom: the row after the last.
        """
        channels, _, width = self._total.shape
        height, size = bottom - top, self._size
        positions = positions - top * width
        # Patches that begin at the same pixel first: side by side in memory, they are added up fast.
        at_pixel = patches.new_zeros(channels, height * width, size**2)
        at_pixel.index_add_(1, positions, patches * weights[..., None])
        weight_at_pixel = patches.new_zeros(channels, height * width).index_add_(1, positions, weights)
        at_pixel = at_pixel.view(channels, height, width, -1)[:, : height - size + 1, : width - size + 1]
        weight_at_pixel = weight_at_pixel.view(channels, height, width)[
            :, : height - size + 1, : width - size + 1
        ]
        for i, factor in enumerate(self._window.tolist()):
            y, x = top + i // size, i % size
            rows, columns = slice(y, y + height - size + 1), slice(x, x + width - size + 1)
            self._total[:, rows, columns] += factor * at_pixel[..., i]
            self._weight[:, rows, columns] += factor * weight_at_pixel

    def mean(self) -> Tensor:
        """`[C, H, W]`; every pixel must have been covered."""
        return self._total / self._weight
