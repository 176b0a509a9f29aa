"""SSC: simultaneous sparse coding of groups of similar patches."""

from __future__ import annotations

import torch
from torch import Tensor

from .low_rank import LowRank, LowRankConfig


class SSC(LowRank):
    """Simultaneous sparse coding: `model(image, sigma) -> restored`.

    The patches of a group, the K rows of a matrix Y less their mean (`LowRank`), are coded over one dictionary and
    share its atoms: `Y = A D`, with a penalty on the norms of the columns of A, one for each atom:

        A = argmin |Y - A D|_F^2 / 2 + sum_i t_i |a_i|_2        a_i: the coefficients of atom i in all patches

    The dictionary D is that of the group, its principal components: then `|a_i| = s_i` is a singular value of Y, and
    the minimum has `a_i max(1 - t_i / s_i, 0)`. The thresholds follow from the variances v_i that an atom has in the
    group without the noise (bilateral variance estimation; K times):

        t_i = c sqrt(K) sigma^2 / sqrt(v_i)        v_i = max(s_i^2 / K - sigma^2, 0)

    The weight c is 0.35, and the noise level after the first pass has the factor 0.58 (`Passes`). Both were chosen with
    8 passes on crops of seven images of BSD400 at sigma 15 and 25.

    This is SAIST of the family of LSSC, whose dictionary is learned from many images.

    Cost: that of `WNNM`.

    Source: Dong, Shi, Li, Nonlocal Image Restoration with Bilateral Variance Estimation: A Low-Rank Approach, IEEE TIP
    2013, doi:10.1109/TIP.2012.2221729; Mairal, Bach, Ponce, Sapiro, Zisserman, Non-local Sparse Models for Image
    Restoration, ICCV 2009, doi:10.1109/ICCV.2009.5459452.

    Example:
        >>> import torch
        >>> from nlrn.models.classical.low_rank import LowRankConfig
        >>> from nlrn.models.classical.ssc import SSC
        >>> SSC(LowRankConfig(weight=0.35, iterations=2))(torch.rand(1, 1, 32, 40), sigma=0.1).shape
        torch.Size([1, 1, 32, 40])
    """

    name = "ssc"

    def __init__(self, config: LowRankConfig | None = None) -> None:
        self.config = config or LowRankConfig(weight=0.35, noise=0.58)

    def gain(self, squares: Tensor, count: int, level: Tensor) -> Tensor:
        tiny = torch.finfo(squares.dtype).tiny
        noise, energy = level.square(), squares / count
        # t_i / s_i; sigma 0 changes nothing.
        product = (energy - noise).clamp(min=0).sqrt() * energy.sqrt()
        ratio = self.config.weight * noise / product.clamp(min=tiny)
        return (1 - ratio).clamp(min=0)
