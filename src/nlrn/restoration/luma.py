"""Luma for super-resolution: an image is enlarged before it, and its colours and alpha are put back afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.color import YCBCR, YCBCR_OFFSET
from ..ops.resize import bicubic_resize
from .options import DataRange
from .value_range import range_of

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


def enlarge_alpha(alpha: Tensor, scale: int, opaque: DataRange | None = None) -> Tensor:
    """Alpha `[B, 1, H, W]` of any type, enlarged with its image.

    What is opaque follows from an integer's type, whatever its image's white.

    Args:
        alpha: as it was given.
        scale: how many times larger.
        opaque: the opaque value of floats or their range, by default 1.

    Raises:
        ValueError: floats that are not in units of [0, 1] without `opaque`.
    """
    try:
        values = range_of(alpha, opaque if alpha.is_floating_point() else None)
    except ValueError as error:
        raise ValueError(f"alpha: {error}") from error
    large = bicubic_resize(values.to_unit(alpha), scale * alpha.shape[2], scale * alpha.shape[3])
    return values.from_unit(large.clamp(0, 1), alpha.dtype)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    matrix, offset = (torch.from_numpy(constant).to(like) for constant in (YCBCR, YCBCR_OFFSET))
    return matrix, offset.view(1, 3, 1, 1)
