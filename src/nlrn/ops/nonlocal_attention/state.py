"""The state that one propagated step hands to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class Tape:
    """One buffer of logits for all steps of a recurrence under autograd, wound back by their backward passes.

    It begins at step 0; each forward pass advances it to its own step. The backward pass of step t finds it at step
    t, adds to `gradient` and leaves it at step t-1: the query, key and normaliser of step t are then the `later` ones.
    Their products are still to be subtracted from the logits, which the next backward pass does: it reads and writes
    all logits anyway.
    """

    logits: Tensor
    position: int = 0
    gradient: Tensor | None = None
    scale: Tensor | None = None
    later: list[Tensor] = field(default_factory=list)

    def advance(self) -> None:
        """To the next step, whose forward pass is about to add its products."""
        self.position += 1

    def rewind(self, step: int, continued: bool) -> None:
        """To the step before `step`, whose backward pass is about to run.

        `continued` says that the step after it has run in the same backward pass: `gradient` is then of this pass too.

        Raises:
            RuntimeError: the tape is at another step, so that its logits are not those of `step`, or `gradient` is of
                another pass.
        """
        if self.position != step or bool(self.later) != continued:
            raise RuntimeError(
                f"the backward pass of attention step {step} needs the logits of that step and the gradient of the "
                f"steps after it, but they are those of step {self.position}"
                f"{' in another backward pass' if self.position == step else ''}: the triton backend keeps one buffer "
                "for all steps, so one backward pass must go through every step that was computed, and no second "
                "one can follow; backend='chunked' has no such limits"
            )
        self.position -= 1


@dataclass(frozen=True, eq=False)
class AttentionState:
    """The summed logits `S_t` of correlation propagation; opaque to callers.

    Held either as `logits` (in the layout of the backend that made them: fast, `O(N q^2)` memory) or as the
    history of queries and keys, from which they can be computed anew, because
    `S_t = [query_1 .. query_t] [key_1 .. key_t]^T` (`O(N t)` memory).

    Without gradients a state is consumed by the step that takes it, which may update it in place; taking it
    twice raises `ValueError`. Under autograd it is a value and may be used any number of times, except in the triton
    backend: there too it can be used once, and one backward pass must go through all steps (see `Tape`).
    Stored logits can be read only by the backend that made them; a history by any. The native backend under autograd
    keeps both.
    """

    queries: tuple[Tensor, ...] = ()
    keys: tuple[Tensor, ...] = ()
    logits: Tensor | None = None
    step: int = 1
    backend: str = "chunked"
    # What stands for the logits in autograd's graph, which does not see them: a step returns a token, takes that of the
    # step before, and gets its gradient from the step after.
    token: Tensor | None = None
    # Of the triton backend. It does not hold the token, since the backward passes hold it: nothing holds itself alive.
    tape: Tape | None = None
    # One number shared by all states of a recurrence: that of the newest state.
    newest: list[int] = field(default_factory=lambda: [1])

    @classmethod
    def from_history(cls, queries: tuple[Tensor, ...], keys: tuple[Tensor, ...]) -> AttentionState:
        """The state after `len(queries)` steps, given all their queries `[B, D, H, W]` and keys."""
        if not queries or len(queries) != len(keys):
            raise ValueError(
                f"a history needs as many keys as queries and at least one, got {len(queries)} and {len(keys)}"
            )
        return cls(queries=queries, keys=keys)

    @classmethod
    def extended(cls, state: AttentionState | None, query: Tensor, key: Tensor) -> AttentionState:
        """The history of `state` with one more step.

        Raises:
            ValueError: a query or key of other shapes than those before.
        """
        if state is None:
            return cls((query,), (key,))
        cls.check_shape(state.queries[-1].shape, query.shape)
        cls.check_shape(state.keys[-1].shape, key.shape)
        return state.successor(queries=(*state.queries, query), keys=(*state.keys, key))

    def logits_of_all_pairs(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The logits `[B, query y, x, key y, x]` for a step of dense attention, which without gradients uses them up.

        Raises:
            ValueError: a state of other shapes, or one that was used up.
        """
        assert self.logits is not None
        self.check_shape(self.logits.shape, (value.shape[0], *query.shape[2:], *key.shape[2:]))
        if not needs_grad(query, key, value, self):
            self.consume()
        return self.logits

    def consume(self) -> None:
        """Marks this state as used up; raises `ValueError` if it already was."""
        if self.newest[0] != self.step:
            raise ValueError(
                f"this attention state (step {self.step}) was already consumed by a later step; "
                "without gradients, and in the triton backend, a state can be used once"
            )
        if self.tape is not None and self.tape.position != self.step:
            raise ValueError(
                f"this attention state (step {self.step}) was wound back by a backward pass; "
                "in the triton backend the steps after it must come before that"
            )
        self.newest[0] += 1

    @staticmethod
    def check_shape(of_state: Sequence[int], of_call: Sequence[int]) -> None:
        """Raises `ValueError` if a state belongs to other shapes than those of a call."""
        if tuple(of_state) != tuple(of_call):
            raise ValueError(
                f"the attention state belongs to other shapes: it has {tuple(of_state)}, this call {tuple(of_call)}"
            )

    def successor(
        self,
        *,
        queries: tuple[Tensor, ...] = (),
        keys: tuple[Tensor, ...] = (),
        logits: Tensor | None = None,
        token: Tensor | None = None,
    ) -> AttentionState:
        """The next state of the same recurrence."""
        return AttentionState(
            queries, keys, logits, self.step + 1, self.backend, token, self.tape, self.newest
        )

    def as_history(self) -> AttentionState:
        """The same state for those that cannot read its logits, if it has a history."""
        if not self.queries:
            return self
        return AttentionState(self.queries, self.keys, step=self.step, newest=self.newest)


def needs_grad(query: Tensor, key: Tensor, value: Tensor, state: AttentionState | None) -> bool:
    """True where gradients flow through a call."""
    tensors = [query, key, value]
    if state is not None:
        tensors += [*state.queries, *state.keys]
        tensors += [x for x in (state.logits, state.token) if x is not None]
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
