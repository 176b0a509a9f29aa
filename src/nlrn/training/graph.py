"""Training steps one after the other: launched kernel by kernel, or on a GPU captured once and replayed.

A step is some thousand small kernels, which take longer to launch from Python than to run. Captured in a CUDA graph
they are one launch. A replay reads and writes the same memory every time, so what changes from step to step (the
learning rate, random numbers, crops that cannot be made on the device) is put there before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .config import DEGRADATIONS, Phase
from .crops import Crops
from .step import Trainer, TrainingError, step_generator, step_seed

log = logging.getLogger(__name__)

WARM_UP = 3  # steps: kernels are compiled and chosen, the optimiser's state comes into being

Outcome = tuple[Tensor, Tensor]  # the loss, and whether the step was taken
Batch = tuple[Tensor, Tensor, Tensor | None]  # of `Trainer.batch`
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
        body: the computation; it must not read results of the device.
        generator: generator of all random numbers in it, seeded by the caller before each replay.

    Raises:
        TrainingError: something in `body` waits for the device.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            outcome = body()
    except RuntimeError as error:
        # The end of a capture that has failed fails too, and says only that.
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        raise TrainingError(
            f"the training step cannot be captured in a CUDA graph ({type(first).__name__}: {str(first).splitlines()[0]})"
        ) from first

    def replay() -> Outcome:
        graph.replay()
        return outcome

    return replay


class Steps:
    """The steps of a phase: crops, degradation, update.

    A degradation of the user's own may do what cannot be captured, and crops of images that do not fit on a GPU come
    from elsewhere. They are made before the step, in a thread that is a step ahead, and the step reads them from memory
    that stays.

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
        at_hand = trainer.config.degradation in DEGRADATIONS and not crops.apart
        self._worker = None if at_hand else ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Batch]] | None = None
        self._inputs: Batch | None = None
        self._replay: Body | None = None

    def __call__(self, step: int, learning_rate: float) -> Outcome:
        """One step; nothing waits for the device."""
        self._trainer.schedule(step, learning_rate)
        if self._worker is None:
            return self._take(step)
        self._fill(self._batch(step))
        outcome = self._take(step)
        # Not earlier: nothing may use the device while a step is captured.
        self._ahead = step + 1, self._worker.submit(self._own_batch, step + 1)
        return outcome

    def close(self) -> None:
        """Waits for the thread: what follows may not be disturbed by it."""
        if self._worker is not None:
            self._worker.shutdown()

    def _take(self, step: int) -> Outcome:
        seed = step_seed(self._trainer.config.seed, step)
        self._generator.manual_seed(seed)
        self._taken += 1
        if not self._captured:
            return self._body()
        if self._taken <= WARM_UP:
            return warm_up(self._body)
        if self._replay is None:
            self._trainer.model.zero_grad(set_to_none=True)  # gradients must lie in the graph's memory
            try:
                self._replay = capture(self._body, self._generator)
            except TrainingError as error:
                log.warning("%s; training goes on without, more slowly", error, exc_info=True)
                self._captured, self._generator = False, torch.Generator(self._trainer.device)
            self._generator.manual_seed(seed)
            if self._replay is None:
                return self._body()
        loss, finite = self._replay()
        return loss.clone(), finite.clone()

    def _draw(self, generator: torch.Generator) -> Batch:
        return self._trainer.batch(self._crops.draw(self._count, self._side, generator), generator)

    def _own_batch(self, step: int) -> Batch:
        return self._draw(step_generator(self._trainer.config.seed, step, self._trainer.device))

    def _batch(self, step: int) -> Batch:
        """The batch that the thread made for this step; it is made here if the thread made another step's or none."""
        if self._ahead is not None and self._ahead[0] == step:
            return self._ahead[1].result()
        return self._own_batch(step)

    def _fill(self, fresh: Batch) -> None:
        if self._inputs is None:
            self._inputs = fresh
            return
        for kept, new in zip(self._inputs, fresh, strict=True):
            if kept is not None and new is not None:
                kept.copy_(new)

    def _body(self) -> Outcome:
        if self._worker is None:
            return self._trainer.update(*self._draw(self._generator))
        assert self._inputs is not None
        return self._trainer.update(*self._inputs)
