"""Wavelet shrinkage: the image that is sparse in a transform."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.patches import mirror
from .denoiser import Denoiser


@dataclass(frozen=True)
class WaveletConfig:
    """The parameters of the method.

    Args:
        wavelet: a name of PyWavelets; the best of db2, sym4 and sym8 on crops of BSDS500's training and test images.
        levels: of the transform.
    """

    wavelet: str = "sym8"
    levels: int = 4

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")


class Wavelet(Denoiser):
    """BayesShrink: `model(image, sigma) -> restored`.

    Coefficients c of a sub-band become `sign(c) max(|c| - t, 0)` with `t = sigma^2 / sqrt(max(mean c^2 - sigma^2, 0))`,
    by scikit-image (`denoise_wavelet`), each channel for itself, on the CPU. Images too small for the transform are
    mirrored. The transform is not symmetric and leaves out every other place: turned images differ.

    Cost: some passes over the image.

    Source: Chang, Yu, Vetterli, Adaptive wavelet thresholding for image denoising and compression, IEEE TIP 2000,
    doi:10.1109/83.862633.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.wavelet import Wavelet
        >>> Wavelet()(torch.rand(1, 3, 32, 40), sigma=0.1).shape
        torch.Size([1, 3, 32, 40])
    """

    name = "wavelet"

    def __init__(self, config: WaveletConfig | None = None) -> None:
        import pywt

        self.config = config or WaveletConfig()
        try:
            length = pywt.Wavelet(self.config.wavelet).dec_len
        except ValueError as error:
            raise ValueError(
                f"wavelet must be one that PyWavelets knows, got {self.config.wavelet!r}"
            ) from error
        # The side of the smallest image whose last level is still longer than the filter.
        self._smallest = (length - 1) << self.config.levels

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        from skimage.restoration import denoise_wavelet

        height, width = planes.shape[1:]
        margin = max(0, -(-(self._smallest - min(height, width)) // 2))
        channels = mirror(planes, margin).to("cpu", torch.float64).numpy()
        restored = [
            torch.from_numpy(
                denoise_wavelet(
                    channel,
                    sigma=sigma,
                    wavelet=self.config.wavelet,
                    mode="soft",
                    wavelet_levels=self.config.levels,
                    method="BayesShrink",
                    rescale_sigma=False,
                )
            )
            for channel in channels
        ]
        return torch.stack(restored)[:, margin : margin + height, margin : margin + width].to(planes)
