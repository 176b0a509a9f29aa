"""Restoring what people have - a file, an array, a tensor - with the same kind of thing as the result."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .data.exif import resized
from .data.images import Image, from_float, to_float, value_range
from .degradations.resize import bicubic_resize
from .inference import Model, Progress, restore
from .inference.patches import patch_positions
from .inference.precision import Precision, pick_precision
from .models.nlrn import NLRNConfig
from .models.zoo import ModelError, default_model, load_model, smallest_model
from .noise import estimate_noise
from .ops.nonlocal_attention.native_operators import loaded_kernel
from .upscaling import check_scale, enlarge, recolour

log = logging.getLogger(__name__)

Sigma = float | Literal["auto"]
Task = Literal["denoise", "upscale", "dejpeg"]

# What models may have been trained for (`NLRNConfig.task`) to do a task; a name that is not here fits them all.
FITTING = {"denoise": ("denoise", "photo"), "upscale": ("upscale",), "dejpeg": ("dejpeg",)}
# Of the image that a time is estimated from: on a GPU a small one takes as long as it takes to launch the kernels.
TRIAL_SIDE, TRIAL_SIDE_ON_GPU = 64, 512


@dataclass(frozen=True)
class Report:
    """What a restoration did.

    Args:
        model: name of the model, or its file or class.
        sigma: noise level in units of [0, 1]; `None` for a model that ignores it.
        estimated: whether sigma was estimated from the image.
        notes: what the user may want to know.
        warnings: what the user should know.
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
        precision: in which an `NLRN` is computed: `"float32"`, `"bfloat16"`, `"float16"` (GPUs only), or `"auto"`, which is
            float16 on CUDA and float32 elsewhere. What overflows is computed again in float32.
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
            loaded.check_steps(self._steps)
            known = {task for tasks in FITTING.values() for task in tasks}
            if loaded.config.task in known and loaded.config.task not in FITTING[self.task]:
                raise ModelError(f"{name} is a model for {loaded.config.task}, not for {self.task}")
            if self._window_size not in ("default", getattr(loaded.config, "window_size", None)):
                self._approximate.add(name)
                loaded = load_model(name, device=self.device, window_size=self._window_size)
            self._loaded[name] = loaded
        return self._loaded[name], name

    def __call__(
        self, image: Tensor, sigma: Sigma = "auto", progress: Progress | None = None
    ) -> tuple[Tensor, Report]:
        """Restores `[B, C, H, W]` (float32, C = 1 or 3) with sigma in units of [0, 1]; enlarged if that is the task.

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
        model, name = self.model_for(channels, sigma)
        config = getattr(model, "config", None)
        chroma = None
        if self.task == "upscale":
            image, chroma = enlarge(image, self.scale)
            channels = 1
        notes: list[str] = []
        cautions: list[str] = []
        model_channels = getattr(config, "channels", channels)
        if model_channels == 3 and channels == 1:
            raise ValueError(f"model {name} restores RGB images, this one is grey; choose a grey model")
        if model_channels == 1 and channels == 3:
            notes.append(f"{name} is a grey model: each colour channel is restored by itself")

        if name in self._approximate:
            notes.append(f"approximate: {name} was not trained with a window of {self._window_size}")

        level, estimated = None, False
        ignores_sigma = config is not None and config.sigma_range is None
        if ignores_sigma and sigma != "auto":
            notes.append(f"{name} takes no sigma: it is ignored")
        elif not ignores_sigma and sigma == "auto":
            estimate = estimate_noise(image)
            level, estimated = estimate.sigma, True
            cautions += estimate.warnings
        elif not ignores_sigma:
            assert sigma != "auto"
            level = sigma
        if level is not None:
            check_sigma(level)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            result = self._run(model, image, level, model_channels, progress)
        cautions += list(dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning))
        result = recolour(result, chroma)
        seconds = time.perf_counter() - started
        return result, Report(name, level, estimated, tuple(notes), tuple(cautions), seconds)

    def _run(
        self, model: Model, image: Tensor, sigma: float | None, channels: int, progress: Progress | None
    ) -> Tensor:
        own = image.shape[1]
        if channels == 1 and own == 3:
            # One channel at a time: three in a batch would triple the memory for the same time.
            planes = [
                self._run(model, image[:, c : c + 1], sigma, 1, _part(progress, c, 3)) for c in range(own)
            ]
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
        """How long an image array of this shape will take, from a short trial on this machine."""
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, _ = self.model_for(channels, sigma)
        shape = tuple(self.scale * length for length in shape[:2])
        channels = 1 if self.task == "upscale" else channels
        config = getattr(model, "config", None)
        own = getattr(config, "channels", channels)
        protocol = getattr(config, "patch_protocol", None)
        side = TRIAL_SIDE if self.device.type == "cpu" else TRIAL_SIDE_ON_GPU
        units = shape[0] * shape[1] / side**2
        if protocol is not None:
            side = protocol[0]
            units = math.prod(len(patch_positions(length, *protocol)) for length in shape[:2])
        trial = torch.full((1, own, side, side), 0.5, device=self.device)
        level = None if config is None or config.sigma_range is None else config.sigma_range[1]
        trials = []
        for _ in range(3):  # the first one warms up
            started = time.perf_counter()
            restore(model, trial, level, steps=self._steps, precision=self._precision)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            trials.append(time.perf_counter() - started)
        return min(trials) * units * (channels // own) * (8 if self._ensemble else 1)

    def faster_options(self, shape: tuple[int, ...], sigma: Sigma = "auto") -> list[str]:
        """What would make that faster, as command-line options."""
        channels = 3 if len(shape) == 3 and shape[2] >= 3 else 1
        model, name = self.model_for(channels, sigma)
        options = ["no --ensemble"] if self._ensemble else []
        config = getattr(model, "config", None)
        if isinstance(config, NLRNConfig):
            on_cpu = self.device.type == "cpu" and self._precision is torch.float32
            if on_cpu and not isinstance(loaded_kernel(torch.bfloat16), str):
                options.append("--precision bfloat16")
            heads = [head for head in config.heads if head < (self._steps or config.num_steps)]
            options += [f"--steps {heads[-1]}"] if heads else []
            if config.patch_protocol is not None:
                options.append("--window 45 (approximate)")
        small = smallest_model(self.task, 1 if self.task == "upscale" else channels)
        options += [f"--model {small}"] if small != name else []
        return options + (["a CUDA GPU"] if self.device.type == "cpu" else [])

    def image(
        self,
        image: Image,
        sigma: Sigma = "auto",
        *,
        data_range: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[Image, Report]:
        """Restores the pixels of an image file that was read, with sigma in 8-bit grey levels.

        Depth, alpha and metadata stay; an enlarged image's alpha is enlarged with it, and its EXIF says its new size.

        Raises:
            ValueError: as `__call__`, and for a float image far outside [0, 1] without `data_range`.
        """
        if image.pixels.dtype.kind == "f" and data_range is None:
            low, high = float(image.pixels.min()), float(image.pixels.max())
            if low < -1 or high > 2:
                raise ValueError(
                    f"a float image should lie in [0, 1], this one reaches from {low:g} to {high:g}; "
                    "give its white as --data-range (data_range=)"
                )
        if sigma != "auto":
            sigma = check_sigma(sigma / 255, "sigma", 255)
        pixels, report = self.array(
            image.pixels, sigma, data_range=data_range, sigma_unit=1.0, progress=progress
        )
        if report.estimated and image.format == "JPEG":
            caution = "the noise of a camera JPEG is not white, and the estimate may be off; give --sigma if you know it"
            report = dataclasses.replace(report, warnings=(*report.warnings, caution))
        if self.task == "upscale":
            height, width = pixels.shape[:2]
            alpha = None if image.alpha is None else self.alpha(image.alpha, data_range)
            image = dataclasses.replace(image, alpha=alpha, exif=resized(image.exif, width, height))
        return dataclasses.replace(image, pixels=pixels), report

    def alpha(self, planes: np.ndarray, data_range: float | None = None) -> np.ndarray:
        """Alpha `[..., H, W]` for the result: as it is, or enlarged with the image."""
        if self.task != "upscale":
            return planes
        values = torch.from_numpy(to_float(planes, data_range).astype(np.float32))
        height, width = (self.scale * length for length in planes.shape[-2:])
        large = bicubic_resize(values, height, width).clamp(0, 1)
        return from_float(large.numpy(), planes.dtype, data_range)

    def array(
        self,
        pixels: np.ndarray,
        sigma: Sigma = "auto",
        *,
        data_range: float | None = None,
        sigma_unit: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, Report]:
        """Restores `H x W` or `H x W x C` (C = 1 or 3; 2 or 4 with alpha last, which is not restored).

        Args:
            pixels: uint8, uint16 or float.
            sigma: in the units of the array.
            data_range: value of white; by default 255, 65535 or 1 by dtype.
            sigma_unit: the value of white in units of sigma, where it is not that of the array.
            progress: called with the fraction done.
        """
        colour, alpha = _split_alpha(pixels)
        white = value_range(pixels.dtype, data_range)
        if sigma != "auto":
            sigma = check_sigma(sigma / (sigma_unit or white), "sigma", sigma_unit or white)
        values = to_float(colour, data_range)
        planes = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
        tensor = torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None]
        result, report = self(tensor, sigma, progress)
        restored = result[0].numpy()
        restored = restored[0] if values.ndim == 2 else np.moveaxis(restored, 0, -1)
        output = from_float(restored, pixels.dtype, data_range)
        if alpha is not None:
            output = np.concatenate([output, self.alpha(alpha[..., 0], data_range)[..., None]], -1)
        return output, report


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


def _part(progress: Progress | None, index: int, count: int) -> Progress | None:
    return None if progress is None else lambda fraction: progress((index + fraction) / count)


def check_sigma(level: float, name: str = "sigma", white: float = 1.0) -> float:
    """`level` (in units of [0, 1]) if it can be a noise level; `white` only serves the message.

    Raises:
        ValueError: negative, NaN, infinite, or beyond the range.
    """
    given = level * white
    if not (math.isfinite(level) and level >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {given:g}")
    if level > 1:
        hint = f"; did you mean {given:g}/255?" if white == 1 and given <= 255 else ""
        kind = " for an image in [0, 1]" if white == 1 else f" for an image whose white is {white:g}"
        raise ValueError(f"{name} is {given:g}{kind}{hint}")
    return level


def pick_device(device: str | torch.device) -> torch.device:
    """The device for a name; `"auto"` is CUDA if there is one, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but PyTorch sees no CUDA GPU here")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for, but PyTorch sees none here")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {str(device)!r}")
    return chosen
