"""The task `"restore"`: the restorers of several steps, and a picture through those that it needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from ..files.images import Image
from ..inference import Progress, no_progress, part_of
from ..models.contract import Model
from ..models.zoo import default_model
from .enlargement import Enlargement
from .options import Options
from .plan import Plan, Step, plan_for
from .report import Report, joined
from .strength import check_strength, partly
from .unit_image import UnitImage
from .value_range import Sigma

NO_MODEL = "no model"
# Options that every step has.
SETTINGS = ("steps", "ensemble", "device", "precision", "max_memory", "window_size")


class Member(Protocol):
    """A `Restorer` for one of the steps."""

    @property
    def restore_unit(self) -> Callable[[UnitImage, Progress, Enlargement | None], tuple[Tensor, Report]]: ...
    def turned_as(self, image: Image) -> Self: ...
    def model_for_file(self, channels: int, sigma: Sigma | None = None) -> tuple[Model, str]: ...
    def estimate_seconds(self, shape: tuple[int, ...], sigma: Sigma | None = None) -> float: ...
    def faster_settings(self, shape: tuple[int, ...]) -> dict[str, Any]: ...
    def load(self) -> None: ...


class Combined:
    """The restorers of all steps; called as `UnitRestorer` is.

    Args:
        options: of the whole.
        enlarged: whether pictures are to be enlarged.
        make: makes a `Restorer`.

    Raises:
        ValueError: a model, which would be for one of the steps, or a purpose that `Options.handling` refuses.
    """

    def __init__(self, options: Options, enlarged: bool, make: Callable[..., Member]) -> None:
        if options.model is not None:
            raise ValueError(f"model= is for one task, and restore chooses its models, got {options.model!r}")
        settings = {name: getattr(options, name) for name in SETTINGS}
        self._strength = check_strength(options.strength, options.task)
        self._handling = options.handling
        self._members: dict[Step, Member] = {
            "dejpeg": make(task="dejpeg", **settings),
            # The one for photographs has no handling but its model.
            "white": make(purpose=None if self._handling.photo else options.purpose, **settings),
            "photo": make(default_model("photo", 1), **settings),
        }
        if enlarged:
            larger = {name: getattr(options, name) for name in ("scale", "size", "fit")}
            self._members["upscale"] = make(task="upscale", **larger, **settings)

    def load(self) -> None:
        """Loads all models."""
        for member in self._members.values():
            member.load()

    def plan(self, image: UnitImage) -> Plan:
        """The steps for one image."""

        def denoised(crops: Tensor) -> Tensor:
            return self._step("photo", UnitImage(crops), no_progress, None)[0]

        return plan_for(
            image.pixels,
            image.hidden,
            image.quality,
            denoised,
            "upscale" in self._members,
            self._handling,
        )

    def __call__(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None = None
    ) -> tuple[Tensor, Report]:
        """Each image of a batch after the steps that it needs, or of its plan, enlarged at last.

        Raises:
            ValueError: a sigma.
        """
        if image.sigma is not None:
            raise ValueError("sigma= is for denoise; restore measures the noise itself")
        parts = image.each()
        pairs = [
            self._one(part, part_of(progress, i, len(parts)), enlargement) for i, part in enumerate(parts)
        ]
        return torch.cat([result for result, _ in pairs]), joined([report for _, report in pairs])

    def enlarged(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        """An image that is enlarged and not restored."""
        return self._step("upscale", image, progress, enlargement)

    def _one(
        self, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        """One image; of all changes before an enlargement a share, the strength, is made."""
        started, given, reports = time.perf_counter(), image.pixels, []
        plan, pixels = image.plan or self.plan(image), given
        for index, step in enumerate(plan.steps):
            if step == "upscale":
                pixels = partly(given, pixels, self._strength)
            part = part_of(progress, index, len(plan.steps))
            pixels, report = self._step(step, UnitImage(pixels, hidden=image.hidden), part, enlargement)
            reports.append(report)
        if "upscale" not in plan.steps:
            pixels = partly(given, pixels, self._strength)
        level = next((report for report in reports if report.sigma is not None), None)
        notes = (*plan.reasons, *(note for report in reports for note in report.notes))
        return pixels, Report(
            ", ".join(dict.fromkeys(report.model for report in reports)) or NO_MODEL,
            None if level is None else level.sigma,
            level is not None and level.estimated,
            tuple(dict.fromkeys(notes)),
            tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
            time.perf_counter() - started,
        )

    def _step(
        self, step: Step, image: UnitImage, progress: Progress, enlargement: Enlargement | None
    ) -> tuple[Tensor, Report]:
        channels, pixels = image.channels, image.pixels
        if step == "photo":  # a grey picture as RGB whose channels are equal
            pixels = pixels.expand(-1, 3, -1, -1)
        image = dataclasses.replace(image, pixels=pixels, sigma=_sigma_for(step))
        larger = enlargement if step == "upscale" else None
        result, report = self._members[step].restore_unit(image, progress, larger)
        return result[:, :channels], report

    def forecast(self, image: Image, steps: tuple[Step, ...]) -> tuple[str, float]:
        """The models of some steps for a file's image, and the seconds that they will take."""
        names, seconds, shape = dict[str, None](), 0.0, image.pixels.shape
        for step in steps:
            # A grey picture goes through the model for photographs as RGB.
            channels = 3 if len(shape) == 3 or step == "photo" else 1
            planes = (*shape[:2], 3) if channels == 3 else shape
            member, sigma = self._members[step].turned_as(image), _sigma_for(step)
            names[member.model_for_file(channels, sigma)[1]] = None
            seconds += member.estimate_seconds(shape if step == "upscale" else planes, sigma)
        return ", ".join(names) or NO_MODEL, seconds

    def faster_settings(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Options that would restore a file's image of this shape faster, each by itself."""
        faster = self._members["photo"].faster_settings(shape)
        return {name: value for name, value in faster.items() if name != "model"}


def _sigma_for(step: Step) -> Sigma | None:
    return "auto" if step == "white" else None
