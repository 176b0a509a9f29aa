"""Non-local means: every pixel becomes the mean of the pixels around whose patches look like its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.framework import PatchDistance, Window, nonlocal_filter
from ...ops.nonlocal_attention import DEFAULT_MAX_MEMORY
from ..contract import ModelInfo, Shape
from .denoiser import Denoiser

# Below, float32 does not tell distances of patches from its own errors.
SMALLEST_H = 0.002


@dataclass(frozen=True)
class NLMConfig:
    """The parameters of the method.

    Those that are `None` follow from sigma, by rules fitted on crops of BSDS500's training and test images with noise
    of 5 to 75 grey levels: `h = min(0.94 sigma + 0.007, 1.3 sigma)` and `patch_sigma = 1.25 + 10 sigma`. Weak noise is
    best told from the image by the pixels next to the centre, strong noise by all of a patch.

    Args:
        patch_size: odd side of the patches that are compared.
        window_size: odd side of the window of pixels that are averaged.
        h: how far patches may differ, in units of the image.
        patch_sigma: of the Gaussian that weighs the pixels of a patch, in pixels; infinite weighs all alike.
    """

    patch_size: int = 5
    window_size: int = 21
    h: float | None = None
    patch_sigma: float | None = None

    def affinity(self, sigma: float) -> PatchDistance:
        """The affinity of the method at a noise level."""
        h = min(0.94 * sigma + 0.007, 1.3 * sigma) if self.h is None else self.h
        spread = 1.25 + 10 * sigma if self.patch_sigma is None else self.patch_sigma
        return PatchDistance(h, self.patch_size, spread)


class NLM(Denoiser):
    """Non-local means: `model(image, sigma) -> restored`.

    `Z_i = sum_j Phi_ij x_j / sum_j Phi_ij`, j over a window, `Phi_ij = exp(-d_ij / h^2)` with the weighted mean squared
    difference d_ij of the patches around i and j (`nlrn.ops.framework.PatchDistance`), over all channels.

    The window is truncated at the border; a patch sees the image mirrored there. The kernels of the non-local operation
    compute it.

    Cost: `window_size^2 (patch_size^2 C + 1 + C)` multiply-adds for each pixel.

    Source: Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005, doi:10.1109/CVPR.2005.38.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.nlm import NLM
        >>> NLM()(torch.rand(1, 3, 32, 40), sigma=0.1).shape
        torch.Size([1, 3, 32, 40])
    """

    name = "nlm"

    def __init__(self, config: NLMConfig | None = None) -> None:
        self.config = config or NLMConfig()
        self.config.affinity(0.1)  # names parameters that cannot be
        self._window = Window(self.config.window_size)

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        config = self.config
        halo = config.window_size // 2 + config.patch_size // 2

        def memory(shape: Shape) -> int:
            batch, channels, height, width = shape
            images = 8 * batch * channels + 4 * (channels * config.patch_size**2 + 1)
            return 4 * images * height * width + DEFAULT_MAX_MEMORY // 4

        return ModelInfo(self.name, "denoise", cut="tiles", halo=halo, memory=memory, symmetric=True)

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        affinity = self.config.affinity(sigma)
        image = planes[None]
        if float(affinity.h) < SMALLEST_H:
            image = image.to(torch.float64)
        memory = DEFAULT_MAX_MEMORY // 4
        return nonlocal_filter(image, affinity, neighbourhood=self._window, max_memory=memory)[0]
