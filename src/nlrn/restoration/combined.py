"""The task `"restore"`: the restorers of several steps, and a picture through those that it needs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..inference import Progress, no_progress, part_of
from ..models.contract import Model
from ..models.zoo import default_model
from .enlargement import Enlargement
from .options import Options
from .plan import Plan, Step, plan_for
from .report import Report, joined
from .strength import check_strength, partly
from .value_range import Sigma

NO_MODEL = "no model"
# Options that every step has.
SETTINGS = ("steps", "ensemble", "device", "precision", "max_memory", "window_size")


class Member(Protocol):
    """A `Restorer` for one of the steps."""

    enlargement: Enlargement | None

    def restore_unit(
        self, image: Tensor, sigma: Sigma | None, progress: Progress, hidden: Tensor | None = None
    ) -> tuple[Tensor, Report]: ...
    def model_for_file(self, channels: int, sigma: Sigma | None = None) -> tuple[Model, str]: ...
    def estimate_seconds(self, shape: tuple[int, ...], sigma: Sigma | None = None) -> float: ...
    def faster_settings(self, shape: tuple[int, ...]) -> dict[str, Any]: ...
    def load(self) -> None: ...


class Combined:
    """The restorers of all steps.

    Args:
        options: of the whole.
        enlarged: whether pictures are to be enlarged.
        make: makes a `Restorer`.

    Raises:
        ValueError: a model, which would be for one of the steps.
    """

    def __init__(self, options: Options, enlarged: bool, make: Callable[..., Member]) -> None:
        if options.model is not None:
            raise ValueError(f"model= is for one task, and restore chooses its models, got {options.model!r}")
        settings = {name: getattr(options, name) for name in SETTINGS}
        self._strength = check_strength(options.strength, options.task)
        self._members: dict[Step, Member] = {
            "dejpeg": make(task="dejpeg", **settings),
            "white": make(**settings),
            "photo": make(default_model("photo", 1), **settings),
        }
        if enlarged:
            larger = {name: getattr(options, name) for name in ("scale", "size", "fit")}
            self._members["upscale"] = make(task="upscale", **larger, **settings)

    def turned(self, enlargement: Enlargement) -> Self:
        """The same with another enlargement."""
        larger = copy.copy(self._members["upscale"])
        larger.enlargement = enlargement
        other = copy.copy(self)
        other._members = {**self._members, "upscale": larger}
        return other

    def load(self) -> None:
        """Loads all models."""
        for member in self._members.values():
            member.load()

    def plan(self, image: Tensor, hidden: Tensor | None = None, quality: int | None = None) -> Plan:
        """The steps for `[1, C, H, W]` in units of [0, 1]; `quality` is that of the JPEG file that it comes from."""

        def denoised(crops: Tensor) -> Tensor:
            return self._step("photo", crops, no_progress, None)[0]

        return plan_for(image, hidden, quality, denoised, "upscale" in self._members)

    def __call__(
        self,
        image: Tensor,
        sigma: Sigma | None,
        progress: Progress,
        hidden: Tensor | None = None,
        quality: int | None = None,
        plan: Plan | None = None,
    ) -> tuple[Tensor, Report]:
        """A batch `[B, C, H, W]` in units of [0, 1], each image of it after the steps that it needs, or that are given.

        Raises:
            ValueError: a sigma, or other channels.
        """
        if sigma is not None:
            raise ValueError("sigma= is for denoise; restore measures the noise itself")
        if image.shape[1] not in (1, 3):
            raise ValueError(f"an image must have 1 (grey) or 3 (RGB) channels, got {image.shape[1]}")
        results, reports = [], []
        for index in range(len(image)):
            one, mask = image[index : index + 1], None if hidden is None else hidden[index : index + 1]
            share = part_of(progress, index, len(image))
            result, report = self._one(one, mask, quality, plan, share)
            results.append(result)
            reports.append(report)
        return torch.cat(results), joined(reports)

    def _one(
        self, image: Tensor, hidden: Tensor | None, quality: int | None, plan: Plan | None, progress: Progress
    ) -> tuple[Tensor, Report]:
        """One image; of all changes before an enlargement a share, the strength, is made."""
        started, given, reports = time.perf_counter(), image, []
        plan = plan or self.plan(image, hidden, quality)
        for index, step in enumerate(plan.steps):
            if step == "upscale":
                image = partly(given, image, self._strength)
            image, report = self._step(step, image, part_of(progress, index, len(plan.steps)), hidden)
            reports.append(report)
        if "upscale" not in plan.steps:
            image = partly(given, image, self._strength)
        level = next((report for report in reports if report.sigma is not None), None)
        notes = (*plan.reasons, *(note for report in reports for note in report.notes))
        return image, Report(
            ", ".join(dict.fromkeys(report.model for report in reports)) or NO_MODEL,
            None if level is None else level.sigma,
            level is not None and level.estimated,
            tuple(dict.fromkeys(notes)),
            tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
            time.perf_counter() - started,
        )

    def _step(
        self, step: Step, image: Tensor, progress: Progress, hidden: Tensor | None
    ) -> tuple[Tensor, Report]:
        channels = image.shape[1]
        if step == "photo":  # a grey picture as RGB whose channels are equal
            image = image.expand(-1, 3, -1, -1)
        result, report = self._members[step].restore_unit(image, _sigma_for(step), progress, hidden)
        return result[:, :channels], report

    def forecast(self, shape: tuple[int, ...], steps: tuple[Step, ...]) -> tuple[str, float]:
        """The models of some steps for a file's image of this shape, and the seconds that they will take."""
        names, seconds = dict[str, None](), 0.0
        for step in steps:
            # A grey picture goes through the model for photographs as RGB.
            channels = 3 if len(shape) == 3 or step == "photo" else 1
            planes = (*shape[:2], 3) if channels == 3 else shape
            member, sigma = self._members[step], _sigma_for(step)
            names[member.model_for_file(channels, sigma)[1]] = None
            seconds += member.estimate_seconds(shape if step == "upscale" else planes, sigma)
        return ", ".join(names) or NO_MODEL, seconds

    def faster_settings(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Options that would restore a file's image of this shape faster, each by itself."""
        faster = self._members["photo"].faster_settings(shape)
        return {name: value for name, value in faster.items() if name != "model"}


def _sigma_for(step: Step) -> Sigma | None:
    return "auto" if step == "white" else None
