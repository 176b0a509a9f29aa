"""JPEG compression as tensor arithmetic, so that it runs where the images are: blocks, cosines, quantisation.

Equal to libjpeg up to the rounding of its integer transforms; baseline tables, no arithmetic that depends on the bits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.jpeg_tables import CHROMINANCE, LUMINANCE
from .tables import constant

# JFIF: RGB in 0..255 to Y, Cb, Cr, all in 0..255 (chroma around 128).
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
FROM_YCBCR = tuple(map(tuple, np.linalg.inv(np.array(TO_YCBCR)).tolist()))
BLOCK = 8
# The discrete cosine transform of a block's rows or columns: [frequency, place].
COSINES = tuple(
    tuple(
        math.cos(frequency * (2 * place + 1) * math.pi / (2 * BLOCK)) / (2 if frequency else math.sqrt(8))
        for place in range(BLOCK)
    )
    for frequency in range(BLOCK)
)


def jpeg(image: Tensor, quality: Tensor, *, subsample: bool = True) -> Tensor:
    """The image after JPEG compression.

    Args:
        image: `[B, C, H, W]` in units of [0, 1], C = 1 or 3. It is rounded to 8 bit and clipped first. Sides that are
            no multiples of the blocks are continued by their edge.
        quality: `[B]`, libjpeg's 1 to 100.
        subsample: halve the chroma (4:2:0), as most encoders do.

    Returns:
        The same shape, at 8-bit levels.

    Raises:
        ValueError: other channels, or qualities that are not one per image.

    Source: ITU-T T.81 (1992); the scaling of the tables is libjpeg's.

    Example:
        >>> import torch
        >>> from nlrn.degradations.jpeg import jpeg
        >>> jpeg(torch.rand(2, 3, 32, 40), torch.tensor([10.0, 90.0])).shape
        torch.Size([2, 3, 32, 40])
    """
    count, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"JPEG takes 1 or 3 channels, got {channels}")
    if quality.shape != (count,):
        raise ValueError(f"quality must be [{count}], one per image, got shape {tuple(quality.shape)}")
    levels = (255 * image.float()).round().clamp(0, 255)
    unit = 2 * BLOCK if subsample and channels == 3 else BLOCK
    levels = F.pad(levels, (0, -width % unit, 0, -height % unit), mode="replicate")
    luminance = _tables(LUMINANCE, quality)
    if channels == 1:
        return _through(levels, luminance)[..., :height, :width] / 255
    chrominance = _tables(CHROMINANCE, quality)
    matrix, inverse = (constant(values, image.device) for values in (TO_YCBCR, FROM_YCBCR))
    offset = constant((0.0, 128.0, 128.0), image.device).view(1, 3, 1, 1)
    planes = (torch.einsum("kc,bchw->bkhw", matrix, levels) + offset).round()
    luma, chroma = planes[:, :1], planes[:, 1:]
    if subsample:
        chroma = F.avg_pool2d(chroma, 2).round()
    luma, chroma = _through(luma, luminance), _through(chroma, chrominance)
    if subsample:
        # libjpeg's triangle filter: 9, 3, 3 and 1 sixteenths of the four nearest.
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).round()
    planes = torch.cat([luma, chroma], 1) - offset
    restored = torch.einsum("ck,bkhw->bchw", inverse, planes).round().clamp(0, 255)
    return restored[..., :height, :width] / 255


def _tables(base: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Quantisation steps `[B, 1, 1, 1, 8, 8]` for the qualities."""
    quality = quality.float().clamp(1, 100).round()
    scale = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    table = constant(base, quality.device)
    steps = torch.floor((table * scale.view(-1, 1, 1) + 50) / 100).clamp(1, 255)
    return steps.view(-1, 1, 1, 1, BLOCK, BLOCK)


def _through(levels: Tensor, steps: Tensor) -> Tensor:
    """Every block to its cosines, quantised, and back; `[B, C, H, W]` of levels 0..255 in and out."""
    count, channels, height, width = levels.shape
    basis = constant(COSINES, levels.device)
    # [batch, channels, rows of blocks, blocks in a row, 8, 8]
    blocks = levels.reshape(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    coefficients = basis @ (blocks - 128) @ basis.T
    # Halves away from zero, as libjpeg has it; the small addend is for halves that float32 just misses.
    coefficients = (coefficients.abs() / steps + 0.500001).floor() * steps * coefficients.sign()
    blocks = (basis.T @ coefficients @ basis + 128).round().clamp(0, 255)
    return blocks.transpose(3, 4).reshape(count, channels, height, width)


def at_random_phase(image: Tensor, quality: Tensor, generator: torch.Generator, *, subsample: bool) -> Tensor:
    """`jpeg` with the grid of blocks anywhere, for crops; a border of 16 pixels is spoilt.

    Args:
        image: `[B, C, P, P]`, P a multiple of 16.
        quality: `[B]`.
        generator: on the image's device.
        subsample: subsampling as for `jpeg`.
    """
    shift = (torch.rand(2, len(image), generator=generator, device=image.device) * 2 * BLOCK).long()
    moved = _roll(image, shift)
    return _roll(jpeg(moved, quality, subsample=subsample), -shift)


def _roll(image: Tensor, shift: Tensor) -> Tensor:
    """Each image rolled by its own shift: `[2, B]`, rows and columns."""
    count, channels, height, width = image.shape
    rows = (torch.arange(height, device=image.device) + shift[0, :, None]) % height
    columns = (torch.arange(width, device=image.device) + shift[1, :, None]) % width
    rows = rows[:, None, :, None].expand(count, channels, height, width)
    columns = columns[:, None, None, :].expand(count, channels, height, width)
    return image.gather(2, rows).gather(3, columns)
