"""The options of a restoration, as the Python functions, `Restorer` and the commands share them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import torch

from ..inference.precision import Precision
from ..models.contract import Model
from .purpose import HANDLINGS, Handling, Purpose
from .strength import Strength

Task = Literal["denoise", "upscale", "dejpeg", "restore"]
DataRange = float | tuple[float, float]
Noise = Literal["poisson-gaussian"]
# True is "frame".
HotPixels = bool | Literal["frame", "stack"]
# Height and width, of which one may be left to the proportions.
Size = tuple[int | None, int | None]


class Settings(TypedDict, total=False):
    """The options beside the model and the task, as keyword arguments; `Options` says what they mean."""

    steps: int | None
    ensemble: bool
    device: str | torch.device
    precision: Precision
    max_memory: int | None
    window_size: int | Literal["default"] | None
    data_range: DataRange | None
    strength: Strength
    noise: Noise | None
    gain: float | None
    read_noise: float | None
    offset: float | None
    hot_pixels: HotPixels
    purpose: Purpose | None
    decorrelate: bool


@dataclass(frozen=True)
class Options:
    """The options of a restoration.

    Args:
        model: a name of `nlrn models`, a weight file, or a model; by default the one for the task and the image's
            channels, and for noise by whether sigma is known.
        task: `"denoise"`, `"upscale"`, `"dejpeg"` or `"restore"`, which is those of the three that an image needs.
        scale, size, fit: how large results are, as `Enlargement` has them: exactly one of the three for `"upscale"`,
            at most one for `"restore"`. Luma and edges of alpha are restored, the rest is bicubic.
        steps: stop after this many recurrent steps (one of the model's heads).
        ensemble: average over the eight flips and rotations of the image.
        device: `"auto"` (CUDA if there is one, else the CPU), or a PyTorch device, for models given by name. A model
            object is used where it is.
        precision: in which an `NLRN` is computed: `"float32"`, `"bfloat16"`, `"float16"` (GPUs only), or `"auto"`,
            which is float16 on CUDA and float32 elsewhere. What overflows is computed again in float32.
        max_memory: bytes; by default half of what is available.
        window_size: another window than the model's own, an approximation for a model that was trained with
            whole-patch attention.
        data_range: the value of white, or the values of black and white; by default that of the type, or one that
            follows from the data.
        strength: how much of what a restoration takes away is really taken away, from 0 to 1; two numbers are for luma
            and for color. For `"upscale"` it is 1.
        noise: `"poisson-gaussian"` for the noise of a sensor, `"denoise"` only: its variance rises with brightness as
            `gain (x - offset) + read_noise^2`. What is not given of it is estimated from each image. By default noise
            is what sigma says.
        gain: units of the data per electron (the inverse of a gain in electrons per unit).
        read_noise: standard deviation without light, in the units of the data.
        offset: value without light, in the units of the data.
        hot_pixels: whether isolated pixels far beyond the noise are replaced by the median of their neighbours, for
            `"denoise"` only. They are taken for faults of the sensor; stars span several pixels and stay. True or
            `"frame"` finds those of each image by itself, `"stack"` those that 8 or more pages of a stack have in the
            same place: also weaker ones, and nothing that passes by.
        purpose: the kind of picture, for `"denoise"` and `"restore"`: `"photo"`, `"scan"`, `"screenshot"` or
            `"measurement"`, with the handling that `HANDLINGS` has for it. By default it follows from what is measured.
        decorrelate: whether noise that rows, columns or neighbours share is removed by its spectrum, which is estimated
            from each image, for `"denoise"` only. Takes four passes of a model for white noise.
    """

    model: str | Path | Model | None = None
    task: Task = "denoise"
    scale: float | None = None
    size: Size | None = None
    fit: tuple[int, int] | None = None
    steps: int | None = None
    ensemble: bool = False
    device: str | torch.device = "auto"
    precision: Precision = "auto"
    max_memory: int | None = None
    window_size: int | Literal["default"] | None = "default"
    data_range: DataRange | None = None
    strength: Strength = 1.0
    noise: Noise | None = None
    gain: float | None = None
    read_noise: float | None = None
    offset: float | None = None
    hot_pixels: HotPixels = False
    purpose: Purpose | None = None
    decorrelate: bool = False

    def that_change_results(self) -> dict[str, Any]:
        """The options on which results depend, as JSON values by name; a weight file counts by its content."""
        values = {
            name: getattr(self, name)
            for name in (
                "task",
                "scale",
                "steps",
                "ensemble",
                "precision",
                "window_size",
                "data_range",
                "strength",
                "noise",
                "gain",
                "read_noise",
                "offset",
                "hot_pixels",
                "purpose",
                "decorrelate",
            )
        }
        name = self.model_name
        if name is not None and Path(name).is_file():
            name = f"sha256 {hashlib.sha256(Path(name).read_bytes()).hexdigest()}"
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {"model": name, **plain, "size": in_words(self.size), "fit": in_words(self.fit)}

    @property
    def handling(self) -> Handling:
        """The handling of the kind of picture.

        Raises:
            ValueError: another purpose, one for another task, or beside a model or a noise.
        """
        purpose = self.purpose
        if purpose is None:
            return HANDLINGS[None]
        if purpose not in HANDLINGS:
            raise ValueError(f"purpose= must be one of {', '.join(get_args(Purpose))}, got {purpose!r}")
        if self.task not in ("denoise", "restore"):
            raise ValueError(f"purpose= is for denoise and restore, not for {self.task}")
        for name in ("model", "noise"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"purpose='{purpose}' chooses the model, and {name}= another one; give one of them"
                )
        return HANDLINGS[purpose]

    def check_denoising(self) -> None:
        """Raises `ValueError` for options of `"denoise"` beside another task, or that exclude each other."""
        for name in ("hot_pixels", "decorrelate"):
            if getattr(self, name) and self.task != "denoise":
                raise ValueError(f"{name} is for denoise, not for {self.task}")
        if self.hot_pixels not in (True, False, "frame", "stack"):
            raise ValueError(f"hot_pixels must be True, False, 'frame' or 'stack', got {self.hot_pixels!r}")
        if self.decorrelate and self.noise is not None:
            raise ValueError(
                "decorrelate is for noise of one level, not for noise='poisson-gaussian'; give one of them"
            )
        if self.decorrelate and self.handling.photo:
            raise ValueError(
                f"decorrelate is for a model that takes a noise level, and purpose='{self.purpose}' takes one that "
                "has none; give one of them"
            )

    @property
    def model_name(self) -> str | None:
        """The name or file of the model; `None` for the default one and for a model object."""
        return str(self.model) if isinstance(self.model, str | os.PathLike) else None


def read_size(text: str) -> Size | None:
    """Height and width from `4096x2160`, `4096x` or `x2160`; `None` for other text."""
    match = re.fullmatch(r"([1-9]\d{0,8})?[xX]([1-9]\d{0,8})?", text.strip(), re.ASCII)
    if match is None or not (match[1] or match[2]):
        return None
    width, height = (int(digits) if digits else None for digits in match.groups())
    return height, width


def in_words(sides: Size | None) -> str | None:
    """Height and width as the command line has them: `4096x2160`, `4096x` or `x2160`."""
    return None if sides is None else "x".join("" if side is None else str(side) for side in sides[::-1])


# What each option may be, and its name for an error.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "steps": ((int, type(None)), "a whole number"),
    "ensemble": ((bool,), "True or False"),
    "device": ((str, torch.device), "a name or a PyTorch device"),
    "precision": ((str,), "the name of a type"),
    "max_memory": ((int, type(None)), "a whole number of bytes"),
    "window_size": ((int, str, type(None)), "a whole number or None"),
    "hot_pixels": ((bool, str), "True, False, 'frame' or 'stack'"),
    "purpose": ((str, type(None)), "the name of a kind of picture"),
    "decorrelate": ((bool,), "True or False"),
}


def check_options(settings: Settings) -> None:
    """Raises `TypeError` for an option that there is not, or of a wrong type, by its name."""
    for name, value in settings.items():
        if name not in Settings.__annotations__:
            raise TypeError(f"there is no option {name!r}; the options are those of nlrn.denoise")
        kinds, expected = _KINDS.get(name, ((object,), ""))
        if not isinstance(value, kinds) or (
            isinstance(value, bool) and bool not in kinds and kinds != (object,)
        ):
            raise TypeError(f"{name} must be {expected}, got {value!r}")
