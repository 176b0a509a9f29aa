"""`Restorer`: a file's image, an array or a tensor in, the same kind restored out."""

from __future__ import annotations

import dataclasses
import logging
import math
import numbers
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..files.exif import resized
from ..files.images import Image, from_float, from_planes, to_float, to_planes, value_range
from ..inference import Progress, part_of, restore
from ..inference.devices import pick_device
from ..inference.noise_level import estimate_noise
from ..inference.patches import patch_positions
from ..inference.precision import Precision, pick_precision
from ..models.contract import Model, info_of
from ..models.nlrn import nearest_known
from ..models.zoo import MODELS, check_task, default_model, load_model, smallest_model
from ..ops.nonlocal_attention import has_native_kernel
from ..ops.resize import bicubic_resize
from .luma import check_scale, enlarge, recolor

log = logging.getLogger(__name__)

Sigma = float | Literal["auto"]
Task = Literal["denoise", "upscale", "dejpeg"]

# The side of the image from which a time is estimated. On a GPU a small one takes as long as launching the kernels.
TRIAL_SIDE, TRIAL_SIDE_ON_GPU = 64, 512


@dataclass(frozen=True)
class Report:
    """The account of a restoration.

    Args:
        model: name of the model, or its file or class.
        sigma: noise level in units of [0, 1], the mean over a batch; `None` for a model that ignores it.
        estimated: whether sigma was estimated from the image.
        notes: facts that may be of use to the user, in full sentences.
        warnings: cautions for the user, in full sentences.
        seconds: time that the restoration took.
    """

    model: str
    sigma: float | None
    estimated: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


