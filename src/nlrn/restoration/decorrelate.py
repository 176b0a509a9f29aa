"""Noise that neighbours, rows or columns share, removed by models for white noise.

Half-quadratic splitting: the model restores at a falling noise level, and after each pass every frequency comes back
from the data as far as it has less noise there than the model was given.

    x <- model(z, s)      z <- x + g (y - x),  g = 1 / (1 + WEIGHT S / s^2) in the Fourier domain

y is the image, S the spectrum of its noise. What rows share is only on one axis of the spectrum: there the data hardly
count, and elsewhere they do. After Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior,
doi:10.1109/TPAMI.2021.3088914, with a spectrum in the place of a blur. `benchmarks/correlated_noise.py` compares it
with sub-sampling.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..inference import Progress, part_of
from ..inference.noise_spectrum import NoiseSpectrum

# Passes, the level of the first in those of the whole noise, and the weight of the model against the data.
PASSES, FIRST, WEIGHT = 4, 4.0, 0.23
# Pixels beyond the border, mirrored, so that opposite borders do not meet.
MARGIN = 16

# Restores `[1, C, H, W]` at a noise level.
Denoise = Callable[[Tensor, float, Progress], Tensor]


def denoise_correlated(
    image: Tensor, spectrum: NoiseSpectrum, denoise: Denoise, known: tuple[float, float], progress: Progress
) -> Tensor:
    """Removes noise of a spectrum from an image.

    Args:
        image: `[1, C, H, W]` in units of [0, 1].
        spectrum: of its noise.
        denoise: a model for white noise.
        known: the lowest and the highest noise level of that model.
        progress: called with the fraction done.
    """
    margins = [min(MARGIN, length - 1) for length in image.shape[2:]]
    height, width = (length + 2 * margin for length, margin in zip(image.shape[2:], margins, strict=True))
    power = spectrum.on_grid(height, width)
    levels = levels_for(power, known)
    power = power.to(image)
    noisy, restored = image, image
    for index, level in enumerate(levels):
        restored = denoise(noisy, level, part_of(progress, index, len(levels)))
        if index + 1 < len(levels):
            weight = WEIGHT / levels[index + 1] ** 2
            noisy = restored + _from_data(image - restored, weight * power, margins)
    return restored


def levels_for(power: Tensor, known: tuple[float, float]) -> list[float]:
    """The noise level of each pass, from several times that of the noise down to that of the data where they are best.

    The last one is the harmonic mean over frequencies, to which those without noise count most.
    """
    first = min(FIRST * float(power.mean()) ** 0.5, known[1])
    last = min(max(float(1 / (1 / power).mean()) ** 0.5, known[0], 1e-6), first)
    return [first * (last / first) ** (index / (PASSES - 1)) for index in range(PASSES)]


def _from_data(change: Tensor, noise: Tensor, margins: list[int]) -> Tensor:
    """`1 / (1 + noise)` of each frequency of `[1, C, H, W]`, mirrored beyond the border; one channel at a time."""
    down, across = margins
    padded = F.pad(change, [across, across, down, down], mode="reflect")[0]
    shares = noise.expand(len(padded), -1, -1)
    planes = [
        torch.fft.irfft2(torch.fft.rfft2(plane) / (1 + one[:, : one.shape[1] // 2 + 1]), s=plane.shape)
        for plane, one in zip(padded, shares, strict=True)
    ]
    return torch.stack(planes)[None, :, down : down + change.shape[2], across : across + change.shape[3]]
