"""MATLAB's `imresize(image, size, "bicubic")`: a = -0.5, antialiasing when it shrinks, mirrored borders."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

# A function that returns the input pixels of each output pixel, and their weights: both `[taps, out]`.
Taps = Callable[[int, int, torch.device, torch.dtype], tuple[Tensor, Tensor]]


def bicubic_resize(image: Tensor, height: int, width: int, *, taps: Taps | None = None) -> Tensor:
    """Resizes the last two dimensions as MATLAB's `imresize` does.

    With `s = out / in`, output pixel i lies at `u = (i + 1/2) / s - 1/2` of the input and is the mean of the input
    pixels j, weighted by `k((u - j) min(s, 1))`, where k is Keys' cubic kernel with a = -0.5. Beyond the border the
    image is mirrored, its edge repeated.

    Args:
        image: `[..., H, W]`, float; computed in its own dtype.
        height, width: of the result.
        taps: `make_taps`, or a cache of it that lasts as long as its caller needs.

    Raises:
        ValueError: an empty image or size.

    Source: Keys, Cubic convolution interpolation, IEEE TASSP 1981, doi:10.1109/TASSP.1981.1163711.

    Example:
        >>> import torch
        >>> from nlrn.ops.resize import bicubic_resize
        >>> bicubic_resize(torch.ones(3, 8, 12), 4, 6).shape
        torch.Size([3, 4, 6])
    """
    if min(image.shape[-2:]) < 1 or min(height, width) < 1:
        raise ValueError(f"cannot resize {tuple(image.shape[-2:])} to {(height, width)}")
    taps = taps or _recent_taps
    return _along(_along(image, -2, height, taps), -1, width, taps)


def _along(image: Tensor, dim: int, length: int, taps: Taps) -> Tensor:
    if image.shape[dim] == length:
        return image
    indices, weights = taps(image.shape[dim], length, image.device, image.dtype)
    shape = (-1, 1) if dim == -2 else (-1,)
    result: Tensor | None = None
    for index, weight in zip(indices, weights, strict=True):
        part = image.index_select(dim, index) * weight.view(shape)
        result = part if result is None else result.add_(part)
    assert result is not None
    return result


def make_taps(length: int, out: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The input pixels of each output pixel, and their weights: both `[taps, out]`."""
    scale = out / length
    shrink = min(scale, 1.0)
    # [out]
    center = (torch.arange(out, dtype=torch.float64) + 0.5) / scale - 0.5
    count = math.ceil(4 / shrink) + 2
    # [taps, out]
    place = torch.floor(center - 2 / shrink) + torch.arange(count, dtype=torch.float64)[:, None]
    weights = _cubic((center - place) * shrink)
    weights /= weights.sum(0)
    index = place.long() % (2 * length)
    index = torch.where(index < length, index, 2 * length - 1 - index)
    used = (weights != 0).any(1)
    return index[used].to(device), weights[used].to(device, dtype)


_recent_taps = lru_cache(maxsize=64)(make_taps)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
