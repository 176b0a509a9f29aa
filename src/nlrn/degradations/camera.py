"""The degradation of a colour image by a camera: sensor noise through a simple pipeline, correlated noise, JPEG."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .jpeg import at_random_phase
from .tables import constant

QUALITY = (30.0, 95.0)
# Shot noise of the linear image, as variance per unit of light; read noise follows it (Brooks et al.).
SHOT = (1e-4, 1.2e-2)
READ_SLOPE, READ_OFFSET, READ_SPREAD = 2.18, 1.2, 0.26
RED_GAIN, BLUE_GAIN = (1.9, 2.4), (1.5, 1.9)
CORRELATED_SIGMA = (1 / 255, 30 / 255)
BLUR = (0.3, 1.2)  # of correlated noise, in pixels
# Bilinear interpolation of a colour that every fourth pixel sees (red, blue), and of one that every second does.
SPARSE = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))
DENSE = ((0.0, 0.25, 0.0), (0.25, 1.0, 0.25), (0.0, 0.25, 0.0))


def camera(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of colour images as cameras might have taken them.

    Half of the batch gets Poisson-Gaussian noise in linear light, seen through mosaic, demosaicing, white balance and
    gamma; the other half Gaussian noise that is correlated between channels and neighbours. Both are compressed
    as JPEG, quality 30 to 95, with the grid anywhere.

    Args:
        clean: `[B, 3, P, P]` in units of [0, 1], P a multiple of 16; a border of 16 pixels is spoilt.
        generator: on the image's device.

    Returns:
        The degraded images, and for each the standard deviation of its noise before JPEG.

    Raises:
        ValueError: images that are not RGB.

    Source: Brooks et al., Unprocessing Images for Learned Raw Denoising, CVPR 2019 (noise levels, white balance).
    """
    check_rgb(clean)
    half = len(clean) // 2
    noise = torch.cat([sensor_noise(clean[:half], generator), correlated_noise(clean[half:], generator)])
    strength = noise.square().mean((1, 2, 3)).sqrt()
    return compressed((clean + noise).clamp(0, 1), generator), strength


def check_rgb(clean: Tensor) -> None:
    """Raises `ValueError` for anything but `[B, 3, H, W]`."""
    if clean.ndim != 4 or clean.shape[1] != 3:
        raise ValueError(f"expected RGB images [B, 3, H, W], got shape {tuple(clean.shape)}")


def compressed(noisy: Tensor, generator: torch.Generator) -> Tensor:
    """The images after JPEG of qualities that span `QUALITY`, with the grid anywhere.

    Args:
        noisy: `[B, 3, P, P]` in [0, 1], P a multiple of 16.
        generator: on the images' device.
    """
    low, high = QUALITY
    quality = low + (high - low) * stratified(len(noisy), generator)
    return at_random_phase(noisy, quality, generator, subsample=True)


def sensor_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """The noise of a sensor as it looks after the camera's pipeline: noisy minus noiseless picture.

    The difference, so that what demosaicing does to the clean image is no part of it.

    Args:
        clean: `[B, 3, H, W]` in units of [0, 1], even sides.
        generator: on the image's device.
    """
    count, device = len(clean), clean.device
    shot = log_uniform(SHOT, count, generator)
    spread = torch.randn(count, generator=generator, device=device) * READ_SPREAD
    read = (READ_SLOPE * shot.log() + READ_OFFSET + spread).exp()
    red, blue = (low + (high - low) * stratified(count, generator) for low, high in (RED_GAIN, BLUE_GAIN))
    gains = torch.stack([red, torch.ones_like(red), blue], 1).view(-1, 3, 1, 1)
    linear = clean.clamp(0, 1) ** 2.2 / gains
    mosaic = _bayer(clean.shape, device)
    deviation = (linear * shot.view(-1, 1, 1, 1) + read.view(-1, 1, 1, 1)).sqrt()
    noise = deviation * torch.randn(clean.shape, generator=generator, device=device)

    def develop(light: Tensor) -> Tensor:
        return (_demosaic(light * mosaic) * gains).clamp(1e-8, 1) ** (1 / 2.2)

    return develop((linear + noise).clamp(0, 1)) - develop(linear)


def _bayer(shape: torch.Size, device: torch.device) -> Tensor:
    """Which pixels of a red-green / green-blue sensor see which colour: `[3, H, W]` of 0 and 1."""
    rows = torch.arange(shape[2], device=device)[:, None] % 2
    columns = torch.arange(shape[3], device=device)[None] % 2
    red, blue = (1 - rows) * (1 - columns), rows * columns
    return torch.stack([red, 1 - red - blue, blue]).float()


def _demosaic(light: Tensor) -> Tensor:
    """Bilinear interpolation of a mosaic `[B, 3, H, W]` that is zero where a colour was not seen."""
    kernel = constant((SPARSE, DENSE, SPARSE), light.device)[:, None]
    return F.conv2d(F.pad(light, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


def correlated_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of random strength, blurred a little and mixed between the channels, as large as the images.

    Args:
        clean: `[B, 3, H, W]`.
        generator: on the images' device.
    """
    count = len(clean)
    width = BLUR[0] + (BLUR[1] - BLUR[0]) * stratified(count, generator)
    noise = correlated(clean.shape, width, 0.8 * stratified(count, generator), generator)
    sigma = log_uniform(CORRELATED_SIGMA, count, generator)
    return noise * sigma.view(-1, 1, 1, 1)


def correlated(shape: tuple[int, ...], width: Tensor, shared: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of variance 1 that is correlated between neighbours and between channels.

    Args:
        shape: `(B, 3, H, W)`.
        width: `[B]`, standard deviation of the blur in pixels.
        shared: `[B]`, from independent channels (0) to the same noise in all (1).
        generator: on the device of the result.
    """
    count, device = shape[0], generator.device
    noise = torch.randn(shape, generator=generator, device=device)
    # Separable Gaussian, scaled so that the noise keeps its variance.
    place = torch.arange(-3, 4, device=device)
    taps = torch.exp(-(place**2) / (2 * width[:, None] ** 2))
    taps = (taps / taps.square().sum(1, keepdim=True).sqrt()).repeat_interleave(3, 0)
    flat = noise.reshape(1, count * 3, *shape[2:])
    flat = F.conv2d(flat, taps.view(-1, 1, 7, 1), padding=(3, 0), groups=count * 3)
    flat = F.conv2d(flat, taps.view(-1, 1, 1, 7), padding=(0, 3), groups=count * 3)
    shared = shared.view(-1, 1, 1)
    mixing = torch.eye(3, device=device) * (1 - shared) + shared / 3
    mixing = mixing / mixing.square().sum(2, keepdim=True).sqrt()
    return torch.einsum("bij,bjhw->bihw", mixing, flat.view(shape))


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """Stratified over [0, 1), in random order."""
    device = generator.device
    place = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
    return place[torch.rand(count, generator=generator, device=device).argsort()] / max(1, count)


def log_uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Numbers whose logarithms are `stratified` between those of the bounds."""
    low, high = (math.log(bound) for bound in bounds)
    return (low + (high - low) * stratified(count, generator)).exp()
