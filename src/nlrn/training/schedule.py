"""The schedule of a run: learning rate, size of crops, decay of the average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .config import Phase

LAST_FACTOR = 0.002


@dataclass(frozen=True)
class Length:
    """The length of a run in steps or in minutes of training; exactly one is given.

    Raises:
        ValueError: none or both, or not positive and finite.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            got = "neither" if self.steps is None else "both"
            raise ValueError(f"the length of a run is in steps or in minutes; got {got}")
        given = self.minutes if self.steps is None else self.steps
        assert given is not None
        if not 0 < given < math.inf:
            raise ValueError(f"the length of a run must be positive and finite, got {given:g}")

    def progress(self, step: int, seconds: float) -> float:
        """The share of the run that is done, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))


def learning_rate_factor(step: int, progress: float, warmup_steps: int, hold: float) -> float:
    """A linear warm-up, a constant part, and a cosine to nearly nothing."""
    factor = min(1.0, (step + 1) / max(1, warmup_steps))
    if progress <= hold:
        return factor
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - hold) / (1 - hold)))
    return factor * (LAST_FACTOR + (1 - LAST_FACTOR) * cosine)


def phase_at(phases: Sequence[Phase], progress: float) -> Phase:
    """The phase in which a run is."""
    end = 0.0
    for phase in phases:
        end += phase.share
        if progress < end:
            return phase
    return phases[-1]


def ema_weight(step: int, decay: float) -> float:
    """The share of the newest weights in the average; larger in the first steps."""
    return 1 - min(decay, (step + 1) / (step + 10))
