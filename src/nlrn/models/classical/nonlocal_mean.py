"""The non-local mean over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...ops.framework import PatchDistance, WholeImage, nonlocal_filter
from ...ops.nonlocal_attention import DEFAULT_MAX_MEMORY
from ..contract import ModelInfo, Shape
from .denoiser import Denoiser
from .nlm import SMALLEST_H


@dataclass(frozen=True)
class NonLocalMeanConfig:
    """The parameters of the method.

    Args:
        patch_size: odd side of the patches that are compared.
        h: how far patches may differ, in units of the image. `None` is `0.75 sigma`, fitted with the patches on crops
            of 128x128 pixels of BSDS500's training and test images with noise of 10, 25 and 50 grey levels.
        patch_sigma: of the Gaussian that weighs the pixels of a patch, in pixels; `None` weighs all alike.
    """

    patch_size: int = 5
    h: float | None = None
    patch_sigma: float | None = None

    def affinity(self, sigma: float) -> PatchDistance:
        """The affinity of the method at a noise level."""
        h = 0.75 * sigma if self.h is None else self.h
        return PatchDistance(h, self.patch_size, self.patch_sigma)


class NonLocalMean(Denoiser):
    """The non-local mean over the whole image: `model(image, sigma) -> restored`.

    `Z_i = sum_j Phi_ij x_j / sum_j Phi_ij`, j over all pixels, `Phi_ij = exp(-d_ij / h^2)` with the weighted mean
    squared difference d_ij of the patches around i and j (`nlrn.ops.framework.PatchDistance`), over all channels.

    This is the operation of the non-local neural networks with patches in place of learned features, and the non-local
    means as they were defined: `NLM` confines it to a window. A patch sees the image mirrored at the border.

    Cost: `N (patch_size^2 C + 1 + C)` multiply-adds for each of N pixels; memory grows with N alone.

    Source: Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005, doi:10.1109/CVPR.2005.38; Wang,
    Girshick, Gupta, He, Non-local Neural Networks, CVPR 2018, doi:10.1109/CVPR.2018.00813.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.nonlocal_mean import NonLocalMean
        >>> NonLocalMean()(torch.rand(1, 3, 32, 40), sigma=0.1).shape
        torch.Size([1, 3, 32, 40])
    """

    name = "nonlocal"

    def __init__(self, config: NonLocalMeanConfig | None = None) -> None:
        self.config = config or NonLocalMeanConfig()
        self.config.affinity(0.1)  # names parameters that cannot be

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""

        def memory(shape: Shape) -> int:
            batch, channels, height, width = shape
            images = 8 * batch * channels + 4 * (channels * self.config.patch_size**2 + 1)
            return 4 * images * height * width + DEFAULT_MAX_MEMORY // 4

        return ModelInfo(self.name, "denoise", memory=memory, symmetric=True)

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        affinity = self.config.affinity(sigma)
        image = planes[None]
        if float(affinity.h) < SMALLEST_H:
            image = image.double()
        memory = DEFAULT_MAX_MEMORY // 4
        return nonlocal_filter(image, affinity, neighbourhood=WholeImage(), max_memory=memory)[0]
