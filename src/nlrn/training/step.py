"""One training step, and the averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..inference.precision import computes_bfloat16, tf32
from ..models.nlrn import NLRN, Pointwise
from ..ops.nonlocal_attention import DEFAULT_MAX_MEMORY
from ..ops.nonlocal_attention.memory import KEPT
from .augment import drawn, faded, recolored, toned
from .config import TrainingConfig, degradation
from .muon import Muon
from .schedule import ema_weight

# Squared errors of images in [0, 1] are small numbers; weighted like this every noise level counts about the same.
REFERENCE_SIGMA, SMALLEST_SIGMA = 25 / 255, 4 / 255


class TrainingError(RuntimeError):
    """A run that cannot go on; the last good checkpoint stands."""


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's random numbers: a resumed run, and every rank, draw the same."""
    return (seed * 1_000_003 + step) & 0x7FFF_FFFF_FFFF_FFFF


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of a step."""
    return torch.Generator(device).manual_seed(step_seed(seed, step))


def weighted_loss(
    outputs: list[Tensor],
    clean: Tensor,
    strength: Tensor | None,
    deep_supervision: float,
    counted: Tensor | None = None,
) -> Tensor:
    """Squared error of the last head plus `deep_supervision` times the mean of the others', weighted per image.

    The weight is 25 / strength (in grey levels, at least 4): without it the strongest noise dominates. Pixels where
    `counted`, `[B, 1, H, W]`, is 0 do not count; by default all count as 1.
    """
    weight: Tensor | float = 1.0
    if strength is not None:
        weight = REFERENCE_SIGMA / strength.clamp(min=SMALLEST_SIGMA).view(-1, 1, 1, 1)
    if counted is not None:
        weight = weight * counted
    losses = [((output.float() - clean).square() * weight).mean() for output in outputs]
    total = losses[-1]
    if len(losses) > 1:
        total = total + deep_supervision * torch.stack(losses[:-1]).mean()
    return total


class Trainer:
    """The network, its average, and the optimisers.

    Args:
        config: configuration of the run.
        device: the device to train on.
        rank, ranks: this process among those that share the batch.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, rank: int = 0, ranks: int = 1) -> None:
        self.config, self.device, self.rank, self.ranks = config, device, rank, ranks
        self.precision = config.precision
        if config.precision == "auto":
            self.precision = "bfloat16" if computes_bfloat16(device) else "float32"
        torch.manual_seed(config.seed)
        self.model = NLRN(config.model).to(device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        attention = self.model.attention
        keys = [attention.key] if attention.affinity is None else []
        for conv in (self.model.start_conv, *keys, self.model.conv_a):
            # A batch norm or the softmax takes these away again: their gradient is rounding noise.
            assert conv.bias is not None
            conv.bias.requires_grad_(False)
        if device.type == "cuda":
            # Two buffers of logits for all steps in the triton backend; where there is no Triton, dense attention,
            # which keeps logits and weights of every step: take it wherever all steps fit.
            free, matrices = torch.cuda.mem_get_info(device)[0], 2 * config.model.num_steps + 2
            self.model.attention.max_memory = max(DEFAULT_MAX_MEMORY, int(0.8 * free / matrices * KEPT))
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        ends = (self.model.first_conv.weight, self.model.last_conv.weight)
        large = [
            p
            for p in self.parameters.values()
            if config.optimizer == "muon" and p.ndim == 4 and all(p is not end for end in ends)
        ]
        others = [p for p in self.parameters.values() if all(p is not matrix for matrix in large)]
        # What changes from step to step lies on the device, so that a captured step reads it there.
        self._learning_rate, self._average_weight = (torch.tensor(0.0, device=device) for _ in range(2))
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                others,
                lr=self._learning_rate,
                betas=config.betas,
                weight_decay=config.weight_decay,
                fused=True,
                capturable=device.type == "cuda",
            )
        ]
        if large:
            dtype = getattr(torch, self.precision)
            self.optimizers.append(
                Muon(large, self._learning_rate, weight_decay=config.weight_decay, dtype=dtype)
            )
        self.degrade = degradation(config)
        self._buffers = [b for b in self.model.buffers() if b.is_floating_point()]

    def fuse_norms(self) -> None:
        """Compiles additions, norms and ReLUs, with their gradients, into one kernel each.

        Norms of a batch's statistics cost much in training; inference folds norms into the convolutions.
        """
        plain = Pointwise()
        # Whole graphs, so that nothing falls back in silence: a ninth size of crops is an error.
        compiled = (
            torch.compile(function, dynamic=False, fullgraph=True)
            for function in (plain.norm_relu, plain.add_norm, plain.add_norm_relu)
        )
        self.model.pointwise = Pointwise(*compiled)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the convolutions."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def batch(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """This rank's part of a global batch without its margins: clean, degraded, strength."""
        for change, share in (
            (recolored, self.config.recolored),
            (toned, self.config.toned),
            (faded, self.config.faded),
            (drawn, self.config.drawn),
        ):
            if share:
                clean = change(clean, share, generator)
        degraded, strength = self.degrade(clean, generator)
        margin = self.config.margin
        inside = slice(margin, clean.shape[2] - margin)
        part = slice(self.rank, None, self.ranks)
        return (
            clean[part, :, inside, inside],
            degraded[part, :, inside, inside].contiguous(memory_format=torch.channels_last),
            None if strength is None else strength[part],
        )

    def run(
        self, clean: Tensor, generator: torch.Generator, step: int, learning_rate: float
    ) -> tuple[Tensor, Tensor]:
        """Takes a step on a global batch of clean crops: `schedule`, `batch`, `update`."""
        self.schedule(step, learning_rate)
        return self.update(*self.batch(clean, generator))

    def schedule(self, step: int, learning_rate: float) -> None:
        """Writes what changes from step to step to the device, without waiting for it."""
        self._learning_rate.fill_(learning_rate)
        self._average_weight.fill_(ema_weight(step, self.config.ema))

    def update(
        self, target: Tensor, degraded: Tensor, strength: Tensor | None, counted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Takes a step on this rank's part of a batch; returns its loss, and whether the step was taken.

        A step whose gradient is not finite changes nothing: weights, optimiser, average and batch-norm statistics
        stay as they were. Nothing here waits for the device, so it can be captured in a CUDA graph.
        """
        before = self._flat_buffers()
        # TF32, where the GPU has it, is for the network alone: degradations and statistics are exact.
        with tf32():
            with self.autocast():
                outputs = self.model.all_heads(degraded, strength)
            loss = weighted_loss(outputs, target, strength, self.config.deep_supervision, counted)
            self.model.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if self.ranks > 1:
            self._average_gradients(gradients)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        finite = torch.isfinite(norm)
        for optimizer in self.optimizers:
            # They skip a step for which this is 1.
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            optimizer.step()
        with torch.no_grad():
            kept = torch.where(finite, self._flat_buffers(), before)
            torch._foreach_copy_(self._buffers, torch.split(kept, [b.numel() for b in self._buffers]))
            weight = finite * self._average_weight
            averages, newest = self._state(self.average), self._state(self.model)
            change = torch._foreach_sub(newest, averages)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(averages, change)
        return loss.detach(), finite

    def _flat_buffers(self) -> Tensor:
        """All batch-norm statistics in one piece: they are many, and small."""
        return torch.cat(self._buffers)

    @staticmethod
    def _state(model: NLRN) -> list[Tensor]:
        return [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]

    def _average_gradients(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def optimizer_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The optimiser's state of a parameter; empty before its first step."""
        states = (optimizer.state.get(parameter, {}) for optimizer in self.optimizers)
        return {key: value for state in states for key, value in state.items()}

    def load_optimizer_state(self, parameter: Tensor, state: dict[str, Tensor]) -> None:
        """The inverse of `optimizer_state`."""
        for optimizer in self.optimizers:
            if any(parameter is own for group in optimizer.param_groups for own in group["params"]):
                optimizer.state[parameter] = state

    def freeze_norms(self) -> None:
        """Makes the norms use their statistics from now on, which stay as they are."""
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def estimate_statistics(self, batches: Iterable[tuple[Tensor, torch.Generator]]) -> None:
        """Estimates batch-norm statistics of the averaged weights as the mean over batches that span the levels.

        They are computed in float32, as they are used: bfloat16 costs 0.1 dB of super-resolution.
        """
        norms = [m for m in self.average.modules() if isinstance(m, nn.BatchNorm2d)]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
        self.average.train()
        with torch.no_grad():
            for clean, generator in batches:
                degraded, strength = self.degrade(clean, generator)
                inside = slice(self.config.margin, clean.shape[2] - self.config.margin)
                degraded = degraded[:, :, inside, inside].contiguous(memory_format=torch.channels_last)
                self.average.all_heads(degraded, strength)
        self.average.eval()
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value
