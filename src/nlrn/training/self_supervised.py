"""Weights that learn from noisy images alone.

Half of the crops of a step are of the images y themselves, and half of what the network made of them at the start, x:

    y ── + a s n ── network at the level s sqrt(1 + a^2) ── compared with y - s n / a      n ~ N(0, 1)
    x ── + s n ──── network at the level s ──────────────── compared with x

In the first line the noise of the input and that of the target have nothing in common, so that the network learns what
it would learn from clean targets (Recorrupted-to-Recorrupted). The second line learns what such images look like; its
targets are not quite right, but they have no noise, and a few steps go far. With repeated frames of one scene the
target of a frame is another frame, whose noise is of its own (Noise2Noise).

A share of the image, in blocks, is kept from the loss. There the squared error to the clean image, which nobody has,
is estimated without bias by Stein's formula (SURE), and of repeated frames by the other frame:

    mean (f(y) - y)^2 - s^2 + 2 s^2 div f(y)        div f(y) = n . (f(y + e n) - f(y)) / e

A run ends early where they get worse. The adapted weights are the result if they are better beyond chance over all
pixels: those held out are few, and the noise of their estimate is often larger than a gain.

Source: Pang, Zheng, Quan and Ji, Recorrupted-to-Recorrupted, doi:10.1109/CVPR46437.2021.00208; Lehtinen et al.,
Noise2Noise, ICML 2018; Ramani, Blu and Unser, Monte-Carlo SURE, doi:10.1109/TIP.2008.2001404.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..inference import Progress, no_progress, restore
from ..models.nlrn import NLRN
from ..models.weights_file import save_weights
from .config import Phase, TrainingConfig
from .crops import Crops
from .noisy import Noisy
from .parts import BLOCK, Part, parts_of, with_targets
from .schedule import Length, learning_rate_factor
from .step import Trainer, TrainingError, step_generator

# Noise added to the input, in noise levels.
RECORRUPTION = 0.5
CROP, BATCH, LEARNING_RATE = 64, 4, 3e-4
# The error is estimated so many times in a run, on as many parts at most.
LOOKS, LOOKED_AT = 4, 6
# The probe of the divergence in noise levels.
PROBE = 0.1
# Better by as many standard errors over all pixels is beyond chance. Of pixels that were learned from the estimate
# flatters, by up to two standard errors on single pictures of 160x160.
CERTAIN = 3.0
# A run ends where held-out pixels are worse by so many standard errors than at the start.
WORSE = 1.0
SKIPPED_AT_MOST = 20


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The result of adapting a network to noisy images.

    Args:
        model: the adapted network, or the one it started from if that is no worse.
        improved: whether it is adapted.
        gain: how much higher its PSNR is, in dB, as estimated without a clean image; of a sensor's noise, that of
            values after the Anscombe transform. It flatters where images are few, and is NaN where they do not tell;
            0 where the network is not adapted.
        uncertainty: standard error of the gain, in dB.
        steps: steps that were taken.
        seconds: their time.
        cautions: about the noise, in full sentences.
        about: notes for the weight file.
    """

    model: NLRN
    improved: bool
    gain: float
    uncertainty: float
    steps: int
    seconds: float
    cautions: tuple[str, ...] = ()
    about: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The result in a sentence."""
        if self.improved and math.isnan(self.gain):
            return "adapted: better than before; these images are too few to tell by how much"
        if self.improved:
            higher = f"PSNR {self.gain:.1f} +- {self.uncertainty:.1f} dB higher"
            return (
                f"adapted: {higher} by an estimate without a clean image, which flatters where images are few"
            )
        return "not adapted: no better than the weights it started from, which are the result"

    def save(self, path: str | Path) -> Path:
        """Writes the weights as a file that `model=` and `--model` take, replaced if it exists.

        Raises:
            OSError: the file cannot be written.
        """
        save_weights(path, self.model.config, self.model.state_dict(), self.about)
        return Path(path)


def adapt_to(
    images: Sequence[Noisy],
    released: NLRN,
    length: Length,
    *,
    pairs: bool = False,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.perf_counter,
) -> Adaptation:
    """Adapts a network to noisy images.

    Args:
        images: of the channels of the network.
        released: the network to start from, with a noise channel; it stays as it is.
        length: steps, or minutes.
        pairs: whether images are repeated frames, each the target of the one before or after it.
        seed: seed of crops and noise.
        device: the device to train on, by default the CPU.
        progress: called with the fraction done.
        clock: seconds that count.

    Raises:
        ValueError: images that are too small, or a frame without a second one.
        TrainingError: too many steps in a row were not finite.
    """
    with torch.random.fork_rng([]):
        run = _Run(images, released, pairs, seed, device or torch.device("cpu"))
        return run.adapted(length, progress, clock)


def recorrupted(image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Two images of one noisy image, the noises of which are not correlated if `noise` is like that of the image.

    Args:
        image: `[B, C, H, W]`.
        noise: of the same shape.

    Returns:
        The input of a network, at `sqrt(1 + RECORRUPTION^2)` times the noise level, and its target.
    """
    return image + RECORRUPTION * noise, image - noise / RECORRUPTION


@dataclass(frozen=True)
class _Change:
    """The change of an estimated error, with its standard errors: over held-out pixels, and over all."""

    held: float
    held_error: float
    all: float
    all_error: float


def _mean(blocks: np.ndarray) -> tuple[float, float]:
    """The mean of blocks and its standard error."""
    return float(blocks.mean()), float(blocks.std(ddof=1) / math.sqrt(len(blocks)))


