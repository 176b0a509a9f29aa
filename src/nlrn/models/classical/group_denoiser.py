"""The common part of denoisers of groups of patches: colour, small images, half precision, passes over an image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.groups import Filtered, Grouping, filter_groups
from ...ops.patches import extract_patches
from .denoiser import Denoiser

# Groups that are shrunk at a time in a pass: what lies between is in memory at once.
GROUPS = 512

# Patches `[C, G, K, patch_size^2]` and noise levels `[C, G]` of groups, to restored patches and weights `[C, G]`.
Shrink = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class GroupDenoiser(Denoiser):
    """A denoiser that filters groups of similar patches, of grey and RGB images.

    RGB images go through an orthonormal luminance-chrominance transform; groups are found in the luminance. An image
    smaller than a patch is continued by its last row and column.
    """

    channels = (1, 3)

    @abstractmethod
    def _smallest(self, sigma: float) -> int:
        """The side of the smallest image that can be filtered at a noise level."""

    @abstractmethod
    def _filter(self, noisy: Tensor, sigma: float) -> Tensor:
        """Restored planes `[C, H, W]` of noisy ones, the luminance first."""

    def _restore(self, planes: Tensor, sigma: float) -> Tensor:
        if planes.dtype in (torch.float16, torch.bfloat16):
            planes = planes.float()
        height, width = planes.shape[1:]
        smallest = self._smallest(sigma)
        below, right = max(0, smallest - height), max(0, smallest - width)
        noisy = F.pad(planes[None], (0, right, 0, below), mode="replicate")[0]
        opponent = opponent_rows(planes) if planes.shape[0] == 3 else torch.eye(1).to(planes)
        restored = self._filter(torch.einsum("dc,chw->dhw", opponent, noisy), sigma)
        return torch.einsum("dc,dhw->chw", opponent, restored)[:, :height, :width]


@dataclass(frozen=True)
class Passes:
    """Passes over an image, each over the estimate of the one before.

    `y_t = x_{t-1} + feedback (y - x_{t-1})` goes into pass t, with y the noisy image and x_t the result of pass t. Its
    noise level is sigma in the first pass, and `noise sqrt |sigma^2 - mean (y - y_t)^2|` in the others, the mean taken
    over the reference patch of a group.

    Args:
        number: of passes.
        feedback: part of what was removed that goes back before a pass.
        noise: factor of the noise level after the first pass.

    Source: Osher, Burger, Goldfarb, Xu, Yin, An iterative regularization method for total variation-based image
    restoration, MMS 2005, doi:10.1137/040605412, as used by Dong, Shi, Li (see `SSC`) and Gu et al. (see `WNNM`).
    """

    number: int
    feedback: float
    noise: float

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"passes must be at least 1, got {self.number}")
        for name, part in (("feedback", self.feedback), ("noise", self.noise)):
            if not 0 <= part <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {part}")

    def run(self, noisy: Tensor, sigma: float, grouping: Grouping, shrink: Shrink) -> Tensor:
        """The planes `[C, H, W]` after all passes, in which `shrink` restores groups whose mean patch is taken off."""
        estimate = noisy
        for number in range(self.number):
            estimate = estimate + self.feedback * (noisy - estimate)
            estimate = self._once(noisy, estimate, sigma, grouping, shrink, first=number == 0)
        return estimate

    def _once(
        self,
        noisy: Tensor,
        estimate: Tensor,
        sigma: float,
        grouping: Grouping,
        shrink: Shrink,
        *,
        first: bool,
    ) -> Tensor:
        size, removed = grouping.patch_size, noisy - estimate

        def groups(positions: Tensor, distances: Tensor) -> Iterator[Filtered]:
            for group in torch.split(positions, GROUPS):
                patches = extract_patches(estimate, group, size)
                level = patches.new_full(patches.shape[:2], sigma)
                if not first:
                    own = extract_patches(removed, group[:, 0], size)
                    level = self.noise * (level.square() - own.square().mean(-1)).abs().sqrt()
                mean = patches.mean(2, keepdim=True)
                restored, weights = shrink(patches - mean, level)
                count = group.shape[1]
                yield group.flatten(), (restored + mean).flatten(1, 2), weights.repeat_interleave(count, 1)

        return filter_groups(estimate[0], noisy.shape[0], grouping, groups)


def opponent_rows(like: Tensor) -> Tensor:
    """Rows of luminance and two chrominances, orthonormal: noise stays as strong, and independent."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    unit: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return unit.to(like)
