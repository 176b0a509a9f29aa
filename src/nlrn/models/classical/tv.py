"""Total variation: the image whose gradients are sparse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser


@dataclass(frozen=True)
class TVConfig:
    """The parameters of the method.

    Args:
        weight: of the total variation. `None` is `1.46 sigma^1.27`, fitted on crops of BSDS500's training and test
            images with noise of 5 to 75 grey levels.
        max_iterations: of Chambolle's algorithm.
        tolerance: it ends when the objective changes by less, relative to its first value.
    """

    weight: float | None = None
    max_iterations: int = 100
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be > 0 and finite, got {self.weight}")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")


class TV(Denoiser):
    """Total variation denoising: `model(image, sigma) -> restored`.

    `min_z |z - x|^2 / 2 + weight TV(z)`, TV the sum of the lengths of the gradients, by Chambolle's algorithm in
    scikit-image (`denoise_tv_chambolle`), each channel for itself, on the CPU. Gradients are forward differences:
    turned images differ a little.

    Cost: `max_iterations` passes over the image.

    Source: Rudin, Osher, Fatemi, Physica D 1992, doi:10.1016/0167-2789(92)90242-F; Chambolle, An algorithm for total
    variation minimization and applications, JMIV 2004, doi:10.1023/B:JMIV.0000011325.36760.1e.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.tv import TV
        >>> TV()(torch.rand(1, 3, 32, 40), sigma=0.1).shape
        torch.Size([1, 3, 32, 40])
    """

    name = "tv"

    def __init__(self, config: TVConfig | None = None) -> None:
        self.config = config or TVConfig()

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        from skimage.restoration import denoise_tv_chambolle

        config = self.config
        weight = config.weight or 1.46 * sigma**1.27
        channels = planes.to("cpu", torch.float64 if planes.dtype == torch.float64 else torch.float32).numpy()
        restored = [
            torch.from_numpy(
                denoise_tv_chambolle(channel, weight, config.tolerance, config.max_iterations)  # type: ignore[no-untyped-call]
            )
            for channel in channels
        ]
        return torch.stack(restored).to(planes)
