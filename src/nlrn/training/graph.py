"""Training steps one after the other: launched kernel by kernel, or on a GPU captured once and replayed.

A step is some thousand small kernels, which take longer to launch from Python than to run. Captured in a CUDA graph
they are one launch. A replay reads and writes the same memory every time, so what changes from step to step (the
learning rate, random numbers, crops that cannot be made on the device) is put there before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..data.datasets import Crops
from .config import DEGRADATIONS, Phase
from .step import Trainer, TrainingError, step_seed

WARM_UP = 3  # steps: kernels are compiled and chosen, the optimiser's state comes into being

Outcome = tuple[Tensor, Tensor]  # the loss, and whether the step was taken
Body = Callable[[], Outcome]


def warm_up(body: Body) -> Outcome:
    """A step before the capture, on a stream of its own as the capture will be."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        outcome = body()
    current.wait_stream(side)
    return outcome


def capture(body: Body, generator: torch.Generator) -> Body:
    """The same computation as a CUDA graph; what it returns is overwritten by the next replay.

    Args:
        body: without a look at the device's results.
        generator: of all random numbers in it; seeded by the caller before each replay.

    Raises:
        TrainingError: something in `body` waits for the device.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            outcome = body()
    except RuntimeError as error:
        raise TrainingError(
            f"the training step cannot be captured in a CUDA graph ({str(error).splitlines()[0]}); "
            "--no-graph trains without"
        ) from error

    def replay() -> Outcome:
        graph.replay()
        return outcome

    return replay


class Steps:
    """The steps of a phase: crops, degradation, update.

    Args:
        trainer: the network and its optimiser.
        crops: the images.
        phase: size and number of crops.
        captured: whether to capture them; the first few are not.
    """

    def __init__(self, trainer: Trainer, crops: Crops, phase: Phase, *, captured: bool) -> None:
        self._trainer, self._crops = trainer, crops
        self._count, self._side = phase.batch, phase.crop + 2 * trainer.config.margin
        self._captured, self._taken = captured, 0
        self._generator = torch.Generator(trainer.device)
        # A function of the user's own may do what cannot be captured: it runs before, into memory that stays.
        self._whole = trainer.config.degradation in DEGRADATIONS
        self._inputs: tuple[Tensor, Tensor, Tensor | None] | None = None
        self._replay: Body | None = None

    def __call__(self, step: int, learning_rate: float) -> Outcome:
        """One step; nothing waits for the device."""
        self._trainer.schedule(step, learning_rate)
        seed = step_seed(self._trainer.config.seed, step)
        self._generator.manual_seed(seed)
        if not self._whole:
            self._fill(*self._draw())
        self._taken += 1
        if not self._captured:
            return self._body()
        if self._taken <= WARM_UP:
            return warm_up(self._body)
        if self._replay is None:
            self._trainer.optimizer.zero_grad(set_to_none=True)  # gradients must lie in the graph's memory
            self._replay = capture(self._body, self._generator)
            self._generator.manual_seed(seed)
        loss, finite = self._replay()
        return loss.clone(), finite.clone()

    def _draw(self) -> tuple[Tensor, Tensor, Tensor | None]:
        clean = self._crops.draw(self._count, self._side, self._generator)
        return self._trainer.batch(clean, self._generator)

    def _fill(self, *fresh: Tensor | None) -> None:
        if self._inputs is None:
            self._inputs = fresh  # type: ignore[assignment]
            return
        for kept, new in zip(self._inputs, fresh, strict=True):
            if kept is not None and new is not None:
                kept.copy_(new)

    def _body(self) -> Outcome:
        if self._whole:
            return self._trainer.update(*self._draw())
        assert self._inputs is not None
        return self._trainer.update(*self._inputs)
