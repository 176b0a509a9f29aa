"""`Restorer`: the model and the noise level for an image, and the report on both.

The file is long because all decisions about an image stand in it, in the order in which they are made.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ..files.images import Image
from ..inference import Progress, no_progress, part_of
from ..inference.devices import pick_device
from ..inference.noise_level import NoiseEstimate, noise_level
from ..inference.precision import pick_precision
from ..models.contract import Model, info_of
from ..models.zoo import CLASSICAL, MODELS, smallest_model
from ..ops.resize import bicubic_resize
from .channels import alpha_note, each_channel
from .choice import AS_IT_WAS, is_gray, is_photo, noise_of, of_mosaic, reason
from .combined import NO_MODEL, Combined
from .enlargement import describe, enlarge_alpha, enlargement_for, is_turned
from .estimate import Trials, faster_settings
from .guard import guard
from .hidden import fill_hidden, hidden_pixels
from .hot_pixels import repaired
from .kinds import Kind, like, planes_of
from .loaded import LoadedModels
from .options import Options, Settings, Size, Task
from .report import Report, joined
from .running import Runner
from .sensor import denoise_sensor, known_sensor
from .shared import ALONE, Shared, visible
from .strength import check_strength, partly
from .value_range import (
    Sigma,
    check_sigma,
    level_of,
    range_of,
    too_strong,
    type_white,
    unit_sigma,
    widest,
)


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
        self._strength = check_strength(options.strength, task)
        self._sensor = known_sensor(options)
        if options.hot_pixels and task != "denoise":
            raise ValueError(f"hot_pixels is for denoise, not for {task}")
        self.device = pick_device(options.device)
        if isinstance(model, nn.Module):
            self.device = next((p.device for p in model.parameters()), self.device)
        self._precision = pick_precision(options.precision, self.device)
        self._models = LoadedModels(options, self.device)
        self._run = Runner(options, self.device, self._precision)
        self.combined: Combined | None = None
        if task == "restore":
            self.combined = Combined(options, self.enlargement is not None, Restorer)
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

    def model_for(
        self, channels: int, sigma: Sigma | None = None, photo: bool | None = None, level: float = 0.0
    ) -> tuple[Model, str]:
        """The model and its name, for images of so many channels and white noise; for `photo` where sigma is `None`.

        By default colour images are photographs, and grey ones have white noise. `level` is the estimate of the noise
        where sigma is none.
        """
        photo = channels == 3 if photo is None else photo
        return self._models.get(channels, sigma, photo and self._sensor is None, level)

    def model_for_file(self, channels: int, sigma: Sigma | None = None) -> tuple[Model, str]:
        """The model and its name, for an image file and noise in 8-bit grey levels."""
        return self.model_for(channels, sigma if sigma is None or isinstance(sigma, str) else sigma / 255)

    def __call__(
        self, image: Tensor, sigma: Sigma | None = None, progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `[B, C, H, W]` (float32, C = 1 or 3) with sigma in units of [0, 1]; `"auto"` is for each image.

        Raises:
            ValueError: channels that the model does not know, an impossible sigma, or an image too small for
                an estimate.
        """
        if not torch.isfinite(image).all():
            raise ValueError("the image has NaN or infinite values")
        checked = None if sigma is None else unit_sigma(check_sigma(sigma))
        if self.combined is not None:
            return self.combined(image, checked, progress or no_progress)
        return self.restore_unit(image, checked, progress or no_progress)

    def restore_unit(
        self,
        image: Tensor,
        sigma: Sigma | None,
        progress: Progress,
        hidden: Tensor | None = None,
        estimate: NoiseEstimate | None = None,
    ) -> tuple[Tensor, Report]:
        """`__call__` for one task and a sigma that was checked.

        `hidden` `[B, 1, H, W]` is what is no picture, and `estimate` is that of the noise.
        """
        started = time.perf_counter()
        channels = image.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"an image must have 1 (grey) or 3 (RGB) channels, got {channels}")
        estimated = self.options.model is None and self.options.task == "denoise" and sigma in (None, "auto")
        chosen = estimated and sigma is None
        if (
            len(image) > 1
            and sigma in (None, "auto")
            and (chosen or info_of(self.model_for(channels, sigma)[0]).sigma_range is not None)
        ):
            return self._one_by_one(image, sigma, progress, hidden)
        constant = self._models.are_ours and bool((image.amax((2, 3)) == image.amin((2, 3))).all())
        if self._models.are_ours and is_gray(image) and not constant:
            return self._as_gray(image, sigma, progress, hidden, estimate)
        found = (estimate or noise_of(image, hidden)) if estimated and not constant else None
        photo = chosen and is_photo(channels, found)
        level = 0.0 if found is None else found.sigma
        model, name = self.model_for(channels, sigma, photo, level)
        # Grey photographs go through the model as RGB whose channels are equal.
        image = image.expand(-1, 3, -1, -1) if photo else image
        notes = [note for note in [reason(channels, photo)] if note and chosen and found is not None]
        if chosen and found is not None and found.drawing:
            report = Report(name, 0.0, True, (AS_IT_WAS,), (), time.perf_counter() - started)
            return image[:, :channels], report
        taken: Sigma = "auto" if sigma is None else sigma
        result, report = self._through(
            model, name, image, taken, progress, hidden, constant, found or estimate
        )
        result = result.mean(1, keepdim=True) if photo and channels == 1 else result
        seconds = time.perf_counter() - started
        return result, dataclasses.replace(report, notes=(*notes, *report.notes), seconds=seconds)

    def _through(
        self,
        model: Model,
        name: str,
        image: Tensor,
        sigma: Sigma,
        progress: Progress,
        hidden: Tensor | None,
        constant: bool,
        estimate: NoiseEstimate | None,
    ) -> tuple[Tensor, Report]:
        """The image restored by a model, with the noise level that this needs."""
        about = info_of(model)
        known, notes = about.sigma_range, list[str]()
        begun = None if self.enlargement is None else self.enlargement.begin(image)
        if begun is not None:
            image, notes = begun.luma, [*begun.target.notes]
        channels = image.shape[1]
        model_channels = about.channels or channels
        if model_channels == 3 and channels == 1:
            raise ValueError(f"model {name} restores RGB images, this one is grey; choose a grey model")
        if model_channels == 1 and channels == 3:
            notes.append(f"{name} is a grey model: each colour channel is restored by itself")
        if self._models.is_approximate(name):
            notes.append(f"approximate: {name} was not trained with a window of {self.options.window_size}")

        level = used = None
        cautions: list[str] = []
        if known is not None and constant:
            level = 0.0 if sigma == "auto" else sigma
        elif known is not None:
            level, used, cautions = noise_level(image, sigma, known, hidden, estimate)
        elif sigma != "auto":
            notes.append(f"{name} takes no sigma: it is ignored")
        if begun is not None:
            image = begun.finish(
                lambda luma, part: luma if constant else self._run(model, luma, used, part), progress
            )
        elif not constant:
            restored = self._run(model, image, used, progress)
            if self._models.are_ours and name not in CLASSICAL:
                guarded = guard(image, restored, self._level_in(image, level, hidden, estimate))
                restored, notes = guarded.image, [*notes, *guarded.notes]
            # Of a sensor's noise the share is taken in the units of the data, and not here.
            image = restored if self._sensor is not None else partly(image, restored, self._strength)
        estimated = level is not None and sigma == "auto"
        return image, Report(name, level, estimated, tuple(notes), tuple(cautions))

    def _level_in(
        self, image: Tensor, level: float | None, hidden: Tensor | None, estimate: NoiseEstimate | None
    ) -> float:
        """The noise level of an image, also where the model takes none; 0 for other tasks than denoising."""
        if level is None and self.options.task == "denoise":
            found = estimate or noise_of(image, hidden)
            return 0.0 if found is None else found.sigma
        return level or 0.0

    def _as_gray(
        self,
        image: Tensor,
        sigma: Sigma | None,
        progress: Progress,
        hidden: Tensor | None,
        estimate: NoiseEstimate | None,
    ) -> tuple[Tensor, Report]:
        """RGB whose channels are equal, restored so that they stay it."""
        fits = self.options.model is None or info_of(self.model_for(1)[0]).channels != 3
        if fits:
            result, report = self.restore_unit(image[:, :1], sigma, progress, hidden, estimate)
        else:
            model, name = self.model_for(3)
            result, report = self._through(
                model, name, image, "auto" if sigma is None else sigma, progress, hidden, False, estimate
            )
            result = result.mean(1, keepdim=True)
        note = "the three channels are equal: restored as grey"
        return result.expand(-1, 3, -1, -1), dataclasses.replace(report, notes=(note, *report.notes))

    def _one_by_one(
        self, image: Tensor, sigma: Sigma | None, progress: Progress, hidden: Tensor | None
    ) -> tuple[Tensor, Report]:
        """Each image of a batch with its own estimate of the noise; the report has their mean."""
        count = len(image)
        masks = [None] * count if hidden is None else [hidden[i : i + 1] for i in range(count)]
        parts = [
            self.restore_unit(image[i : i + 1], sigma, part_of(progress, i, count), masks[i])
            for i in range(count)
        ]
        return torch.cat([result for result, _ in parts]), joined([report for _, report in parts])

    def forecast(self, image: Image, sigma: Sigma | None = None) -> tuple[str, Sigma | None, float]:
        """The models for an image of a file, the noise level that they take, and the seconds that it will take.

        Args:
            image: the image; for `"restore"` it is looked at, and else only its shape.
            sigma: in 8-bit grey levels, or `"auto"`; models that take none have `None`.
        """
        if self.combined is None:
            shape = image.pixels.shape
            model, name = self.model_for_file(3 if len(shape) == 3 else 1, sigma)
            level = None if info_of(model).sigma_range is None else sigma
            return name, level, self.turned_as(image).estimate_seconds(shape, sigma)
        color, hidden = visible(image)
        if color is None:
            return NO_MODEL, None, 0.0
        unit = range_of(color, self.options.data_range).to_unit(color)
        steps = self.combined.plan(unit, hidden, image.jpeg_quality).steps
        combined = self.turned_as(image).combined
        assert combined is not None
        names, seconds = combined.forecast(image.pixels.shape, steps)
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
        sigma: Sigma | None = None,
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
        if self.combined is not None:
            turned.combined = self.combined.turned(turned.enlargement)
        return turned

    def size_of(self, image: Image) -> tuple[int, int]:
        """Height and width of the result's pixels; `ValueError` for an enlargement that the image cannot have."""
        size = image.pixels.shape[:2]
        enlargement = self.turned_as(image).enlargement
        return (size[0], size[1]) if enlargement is None else enlargement.of(*size).size

    def array(
        self,
        pixels: np.ndarray,
        sigma: Sigma | None = None,
        progress: Progress | None = None,
        *,
        channel_axis: int | None = None,
        shared: Shared = ALONE,
    ) -> tuple[np.ndarray, Report]:
        """Restores `H x W` or `H x W x C` (C = 1 or 3; 2 or 4 with alpha last, which is not restored).

        Args:
            pixels: of any integer or floating-point type.
            sigma: in the units of the array.
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
            lambda part, index, count: self._same_kind(part, sigma, part_of(followed, index, count)),
        )

    def tensor(
        self, image: Tensor, sigma: Sigma | None = None, progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `CHW` or `BCHW` as `array` does; the result is on the same device."""
        return self._same_kind(image, sigma, progress)

    def _same_kind(
        self,
        image: Kind,
        sigma: Sigma | None,
        progress: Progress | None,
        shared: Shared = ALONE,
        *,
        grey_levels: bool = False,
    ) -> tuple[Kind, Report]:
        """Restores an image of any kind, with sigma in its units, or in 8-bit grey levels."""
        planes, given = planes_of(image), self.options.data_range
        sigma = None if sigma is None else check_sigma(sigma)
        alpha = planes.alpha
        if self.enlargement is not None:
            target = self.enlargement.of(*planes.color.shape[2:])
            alpha = None if alpha is None else enlarge_alpha(alpha, target, given)
        # Colours that are multiplied with alpha have nothing hidden.
        hidden = None if isinstance(image, Image) and image.premultiplied else hidden_pixels(planes)
        color = planes.color if hidden is None else fill_hidden(planes.color, hidden)
        if self._sensor is not None:
            followed = progress or no_progress
            restored, report = denoise_sensor(
                color, hidden, sigma, self._sensor, self.options, self.restore_unit, followed
            )
        else:
            file = image if isinstance(image, Image) else None
            restored, report = self._on_ranges(
                color, sigma, progress or no_progress, hidden, grey_levels, shared, file
            )
        if hidden is not None and restored.shape == color.shape:
            restored = torch.where(hidden.to(restored.device), planes.color, restored)
        return like(image, restored, alpha), report

    def _on_ranges(
        self,
        color: Tensor,
        sigma: Sigma | None,
        progress: Progress,
        hidden: Tensor | None,
        grey_levels: bool,
        shared: Shared,
        file: Image | None,
    ) -> tuple[Tensor, Report]:
        """`[B, C, H, W]` restored in its own units, by way of ranges that the models know."""
        given, notes = self.options.data_range, tuple[str, ...]()
        if self.options.hot_pixels:
            color, notes = repaired(color, hidden, given)
        of_type = type_white(color.dtype) if grey_levels and given is None else None
        level = None if sigma is None else level_of(color.dtype, sigma, given, grey_levels)
        if shared.values is not None:
            ranges = [shared.values.around(one, given is not None) for one in color]
        else:
            ranges = [range_of(one[None], given, "auto" if level is None else level) for one in color]
        parts = [(one[None], values) for one, values in zip(color, ranges, strict=True)]
        if len({(values.low, values.high) for values in ranges}) == 1:
            parts = [(color, widest(ranges))]
        results, reports = [], []
        for index, (part, values) in enumerate(parts):
            unit = level
            if level is not None and not (grey_levels and of_type is None):
                unit = unit_sigma(level, values)
            share = part_of(progress, index, len(parts))
            mask = None if hidden is None else hidden[index : index + len(part)]
            image = values.to_unit(part)
            if self.combined is not None:
                quality = None if file is None else file.jpeg_quality
                result, report = self.combined(image, unit, share, mask, quality, shared.plan)
            else:
                estimate = shared.estimate
                if file is not None and file.format == "RAW" and unit is None:
                    estimate = of_mosaic(estimate or noise_of(image, mask), image.shape[1])
                result, report = self.restore_unit(image, unit, share, mask, estimate)
            excess = values.excess(part) if self.enlargement is not None else None
            if excess is not None:
                result += bicubic_resize(excess, *result.shape[2:])
            results.append(values.from_unit(result, part))
            report = report.on(values, of_type)
            if of_type is not None and isinstance(level, float):
                report = dataclasses.replace(
                    report, warnings=(*report.warnings, *too_strong(level, values, of_type))
                )
            reports.append(report)
        report = joined(reports)
        return torch.cat(results), dataclasses.replace(report, notes=(*notes, *report.notes))
