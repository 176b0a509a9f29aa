"""Luma for super-resolution: colours are taken off before it and put back afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.color import YCBCR, YCBCR_OFFSET


def split(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Luma `[B, 1, H, W]` and chroma `[B, 2, H, W]` or `None`.

    Args:
        image: `[B, C, H, W]`, C = 1 (luma as it is) or 3 (RGB, Y of `rgb2ycbcr`).
    """
    if image.shape[1] == 1:
        return image, None
    matrix, offset = _constants(image)
    planes = torch.einsum("kc,bchw->bkhw", matrix, image) + offset
    return planes[:, :1], planes[:, 1:]


def recolor(luma: Tensor, chroma: Tensor | None) -> Tensor:
    """RGB of luma and chroma; luma itself where there is none."""
    if chroma is None:
        return luma
    matrix, offset = _constants(luma)
    inverse = torch.linalg.inv(matrix.double().cpu()).to(matrix)
    return torch.einsum("ck,bkhw->bchw", inverse, torch.cat([luma, chroma], 1) - offset)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    matrix, offset = (torch.from_numpy(constant).to(like) for constant in (YCBCR, YCBCR_OFFSET))
    return matrix, offset.view(1, 3, 1, 1)
