"""Groups of similar patches, filtered one by one and put back as a weighted mean: what BM3D, WNNM and SSC share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .block_matching import BAND, block_matching, reference_positions
from .patches import Aggregation

# Rows of reference patches that are filtered at a time: what lies between is in memory at once.
ROWS = 16

# Positions `[P]` of patches, as for `extract_patches`, the patches `[C, P, patch_size^2]` and their weights `[C, P]`.
Filtered = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Grouping:
    """The groups of an image: for every reference patch those most like it.

    Args:
        patch_size: side of the patches in pixels.
        stride: distance between reference patches in pixels.
        search_size: odd side of the square of positions around a reference patch in which others are looked for.
        count: patches of a group, the reference included.
    """

    patch_size: int
    stride: int
    search_size: int
    count: int

    @property
    def halo(self) -> int:
        """Distance beyond which a pixel of the image or of the guide cannot change a filtered pixel.

        From a pixel to a patch of it, to the reference of a group, to another patch, to its pixels.
        """
        return 2 * (self.patch_size - 1 + self.search_size // 2)

    def elements(self, channels: int, width: int) -> int:
        """The most numbers that block matching and the patches of some rows hold at once, beside the images."""
        across = -(-width // self.stride) + 1
        distances = 3 * self.search_size**2 * BAND * across
        return distances + 4 * ROWS * across * self.count * channels * self.patch_size**2

    def within(self, height: int, width: int) -> Grouping:
        """The same with no more patches than the group of every reference of an image has."""
        reach = self.search_size // 2 + 1
        down, across = (min(length - self.patch_size + 1, reach) for length in (height, width))
        return replace(self, count=min(self.count, down * across))


def filter_groups(
    guide: Tensor,
    channels: int,
    grouping: Grouping,
    shrink: Callable[[Tensor, Tensor], Iterable[Filtered]],
    window: Tensor | None = None,
) -> Tensor:
    """An image put together from filtered groups, in memory that does not grow with its height.

    Args:
        guide: `[H, W]`, no smaller than a patch, in which the groups are found.
        channels: C of the result.
        grouping: which patches make a group.
        shrink: filters groups, given the positions `[R, K]` and distances `[R, K]` of `block_matching`. Every
            reference patch must be among what it returns.
        window: `[patch_size^2]`, by which the pixels of every patch are weighted; by default all alike.

    Returns:
        `[C, H, W]`, the weighted mean of all filtered patches that cover a pixel.

    Cost: that of `block_matching`, of `shrink`, and `K patch_size^2` additions for each reference.

    Example:
        >>> import torch
        >>> from nlrn.ops.groups import Grouping, filter_groups
        >>> from nlrn.ops.patches import extract_patches
        >>> image = torch.rand(1, 20, 30)
        >>> def same(positions, distances):
        ...     at = positions.flatten()
        ...     yield at, extract_patches(image, at, 4), torch.ones(1, at.numel())
        >>> bool((filter_groups(image[0], 1, Grouping(4, 3, 9, 5), same) - image).abs().max() < 1e-6)
        True
    """
    height, width = guide.shape
    size, reach = grouping.patch_size, grouping.search_size // 2
    total = Aggregation((channels, height, width), guide.new_ones(size**2) if window is None else window)
    rows = reference_positions(height, size, grouping.stride)
    for band in (rows[i : i + ROWS] for i in range(0, len(rows), ROWS)):
        found = block_matching(guide, size, grouping.stride, grouping.search_size, grouping.count, band)
        positions, patches, weights = zip(*shrink(*found), strict=True)
        top, bottom = max(0, band[0] - reach), min(height, band[-1] + size + reach)
        total.add(torch.cat(positions), torch.cat(patches, 1), torch.cat(weights, 1), top, bottom)
    return total.mean()
