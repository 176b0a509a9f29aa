"""A run from its first step to its weights: data, schedule, validation, logs, checkpoints, several processes."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ..evaluation.benchmark import provenance
from ..inference.precision import ieee_float32
from ..models.nlrn import NLRN
from ..models.weights_file import save_weights
from ..models.zoo import load_model
from ..ops.nonlocal_attention import autocast_inputs, choose_backend, refusals
from .checkpoint import Progress, load_checkpoint, read_header, save_checkpoint
from .clock import Due, Stopwatch
from .config import Phase, TrainingConfig
from .crops import Crops
from .graph import Steps
from .growth import adapt_weights
from .logs import CHECKPOINT, PICTURES, WEIGHTS, RunLog
from .processes import own_device, processes
from .schedule import Length, learning_rate_factor, phase_at
from .step import Trainer, TrainingError, step_generator
from .validation import validate

log = logging.getLogger(__name__)

SKIPPED_AT_MOST = 100
FUSED_AT_MOST = 8  # how often `torch.compile` compiles one function
VALIDATION_REST = 9  # times as long as a validation took there is none
STATISTICS_STEP = 1 << 40  # where the random numbers of the statistics begin


@dataclass
class Intervals:
    """The intervals of a run: log in steps, checkpoints and validation in seconds of training.

    A validation that takes long comes less often, so that no more than about a tenth of the time goes into it.
    """

    log_steps: int = 50
    checkpoint_seconds: float = 300.0
    validation_seconds: float = 300.0


@dataclass
class Run:
    """A run's data, folder, length, device and options, apart from its configuration.

    Args:
        data: folder of clean images.
        out: folder of checkpoint, log and weights.
        length: steps or minutes.
        device: the device to train on.
        init: name or file of the weights to start from.
        graph: capture the training step in a CUDA graph, on a GPU.
        fuse: compile additions, norms and ReLUs of the network into one kernel each, with `torch.compile`.
        intervals: those of log, checkpoints and validation.
        report: function that is called with each entry of the log.
    """

    data: Path
    out: Path
    length: Length
    device: torch.device
    init: str | None = None
    graph: bool = True
    fuse: bool = False
    intervals: Intervals = field(default_factory=Intervals)
    report: Callable[[dict[str, Any]], None] = lambda entry: None


def train(config: TrainingConfig, options: Run, resume: bool = False) -> Path:
    """Trains, and returns the file with the averaged weights.

    Args:
        config: the run's configuration; with `resume`, that of the checkpoint in `options.out`.
        options: data, length, device and so on.
        resume: go on from the checkpoint in `options.out`.

    Raises:
        ValueError: data, weights or a checkpoint that do not fit.
        TrainingError: too many steps in a row were not finite, or the norms cannot be fused.
        OSError: files that cannot be read or written.
    """
    options = dataclasses.replace(options, device=own_device(options.device))
    with processes(options.device) as (rank, ranks), ieee_float32():
        if any(phase.batch % ranks for phase in config.phases):
            raise ValueError(
                f"batches of {[p.batch for p in config.phases]} crops cannot be shared by {ranks} processes"
            )
        trainer = Trainer(config, options.device, rank, ranks)
        progress, init = Progress(), options.init
        about: dict[str, Any] = {}
        checkpoint = options.out / CHECKPOINT
        if resume:
            _, progress, about = read_header(checkpoint)
            init = about.get("init")
            load_checkpoint(checkpoint, trainer)
        elif options.init is not None:
            if options.out.resolve() in Path(options.init).resolve().parents:
                raise ValueError(
                    f"--init {options.init} lies in --out {options.out}, whose files a run replaces"
                )
            begun = load_model(options.init, device=options.device)
            if not isinstance(begun, NLRN):
                raise ValueError(f"a run starts from the weights of a network, and {options.init} has none")
            adapted = adapt_weights(begun.state_dict(), trainer.model.state_dict())
            trainer.model.load_state_dict(adapted)
            trainer.average.load_state_dict(adapted)
        if options.fuse:
            kinds = {(phase.crop, phase.batch, phase.frozen_norms) for phase in config.phases}
            if len(kinds) > FUSED_AT_MOST:
                raise ValueError(
                    f"norms are fused for {FUSED_AT_MOST} kinds of phases at most, got {len(kinds)}"
                )
            trainer.fuse_norms()
        crops, held = Crops.of_folder(
            options.data, config.model.channels, config.hold_out, options.device, config.luma
        )
        sides = [*(phase.crop for phase in config.phases), config.statistics_side]
        largest = max(sides) + 2 * config.margin
        if largest > crops.smallest:
            raise ValueError(
                f"crops of {largest} pixels need images as large; the smallest in {options.data} has {crops.smallest}"
            )
        if resume and about.get("files", crops.digest) != crops.digest:
            raise ValueError(
                f"the run was trained on {about.get('data')}, and {options.data} has other files; "
                "to go on with other images, start a new run with --init"
            )
        source = f"{crops.count} images of {options.data.resolve().name}"
        about = {"data": source, "files": crops.digest, "init": init}
        loop = _Loop(trainer, crops, held, options, progress, about)
        try:
            loop.run()
        except RuntimeError as error:
            if options.fuse and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                reason = str(error).splitlines()[0]
                raise TrainingError(f"torch.compile cannot fuse the norms here ({reason})") from error
            raise
        loop.finish()
        return options.out / WEIGHTS


class _Loop:
    def __init__(
        self,
        trainer: Trainer,
        crops: Crops,
        held: list[Path],
        options: Run,
        progress: Progress,
        about: dict[str, Any],
    ) -> None:
        self.trainer, self.crops, self.options, self.progress = trainer, crops, options, progress
        self.config, self.about = trainer.config, about
        self.first = trainer.rank == 0
        self.held = held if self.first else []
        self._losses: list[torch.Tensor] = []
        self._taken: list[torch.Tensor] = []
        self._pixels = 0
        # With several processes gradients cross the network, which has not been tried in a graph.
        self._captured = options.graph and options.device.type == "cuda" and trainer.ranks == 1
        self._log = RunLog(options.out, options.report) if self.first else None

    def run(self) -> None:
        """Takes all steps; a signal between two of them loses what was done since the last checkpoint."""
        options, progress, step = self.options, self.progress, self.progress.step
        watch = Stopwatch(progress.seconds)
        looked = progress.seconds
        checkpoints = Due(options.intervals.checkpoint_seconds, progress.seconds)
        validations = Due(options.intervals.validation_seconds, progress.seconds)
        # Several processes must agree on the time, and a GPU is behind its queue: both look at it in `_look` only.
        looks_always = options.device.type == "cpu" and self.trainer.ranks == 1
        phase: Phase | None = None
        take_step: Steps | None = None
        while (done := options.length.progress(step, progress.seconds)) < 1:
            begins = (now := phase_at(self.config.phases, done)) is not phase
            if begins:
                if take_step is not None:
                    take_step.close()
                take_step = self._begin(now, step, watch)
                phase = now
            factor = learning_rate_factor(step, done, self.config.warmup_steps, self.config.hold)
            rate = factor * self.config.learning_rate
            assert take_step is not None
            assert phase is not None
            loss, taken = take_step(step, rate)
            if begins:
                if self._log is not None:  # now that a step could be taken
                    self._log.open(anew=not progress.step)
                self._write({"step": step, "precision": self.trainer.precision, **self._backend(phase)})
            step += 1
            self._losses.append(loss)
            self._taken.append(taken)
            self._pixels += phase.batch * phase.crop**2
            last = options.length.progress(step, progress.seconds) >= 1
            if step % options.intervals.log_steps and not last:
                if looks_always:
                    progress.seconds = watch.seconds
                continue
            self._look(step, rate, watch.seconds - looked)
            progress.step, progress.seconds = step, self._agreed(watch.seconds)
            if self.first and checkpoints.at(progress.seconds):
                self.save()
            if self.first and validations.at(progress.seconds):
                with watch.pause():
                    self.validate()
                validations.interval = max(
                    options.intervals.validation_seconds, VALIDATION_REST * watch.last_pause
                )
            looked = watch.seconds
        if take_step is not None:
            take_step.close()
        progress.step = step
        if self._losses:  # of a run by the clock, which ended between two looks
            self._look(step, rate, watch.seconds - looked)

    def _begin(self, phase: Phase, step: int, watch: Stopwatch) -> Steps:
        """Begins a phase."""
        if self._captured and step:
            self.progress.step = step
            self.save()  # in case the new step cannot be captured
        if phase.frozen_norms:
            with watch.pause():
                self._freeze(step)
        return Steps(self.trainer, self.crops, phase, captured=self._captured)

    def _agreed(self, seconds: float) -> float:
        """The clock of the first process: all must end at the same step."""
        if self.trainer.ranks == 1:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64, device=self.options.device)
        dist.broadcast(value, 0)
        return value.item()

    def _look(self, step: int, rate: float, seconds: float) -> None:
        """Reads losses from the device, counts bad steps, and writes a line; `seconds` have passed since the last."""
        losses, taken = torch.stack(self._losses).tolist(), torch.stack(self._taken).tolist()
        for good in taken:
            self.progress.skipped_in_a_row = 0 if good else self.progress.skipped_in_a_row + 1
            self.progress.skipped += not good
        good_losses = [x for x, good in zip(losses, taken, strict=True) if good]
        self._losses.clear()
        self._taken.clear()
        entry = {
            "step": step,
            "progress": self.options.length.progress(step, self.progress.seconds),
            # As squared error in grey levels, weighted as in training.
            "loss": 255**2 * float(np.mean(good_losses)) if good_losses else math.nan,
            "learning_rate": rate,
            "megapixels_per_second": self._pixels / seconds / 1e6,
            "skipped": self.progress.skipped,
        }
        self._pixels = 0
        self._write(entry)
        if self.progress.skipped_in_a_row >= SKIPPED_AT_MOST:
            raise TrainingError(
                f"{self.progress.skipped_in_a_row} steps in a row had a gradient that is not finite; "
                f"the checkpoint in {self.options.out} stands"
            )

    def _write(self, entry: dict[str, Any]) -> None:
        """Writes a line of the log, in the first process."""
        if self._log is not None:
            self._log.write(entry)

    def save(self) -> None:
        """Writes the checkpoint."""
        about = provenance(self.options.device, f"{self.trainer.ranks} process(es)")
        save_checkpoint(self.options.out / CHECKPOINT, self.trainer, self.progress, about | self.about)

    def _backend(self, phase: Phase) -> dict[str, str]:
        """The backend of a phase's non-local operation and, if it is not the fastest of this device, the reason."""
        config, block, device = self.config.model, self.trainer.model.attention, self.options.device
        if config.affinity == "dot_product":
            return {"backend": "framework"}
        sizes = (config.positions(phase.crop),) * 2
        query, value = (
            torch.zeros(
                phase.batch // self.trainer.ranks, channels, *sizes, device=device, requires_grad=True
            )
            for channels in (config.embedding, config.width)
        )
        arguments = (query, query, value, config.window_size, None, block.max_memory)
        with self.trainer.autocast():
            if torch.is_autocast_enabled(device.type):
                arguments = (*autocast_inputs(*arguments), *arguments[3:])
        chosen, fastest = choose_backend(*arguments), "triton" if device.type == "cuda" else "native"
        reason = None if chosen == fastest else refusals(*arguments)[fastest]
        return {"backend": chosen, **({} if reason is None else {"refused": f"{fastest} {reason}"})}

    def validate(self) -> dict[str, float]:
        """Validates the averaged weights; an error is logged and does not end the run."""
        step = self.progress.step
        try:
            scores = validate(self.trainer, self.held, self.options.out / PICTURES / f"{step:08d}.png")
        except Exception as error:
            log.warning("the validation failed at step %d", step, exc_info=True)
            self._write({"step": step, "validation_failed": str(error)})
            return {}
        self._write({"step": step, "psnr": scores})
        self.about["validation"] = scores
        return scores

    def _freeze(self, step: int) -> None:
        """Freezes the norms, once in a run, with weights and statistics of the average.

        A run that begins with frozen norms keeps the statistics of the weights that it starts from, because weights
        that were trained with frozen norms fit no other statistics.
        """
        self._wait()
        if not self.progress.frozen_norms:
            if step or self.options.init is None:
                self._estimate()
                self.trainer.model.load_state_dict(self.trainer.average.state_dict())
            self.progress.frozen_norms = True
        self.trainer.freeze_norms()
        self._wait()

    def _wait(self) -> None:
        """Waits for the device, so that the clock includes its work."""
        if self.options.device.type == "cuda":
            torch.cuda.synchronize()

    def _estimate(self) -> None:
        """Estimates the statistics of the averaged weights."""
        batch, side = self.config.phases[-1].batch, self.config.statistics_side
        batches = (
            (self.crops.draw(batch, side + 2 * self.config.margin, generator), generator)
            for generator in (
                step_generator(self.config.seed, STATISTICS_STEP + i, self.options.device)
                for i in range(self.config.statistics_batches)
            )
        )
        self.trainer.estimate_statistics(batches)

    def finish(self) -> None:
        """Estimates statistics, validates, and writes the last checkpoint and the weights to use."""
        if not self.progress.frozen_norms:
            self._estimate()
        if self.first:
            self.save()
            self._write_weights({})  # before a validation that may fail
            self._write_weights(self.validate())
            self.save()
        if self._log is not None:
            self._log.close()
        if self.trainer.ranks > 1:
            dist.barrier()

    def _write_weights(self, scores: dict[str, float]) -> None:
        about = {
            "steps": str(self.progress.step),
            "minutes": f"{self.progress.seconds / 60:.1f}",
            "validation": json.dumps(scores),
        }
        save_weights(self.options.out / WEIGHTS, self.config.model, self.trainer.average.state_dict(), about)