class _Run:
    def __init__(
        self, images: Sequence[Noisy], released: NLRN, pairs: bool, seed: int, device: torch.device
    ) -> None:
        self.seed, self.device, self.pairs = seed, device, pairs
        generator = torch.Generator().manual_seed(seed)
        parts = parts_of(with_targets(images, pairs), generator)
        side = min(min(one.image.shape[1:]) for one in parts)
        if side < 2 * BLOCK:
            raise ValueError(f"an image must have at least {2 * BLOCK} pixels a side, got {side}")
        stride = released.config.stride
        self.crop = min(CROP, side // stride * stride)
        config = TrainingConfig(
            model=released.config,
            phases=(Phase(1.0, self.crop, BATCH, frozen_norms=True),),
            learning_rate=LEARNING_RATE,
            weight_decay=0.0,
            warmup_steps=10,
            hold=0.4,
            ema=0.98,
            seed=seed,
        )
        self.trainer = Trainer(config, device)
        for model in (self.trainer.model, self.trainer.average):
            model.load_state_dict(released.state_dict())
        self.trainer.freeze_norms()
        self.released = copy.deepcopy(released).to(device).eval()
        examples = []
        for part in parts:
            restored = self._restored(self.released, part, part.image)
            whole = part.without_ends(restored)
            examples.append(whole if pairs else replace(whole, target=restored))
        self.looked_at = [one for one in examples if one.held.any()][:LOOKED_AT]
        if sum(len(one.blocks(one.image[0], one.held)) for one in self.looked_at) < 2:
            raise ValueError("too little of the images is neither hidden nor cut off at black or white")
        self.crops = Crops([one.planes() for one in examples], device)
        self.before = [self._errors(self.released, one) for one in self.looked_at]

    def adapted(self, length: Length, progress: Progress, clock: Callable[[], float]) -> Adaptation:
        """Takes all steps, and compares the weights along the way."""
        began, step, skipped, looks = clock(), 0, 0, 0
        change, state = _Change(0.0, 0.0, 0.0, 0.0), self.released.state_dict()
        while (done := length.progress(step, clock() - began)) < 1:
            config = self.trainer.config
            factor = learning_rate_factor(step, done, config.warmup_steps, config.hold)
            _, taken = self._step(step, factor * config.learning_rate)
            skipped = 0 if taken else skipped + 1
            if skipped >= SKIPPED_AT_MOST:
                raise TrainingError(f"{skipped} steps in a row had a gradient that is not finite")
            step += 1
            done = length.progress(step, clock() - began)
            progress(done)
            if done * LOOKS >= looks + 1:
                looks = int(done * LOOKS)
                now = self._change()
                if not now.held <= WORSE * now.held_error:  # or NaN
                    break
                change, state = now, copy.deepcopy(self.trainer.average.state_dict())
        progress(1.0)
        model = copy.deepcopy(self.released).cpu()
        if not change.all < -CERTAIN * change.all_error:
            return Adaptation(model, False, 0.0, 0.0, step, clock() - began)
        model.load_state_dict(state)
        blocks = [
            part.blocks(error, part.held | part.learned)
            for part, error in zip(self.looked_at, self.before, strict=True)
        ]
        before = float(np.concatenate(blocks).mean())
        after, gain, uncertainty = before + change.all, math.nan, math.nan
        if after > change.all_error:  # else the noise of the estimate hides how little error is left
            gain, uncertainty = 10 * math.log10(before / after), 10 / math.log(10) * change.all_error / after
        return Adaptation(model, True, gain, uncertainty, step, clock() - began)

    def _step(self, step: int, learning_rate: float) -> tuple[Tensor, Tensor]:
        generator = step_generator(self.seed, step, self.device)
        channels = self.released.config.channels
        crops = self.crops.draw(BATCH, self.crop, generator)
        image, target, learned, visible, level = torch.split(crops, [channels, channels, 1, 1, 1], 1)
        if not self.pairs:
            noise = level * torch.randn(image.shape, generator=generator, device=self.device)
            itself = torch.arange(BATCH, device=self.device).view(-1, 1, 1, 1) % 2 == 0
            own = recorrupted(image, noise)
            given, target = (
                torch.where(itself, *two) for two in zip(own, (target + noise, target), strict=True)
            )
            level = torch.where(itself, level * math.sqrt(1 + RECORRUPTION**2), level)
            image, learned = given, torch.where(itself, learned, visible)
        self.trainer.schedule(step, learning_rate)
        return self.trainer.update(
            target, image.contiguous(memory_format=torch.channels_last), level[:, 0, 0, 0], learned
        )

    def _change(self) -> _Change:
        """The change of the estimated error since the start."""
        held, every = [], []
        for part, before in zip(self.looked_at, self.before, strict=True):
            change = self._errors(self.trainer.average, part) - before
            held.append(part.blocks(change, part.held))
            every.append(part.blocks(change, part.held | part.learned))
        return _Change(*_mean(np.concatenate(held)), *_mean(np.concatenate(every)))

    def _restored(self, model: NLRN, part: Part, image: Tensor) -> Tensor:
        low, high = self.released.config.sigma_range or (0.0, 1.0)
        known = min(max(part.sigma, low), high)
        return restore(model, image[None].to(self.device), known)[0].cpu()

    def _errors(self, model: NLRN, part: Part) -> Tensor:
        """The estimate of the squared error to the clean image, `[H, W]`; right in the mean over many pixels."""
        image, sigma = part.image, part.sigma
        restored = self._restored(model, part, image)
        if self.pairs:
            error = (restored - part.target).square() - sigma**2
        else:
            generator = torch.Generator().manual_seed(self.seed)
            noise = torch.randn(image.shape, generator=generator)
            probe = PROBE * sigma
            divergence = noise * (self._restored(model, part, image + probe * noise) - restored) / probe
            error = (restored - image).square() - sigma**2 + 2 * sigma**2 * divergence
        return error.mean(0)
