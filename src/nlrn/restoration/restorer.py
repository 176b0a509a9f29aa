"""`Restorer`: images of every kind, in their own units, by way of the units in which models work."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ..files.images import Image
from ..inference import Progress, no_progress, part_of
from ..inference.devices import pick_device
from ..inference.precision import pick_precision
from ..models.contract import Model, info_of
from ..models.zoo import CLASSICAL, MODELS, smallest_model
from .alpha import enlarge_alpha, within_alpha
from .channels import alpha_note, each_channel
from .combined import NO_MODEL, Combined
from .enlargement import describe, enlargement_for, is_turned
from .estimate import Trials, faster_settings
from .hidden import fill_hidden, hidden_pixels
from .kinds import Kind, like, planes_of
from .levels import AnySigma, Levels, levels_of, sigma_of_channel
from .loaded import LoadedModels
from .on_ranges import restore_on_ranges
from .options import Options, Settings, Size, Task
from .plan import Plan
from .report import Report
from .running import Runner
from .sensor import denoise_sensor, known_sensor
from .shared import ALONE, Shared, visible
from .unit import UnitRestorer
from .unit_image import UnitImage
from .value_range import Sigma, range_of, unit_sigma


class Restorer:
    """Restores many images with the same settings; models are loaded once, when first needed.

    Args:
        model: a name of `nlrn models`, a weight file, or a model; by default the one for the task, the image's
            channels, and the kind and the level of its noise.
        task: `"denoise"`, `"upscale"`, `"dejpeg"` or `"restore"`, which is those of the three that an image needs, by
            models of its own.
        scale, size, fit: how large results are, as `Enlargement` has them: exactly one of the three for `"upscale"`,
            at most one for `"restore"`.
        **settings: the other options, `nlrn.restoration.options.Options`.

    Raises:
        ValueError: a device that is not there, a precision it does not have, an enlargement that cannot be, a strength
            beyond 0..1, or options of another task.
        ModelError: a model that cannot be loaded or that is for another task (when first used).
    """

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        task: Task = "denoise",
        scale: float | None = None,
        size: Size | None = None,
        fit: tuple[int, int] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.options = options = Options(model, task, scale, size, fit, **settings)
        self.enlargement = enlargement_for(task, scale, size, fit)
        options.check_denoising()
        self._sensor, self._handling = known_sensor(options), options.handling
        self.device = pick_device(options.device)
        if isinstance(model, nn.Module):
            self.device = next((p.device for p in model.parameters()), self.device)
        self._precision = pick_precision(options.precision, self.device)
        self._models = LoadedModels(options, self.device)
        self.combined: Combined | None = None
        if task == "restore":
            self.combined = Combined(options, self.enlargement is not None, Restorer)
        run = Runner(options, self.device, self._precision)
        self.restore_unit: UnitRestorer | Combined = self.combined or UnitRestorer(
            options, self._models, run, white=self._sensor is not None
        )
        self._trials = Trials(self.device, self._precision, options.steps)

    def load(self, sigma: Sigma | None = None) -> None:
        """Loads the models for grey and for colour, with noise in 8-bit grey levels.

        Raises:
            ModelError, ValueError: as `model_for_file`.
        """
        if self.combined is not None:
            self.combined.load()
            return
        for channels in (1, 3):
            self.model_for_file(channels, sigma)

    def model_for(self, channels: int, sigma: Sigma | None = None) -> tuple[Model, str]:
        """The model and its name, for images of so many channels and white noise; for photographs if sigma is `None`.

        Unless a purpose says it, colour images are taken for photographs, and grey ones for images with white noise.
        """
        by_hand = False if self.options.decorrelate else self._handling.photo
        photo = channels == 3 and self._sensor is None if by_hand is None else by_hand
        return self._models.get(channels, sigma, photo)

    def model_for_file(self, channels: int, sigma: Sigma | None = None) -> tuple[Model, str]:
        """The model and its name, for an image file and noise in 8-bit grey levels."""
        return self.model_for(channels, sigma if sigma is None or isinstance(sigma, str) else sigma / 255)

    def __call__(
        self, image: Tensor, sigma: AnySigma | None = None, progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `[B, C, H, W]` (float32, C = 1 or 3) with sigma in units of [0, 1]; `"auto"` is for each image.

        Sigma may have levels of channels, `[1, C, 1, 1]`, or of pixels, `[B, 1, H, W]`, as `nlrn.denoise` has it.

        Raises:
            ValueError: channels that the model does not know, an impossible sigma, or an image too small for
                an estimate.
        """
        if not torch.isfinite(image).all():
            raise ValueError("the image has NaN or infinite values")
        levels = self._levels_of(sigma, image, image)
        strongest = None if levels.strongest is None else unit_sigma(levels.strongest)
        unit = UnitImage(image, strongest, shares=levels.shares)
        return self.restore_unit(unit, progress or no_progress, self.enlargement)

    def forecast(
        self, image: Image, sigma: Sigma | None = None, plan: Plan | None = None
    ) -> tuple[str, Sigma | None, float]:
        """The models for an image of a file, the noise level that they take, and the seconds that it will take.

        Args:
            image: the image; for `"restore"` it is looked at, and else only its shape.
            sigma: in 8-bit grey levels, or `"auto"`; models that take none have `None`.
            plan: steps of `"restore"`, where they are known.
        """
        if self.combined is None:
            shape = image.pixels.shape
            model, name = self.model_for_file(3 if len(shape) == 3 else 1, sigma)
            level = None if info_of(model).sigma_range is None else sigma
            return name, level, self.turned_as(image).estimate_seconds(shape, sigma)
        color, hidden = visible(image)
        if color is None:
            return NO_MODEL, None, 0.0
        if plan is None:
            values = range_of(color, self.options.data_range, from_data=self._handling.from_data)
            unit = values.to_unit(color)
            plan = self.combined.plan(UnitImage(unit, hidden=hidden, quality=image.jpeg_quality))
        names, seconds = self.combined.forecast(image, plan.steps)
        return names, None, seconds

    def estimate_seconds(self, shape: tuple[int, ...], sigma: Sigma | None = None) -> float:
        """Seconds that a file's image of this shape will take, from a short trial on this machine."""
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, _ = self.model_for_file(channels, sigma)
        height, width = shape[:2]
        planes, times = (channels, height, width), 8 if self.options.ensemble else 1
        if self.enlargement is not None:
            planes, times = (1, height, width), times * self.enlargement.of(height, width).cost
        return times * self._trials.seconds_for(model, planes)

    def faster_settings(self, shape: tuple[int, ...], sigma: Sigma | None = None) -> dict[str, Any]:
        """Arguments of `Restorer` that would restore a file's image of this shape faster, each by itself."""
        if self.combined is not None:
            return self.combined.faster_settings(shape)
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, name = self.model_for_file(channels, sigma)
        task = MODELS[name].task if name in MODELS else self.options.task
        small = smallest_model(task, 1 if task == "upscale" else channels)
        return {
            **({"ensemble": False} if self.options.ensemble else {}),
            **faster_settings(model, device=self.device, precision=self._precision, steps=self.options.steps),
            **({"model": small} if small != name and name not in CLASSICAL else {}),
            **({"device": "cuda"} if self.device.type == "cpu" else {}),
        }

    def image(
        self,
        image: Image,
        sigma: AnySigma | None = None,
        progress: Progress | None = None,
        shared: Shared = ALONE,
    ) -> tuple[Image, Report]:
        """Restores the pixels of an image file that was read, with sigma in 8-bit grey levels.

        Depth, alpha and metadata stay. Enlarging updates the size in EXIF data; XMP data, which may say the old one,
        are left out. A page of a stack has `shared` properties.

        Raises:
            ValueError: as `array`.
        """
        restored, report = self.turned_as(image)._same_kind(image, sigma, progress, shared, grey_levels=True)
        restored = within_alpha(restored, image)
        if report.estimated and image.format == "JPEG" and (sigma == "auto" or image.pixels.ndim == 2):
            caution = "the noise of a camera JPEG is not white, and the estimate may be off; give sigma= if you know it"
            report = dataclasses.replace(report, warnings=(*report.warnings, caution))
        if self.enlargement is not None:
            restored, notes = describe(restored, image)
            report = dataclasses.replace(report, notes=(*report.notes, *notes))
        return restored, report

    def turned_as(self, image: Image) -> Restorer:
        """This restorer for an image of a file: a size to reach is turned as viewers turn the image."""
        if self.enlargement is None or not is_turned(image):
            return self
        turned = copy.copy(self)
        turned.enlargement = dataclasses.replace(self.enlargement, on_side=True)
        return turned

    def size_of(self, image: Image) -> tuple[int, int]:
        """Height and width of the result's pixels; `ValueError` for an enlargement that the image cannot have."""
        size = image.pixels.shape[:2]
        enlargement = self.turned_as(image).enlargement
        return (size[0], size[1]) if enlargement is None else enlargement.of(*size).size

    def array(
        self,
        pixels: np.ndarray,
        sigma: AnySigma | None = None,
        progress: Progress | None = None,
        *,
        channel_axis: int | None = None,
        shared: Shared = ALONE,
    ) -> tuple[np.ndarray, Report]:
        """Restores `H x W` or `H x W x C` (C = 1 or 3; 2 or 4 with alpha last, which is not restored).

        Args:
            pixels: of any integer or floating-point type.
            sigma: in the units of the array; also of channels or of pixels, as `nlrn.denoise` has it.
            progress: called with the fraction done.
            channel_axis: the axis of channels none of which is alpha: three are RGB, others restored one by one.
            shared: the properties of a stack of which this is a plane.

        Raises:
            ValueError: as `__call__`, and for other shapes or types, or an image far beyond `data_range`.
        """
        if channel_axis is None:
            result, report = self._same_kind(pixels, sigma, progress, shared)
            note = alpha_note(pixels)
            return result, report if note is None else dataclasses.replace(
                report, notes=(note, *report.notes)
            )
        followed = progress or no_progress
        return each_channel(
            pixels,
            channel_axis,
            lambda part, index, count: self._same_kind(
                part,
                sigma_of_channel(sigma, channel_axis, index, pixels.shape[channel_axis]),
                part_of(followed, index, count),
            ),
        )

    def tensor(
        self, image: Tensor, sigma: AnySigma | None = None, progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `CHW` or `BCHW` as `array` does; the result is on the same device."""
        return self._same_kind(image, sigma, progress)

    def _same_kind(
        self,
        image: Kind,
        sigma: AnySigma | None,
        progress: Progress | None,
        shared: Shared = ALONE,
        *,
        grey_levels: bool = False,
    ) -> tuple[Kind, Report]:
        """Restores an image of any kind, with sigma in its units, or in 8-bit grey levels."""
        planes, given = planes_of(image), self.options.data_range
        levels = self._levels_of(sigma, image, planes.color)
        alpha, followed = planes.alpha, progress or no_progress
        if self.enlargement is not None:
            target = self.enlargement.of(*planes.color.shape[2:])
            if alpha is not None:
                alpha, followed = enlarge_alpha(alpha, target, self._enlarged_plane, given, followed)
        # Colours that are multiplied with alpha have nothing hidden.
        hidden = None if isinstance(image, Image) and image.premultiplied else hidden_pixels(planes)
        color = planes.color if hidden is None else fill_hidden(planes.color, hidden)
        if self._sensor is not None:
            restored, report = denoise_sensor(
                color,
                hidden,
                levels.strongest,
                self._sensor,
                self.options,
                self._restore_white,
                followed,
                shared.faults,
            )
        else:
            restored, report = restore_on_ranges(
                self.restore_unit,
                color,
                levels,
                followed,
                self.enlargement,
                self.options,
                hidden=hidden,
                grey_levels=grey_levels,
                shared=shared,
                quality=image.jpeg_quality if isinstance(image, Image) else None,
            )
        if hidden is not None and restored.shape == color.shape:
            restored = torch.where(hidden.to(restored.device), planes.color, restored)
        return like(image, restored, alpha), report

    def _levels_of(self, sigma: AnySigma | None, image: Kind, color: Tensor) -> Levels:
        """The noise levels of an image; `ValueError` as `levels_of`, and for several beside `decorrelate`."""
        levels = levels_of(sigma, image, color)
        if levels.shares is not None and self.options.decorrelate:
            raise ValueError(
                "decorrelate is for noise of one level, and sigma has several; give a number, or leave out one of them"
            )
        return levels

    def _enlarged_plane(self, plane: Tensor, progress: Progress) -> Tensor:
        """`[1, 1, H, W]` in units of [0, 1], enlarged by the network and nothing else."""
        enlarge = self.restore_unit if self.combined is None else self.combined.enlarged
        return enlarge(UnitImage(plane), progress, self.enlargement)[0]

    def _restore_white(self, image: Tensor, sigma: float, progress: Progress) -> tuple[Tensor, Report]:
        """An image in units of [0, 1] without white noise of a known level."""
        return self.restore_unit(UnitImage(image, sigma), progress)
