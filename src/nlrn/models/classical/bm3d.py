"""BM3D: block matching and 3D filtering.

Two stages, each of which stacks patches that look alike to a group, shrinks the group's coefficients in a transform of
patches (2D) and across patches (1D), and puts the patches back as a weighted mean:

    1. groups of the noisy image, coefficients below `2.7 sigma` set to zero: the basic estimate;
    2. groups found in the basic estimate, coefficients c of the noisy image times `b^2 / (b^2 + sigma^2)`, where b are
       those of the basic estimate (the Wiener filter).

RGB images go through an orthonormal luminance-chrominance transform; groups are found in the luminance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.groups import Filtered, Grouping, filter_groups
from ...ops.patches import extract_patches
from ..contract import ModelInfo, Shape
from .group_denoiser import GroupDenoiser

# Groups that are filtered at a time: what lies between is in memory at once.
GROUPS = 2048

# Taps of the wavelet bior1.5's analysis filters.
LOW = (0.0165728151840597, -0.0165728151840597, -0.1215339780164379, 0.1215339780164379, 0.7071067811865476)
BIOR_LOW, BIOR_HIGH = (*LOW, *LOW[::-1]), (*4 * (0.0,), -LOW[-1], LOW[-1], *4 * (0.0,))


@dataclass(frozen=True)
class BM3DConfig:
    """The parameters of the method; defaults are those of the paper, but for the thresholds of distances.

    Args:
        patch_size: side of the patches, a power of two.
        stride: distance between reference patches in pixels.
        search_size: odd side of the square of positions around a reference patch in which others are looked for.
        group_sizes: the most patches of a group in the two stages, powers of two.
        distances: `(a, b)` for each stage: patches of a group differ by no more than `a + b sigma^2` in mean square, in
            8-bit grey levels; by `3 a + b sigma^2` in colour, whose luminance is sqrt(3) times as large. The paper has
            two sets of numbers, for sigma up to 40 and beyond; these go from one to the other.
        hard_threshold: in the first stage, in units of sigma.
    """

    patch_size: int = 8
    stride: int = 3
    search_size: int = 39
    group_sizes: tuple[int, int] = (16, 32)
    distances: tuple[tuple[float, float], tuple[float, float]] = ((2000.0, 3.0), (400.0, 0.3))
    hard_threshold: float = 2.7


class BM3D(GroupDenoiser):
    """Block matching and 3D filtering: `model(image, sigma) -> restored`.

    Source: Dabov et al., Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering, IEEE TIP 2007, and for
    colour Color Image Denoising via Sparse 3D Collaborative Filtering, ICIP 2007; details as in Lebrun, An Analysis and
    Implementation of the BM3D Image Denoising Method, IPOL 2012.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.bm3d import BM3D
        >>> BM3D()(torch.rand(1, 1, 32, 40), sigma=0.1).shape
        torch.Size([1, 1, 32, 40])
    """

    name = "bm3d"

    def __init__(self, config: BM3DConfig | None = None) -> None:
        self.config = config or BM3DConfig()

    def _grouping(self, stage: int) -> Grouping:
        config = self.config
        return Grouping(config.patch_size, config.stride, config.search_size, config.group_sizes[stage])

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        halo = 2 * self._grouping(0).halo
        return ModelInfo(
            self.name, "denoise", cut="tiles", halo=halo, grid=self.config.stride, memory=self._memory
        )

    def _memory(self, shape: Shape) -> int:
        """An upper estimate of the bytes of a call in float32, the result included."""
        batch, channels, height, width = shape
        config = self.config
        # Images: the input in two spaces, two estimates, sums and weights, and the results of the batch.
        images = (9 * channels + batch * channels) * height * width
        groups = max(self._grouping(stage).elements(channels, width) for stage in (0, 1))
        spectra = 7 * GROUPS * max(config.group_sizes) * channels * config.patch_size**2
        return 4 * (images + groups + spectra)

    def _smallest(self, sigma: float) -> int:
        return self.config.patch_size

    def _filter(self, noisy: Tensor, sigma: float) -> Tensor:
        return self._stage(noisy, self._stage(noisy, None, sigma), sigma)

    def _stage(self, noisy: Tensor, basic: Tensor | None, sigma: float) -> Tensor:
        """The first stage, or, given its basic estimate, the second, of planes `[C, H, W]`."""
        config, channels = self.config, noisy.shape[0]
        size, stage = config.patch_size, 0 if basic is None else 1
        most, (constant, slope) = config.group_sizes[stage], config.distances[stage]
        farthest = channels * constant / 255**2 + slope * sigma**2
        transform = (bior15 if basic is None else dct)(size).to(noisy)
        window = torch.kaiser_window(size, periodic=False, beta=2.0, dtype=noisy.dtype, device=noisy.device)

        def shrink(positions: Tensor, distances: Tensor) -> Iterator[Filtered]:
            alike = (distances <= farthest).sum(1).clamp(min=1)
            for count in (2**i for i in range(most.bit_length())):
                # The largest power of two of them.
                chosen = positions[(alike >= count) & (alike < 2 * count), :count]
                for group in torch.split(chosen, GROUPS):
                    yield self._shrink(noisy, basic, group, transform, sigma)

        guide = noisy[0] if basic is None else basic[0]
        weights = torch.outer(window, window).flatten()
        return filter_groups(guide, channels, self._grouping(stage), shrink, weights)

    def _shrink(
        self, noisy: Tensor, basic: Tensor | None, positions: Tensor, transform: Tensor, sigma: float
    ) -> Filtered:
        """Groups at `[G, K]` positions: all their positions `[P]`, patches `[C, P, size^2]` and weights `[C, P]`."""
        size, count = self.config.patch_size, positions.shape[1]
        patch, across = torch.kron(transform, transform), haar(count).to(transform)

        def spectrum(image: Tensor) -> Tensor:
            return across @ (extract_patches(image, positions, size) @ patch.T)

        # [C, groups, across, frequencies]
        coefficients = spectrum(noisy)
        if basic is None:
            kept = coefficients.abs() > self.config.hard_threshold * sigma
            weights = 1 / kept.sum((2, 3)).clamp(min=1)
            coefficients *= kept
        else:
            power = spectrum(basic).square()
            gain = power / (power + sigma**2)
            weights = 1 / gain.square().sum((2, 3)).clamp(min=1e-6)
            coefficients *= gain
        patches = (across.T @ coefficients) @ torch.linalg.inv(patch).T
        return positions.flatten(), patches.flatten(1, 2), weights.to(noisy).repeat_interleave(count, 1)


def dct(size: int) -> Tensor:
    """The orthonormal discrete cosine transform (II), float64 `[size, size]`."""
    k = torch.arange(size, dtype=torch.float64)
    return _unit_rows(torch.cos(math.pi * (k + 0.5) * k[:, None] / size))


def haar(size: int) -> Tensor:
    """The orthonormal Haar transform, float64 `[size, size]`, for a power of two."""
    rows = torch.ones(1, 1, dtype=torch.float64)
    while rows.shape[0] < size:
        mean, difference = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)[:, None]
        rows = torch.cat([torch.kron(rows, mean), torch.kron(torch.eye(rows.shape[0]).to(rows), difference)])
    return _unit_rows(rows)


def bior15(size: int) -> Tensor:
    """The wavelet transform bior1.5 of a periodic signal over all levels, float64 `[size, size]`, for a power of two.

    Its rows have norm 1, so that white noise has the same strength in every coefficient.
    """
    rows, length = torch.eye(size, dtype=torch.float64), size
    while length > 1:
        level = torch.zeros(length, length, dtype=torch.float64)
        for i in range(length // 2):
            for tap, (low, high) in enumerate(zip(BIOR_LOW, BIOR_HIGH, strict=True)):
                level[i, (2 * i + tap - 4) % length] += low
                level[length // 2 + i, (2 * i + tap - 4) % length] += high
        rows[:length] = level @ rows[:length]
        length //= 2
    return _unit_rows(rows)


def _unit_rows(rows: Tensor) -> Tensor:
    unit: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return unit
