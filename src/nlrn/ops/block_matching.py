"""The K most similar patches of an image for each of its reference patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Rows of reference patches that are matched at a time; what lies between then stays in the cache.
BAND = 8


def reference_positions(length: int, patch_size: int, stride: int) -> list[int]:
    """The first pixels of reference patches along an axis: every `stride` pixels, and at the end."""
    last = length - patch_size
    return [*range(0, last, stride), last]


def block_matching(
    image: Tensor,
    patch_size: int,
    stride: int,
    search_size: int,
    count: int,
    rows: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The patches most like each reference patch, within a square of positions around its own.

    `d(i, j) = mean (patch_i - patch_j)^2`, over pixels and channels. A patch lies within the image; positions
    beyond its border do not exist.

    Args:
        image: `[H, W]` or `[C, H, W]`, no smaller than a patch.
        patch_size: side of the patches in pixels.
        stride: distance between reference patches; the last ones of a row and a column end at the border.
        search_size: odd side of the square of positions that are compared.
        count: patches for each reference, K; no more than positions in the square.
        rows: those in which reference patches begin, some of `reference_positions`; by default all of them.

    Returns:
        The positions `[R, K]` of the upper left pixels as `y * W + x`, the reference itself and then the most similar
        first, and their distances `[R, K]`, infinite for positions that do not exist.

    Cost: `search_size^2` subtractions for each pixel, and `search_size^2 * R` distances to choose from.

    Raises:
        ValueError: an image smaller than a patch, an even search_size, or more patches than positions.

    Source: Dabov et al., Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering, IEEE TIP 2007.

    Example:
        >>> import torch
        >>> from nlrn.ops.block_matching import block_matching
        >>> positions, distances = block_matching(torch.rand(20, 30), 8, 3, 11, 4)
        >>> positions.shape, float(distances[0, 0])
        (torch.Size([45, 4]), 0.0)
    """
    image = image.reshape(-1, *image.shape[-2:])
    height, width = image.shape[1:]
    if min(height, width) < patch_size:
        raise ValueError(f"an image must be no smaller than a patch of {patch_size}, got {height}x{width}")
    if search_size % 2 == 0 or not 0 < count <= search_size**2:
        raise ValueError(
            f"search_size must be odd, and count no more than its square, got {search_size} and {count}"
        )
    if rows is None:
        rows = reference_positions(height, patch_size, stride)
    bands: list[list[int]] = []
    for row in rows:
        # The last row may lie at another distance than the others.
        if not bands or len(bands[-1]) == BAND or row != bands[-1][-1] + stride:
            bands.append([])
        bands[-1].append(row)
    found = [_match_band(image, band, patch_size, stride, search_size, count) for band in bands]
    return torch.cat([positions for positions, _ in found]), torch.cat([distances for _, distances in found])


def _match_band(
    image: Tensor, rows: list[int], patch_size: int, stride: int, search_size: int, count: int
) -> tuple[Tensor, Tensor]:
    """Matches for the reference patches of some rows of `[C, H, W]`, which lie `stride` apart."""
    channels, height, width = image.shape
    radius, first = search_size // 2, rows[0]
    extent = (len(rows) - 1) * stride + patch_size
    columns = torch.tensor(reference_positions(width, patch_size, stride), device=image.device)
    reference = image[:, first : first + extent]
    # Beyond the border distances are infinite.
    padded = image.new_full((channels, extent + 2 * radius, width + 2 * radius), float("inf"))
    top, bottom = max(0, first - radius), min(height, first + extent + radius)
    padded[:, top - first + radius : bottom - first + radius, radius : radius + width] = image[:, top:bottom]
    # [C, dx, y, x]
    shifted = padded.unfold(2, width, 1).transpose(1, 2)
    distances = image.new_empty(search_size, search_size, len(rows), len(columns))
    for dy in range(search_size):
        squares = (shifted[0, :, dy : dy + extent] - reference[0]).square_()
        for channel in range(1, channels):
            squares += (shifted[channel, :, dy : dy + extent] - reference[channel]).square_()
        down = _sums(squares, 1, patch_size, stride, len(rows))
        distances[dy] = _sums(down, 2, patch_size, 1, width - patch_size + 1)[..., columns]
    distances = (distances / (channels * patch_size**2)).flatten(0, 1).flatten(1).T.contiguous()
    # The reference comes first, even where others are its equal: every pixel is then in some group.
    distances[:, search_size**2 // 2] = -1
    nearest, offsets = distances.topk(count, dim=1, largest=False)
    nearest[:, 0] = 0
    own = (torch.tensor(rows, device=image.device)[:, None] * width + columns).flatten()
    moves = (offsets // search_size - radius) * width + offsets % search_size - radius
    return own[:, None] + moves, nearest


def _sums(x: Tensor, dim: int, size: int, stride: int, count: int) -> Tensor:
    """`count` sums of `size` neighbours along a dimension, `stride` apart."""
    span = (count - 1) * stride + 1
    total = x.narrow(dim, 0, span)[(slice(None),) * dim + (slice(None, None, stride),)].clone()
    for i in range(1, size):
        total += x.narrow(dim, i, span)[(slice(None),) * dim + (slice(None, None, stride),)]
    return total
