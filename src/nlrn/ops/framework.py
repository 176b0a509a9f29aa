"""The non-local framework: one operator and three choices, of which the classics and the NLRN are instances.

    Z = diag(delta)^-1 Phi G        Z_i = 1 / delta_i sum_{j in S_i} Phi_ij G_j        delta_i = sum_{j in S_i} Phi_ij

- the **affinity** Phi says how much pixel j counts for pixel i (`Gaussian`, `PatchDistance`, `EmbeddedGaussian`,
  `SymmetricEmbeddedGaussian`, `DotProduct`, or a subclass of `Affinity`);
- the **embedding** G says what is averaged (`Identity`, `Linear`, `Patch`);
- the **neighbourhood** S_i says over which pixels (`Window`, `WholeImage`, `MostSimilar`).

An affinity that is the exponential of an inner product of features, over a window or the whole image, is
`nonlocal_attention` of these features and runs in its kernels. So are distances:
`exp(-|a - b|^2 / h^2) = exp(-|a|^2 / h^2) exp(2 a.b / h^2 - |b|^2 / h^2)`, an inner product once `-|b|^2 / h^2` is one
more feature of b; the factor of a cancels in the normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .affinities import (
    Affinity,
    DotProduct,
    EmbeddedGaussian,
    Gaussian,
    PatchDistance,
    SymmetricEmbeddedGaussian,
)
from .embeddings import Embedding, Identity, Linear, Patch
from .neighbourhoods import MostSimilar, Neighbourhood, WholeImage, Window
from .nonlocal_attention import DEFAULT_MAX_MEMORY, nonlocal_attention

__all__ = [
    "Affinity",
    "DotProduct",
    "EmbeddedGaussian",
    "Embedding",
    "Gaussian",
    "Identity",
    "Linear",
    "MostSimilar",
    "Neighbourhood",
    "Patch",
    "PatchDistance",
    "SymmetricEmbeddedGaussian",
    "WholeImage",
    "Window",
    "mean_of_neighbours",
    "nonlocal_filter",
]


def nonlocal_filter(
    image: Tensor,
    affinity: Affinity,
    embedding: Embedding | None = None,
    neighbourhood: Neighbourhood | None = None,
    *,
    guide: Tensor | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> Tensor:
    """The non-local operator: every pixel becomes the mean of its neighbours' values, weighted by affinity.

    `Z_i = 1 / delta_i sum_{j in S_i} Phi_ij G_j`, see the module.

    Args:
        image: `[B, C, H, W]`, of which G is made.
        affinity: Phi.
        embedding: G; by default the identity.
        neighbourhood: S; by default the whole image. A neighbour beyond the image border does not exist.
        guide: `[B, C', H, W]`, of which Phi is made, and which patches are similar; by default the image.
        max_memory: bytes for what lies between; results and gradients of the size of the image are not counted.

    Returns:
        Z `[B, V, H, W]` in the dtype of the image. Half precision is computed in float32.

    Cost: `|S| (D + V)` multiply-adds for each pixel, D features and V values; block matching besides.
    Gradients compute each part anew, so that they need no more memory than the result.

    Raises:
        ValueError: an empty image, or a guide of another size.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018, section 3, equations 1 and 2.

    Example:
        >>> import torch
        >>> from nlrn.ops.framework import PatchDistance, Window, nonlocal_filter
        >>> noisy = 0.5 + 0.1 * torch.randn(1, 1, 40, 50)
        >>> smooth = nonlocal_filter(noisy, PatchDistance(h=0.1), neighbourhood=Window(11))
        >>> bool(smooth.std() < 0.5 * noisy.std())
        True
    """
    embedding, neighbourhood = embedding or Identity(), neighbourhood or WholeImage()
    guide = image if guide is None else guide
    if image.ndim != 4 or 0 in image.shape or not image.is_floating_point():
        raise ValueError(
            f"image must be [B, C, H, W], floating point and not empty, got {image.dtype} {tuple(image.shape)}"
        )
    if guide.ndim != 4 or (guide.shape[0], *guide.shape[2:]) != (image.shape[0], *image.shape[2:]):
        raise ValueError(
            f"guide {tuple(guide.shape)} must have the batch and size of image {tuple(image.shape)}"
        )
    dtype = image.dtype
    if dtype in (torch.float16, torch.bfloat16):
        image = image.float()
    guide, height = guide.to(image.dtype), image.shape[2]
    rows = _rows_at_a_time(image, guide, affinity, embedding, neighbourhood, max_memory)
    if rows >= height:
        return _band(image, guide, affinity, embedding, neighbourhood, (0, height), max_memory).to(dtype)
    assert isinstance(neighbourhood, Window)
    assert affinity.radius is not None
    reach = neighbourhood.size // 2 + max(affinity.radius, embedding.radius)
    bands = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        arguments = (image[:, :, first:last], guide[:, :, first:last], affinity, embedding, neighbourhood)
        # Gradients of a band need its features, which would not fit for all bands.
        bands.append(_again(_band, *arguments, (top - first, bottom - first), max_memory))
    return torch.cat(bands, 2).to(dtype)


def _rows_at_a_time(
    image: Tensor,
    guide: Tensor,
    affinity: Affinity,
    embedding: Embedding,
    neighbourhood: Neighbourhood,
    max_memory: int,
) -> int:
    """Rows whose features fit half of the memory; all of them where features or neighbours come from far away."""
    height, width = image.shape[2:]
    if not isinstance(neighbourhood, Window) or affinity.radius is None:
        return height
    with torch.no_grad():
        depth = affinity.features(guide[:1, :, :1, :1])[0].shape[1]
        values = embedding.values(image[:1, :, :1, :1]).shape[1]
    # Queries, keys, and what either is made from.
    bytes_of_row = image.shape[0] * width * image.element_size() * (3 * depth + 2 * values)
    reach = neighbourhood.size // 2 + max(affinity.radius, embedding.radius)
    fitting = max_memory // 2 // bytes_of_row
    return height if fitting >= height else max(1, fitting - 2 * reach)


def _band(
    image: Tensor,
    guide: Tensor,
    affinity: Affinity,
    embedding: Embedding,
    neighbourhood: Neighbourhood,
    rows: tuple[int, int],
    max_memory: int,
) -> Tensor:
    """Z of some rows, from the rows given."""
    (query, key), value = affinity.features(guide), embedding.values(image)
    return mean_of_neighbours(query, key, value, affinity, neighbourhood, rows, max_memory, guide)


def mean_of_neighbours(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    affinity: Affinity,
    neighbourhood: Neighbourhood,
    rows: tuple[int, int] | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    guide: Tensor | None = None,
) -> Tensor:
    """Z of features that are there already: `nonlocal_filter` without making them.

    Args:
        query: `[B, D, H, W]`, the first of `affinity.features`.
        key: `[B, D, H, W]`, the second.
        value: `[B, V, H, W]`, G.
        affinity: Phi, of queries and keys.
        neighbourhood: S.
        rows: the first row of Z and the one after the last; by default all.
        max_memory: as in `nonlocal_filter`.
        guide: of which patches are similar, for `MostSimilar`; by default the values.

    Returns:
        Z `[B, V, rows, W]`.
    """
    rows, guide = rows or (0, value.shape[2]), value if guide is None else guide
    if affinity.exponential and affinity.inner_product and isinstance(neighbourhood, Window | WholeImage):
        size = neighbourhood.size if isinstance(neighbourhood, Window) else None
        band = query[:, :, rows[0] : rows[1]]
        return nonlocal_attention(
            band, key, value, size, keep_state=False, row_offset=rows[0], max_memory=max_memory
        )[0]
    batch, _, height, width = value.shape
    count = neighbourhood.count or height * width
    # A key and a value for each pair, the weights of the pair, and the gradients of all these.
    bytes_of_pixel = 2 * value.element_size() * count * (key.shape[1] + value.shape[1] + 8)
    most = max(1, max_memory // 2 // bytes_of_pixel)
    images = []
    for at in range(batch):
        flat = query[at].flatten(1), key[at].flatten(1), value[at].flatten(1)
        parts = [
            _again(_piece, affinity, *flat, *piece) for piece in neighbourhood.pieces(guide[at], rows, most)
        ]
        images.append(torch.cat(parts, 1).view(-1, rows[1] - rows[0], width))
    return torch.stack(images)


def _piece(
    affinity: Affinity,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pixels: slice,
    positions: Tensor | None,
    exist: Tensor | None,
) -> Tensor:
    """Z `[V, n]` of some pixels with the neighbours given; images are `[channels, H W]`."""
    if positions is None:
        key, value = key[:, None], value[:, None]
    else:
        assert exist is not None
        positions = positions.masked_fill(~exist, 0)
        key, value = (x.index_select(1, positions.flatten()).view(-1, *positions.shape) for x in (key, value))
    weights = affinity.logits(query[:, pixels], key)
    if affinity.exponential:
        weights = weights if exist is None else weights.masked_fill(~exist, -math.inf)
        weights = weights.softmax(1)
    else:
        weights = weights if exist is None else weights.masked_fill(~exist, 0)
        weights = weights / (weights.shape[1] if exist is None else exist.sum(1, keepdim=True))
    return value[:, 0] @ weights.T if value.shape[1] == 1 else torch.einsum("nk,vnk->vn", weights, value)


def _again(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The result of a function, which its backward pass computes anew instead of keeping what lies between."""
    if torch.is_grad_enabled():
        result: Tensor = checkpoint(function, *arguments, use_reentrant=False)
        return result
    return function(*arguments)
