"""The state that one propagated step hands to the next: the summed logits `S_t`, or what they follow from.

`S_t = [query_1 .. query_t] [key_1 .. key_t]^T`: the logits can be stored, `O(N q^2)` memory, or computed anew from the
queries and keys of all steps, `O(N t)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

ANY = "any"


@final
@dataclass(eq=False)
class Turn:
    """The number of steps that a recurrence has taken, shared by its states."""

    steps: int

    def take(self, step: int) -> None:
        """Marks the state after `step` steps as used up.

        Raises:
            ValueError: a state that is not the newest.
        """
        if self.steps != step:
            raise ValueError(
                f"this attention state (step {step}) was already consumed by a later step; "
                "without gradients, and in the triton backend, a state can be used once"
            )
        self.steps += 1


class AttentionState(ABC):
    """The summed logits of correlation propagation after some steps; opaque to callers.

    Without gradients a state is consumed by the step that takes it, which may update it in place; taking it
    twice raises `ValueError`. Under autograd it is a value and may be used any number of times, except in the triton
    backend: there too it can be used once, and one backward pass must go through all steps (see `TapedLogits`).
    Stored logits can be read only by the backend that made them; a history by any. The native backend under autograd
    keeps both.
    """

    def __init__(self, backend: str, steps: int, turn: Turn | None = None) -> None:
        self.backend = backend  # the one that reads it, or `ANY`
        self.steps = steps
        self.turn = turn or Turn(steps)

    @staticmethod
    def from_history(queries: tuple[Tensor, ...], keys: tuple[Tensor, ...]) -> History:
        """The state after `len(queries)` steps, given all their queries `[B, D, H, W]` and keys.

        Raises:
            ValueError: no queries, or another number of keys.
        """
        if not queries or len(queries) != len(keys):
            raise ValueError(
                f"a history needs as many keys as queries and at least one, got {len(queries)} and {len(keys)}"
            )
        return History(queries, keys)

    @property
    @abstractmethod
    def history(self) -> History | None:
        """The queries and keys of all steps, where the state has them."""

    @property
    @abstractmethod
    def tensors(self) -> Sequence[Tensor]:
        """The tensors through which gradients may flow."""

    def read_by(self, backend: str) -> AttentionState | None:
        """This state in a form that a backend reads; `None` where there is none."""
        return self if self.backend in (backend, ANY) else self.history

    def consume(self) -> None:
        """Marks this state as used up; raises `ValueError` if it already was."""
        self.turn.take(self.steps)


@final
class History(AttentionState):
    """Queries `[B, D, H, W]` and keys of all steps, from which any backend computes the logits anew."""

    def __init__(
        self, queries: tuple[Tensor, ...], keys: tuple[Tensor, ...], turn: Turn | None = None
    ) -> None:
        super().__init__(ANY, len(queries), turn)
        self.queries, self.keys = queries, keys

    @staticmethod
    def extended(state: AttentionState | None, query: Tensor, key: Tensor) -> History:
        """The history of a state that has one, with one more step.

        Raises:
            ValueError: a query or key of other shapes than those before.
        """
        if state is None:
            return History((query,), (key,))
        before = state.history
        assert before is not None
        check_shape(before.queries[-1].shape, query.shape)
        check_shape(before.keys[-1].shape, key.shape)
        return History((*before.queries, query), (*before.keys, key), before.turn)

    @property
    def history(self) -> History:
        return self

    @property
    def tensors(self) -> Sequence[Tensor]:
        return (*self.queries, *self.keys)


@final
class StoredLogits(AttentionState):
    """Logits in the layout of the backend that made them."""

    def __init__(self, logits: Tensor, backend: str, steps: int = 1, turn: Turn | None = None) -> None:
        super().__init__(backend, steps, turn)
        self.logits = logits

    @property
    def history(self) -> None:
        return None

    @property
    def tensors(self) -> Sequence[Tensor]:
        return (self.logits,)

    def after_a_step(self, logits: Tensor) -> StoredLogits:
        """The next state of the same recurrence."""
        return StoredLogits(logits, self.backend, self.steps + 1, self.turn)


def dense_logits(state: AttentionState, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The logits `[B, query y, x, key y, x]` for a step of dense attention, which without gradients uses them up.

    Raises:
        ValueError: a state of other shapes, or one that was used up.
    """
    assert isinstance(state, StoredLogits)
    check_shape(state.logits.shape, (value.shape[0], *query.shape[2:], *key.shape[2:]))
    if not needs_grad(query, key, value, state):
        state.consume()
    return state.logits


def check_shape(of_state: Sequence[int], of_call: Sequence[int]) -> None:
    """Raises `ValueError` if a state belongs to other shapes than those of a call."""
    if tuple(of_state) != tuple(of_call):
        raise ValueError(
            f"the attention state belongs to other shapes: it has {tuple(of_state)}, this call {tuple(of_call)}"
        )


def needs_grad(query: Tensor, key: Tensor, value: Tensor, state: AttentionState | None) -> bool:
    """True where gradients flow through a call."""
    tensors = [query, key, value, *(() if state is None else state.tensors)]
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
