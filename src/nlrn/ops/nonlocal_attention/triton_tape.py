"""The logits of a recurrence under autograd in the triton backend: one buffer for all steps, wound back by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from .state import AttentionState, Turn


@final
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


@final
class TapedLogits(AttentionState):
    """Logits on a tape. It can be used once, and one backward pass must go through all steps.

    Autograd does not see the logits. The token stands for them in its graph: a step returns one, takes that of the
    step before, and gets its gradient from the step after. The backward passes hold the tape, and the tape does not
    hold the token: nothing holds itself alive.
    """

    def __init__(self, tape: Tape, token: Tensor, steps: int = 1, turn: Turn | None = None) -> None:
        super().__init__("triton", steps, turn)
        self.tape, self.token = tape, token

    @property
    def logits(self) -> Tensor:
        """The buffer of the tape."""
        return self.tape.logits

    @property
    def history(self) -> None:
        return None

    @property
    def tensors(self) -> Sequence[Tensor]:
        return (self.token,)

    def consume(self) -> None:
        """Marks this state as used up.

        Raises:
            ValueError: it was used up, or a backward pass has wound its tape back.
        """
        if self.turn.steps == self.steps and self.tape.position != self.steps:
            raise ValueError(
                f"this attention state (step {self.steps}) was wound back by a backward pass; "
                "in the triton backend the steps after it must come before that"
            )
        self.turn.take(self.steps)

    def after_a_step(self, token: Tensor) -> TapedLogits:
        """The next state of the same recurrence."""
        return TapedLogits(self.tape, token, self.steps + 1, self.turn)
