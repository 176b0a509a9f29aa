"""The non-local module of the paper, for the recurrent network and for any other."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.framework import Affinity, WholeImage, Window, mean_of_neighbours
from ..ops.nonlocal_attention import DEFAULT_MAX_MEMORY, AttentionState, nonlocal_attention
from .learned_affinities import DEFAULT, AffinityName, LearnedAffinity


class NonLocalBlock(nn.Module):
    """The non-local operation as a residual block for any network: `x_i + sum_j softmax_j(S_ij) value(x_j)`.

    Query, key and value are 1x1 convolutions. The value projection starts at zero, so that a block inserted
    into a trained network changes nothing at first.

    Args:
        channels: channels of input and output.
        embedding: channels of queries and keys; by default half of `channels`.
        window_size: odd side of the window in pixels; `None` is the whole image.
        affinity: another weight of the pairs, `sum_j Phi_ij value(x_j) / delta_i`: a name of `LearnedAffinity`, or an
            affinity of your own, which sees the features. If it is a module too, its parameters are the block's.

    The attributes `max_memory` and `backend` are those of `nonlocal_attention`, and may be changed: the bytes that one
    call may allocate, and the backend that computes it, `None` for the fastest.

    Example:
        >>> import torch
        >>> from nlrn import NonLocalBlock
        >>> features = torch.randn(2, 32, 24, 24)
        >>> block = NonLocalBlock(32, window_size=9)
        >>> torch.equal(block(features), features)
        True
    """

    def __init__(
        self,
        channels: int,
        embedding: int | None = None,
        window_size: int | None = 45,
        affinity: AffinityName | Affinity = DEFAULT,
    ) -> None:
        super().__init__()
        embedding = max(1, channels // 2) if embedding is None else embedding
        self.window_size = window_size
        self.max_memory = DEFAULT_MAX_MEMORY
        self.backend: str | None = None
        self.affinity: Affinity | None = None
        if isinstance(affinity, Affinity):
            self.affinity = affinity
        elif affinity != DEFAULT:
            self.affinity = LearnedAffinity(affinity, channels, embedding)
        else:
            self.query = nn.Conv2d(channels, embedding, 1)
            self.key = nn.Conv2d(channels, embedding, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        for projection in self.projections:
            glorot(projection)
        for parameter in self.value.parameters():
            nn.init.zeros_(parameter)

    @property
    def projections(self) -> list[nn.Conv2d]:
        """The convolutions that make queries and keys, but for those of an affinity of a user's own."""
        if self.affinity is None:
            return [self.query, self.key]
        return self.affinity.projections if isinstance(self.affinity, LearnedAffinity) else []

    def forward(self, features: Tensor) -> Tensor:
        """`[B, channels, H, W]` in and out."""
        return self.propagate(features, keep_state=False)[0]

    def propagate(
        self, features: Tensor, state: AttentionState | None = None, *, keep_state: bool = True
    ) -> tuple[Tensor, AttentionState | None]:
        """One step of a recurrence: `state` is what the previous step returned (correlation propagation).

        An affinity that is not the exponential of an inner product has no state.
        """
        average, state = self.average(features, state, keep_state=keep_state)
        return features + average, state

    def average(
        self, features: Tensor, state: AttentionState | None = None, *, keep_state: bool = True
    ) -> tuple[Tensor, AttentionState | None]:
        """`propagate` without the features themselves: `sum_j softmax_j(S_ij) value(x_j)`."""
        value, affinity = self.value(features), self.affinity
        if affinity is None:
            query, key = self.query(features), self.key(features)
        else:
            query, key = affinity.features(features)
            if not (affinity.exponential and affinity.inner_product):
                around = WholeImage() if self.window_size is None else Window(self.window_size)
                memory = self.max_memory
                return mean_of_neighbours(query, key, value, affinity, around, max_memory=memory), None
        return nonlocal_attention(
            query,
            key,
            value,
            self.window_size,
            state,
            keep_state=keep_state,
            max_memory=self.max_memory,
            backend=self.backend,
        )


def glorot(conv: nn.Conv2d) -> None:
    """Glorot-uniform weights, zero bias."""
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
