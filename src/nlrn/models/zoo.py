"""The table of named models: files or builders, tasks, figures and terms of use; and `load_model`."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..ops.nonlocal_attention import BACKENDS
from .classical.bm3d import BM3D
from .classical.gaussian import GaussianSmoothing
from .classical.nlm import NLM
from .classical.nonlocal_mean import NonLocalMean
from .classical.ssc import SSC
from .classical.tv import TV
from .classical.wavelet import Wavelet
from .classical.wnnm import WNNM
from .contract import DeclaredModel, Model, info_of
from .hub import is_hub_name, weights_from_hub
from .weights_file import ModelError, build, read_weights

WEIGHTS = Path(__file__).parent / "weights"


# Grey levels by which a level in other units may be rounded.
ROUNDING = 1e-3


@dataclass(frozen=True)
class ModelEntry:
    """A model that ships with the package; its card is the `.md` file beside its weights.

    `sigma` is the range of noise levels in 8-bit grey levels, empty for a model that needs none; `licence` is the
    use that the terms of its training images allow. From the noise level `strong` on, in 8-bit grey levels, the model
    takes the place of the first one of its kind.
    """

    file: str
    sha256: str
    task: str
    channels: int
    parameters: int
    steps: tuple[int, ...]
    sigma: str
    psnr: str
    licence: str
    strong: float = math.inf


@dataclass(frozen=True)
class ClassicalEntry:
    """A method without learned weights, for grey and RGB images; `sigma` as in `ModelEntry`, and what it is for."""

    builder: Callable[[], DeclaredModel]
    task: str
    sigma: str
    psnr: str
    about: str


# Not Apache-2.0 alone: weights/LICENSE.md.
_BSDS_TERMS = "non-commercial research and education, as the BSDS500 images they were trained on (LICENSE.md)"

# PSNR in dB, whole images, float32, by the protocol of nlrn.evaluation; the cards have all figures. The first model of
# a task and a number of channels is its default.
MODELS: dict[str, ModelEntry] = {
    "nlrn-small-gray": ModelEntry(
        file="nlrn-small-gray.safetensors",
        sha256="c1ededa685e5dfcedc8b4ef1ac7f8b9ca048a4050f0382a6ee139ed224290863",
        task="denoise",
        channels=1,
        parameters=86_661,
        steps=(2, 4, 6),
        sigma="0..55",
        psnr="30.36 (Set12, sigma 25)",
        licence=_BSDS_TERMS,
    ),
    "nlrn-small-color": ModelEntry(
        file="nlrn-small-color.safetensors",
        sha256="8bac6e91761c3e3924350422bce38bab17b803ce6f7cbe322aa6079b2ad42fa8",
        task="denoise",
        channels=3,
        parameters=88_971,
        steps=(2, 4, 6),
        sigma="0..55",
        psnr="31.29 (CBSD68, sigma 25)",
        licence=_BSDS_TERMS,
    ),
    "nlrn-gray": ModelEntry(
        file="nlrn-gray.safetensors",
        sha256="11fc7d9ca0c2b4f81482b0d8f57afc141f8dba69b268281f43f875fa06102921",
        task="denoise",
        channels=1,
        parameters=385_985,
        steps=(2, 4, 6),
        sigma="0..75",
        psnr="30.40 (Set12, sigma 25)",
        licence=_BSDS_TERMS,
        strong=25.0,
    ),
    "nlrn-color": ModelEntry(
        file="nlrn-color.safetensors",
        sha256="57a1b855560d795bd5e634fdcdceae73328a9132b3fcb4290f5e1f1a2c9ac7b7",
        task="denoise",
        channels=3,
        parameters=387_139,
        steps=(2, 4, 6),
        sigma="0..75",
        psnr="31.31 (CBSD68, sigma 25)",
        licence=_BSDS_TERMS,
        strong=25.0,
    ),
    "nlrn-small-photo": ModelEntry(
        file="nlrn-small-photo.safetensors",
        sha256="b41530d511a62213365989fcc8764adcfc32087b82901b785ea22d6c0518ceed",
        task="photo",
        channels=3,
        parameters=88_393,
        steps=(2, 4, 6),
        sigma="",
        psnr="39.49 (PolyU, 600D)",
        licence=_BSDS_TERMS,
    ),
    "nlrn-photo": ModelEntry(
        file="nlrn-photo.safetensors",
        sha256="ce2a9294823ac25148b4dff6e083fc174a74ff945fcb98420941f474cae81171",
        task="photo",
        channels=3,
        parameters=386_851,
        steps=(2, 4, 6),
        sigma="",
        psnr="39.48 (PolyU, 600D)",
        licence=_BSDS_TERMS,
        strong=1.0,
    ),
    "nlrn-small-upscale": ModelEntry(
        file="nlrn-small-upscale.safetensors",
        sha256="3c95fa98f5b1d1a353d3053a385e56269acc02a869cb9c46d7ee24ea0c1f754c",
        task="upscale",
        channels=1,
        parameters=86_083,
        steps=(2, 4, 6),
        sigma="",
        psnr="37.14 (Set5, x2)",
        licence=_BSDS_TERMS,
    ),
    "nlrn-small-dejpeg-gray": ModelEntry(
        file="nlrn-small-dejpeg-gray.safetensors",
        sha256="6ea5143e52d0c3785ea199c72172132194782b564d27b10b3121fe41d975bea4",
        task="dejpeg",
        channels=1,
        parameters=86_083,
        steps=(2, 4, 6),
        sigma="",
        psnr="29.39 (classic5, q10)",
        licence=_BSDS_TERMS,
    ),
    "nlrn-small-dejpeg-color": ModelEntry(
        file="nlrn-small-dejpeg-color.safetensors",
        sha256="bd2500df22dfce4ef84f893db2a97be53730447251a987f25a00ce0e4f6026fe",
        task="dejpeg",
        channels=3,
        parameters=88_393,
        steps=(2, 4, 6),
        sigma="",
        psnr="27.20 (CBSD68, q10)",
        licence=_BSDS_TERMS,
    ),
}

# For grey photographs whose noise is not white, as RGB whose channels are equal.
GRAY_PHOTO = "nlrn-photo"

_SIGMA = "0..255"
CLASSICAL: dict[str, ClassicalEntry] = {
    "gaussian": ClassicalEntry(
        GaussianSmoothing,
        "denoise",
        _SIGMA,
        "26.58 (Set12, sigma 25)",
        "Gaussian smoothing: the simplest baseline",
    ),
    "wavelet": ClassicalEntry(
        Wavelet,
        "denoise",
        _SIGMA,
        "27.08 (Set12, sigma 25)",
        "wavelet shrinkage (BayesShrink): a transform, fast",
    ),
    "tv": ClassicalEntry(
        TV, "denoise", _SIGMA, "28.06 (Set12, sigma 25)", "total variation: flat areas and sharp edges"
    ),
    "nlm": ClassicalEntry(
        NLM, "denoise", _SIGMA, "28.30 (Set12, sigma 25)", "non-local means in a window: fast, any size"
    ),
    "nonlocal": ClassicalEntry(
        NonLocalMean,
        "denoise",
        _SIGMA,
        "27.01 (Set12, sigma 25)",
        "non-local mean over the whole image: to compare with a window; time grows with the square of the pixels",
    ),
    "bm3d": ClassicalEntry(
        BM3D,
        "denoise",
        _SIGMA,
        "29.92 (Set12, sigma 25)",
        "block matching and 3D filtering: accurate in a second",
    ),
    "ssc": ClassicalEntry(
        SSC,
        "denoise",
        _SIGMA,
        "30.13 (Set12, sigma 25)",
        "simultaneous sparse coding of groups of patches (SAIST): slow",
    ),
    "wnnm": ClassicalEntry(
        WNNM,
        "denoise",
        _SIGMA,
        "30.15 (Set12, sigma 25)",
        "weighted nuclear norm minimization: the most accurate of these, slow",
    ),
}


# The tasks (`ModelInfo.task`) of the models that do a task; a name that is not here fits them all.
FITTING = {
    "denoise": ("denoise", "photo"),
    "photo": ("denoise", "photo"),
    "upscale": ("upscale",),
    "dejpeg": ("dejpeg",),
}


def check_task(name: str, model: Model, task: str) -> None:
    """Raises `ModelError` if a model is for something else than `task`."""
    own = info_of(model).task
    if own in FITTING and own not in FITTING[task]:
        raise ModelError(f"{name} is a model for {own}, not for {task}")


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    window_size: int | Literal["default"] | None = "default",
    backend: str | None = None,
) -> DeclaredModel:
    """A model in evaluation mode and float32: `model(image, sigma=None) -> restored`.

    Args:
        name_or_path: a name of `nlrn models`, a `.safetensors` file that nlrn wrote, or one on the Hugging Face Hub,
            `hf://user/repository[@revision][/file]`, by default `model.safetensors` (needs `nlrn[hub]`).
        device: the device of its weights; a method without weights computes where the image is.
        window_size: another window than the model's own: odd, or `None` for the whole image. A model that was
            trained with whole-patch attention is only approximated by a window.
        backend: the backend of a network's non-local operation (`nlrn models --backends`); by default the fastest.
            A network whose backend cannot compute an image raises `ValueError`.

    Raises:
        ModelError: unknown name, unreadable file, a Hub that cannot be reached, weights that do not fit, an unknown
            backend, or a window or backend for a method that has none.

    Example:
        >>> import torch, nlrn
        >>> model = nlrn.load_model("nlrn-small-gray")
        >>> model(torch.rand(1, 1, 32, 32), sigma=25 / 255).shape
        torch.Size([1, 1, 32, 32])
    """
    classical = CLASSICAL.get(str(name_or_path))
    if classical is not None:
        if window_size != "default":
            raise ModelError(f"{name_or_path} has no window to choose, got window_size={window_size}")
        if backend is not None:
            raise ModelError(f"{name_or_path} has no backend to choose, got backend={backend!r}")
        return classical.builder()
    entry = MODELS.get(str(name_or_path))
    if is_hub_name(str(name_or_path)):
        path = weights_from_hub(str(name_or_path))
    else:
        path = WEIGHTS / entry.file if entry else Path(name_or_path)
    if entry is None and not path.is_file():
        raise ModelError(
            f"no model and no weight file {str(name_or_path)!r}; the models are: {', '.join([*MODELS, *CLASSICAL])}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if entry and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ModelError(f"{path} is damaged: its sha256 is not {entry.sha256}; install nlrn again")
    config, tensors = read_weights(data, str(path))
    if window_size != "default":
        config = dataclasses.replace(config, window_size=window_size, patch_protocol=None)
    if backend not in (None, *BACKENDS):
        raise ModelError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    model = build(config, tensors, str(path)).to(device)
    model.attention.backend = backend
    return model


def default_model(task: str, channels: int, sigma: float = 0.0) -> str:
    """The name of the model for a task and a number of image channels, the grey one if there is no other.

    Grey photographs go through a model for RGB, as three equal channels.

    Args:
        task: a task of `FITTING`.
        channels: channels of the image.
        sigma: noise level in units of [0, 1].

    Raises:
        ModelError: no model for the task.
    """
    names = {entry.channels: name for name, entry in reversed(MODELS.items()) if entry.task == task}
    if task == "photo" and channels == 1:
        return GRAY_PHOTO
    if channels not in names and 1 not in names:
        raise ModelError(f"no model that comes with nlrn is for {task}; name a weight file")
    first = names.get(channels) or names[1]
    own = MODELS[first]
    for name, entry in MODELS.items():
        if (entry.task, entry.channels) == (own.task, own.channels) and 255 * sigma > entry.strong - ROUNDING:
            return name
    return first


def fitting_models(task: str, channels: int) -> list[str]:
    """The names of all models of a task for images of so many channels: networks, then methods without weights."""
    networks = [name for name, entry in MODELS.items() if (entry.task, entry.channels) == (task, channels)]
    return [*networks, *(name for name, entry in CLASSICAL.items() if entry.task == task)]


def smallest_model(task: str, channels: int) -> str:
    """The name of the model with the fewest parameters among those that `default_model` chooses from."""
    default = default_model(task, channels)
    own = MODELS[default]
    fitting = [n for n, e in MODELS.items() if (e.task, e.channels) == (own.task, own.channels)]
    return min(fitting, key=lambda name: MODELS[name].parameters)