class Restorer:
    """Restores many images with the same settings; models are loaded once, when first needed.

    Args:
        model: a name of `nlrn models`, a weight file, or a model; by default the one for the task and the image's
            channels, and for noise by whether sigma is known.
        task: `"denoise"`, `"upscale"` or `"dejpeg"`.
        scale: how many times larger, for `"upscale"`: 2, 3 or 4. Luma is restored, chroma and alpha are bicubic.
        steps: stop after this many recurrent steps (one of the model's heads).
        ensemble: average over the eight flips and rotations of the image.
        device: `"auto"` (CUDA if there is one, else the CPU), or a PyTorch device, for models given by name. A model
            object is used where it is.
        precision: in which an `NLRN` is computed: `"float32"`, `"bfloat16"`, `"float16"` (GPUs only), or `"auto"`,
            which is float16 on CUDA and float32 elsewhere. What overflows is computed again in float32.
        max_memory: bytes; by default half of what is available.
        window_size: another window than the model's own, an approximation for a model that was trained with
            whole-patch attention.

    Raises:
        ValueError: a device that is not there, a precision it does not have, or a scale that models do not know.
        ModelError: a model that cannot be loaded or that is for another task (when first used).
    """

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        task: Task = "denoise",
        scale: int | None = None,
        steps: int | None = None,
        ensemble: bool = False,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        max_memory: int | None = None,
        window_size: int | Literal["default"] | None = "default",
    ) -> None:
        self.task, self.scale = task, check_scale(scale) if task == "upscale" else 1
        self._model = model
        self._steps, self._ensemble = steps, ensemble
        self.device = pick_device(device)
        if isinstance(model, nn.Module):
            self.device = next((p.device for p in model.parameters()), self.device)
        self._precision = pick_precision(precision, self.device)
        self._max_memory = max_memory
        self._window_size = window_size
        self._loaded: dict[str, Model] = {}
        self._approximate: set[str] = set()

    def model_for(self, channels: int, sigma: Sigma = "auto") -> tuple[Model, str]:
        """The model for images of so many channels whose noise is known or not, and its name."""
        if self._model is not None and not isinstance(self._model, str | os.PathLike):
            return self._model, type(self._model).__name__
        if self._model is not None:
            name = str(self._model)
        elif self.task == "upscale":
            name = default_model("upscale", 1)
        elif self.task == "denoise" and channels == 3 and sigma == "auto":
            name = default_model("photo", 3)
        else:
            name = default_model(self.task, channels)
        if name not in self._loaded:
            loaded = load_model(name, device=self.device)
            loaded.info.check_steps(self._steps)
            check_task(name, loaded, self.task)
            if self._window_size != "default":
                halo = loaded.info.halo
                loaded = load_model(name, device=self.device, window_size=self._window_size)
                if loaded.info.halo != halo:
                    self._approximate.add(name)
            self._loaded[name] = loaded
        return self._loaded[name], name

    def __call__(
        self, image: Tensor, sigma: Sigma = "auto", progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `[B, C, H, W]` (float32, C = 1 or 3) with sigma in units of [0, 1]; enlarged if that is the task.

        With `"auto"` every image of a batch has a noise level of its own.

        Raises:
            ValueError: channels that the model does not know, an impossible sigma, or an image too small for
                an estimate.
        """
        started = time.perf_counter()
        channels = image.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"an image must have 1 (grey) or 3 (RGB) channels, got {channels}")
        if not torch.isfinite(image).all():
            raise ValueError("the image has NaN or infinite values")
        sigma = unit_sigma(sigma)
        model, name = self.model_for(channels, sigma)
        about = info_of(model)
        known = about.sigma_range
        if len(image) > 1 and sigma == "auto" and known is not None:
            return self._one_by_one(image, progress or _no_progress)
        chroma = None
        if self.task == "upscale":
            image, chroma = enlarge(image, self.scale)
            channels = 1
        notes: list[str] = []
        model_channels = about.channels or channels
        if model_channels == 3 and channels == 1:
            raise ValueError(f"model {name} restores RGB images, this one is grey; choose a grey model")
        if model_channels == 1 and channels == 3:
            notes.append(f"{name} is a grey model: each colour channel is restored by itself")
        if name in self._approximate:
            notes.append(f"approximate: {name} was not trained with a window of {self._window_size}")

        level = used = None
        cautions: list[str] = []
        if known is not None:
            level, used, cautions = _noise_level(image, sigma, known)
        elif sigma != "auto":
            notes.append(f"{name} takes no sigma: it is ignored")
        result = recolor(self._run(model, image, used, progress or _no_progress), chroma)
        seconds = time.perf_counter() - started
        estimated = level is not None and sigma == "auto"
        return result, Report(name, level, estimated, tuple(notes), tuple(cautions), seconds)

    def _one_by_one(self, image: Tensor, progress: Progress) -> tuple[Tensor, Report]:
        """Each image of a batch with its own estimate of the noise; the report has their mean."""
        count = len(image)
        parts = [self(image[i : i + 1], "auto", part_of(progress, i, count)) for i in range(count)]
        reports = [report for _, report in parts]
        return torch.cat([result for result, _ in parts]), dataclasses.replace(
            reports[0],
            sigma=sum(report.sigma or 0.0 for report in reports) / count,
            warnings=tuple(dict.fromkeys(w for report in reports for w in report.warnings)),
            seconds=sum(report.seconds for report in reports),
        )

    def _run(self, model: Model, image: Tensor, sigma: float | None, progress: Progress) -> Tensor:
        channels = image.shape[1]
        if channels == 3 and info_of(model).channels == 1:
            # One channel at a time: three in a batch would triple the memory for the same time.
            planes = [self._run(model, image[:, c : c + 1], sigma, part_of(progress, c, 3)) for c in range(3)]
            return torch.cat(planes, 1)
        moved = image.to(self.device)

        def run(precision: torch.dtype) -> Tensor:
            return restore(
                model,
                moved,
                sigma,
                steps=self._steps,
                ensemble=self._ensemble,
                precision=precision,
                max_memory=self._max_memory,
                progress=progress,
            )

        result = run(self._precision)
        if self._precision is not torch.float32 and not torch.isfinite(result).all():
            log.warning("%s overflowed; restoring again in float32", str(self._precision).split(".")[1])
            result = run(torch.float32)
        return result.to(image.device)

    def estimate_seconds(self, shape: tuple[int, ...], sigma: Sigma = "auto") -> float:
        """Seconds that an image array of this shape will take, from a short trial on this machine."""
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, _ = self.model_for(channels, sigma)
        shape = tuple(self.scale * length for length in shape[:2])
        channels = 1 if self.task == "upscale" else channels
        about = info_of(model)
        model_channels = about.channels or channels
        protocol = about.patch_protocol
        side = TRIAL_SIDE if self.device.type == "cpu" else TRIAL_SIDE_ON_GPU
        units = shape[0] * shape[1] / side**2
        if protocol is not None:
            side = protocol[0]
            units = math.prod(len(patch_positions(length, *protocol)) for length in shape[:2])
        trial = torch.full((1, model_channels, side, side), 0.5, device=self.device)
        level = None if about.sigma_range is None else about.sigma_range[1]
        trials = []
        for _ in range(3):  # the first one warms up
            started = time.perf_counter()
            restore(model, trial, level, steps=self._steps, precision=self._precision)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            trials.append(time.perf_counter() - started)
        return min(trials) * units * (channels // model_channels) * (8 if self._ensemble else 1)

    def faster_settings(self, shape: tuple[int, ...], sigma: Sigma = "auto") -> dict[str, Any]:
        """Arguments of `Restorer` that would restore an image array of this shape faster, each by itself."""
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, name = self.model_for(channels, sigma)
        info, settings = info_of(model), dict[str, Any]()
        if self._ensemble:
            settings["ensemble"] = False
        on_cpu = self.device.type == "cpu"
        if (
            on_cpu
            and self._precision is torch.float32
            and torch.bfloat16 in info.precisions
            and has_native_kernel(torch.bfloat16)
        ):
            settings["precision"] = "bfloat16"
        if fewer := [steps for steps in info.steps if steps < (self._steps or info.steps[-1])]:
            settings["steps"] = fewer[-1]
        if info.patch_protocol is not None:
            settings["window_size"] = 45
        task = MODELS[name].task if name in MODELS else self.task
        small = smallest_model(task, 1 if task == "upscale" else channels)
        if small != name:
            settings["model"] = small
        if on_cpu:
            settings["device"] = "cuda"
        return settings

    def image(
        self,
        image: Image,
        sigma: Sigma = "auto",
        *,
        data_range: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[Image, Report]:
        """Restores the pixels of an image file that was read, with sigma in 8-bit grey levels.

        Depth, alpha and metadata stay. An enlarged image's alpha is enlarged with it, its EXIF says its new size, and
        XMP data, which may say the old one, is left out.

        Raises:
            ValueError: as `array`.
        """
        alpha = None if image.alpha is None else self.alpha(image.alpha, data_range)
        pixels, report = self._pixels(image.pixels, unit_sigma(sigma, 255), data_range, progress)
        if report.estimated and image.format == "JPEG":
            caution = "the noise of a camera JPEG is not white, and the estimate may be off; give --sigma if you know it"
            report = dataclasses.replace(report, warnings=(*report.warnings, caution))
        if self.task == "upscale":
            height, width = pixels.shape[:2]
            if image.xmp is not None:
                note = "XMP data, which may say the old size, is left out"
                report = dataclasses.replace(report, notes=(*report.notes, note))
            image = dataclasses.replace(image, alpha=alpha, exif=resized(image.exif, width, height), xmp=None)
        return dataclasses.replace(image, pixels=pixels), report

    def alpha(self, planes: np.ndarray, data_range: float | None = None) -> np.ndarray:
        """Alpha `[..., H, W]` for the result: as it is, or enlarged with the image.

        What is opaque follows from an integer's type, whatever its image's white; `data_range` is for floats.
        """
        if self.task != "upscale":
            return planes
        opaque = data_range if planes.dtype.kind == "f" else None
        try:
            values = torch.from_numpy(to_float(planes, opaque).astype(np.float32))
        except ValueError as error:
            raise ValueError(f"alpha: {error}") from error
        height, width = (self.scale * length for length in planes.shape[-2:])
        large = bicubic_resize(values, height, width).clamp(0, 1)
        return from_float(large.numpy(), planes.dtype, opaque)

    def array(
        self,
        pixels: np.ndarray,
        sigma: Sigma = "auto",
        *,
        data_range: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, Report]:
        """Restores `H x W` or `H x W x C` (C = 1 or 3; 2 or 4 with alpha last, which is not restored).

        Args:
            pixels: uint8, uint16 or float.
            sigma: in the units of the array.
            data_range: value of white; by default 255, 65535 or 1 by dtype.
            progress: called with the fraction done.

        Raises:
            ValueError: as `__call__`, and for other shapes or types, integers above `data_range`, or floats far outside
                [0, 1] without one.
        """
        white = value_range(pixels.dtype, data_range)
        return self._pixels(pixels, unit_sigma(sigma, white), data_range, progress)

    def _pixels(
        self, pixels: np.ndarray, sigma: Sigma, data_range: float | None, progress: Progress | None
    ) -> tuple[np.ndarray, Report]:
        """`array` with sigma in units of [0, 1]."""
        color, alpha = _split_alpha(pixels)
        if alpha is not None:
            alpha = self.alpha(alpha[..., 0], data_range)[..., None]
        planes = np.ascontiguousarray(to_planes(to_float(color, data_range)), dtype=np.float32)
        result, report = self(torch.from_numpy(planes)[None], sigma, progress)
        output = from_float(from_planes(result[0].numpy(), color.ndim), pixels.dtype, data_range)
        if alpha is not None:
            output = np.concatenate([output, alpha], -1)
        return output, report


def _noise_level(image: Tensor, sigma: Sigma, known: tuple[float, float]) -> tuple[float, float, list[str]]:
    """The noise level, given or estimated; the nearest that the model knows; and cautions about both."""
    cautions: list[str] = []
    if sigma == "auto":
        estimate = estimate_noise(image)
        sigma, cautions = estimate.sigma, list(estimate.warnings)
    used, caution = nearest_known(sigma, known)
    return sigma, used, cautions if caution is None else [*cautions, caution]


def _no_progress(fraction: float) -> None:
    """Ignores the progress."""


def _split_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"an image array must be HxW or HxWxC and not empty, got shape {pixels.shape}")
    if pixels.ndim == 2 or pixels.shape[2] in (1, 3):
        return pixels, None
    if pixels.shape[2] in (2, 4):
        return pixels[..., :-1], pixels[..., -1:]
    raise ValueError(
        f"an image array must have 1 to 4 channels (grey, grey and alpha, RGB, RGBA), got {pixels.shape[2]}"
    )


def unit_sigma(sigma: Sigma, white: float = 1.0) -> Sigma:
    """A noise level in units of [0, 1], given one for images whose white is `white`; `"auto"` stays.

    Raises:
        ValueError: no number, negative, NaN, infinite, or beyond the range.
    """
    if isinstance(sigma, str) and sigma == "auto":
        return sigma
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim == 0:
        sigma = sigma.item()
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool):
        raise ValueError(f"sigma must be a number or 'auto', got {sigma!r}")
    given = float(sigma)
    if not (math.isfinite(given) and given >= 0):
        raise ValueError(f"sigma must be finite and >= 0, got {given:g}")
    if given > white:
        hint = f"; did you mean {given:g}/255?" if white == 1 and given <= 255 else ""
        kind = " for an image in [0, 1]" if white == 1 else f" for an image whose white is {white:g}"
        raise ValueError(f"sigma is {given:g}{kind}{hint}")
    return given / white
