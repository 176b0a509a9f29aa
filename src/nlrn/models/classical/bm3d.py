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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.block_matching import BAND, block_matching, reference_positions
from ...ops.patches import Aggregation, extract_patches
from ..contract import ModelInfo, Shape

# Rows of reference patches that are filtered at a time, and groups of them: what lies between is in memory at once.
ROWS, GROUPS = 16, 2048

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


class BM3D:
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

    def __init__(self, config: BM3DConfig | None = None) -> None:
        self.config = config or BM3DConfig()

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        config = self.config
        # In both stages: from a pixel to a patch of it, to the reference of a group, to another patch, to its pixels.
        halo = 4 * (config.patch_size - 1 + config.search_size // 2)
        return ModelInfo("bm3d", "denoise", cut="tiles", halo=halo, grid=config.stride, memory=self._memory)

    def _memory(self, shape: Shape) -> int:
        """An upper estimate of the bytes of a call in float32, the result included."""
        batch, channels, height, width = shape
        config = self.config
        across = -(-width // config.stride) + 1
        # Images: the input in two spaces, two estimates, sums and weights, and the results of the batch.
        images = (9 * channels + batch * channels) * height * width
        distances = 3 * config.search_size**2 * BAND * across
        # Patches of the groups of some rows: filtered ones, and while they are put together.
        patches = 4 * ROWS * across * max(config.group_sizes) * channels * config.patch_size**2
        spectra = 7 * GROUPS * max(config.group_sizes) * channels * config.patch_size**2
        return 4 * (images + distances + patches + spectra)

    @torch.no_grad()
    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """The restored image, not clipped.

        Args:
            image: `[B, C, H, W]`, C = 1 or 3, float in [0, 1].
            sigma: noise standard deviation in the same units, a number or `[B]`.

        Raises:
            ValueError: other channels, or a sigma that is missing, negative or not finite.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3) or 0 in image.shape:
            raise ValueError(f"image must be [B, 1 or 3, H, W] and not empty, got shape {tuple(image.shape)}")
        if sigma is None:
            raise ValueError("bm3d needs sigma (in units of [0, 1])")
        levels = torch.as_tensor(sigma, dtype=torch.float64).expand(image.shape[0]).tolist()
        if not all(math.isfinite(level) and level >= 0 for level in levels):
            raise ValueError(f"sigma must be finite and >= 0, got {levels}")
        return torch.stack(
            [self._restore(planes, level) for planes, level in zip(image, levels, strict=True)]
        )

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return planes.clone()
        height, width = planes.shape[1:]
        size = self.config.patch_size
        below, right = max(0, size - height), max(0, size - width)
        noisy = F.pad(planes[None], (0, right, 0, below), mode="replicate")[0]
        opponent = opponent_rows(planes) if planes.shape[0] == 3 else torch.eye(1).to(planes)
        noisy = torch.einsum("dc,chw->dhw", opponent, noisy)
        basic = self._stage(noisy, None, sigma)
        final = self._stage(noisy, basic, sigma)
        return torch.einsum("dc,dhw->chw", opponent, final)[:, :height, :width]

    def _stage(self, noisy: Tensor, basic: Tensor | None, sigma: float) -> Tensor:
        """The first stage, or, given its basic estimate, the second, of planes `[C, H, W]`."""
        config, (channels, height, width) = self.config, noisy.shape
        size, stage = config.patch_size, 0 if basic is None else 1
        most, (constant, slope) = config.group_sizes[stage], config.distances[stage]
        farthest = channels * constant / 255**2 + slope * sigma**2
        transform = (bior15 if basic is None else dct)(size).to(noisy)
        guide = noisy[0] if basic is None else basic[0]
        window = torch.kaiser_window(size, periodic=False, beta=2.0, dtype=noisy.dtype, device=noisy.device)
        total = Aggregation((channels, height, width), torch.outer(window, window).flatten())
        rows = reference_positions(height, size, config.stride)
        for band in (rows[i : i + ROWS] for i in range(0, len(rows), ROWS)):
            positions, distances = block_matching(guide, size, config.stride, config.search_size, most, band)
            alike = (distances <= farthest).sum(1).clamp(min=1)
            filtered = []
            for count in (2**i for i in range(most.bit_length())):
                # The largest power of two of them.
                chosen = positions[(alike >= count) & (alike < 2 * count), :count]
                filtered += [
                    self._shrink(noisy, basic, group, transform, sigma)
                    for group in torch.split(chosen, GROUPS)
                ]
            where, patches, weights = zip(*filtered, strict=True)
            reach = config.search_size // 2
            top, bottom = max(0, band[0] - reach), min(height, band[-1] + size + reach)
            total.add(torch.cat(where), torch.cat(patches, 1), torch.cat(weights, 1), top, bottom)
        return total.mean()

    def _shrink(
        self, noisy: Tensor, basic: Tensor | None, positions: Tensor, transform: Tensor, sigma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
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


def opponent_rows(like: Tensor) -> Tensor:
    """Rows of luminance and two chrominances, orthonormal: noise stays as strong, and independent."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    return _unit_rows(rows).to(like)


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
