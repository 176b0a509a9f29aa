# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
"""
# Plug-and-play deblurring

A denoiser in the place of a prior, by half-quadratic splitting.

An image is blurred by a Gaussian kernel, with the image continued periodically, and noise is added. Each iteration
solves the data term exactly in the Fourier domain and then denoises at a falling noise level (Zhang et al.,
Plug-and-Play Image Restoration with Deep Denoiser Prior, doi:10.1109/TPAMI.2021.3088914). Any `denoiser(x, sigma)`
fits, those of deepinv too; here NLRN beside total variation and wavelet shrinkage.

    python examples/plug_and_play.py
"""

# %%
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from skimage import data
from torch import Tensor

from nlrn import load_model
from nlrn.interop.deepinv import NLRNDenoiser

BLUR = 1.6  # standard deviation of the kernel, pixels
NOISE = 2.55 / 255
ITERATIONS = 8
WEIGHT = 0.23  # of the prior, that of the paper

Denoiser = Callable[[Tensor, float], Tensor]


# %%
def transfer_function(height: int, width: int) -> Tensor:
    """The blur in the Fourier domain, `[H, W]`."""
    down, across = (-2 * (math.pi * BLUR * torch.fft.fftfreq(n)) ** 2 for n in (height, width))
    return (down[:, None] + across).exp()


def blur(image: Tensor) -> Tensor:
    return torch.fft.ifft2(transfer_function(*image.shape[2:]) * torch.fft.fft2(image)).real


def deblur(blurred: Tensor, denoiser: Denoiser, strongest: float = 49 / 255) -> Tensor:
    """The image `[B, C, H, W]` that fits the data, with noise levels falling from `strongest` to that of the data."""
    transfer, spectrum = transfer_function(*blurred.shape[2:]), torch.fft.fft2(blurred)
    estimate = blurred
    for i in range(ITERATIONS):
        sigma = strongest * (NOISE / strongest) ** (i / (ITERATIONS - 1))
        ratio = WEIGHT * (NOISE / sigma) ** 2
        fitted = (transfer * spectrum + ratio * torch.fft.fft2(estimate)) / (transfer**2 + ratio)
        estimate = denoiser(torch.fft.ifft2(fitted).real, sigma)
    return estimate


# %%
def psnr(image: Tensor, clean: Tensor) -> float:
    return -10 * (image.clamp(0, 1) - clean).square().mean().log10().item()


@torch.no_grad()
def main(size: int = 128) -> dict[str, float]:
    """PSNR in dB of the blurred image and of each method, on the middle of scikit-image's `camera`."""
    top, left = 80, 180
    clean = torch.from_numpy(data.camera()[top : top + size, left : left + size] / 255).float()[None, None]
    generator = torch.Generator().manual_seed(0)
    blurred = blur(clean) + NOISE * torch.randn(clean.shape, generator=generator)
    denoisers: dict[str, Denoiser] = {
        "total variation": load_model("tv"),
        "wavelet": load_model("wavelet"),
        "NLRN": NLRNDenoiser("nlrn-gray"),
    }
    result = {"blurred": psnr(blurred, clean)}
    for name, denoiser in denoisers.items():
        result[name] = psnr(deblur(blurred, denoiser), clean)
    return result


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:16}{value:.2f} dB")
