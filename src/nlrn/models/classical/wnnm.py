"""WNNM: weighted nuclear norm minimization of groups of similar patches."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.groups import Grouping
from ..contract import ModelInfo, Shape
from .group_denoiser import GROUPS, GroupDenoiser, Passes


@dataclass(frozen=True)
class WNNMConfig:
    """The parameters of the method.

    Those that are `None` follow from sigma. As in the authors' program, patches have 6, 7, 8 and 9 pixels a side and
    groups 70, 90, 120 and 140 patches for sigma up to 20, 40, 60 and above, in 8-bit grey levels. The others were
    chosen on crops of BSDS500's training and test images: `noise` is 0.5, 0.52, 0.56 and 0.58 at these levels, and 8
    passes with a weight of 3.4 do what 10 and more do with the paper's 2 sqrt(2).

    Args:
        patch_size: side of the patches in pixels.
        count: patches of a group.
        stride: distance between reference patches in pixels.
        search_size: odd side of the square of positions around a reference patch in which others are looked for.
        weight: c, without unit.
        iterations: passes over the image.
        feedback: as in `Passes`.
        noise: likewise.
    """

    patch_size: int | None = None
    count: int | None = None
    stride: int = 4
    search_size: int = 49
    weight: float = 3.4
    iterations: int = 8
    feedback: float = 0.1
    noise: float | None = None

    def __post_init__(self) -> None:
        for name in ("patch_size", "count", "stride", "search_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
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


class WNNM(GroupDenoiser):
    """Weighted nuclear norm minimization: `model(image, sigma) -> restored`.

    A group is a matrix Y whose K rows are patches that look alike, less their mean. It is replaced by

        X = argmin |Y - X|_F^2 / 2 + sum_i w_i s_i(X)        w_i = c sqrt(K) sigma^2 / s_i(X)

    where s_i are singular values: large ones, which hold the image, are shrunk less than small ones, which hold noise.
    With these weights X has the singular vectors of Y and, with s_i those of Y, the singular values

        (s_i + sqrt(s_i^2 - 4 c sqrt(K) sigma^2)) / 2, and 0 where the root does not exist.

    They come from the eigenvectors V of `Y^T Y`: `X = Y V diag(gain) V^T`. Patches are put back with equal weights, and
    the result goes through the same again (`Passes`).

    Colour, images smaller than a patch: `GroupDenoiser`.

    Cost: `iterations / stride^2` eigen-decompositions of `patch_size^2 x patch_size^2` matrices for each pixel.

    Source: Gu, Zhang, Zuo, Feng, Weighted Nuclear Norm Minimization with Application to Image Denoising, CVPR 2014,
    doi:10.1109/CVPR.2014.366; Gu et al., Weighted Nuclear Norm Minimization and Its Applications to Low Level Vision,
    IJCV 2017, doi:10.1007/s11263-016-0930-5.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.wnnm import WNNM, WNNMConfig
        >>> WNNM(WNNMConfig(iterations=2))(torch.rand(1, 1, 32, 40), sigma=0.1).shape
        torch.Size([1, 1, 32, 40])
    """

    name = "wnnm"

    def __init__(self, config: WNNMConfig | None = None) -> None:
        self.config = config or WNNMConfig()

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
        config = self.config
        grouping = config.grouping(sigma).within(*noisy.shape[1:])
        scale = config.weight * math.sqrt(grouping.count)

        def shrink(patches: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
            return shrink_singular_values(patches, scale * level.square()), torch.ones_like(level)

        return config.passes(sigma).run(noisy, sigma, grouping, shrink)


def shrink_singular_values(matrices: Tensor, strength: Tensor) -> Tensor:
    """The matrices of the same singular vectors and singular values `(s + sqrt(s^2 - 4 strength)) / 2`, else 0.

    Args:
        matrices: `[..., K, P]`.
        strength: `[...]`, C of the weights C / s.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.wnnm import shrink_singular_values
        >>> shrink_singular_values(torch.diag(torch.tensor([5.0, 3.0])), torch.tensor(4.0)).diag()
        tensor([4., 0.])
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    rows = matrices.mT if wide else matrices
    squares, vectors = eigh(rows.mT @ rows)
    ratio = 4 * strength[..., None] / squares.clamp(min=torch.finfo(squares.dtype).tiny)
    gain = torch.where(ratio < 1, (1 + (1 - ratio).clamp(min=0).sqrt()) / 2, 0)
    low = rows @ ((vectors * gain[..., None, :]) @ vectors.mT)
    return low.mT if wide else low


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
