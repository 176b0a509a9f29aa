"""The degradation of photographs of any origin: cameras, scanned film, white noise, noise that was partly smoothed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import (
    check_rgb,
    compressed,
    correlated,
    correlated_noise,
    log_uniform,
    sensor_noise,
    stratified,
)

# The shares of the images with sensor noise, correlated noise, white noise and film grain.
SHARES = (0.35, 0.3, 0.2, 0.15)
WHITE_SIGMA = (0.0, 50 / 255)
GRAIN_SIGMA = (2 / 255, 30 / 255)
GRAIN_BLUR = (0.3, 1.5)  # in pixels
UNCOMPRESSED = 0.25  # share of the images that are not compressed
SMOOTHED = 0.15  # share of the images whose noise was partly smoothed


def photograph(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of colour images with the noise that photographs of different origins have.

    An image has one of four kinds of noise, in the shares of `SHARES`: a sensor's, correlated noise, white noise or
    film grain. From some images an earlier program took a part of the noise, most in smooth areas. Three quarters of
    all are compressed as JPEG, quality 30 to 95, with the grid anywhere. Grey images stay grey.

    Args:
        clean: `[B, 3, P, P]` in units of [0, 1], P a multiple of 16; a border of 16 pixels is spoilt.
        generator: on the image's device.

    Returns:
        The degraded images, and for each the standard deviation of its noise before JPEG.

    Raises:
        ValueError: images that are not RGB.
    """
    check_rgb(clean)
    kinds = (sensor_noise, correlated_noise, white_noise, film_grain)
    parts = torch.split(clean, _counts(len(clean), generator))
    noise = torch.cat([kind(part, generator) for kind, part in zip(kinds, parts, strict=True) if len(part)])
    chosen = torch.rand((len(clean), 1, 1, 1), generator=generator, device=clean.device) < SMOOTHED
    noise = torch.where(chosen, partly_smoothed(clean, noise, generator), noise)
    gray = (clean == clean[:, :1]).flatten(1).all(1).view(-1, 1, 1, 1)
    noise = torch.where(gray, noise[:, 1:2], noise)
    noisy = (clean + noise).clamp(0, 1)
    small = compressed(noisy, generator)
    plain = torch.rand((len(clean), 1, 1, 1), generator=generator, device=clean.device) < UNCOMPRESSED
    strength = noise.square().mean((1, 2, 3)).sqrt()
    return torch.where(plain, noisy, small), strength


def _counts(count: int, generator: torch.Generator) -> list[int]:
    """The numbers of images with each kind of noise, `count` in all: random, with `SHARES` as the mean."""
    places = (torch.arange(count) + torch.rand(1, generator=generator, device=generator.device).cpu()) / count
    ends = torch.tensor(SHARES[:-1]).cumsum(0)
    return torch.bincount(torch.bucketize(places, ends), minlength=len(SHARES)).tolist()


def white_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """White Gaussian noise of levels that span `WHITE_SIGMA`, as large as the images.

    Args:
        clean: `[B, 3, H, W]`.
        generator: on the images' device.
    """
    low, high = WHITE_SIGMA
    sigma = low + (high - low) * stratified(len(clean), generator)
    return sigma.view(-1, 1, 1, 1) * torch.randn(clean.shape, generator=generator, device=generator.device)


def film_grain(clean: Tensor, generator: torch.Generator) -> Tensor:
    """The grain of film: blurred, strongest in middle tones; half of it the same in all channels.

    Args:
        clean: `[B, 3, H, W]` in units of [0, 1].
        generator: on the image's device.
    """
    count, device = len(clean), clean.device
    low, high = GRAIN_BLUR
    width = low + (high - low) * stratified(count, generator)
    monochrome = torch.rand(count, generator=generator, device=device) < 0.5
    shared = torch.where(monochrome, 1.0, 0.5 * stratified(count, generator))
    grain = correlated(clean.shape, width, shared, generator)
    sigma = log_uniform(GRAIN_SIGMA, count, generator)
    # Density fluctuates least where film is clear or opaque: between a third of the grain there and all of it.
    tone = 4 * clean.clamp(0, 1) * (1 - clean.clamp(0, 1))
    return grain * sigma.view(-1, 1, 1, 1) * (1 + 2 * tone) / 3


def partly_smoothed(clean: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """The noise that a program for removing it has left: a random part in smooth areas, most of it at edges.

    Args:
        clean, noise: `[B, 3, H, W]` in units of [0, 1].
        generator: on the images' device.
    """
    left = 0.6 * stratified(len(clean), generator).view(-1, 1, 1, 1)
    contrast = clean.mean(1, keepdim=True)
    activity = F.avg_pool2d(contrast.square(), 5, 1, 2, count_include_pad=False)
    activity = activity - F.avg_pool2d(contrast, 5, 1, 2, count_include_pad=False).square()
    activity = activity.clamp(min=0)
    edge = activity / (activity + noise.square().mean((1, 2, 3), keepdim=True) + 1e-6)
    return noise * (left + (1 - left) * edge)
