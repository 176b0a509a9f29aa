"""WNNM: weighted nuclear norm minimization of groups of similar patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .low_rank import LowRank, LowRankConfig


class WNNM(LowRank):
    """Weighted nuclear norm minimization: `model(image, sigma) -> restored`.

    A group Y, whose K rows are patches that look alike less their mean (`LowRank`), is replaced by

        X = argmin |Y - X|_F^2 / 2 + sum_i w_i s_i(X)        w_i = c sqrt(K) sigma^2 / s_i(X)

    where s_i are singular values: large ones, which hold the image, are shrunk less than small ones, which hold noise.
    With these weights X has the singular vectors of Y and, with s_i those of Y, the singular values

        (s_i + sqrt(s_i^2 - 4 c sqrt(K) sigma^2)) / 2, and 0 where the root does not exist.

    The weight c is 3.4 with 8 passes: on crops of BSDS500's training and test images they do what 10 passes and more do
    with the paper's 2 sqrt(2).

    Cost: `iterations / stride^2` eigen-decompositions of `patch_size^2 x patch_size^2` matrices for each pixel.

    Source: Gu, Zhang, Zuo, Feng, Weighted Nuclear Norm Minimization with Application to Image Denoising, CVPR 2014,
    doi:10.1109/CVPR.2014.366; Gu et al., Weighted Nuclear Norm Minimization and Its Applications to Low Level Vision,
    IJCV 2017, doi:10.1007/s11263-016-0930-5.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.low_rank import LowRankConfig
        >>> from nlrn.models.classical.wnnm import WNNM
        >>> WNNM(LowRankConfig(weight=3.4, iterations=2))(torch.rand(1, 1, 32, 40), sigma=0.1).shape
        torch.Size([1, 1, 32, 40])
    """

    name = "wnnm"

    def __init__(self, config: LowRankConfig | None = None) -> None:
        self.config = config or LowRankConfig(weight=3.4)

    def gain(self, squares: Tensor, count: int, level: Tensor) -> Tensor:
        strength = self.config.weight * math.sqrt(count) * level.square()
        ratio = 4 * strength / squares.clamp(min=torch.finfo(squares.dtype).tiny)
        return torch.where(ratio < 1, (1 + (1 - ratio).clamp(min=0).sqrt()) / 2, 0)
