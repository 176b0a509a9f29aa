"""Embeddings of the non-local framework: what is averaged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .affinities import check_odd, linear
from .patches import average_patches, patches_around


class Embedding(ABC):
    """The values that are averaged, one for each pixel."""

    @property
    def radius(self) -> int:
        """Rows above and below a pixel that its value depends on."""
        return 0

    @abstractmethod
    def values(self, image: Tensor) -> Tensor:
        """`[B, V, H, W]` of an image `[B, C, H, W]`."""


@dataclass(frozen=True)
class Identity(Embedding):
    """`G_j = x_j`."""

    def values(self, image: Tensor) -> Tensor:
        return image


@dataclass(frozen=True)
class Linear(Embedding):
    """`G_j = g(x_j)` with a linear g.

    Args:
        matrix: `[V, C]`.
    """

    matrix: Tensor

    def values(self, image: Tensor) -> Tensor:
        return linear(self.matrix, image)


@dataclass(frozen=True)
class Patch(Embedding):
    """`G_j` is the patch around j: every pixel then gets an estimate from each patch that covers it.

    Beyond the image border a patch sees the image mirrored.

    Args:
        patch_size: odd side of a patch in pixels.

    Source: Buades, Coll, Morel, Non-Local Means Denoising, IPOL 2011, doi:10.5201/ipol.2011.bcm_nlm (patchwise).
    """

    patch_size: int

    def __post_init__(self) -> None:
        check_odd("patch_size", self.patch_size)

    @property
    def radius(self) -> int:
        """That of a patch."""
        return self.patch_size // 2

    def values(self, image: Tensor) -> Tensor:
        return patches_around(image, self.patch_size)

    def average(self, patches: Tensor) -> Tensor:
        """Every pixel `[B, C, H, W]` as the mean of the patches `[B, C patch_size^2, H, W]` that cover it."""
        return average_patches(patches, self.patch_size)
