"""Affinities with learned embeddings, by name: those that the paper compares, for `NonLocalBlock` and `NLRNConfig`."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from ..ops.framework import Affinity, Gaussian, PatchDistance

AffinityName = Literal[
    "embedded_gaussian", "symmetric_embedded_gaussian", "gaussian", "patch_distance", "dot_product"
]
AFFINITIES: tuple[AffinityName, ...] = get_args(AffinityName)
# The paper's, whose logits are those of `nonlocal_attention`.
DEFAULT: AffinityName = "embedded_gaussian"


class LearnedAffinity(nn.Module, Affinity):
    """An affinity of linear embeddings of the features, 1x1 convolutions that are trained.

    | name | Phi_ij |
    |---|---|
    | `symmetric_embedded_gaussian` | `exp(theta(x_i) . theta(x_j))` |
    | `gaussian` | `exp(-|theta(x_i) - theta(x_j)|^2)` |
    | `patch_distance` | `exp(-d_ij)`, d_ij that of `PatchDistance` between 3x3 patches of theta(x) |
    | `dot_product` | `theta(x_i) . psi(x_j)`, delta_i the number of neighbours |

    Bandwidths h are part of theta.

    Args:
        name: one of these.
        channels: of the features.
        embedding: of theta and psi.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018, section 3; see
    `nlrn.ops.framework` for each.
    """

    def __init__(self, name: AffinityName, channels: int, embedding: int) -> None:
        super().__init__()
        check_affinity(name)
        self.name = name
        # Differences do not see a bias.
        self.theta = nn.Conv2d(channels, embedding, 1, bias=name not in ("gaussian", "patch_distance"))
        self.psi = nn.Conv2d(channels, embedding, 1) if name == "dot_product" else None
        self.exponential = name != "dot_product"  # type: ignore[misc]

    @property
    def projections(self) -> list[nn.Conv2d]:
        """The convolutions."""
        return [self.theta] if self.psi is None else [self.theta, self.psi]

    @property
    def radius(self) -> int:
        """Rows above and below a pixel that its embedding depends on."""
        return 1 if self.name == "patch_distance" else 0

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.theta(image)
        if self.name == "gaussian":
            return Gaussian(1.0).features(embedded)
        if self.name == "patch_distance":
            return PatchDistance(1.0, patch_size=3).features(embedded)
        return embedded, embedded if self.psi is None else self.psi(image)


def check_affinity(name: str) -> None:
    """Raises `ValueError` unless a network may have an affinity of this name."""
    if name not in AFFINITIES:
        raise ValueError(f"affinity must be one of {', '.join(AFFINITIES)}, got {name!r}")
