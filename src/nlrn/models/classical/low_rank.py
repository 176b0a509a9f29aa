"""The common part of WNNM and SSC: groups of similar patches that become matrices with smaller singular values."""

from __future__ import annotations

import math
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.groups import Grouping
from ..contract import ModelInfo, Shape
from .group_denoiser import GROUPS, GroupDenoiser, Passes


@dataclass(frozen=True)
class LowRankConfig:
    """The parameters of the two methods.

    Those that are `None` follow from sigma. As in WNNM's original program, patches have 6, 7, 8 and 9 pixels a side and
    groups 70, 90, 120 and 140 patches for sigma up to 20, 40, 60 and above, in 8-bit grey levels. The others were
    chosen on crops of BSDS500's training and test images. `noise` is 0.5, 0.52, 0.56 and 0.58 at these levels; the
    first and the third were chosen there, the other two are read off them and were not measured.

    Args:
        weight: strength of the shrinkage, c of the two methods, without unit.
        patch_size: side of the patches in pixels.
        count: patches of a group.
        stride: distance between reference patches in pixels.
        search_size: odd side of the square of positions around a reference patch in which others are looked for.
        iterations: passes over the image.
        feedback: as in `Passes`.
        noise: likewise.
    """

    weight: float
    patch_size: int | None = None
    count: int | None = None
    stride: int = 4
    search_size: int = 49
    iterations: int = 8
    feedback: float = 0.1
    noise: float | None = None

    def __post_init__(self) -> None:
        for name in ("patch_size", "count", "stride", "search_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.search_size % 2 == 0:
            raise ValueError(f"search_size must be odd, got {self.search_size}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be > 0 and finite, got {self.weight}")
        self.passes(0.1)  # names parameters that cannot be

    def passes(self, sigma: float) -> Passes:
        """The passes over an image at a noise level in units of [0, 1]."""
        noise = (0.5, 0.52, 0.56, 0.58)[_kind(sigma)] if self.noise is None else self.noise
        return Passes(self.iterations, self.feedback, noise)

    def grouping(self, sigma: float) -> Grouping:
        """The groups at a noise level in units of [0, 1]."""
        kind = _kind(sigma)
        size = (6, 7, 8, 9)[kind] if self.patch_size is None else self.patch_size
        count = (70, 90, 120, 140)[kind] if self.count is None else self.count
        return Grouping(size, self.stride, self.search_size, count)


def _kind(sigma: float) -> int:
    # Not 20.000001 for what is 20 in float64.
    return sum(255 * sigma > level + 1e-6 for level in (20, 40, 60))


class LowRank(GroupDenoiser):
    """A denoiser that shrinks singular values of groups, in passes over the image.

    A group is a matrix Y whose K rows are patches that look alike, less their mean. With the singular values s_i and
    the right singular vectors V of Y it is replaced by `Y V diag(gain_i) V^T`; V and s_i^2 are the eigenvectors and
    eigenvalues of `Y^T Y`. Patches are put back with equal weights, and the result goes through the same again
    (`Passes`).
    """

    config: LowRankConfig

    @abstractmethod
    def gain(self, squares: Tensor, count: int, level: Tensor) -> Tensor:
        """The factors of singular values.

        Args:
            squares: `[..., P]`, the squared singular values of groups.
            count: K.
            level: `[..., 1]`, the noise level of each group.

        Returns:
            `[..., P]`, from 0 to 1.
        """

    @property
    def info(self) -> ModelInfo:
        """The method's declaration."""
        config = self.config
        halo = config.iterations * config.grouping(1).halo
        return ModelInfo(
            self.name, "denoise", cut="tiles", halo=halo, grid=config.stride, memory=self._memory
        )

    def _memory(self, shape: Shape) -> int:
        """An upper estimate of the bytes of a call in float32 at the largest patches, the result included."""
        batch, channels, height, width = shape
        grouping = self.config.grouping(1)
        # Images: the input in two spaces, two estimates, what was removed, sums and weights, the results of the batch.
        images = (10 * channels + batch * channels) * height * width
        pixels = grouping.patch_size**2
        shrinking = 5 * GROUPS * channels * pixels * (grouping.count + pixels)
        return 4 * (images + grouping.elements(channels, width) + shrinking)

    def _smallest(self, sigma: float) -> int:
        return self.config.grouping(sigma).patch_size

    def _filter(self, noisy: Tensor, sigma: float) -> Tensor:
        grouping = self.config.grouping(sigma).within(*noisy.shape[1:])
        return self.config.passes(sigma).run(noisy, sigma, grouping, self.shrink)

    def shrink(self, groups: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Groups `[..., K, P]` at noise levels `[...]` with smaller singular values, and their weights `[...]`."""
        count, pixels = groups.shape[-2:]
        rows = groups if count >= pixels else groups.mT
        squares, vectors = eigh(rows.mT @ rows)
        gain = self.gain(squares.clamp(min=0), count, level[..., None])
        low = rows @ ((vectors * gain[..., None, :]) @ vectors.mT)
        return low if count >= pixels else low.mT, torch.ones_like(level)


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[..., P]` and eigenvectors `[..., P, P]` of symmetric matrices, on all of torch's threads.

    On the CPU PyTorch decomposes one matrix after another, and threads do not speed up small ones.
    """
    parts = min(torch.get_num_threads(), math.prod(matrices.shape[:-2]))
    if matrices.device.type != "cpu" or parts < 2:
        values, vectors = torch.linalg.eigh(matrices)
        return values, vectors
    with ThreadPoolExecutor(parts) as pool:
        found = list(pool.map(torch.linalg.eigh, matrices.flatten(0, -3).tensor_split(parts)))
    values, vectors = (torch.cat(part) for part in zip(*found, strict=True))
    return values.view(matrices.shape[:-1]), vectors.view(matrices.shape)
