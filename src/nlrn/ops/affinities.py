"""Affinities of the non-local framework: how much pixel j counts for pixel i, from features of both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .patches import patches_around


class Affinity(ABC):
    """The weight of pixel j for pixel i: `Phi_ij = exp(l_ij)` with `l_ij = query_i . key_j`, features of the image.

    A subclass says what the features are; it may be trained through its tensors. One that is no exponential sets
    `exponential = False`: then `Phi_ij = l_ij` and, as such a sum may be 0, `delta_i` is the number of neighbours (Wang
    et al., Non-local Neural Networks, CVPR 2018). One whose `l_ij` is no inner product sets `inner_product = False`
    and overrides `logits`. `radius` is how many rows around a pixel its features depend on, `None` for all.

    Example:
        >>> import torch
        >>> from nlrn.ops.framework import Affinity, Window, nonlocal_filter
        >>> class Cosine(Affinity):
        ...     def features(self, image):
        ...         unit = torch.nn.functional.normalize(image, dim=1)
        ...         return 10 * unit, unit
        >>> nonlocal_filter(torch.rand(1, 3, 9, 9), Cosine(), neighbourhood=Window(5)).shape
        torch.Size([1, 3, 9, 9])
    """

    exponential: ClassVar[bool] = True
    inner_product: ClassVar[bool] = True

    @property
    def radius(self) -> int | None:
        """Rows above and below a pixel that its features depend on."""
        return 0

    @abstractmethod
    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `[B, D, H, W]` of an image `[B, C, H, W]`."""

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """`l_ij` of pairs `[n, K]`: queries `[D, n]` with keys `[D, n, K]`, or `[D, 1, K]` for keys that all share."""
        return query.T @ key[:, 0] if key.shape[1] == 1 else torch.einsum("dn,dnk->nk", query, key)


@dataclass(frozen=True)
class Gaussian(Affinity):
    """`Phi_ij = exp(-|x_i - x_j|^2 / h^2)`, the squared difference summed over channels.

    Args:
        h: in units of the image, a number or a tensor with one element that is trained.

    Source: Yaroslavsky, Digital Picture Processing, 1985; with a window the Yaroslavsky filter.
    """

    h: float | Tensor

    def __post_init__(self) -> None:
        _check_positive("h", self.h)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Differences stay the same around another origin, and lose fewer digits around the mean.
        key = image - image.detach().mean((2, 3), keepdim=True)
        scale = 1 / self.h**2
        bias = -scale * key.square().sum(1, keepdim=True)
        return torch.cat([2 * scale * key, torch.ones_like(bias)], 1), torch.cat([key, bias], 1)


@dataclass(frozen=True)
class PatchDistance(Affinity):
    """`Phi_ij = exp(-d_ij / h^2)`, `d_ij = sum_p w_p mean_c (x_{i+p} - x_{j+p})^2`: that of the non-local means.

    The weights of a patch `w_p = exp(-|p|^2 / 2 s^2)` sum to 1. Beyond the image border a patch sees the
    image mirrored.

    Args:
        h: in units of the image, a number or a tensor with one element that is trained.
        patch_size: odd side of a patch in pixels.
        patch_sigma: s in pixels; `None` weighs all pixels alike.

    Source: Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005, doi:10.1109/CVPR.2005.38.
    """

    h: float | Tensor
    patch_size: int = 7
    patch_sigma: float | None = None

    def __post_init__(self) -> None:
        _check_positive("h", self.h)
        check_odd("patch_size", self.patch_size)
        if self.patch_sigma is not None:
            _check_positive("patch_sigma", self.patch_sigma)

    @property
    def radius(self) -> int:
        """That of a patch."""
        return self.patch_size // 2

    def weights(self) -> Tensor:
        """`w_p`, float64 `[patch_size^2]`, row by row."""
        offset = torch.arange(self.patch_size, dtype=torch.float64) - self.patch_size // 2
        spread = math.inf if self.patch_sigma is None else self.patch_sigma
        line = torch.exp(-offset.square() / (2 * spread**2))
        weights = torch.outer(line, line).flatten()
        return weights / weights.sum()

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image - image.detach().mean((2, 3), keepdim=True)
        patches = patches_around(image, self.patch_size)
        scale = (self.weights() / image.shape[1]).sqrt().repeat(image.shape[1]).to(image)
        return Gaussian(self.h).features(patches * scale[:, None, None])


@dataclass(frozen=True)
class EmbeddedGaussian(Affinity):
    """`Phi_ij = exp(theta(x_i) . psi(x_j))` with linear theta and psi, not scaled: that of the NLRN.

    Args:
        theta: `[D, C]`.
        psi: `[D, C]`.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018, section 3.
    """

    theta: Tensor
    psi: Tensor

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return linear(self.theta, image), linear(self.psi, image)


@dataclass(frozen=True)
class SymmetricEmbeddedGaussian(Affinity):
    """`Phi_ij = exp(theta(x_i) . theta(x_j)) = Phi_ji`.

    Args:
        theta: `[D, C]`.

    Source: as `EmbeddedGaussian`, where it is compared with others.
    """

    theta: Tensor

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        embedded = linear(self.theta, image)
        return embedded, embedded


@dataclass(frozen=True)
class DotProduct(Affinity):
    """`Phi_ij = theta(x_i) . psi(x_j)`, `delta_i` the number of neighbours.

    Args:
        theta: `[D, C]`; `None` takes the pixels as they are.
        psi: likewise.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, section 3.2.
    """

    theta: Tensor | None = None
    psi: Tensor | None = None
    exponential: ClassVar[bool] = False

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        query = image if self.theta is None else linear(self.theta, image)
        return query, image if self.psi is None else linear(self.psi, image)


def linear(matrix: Tensor, image: Tensor) -> Tensor:
    """Every pixel's channels times a matrix `[D, C]`: `[B, C, H, W]` to `[B, D, H, W]`."""
    return torch.einsum("dc,bchw->bdhw", matrix.to(image), image)


def check_odd(name: str, size: int) -> None:
    """Raises `ValueError` unless a size is odd and positive."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{name} must be odd and positive, got {size}")


def _check_positive(name: str, number: float | Tensor) -> None:
    level = number.item() if isinstance(number, Tensor) else number
    if not level > 0:
        raise ValueError(f"{name} must be > 0, got {level}")
