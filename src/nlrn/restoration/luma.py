"""Luma for super-resolution: an image is enlarged before it, and its colours and alpha are put back afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.color import YCBCR, YCBCR_OFFSET
from ..ops.resize import bicubic_resize
from .options import DataRange
from .value_range import ValueRange

SCALES = (2, 3, 4)


def check_scale(scale: int | None) -> int:
    """`scale` if it is one that models know.

    Raises:
        ValueError: another one.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
    return scale


def enlarge(image: Tensor, scale: int) -> tuple[Tensor, Tensor | None]:
    """Luma and chroma of an image, enlarged as MATLAB's bicubic `imresize` does.

    Args:
        image: `[B, C, H, W]`, C = 1 (luma as it is) or 3 (RGB, Y of `rgb2ycbcr`).
        scale: how many times larger.

    Returns:
        `[B, 1, scale * H, scale * W]`, which a model restores, and `[B, 2, scale * H, scale * W]` or `None`.
    """
    if image.shape[1] == 3:
        matrix, offset = _constants(image)
        image = torch.einsum("kc,bchw->bkhw", matrix, image) + offset
    large = bicubic_resize(image, scale * image.shape[2], scale * image.shape[3])
    return (large, None) if image.shape[1] == 1 else (large[:, :1], large[:, 1:])


def recolor(luma: Tensor, chroma: Tensor | None) -> Tensor:
    """RGB of restored luma and the chroma of `enlarge`; luma itself where there is none."""
    if chroma is None:
        return luma
    matrix, offset = _constants(luma)
    inverse = torch.linalg.inv(matrix.double().cpu()).to(matrix)
    return torch.einsum("ck,bkhw->bchw", inverse, torch.cat([luma, chroma], 1) - offset)


def enlarge_alpha(alpha: Tensor, scale: int, data_range: DataRange | None = None) -> Tensor:
    """Alpha `[B, 1, H, W]` of any type, enlarged with its image.

    What is opaque follows from an integer's type, whatever its image's white.

    Args:
        alpha: as it was given.
        scale: how many times larger.
        data_range: of the image, for floats, by default 0 to 1. Alpha that leaves it keeps its own extremes.

    Raises:
        ValueError: NaN or infinite values.
    """
    if not torch.isfinite(alpha.double()).all():
        raise ValueError("alpha has NaN or infinite values")
    low, high = (extreme.item() for extreme in alpha.double().aminmax())
    if alpha.is_floating_point():
        white = data_range[1] if isinstance(data_range, tuple) else data_range
        opaque = max(1.0 if white is None else white, high)
    else:
        opaque = float(torch.iinfo(alpha.dtype).max)
    values = ValueRange(0.0, opaque)
    large = bicubic_resize(values.to_unit(alpha), scale * alpha.shape[2], scale * alpha.shape[3])
    return values.from_unit(large.clamp(min(0.0, low / opaque), 1), alpha)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    matrix, offset = (torch.from_numpy(constant).to(like) for constant in (YCBCR, YCBCR_OFFSET))
    return matrix, offset.view(1, 3, 1, 1)
