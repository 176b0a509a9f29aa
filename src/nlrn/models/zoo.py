"""Named models: where their weights are, or what builds them, what they are for and what they reach."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from ..files import write_atomically
from .classical.bm3d import BM3D
from .classical.denoiser import Config, Denoiser
from .classical.gaussian import GaussianSmoothing
from .classical.nlm import NLM
from .classical.tv import TV
from .classical.wavelet import Wavelet
from .nlrn import NLRN, NLRNConfig

CONFIG_KEY = "nlrn.config"
WEIGHTS = Path(__file__).parent / "weights"


class ModelError(ValueError):
    """An unknown model name, or a weight file that cannot be used."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that ships with the package; its card is the `.md` file beside its weights.

    `sigma` is the range of noise levels in 8-bit grey levels, empty for a model that needs none.
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


@dataclass(frozen=True)
class ClassicalEntry:
    """A method without learned weights, for grey and RGB images; `sigma` as in `ModelEntry`."""

    builder: Callable[[], BM3D | Denoiser[Config]]
    task: str
    sigma: str
    psnr: str


_BSDS_TERMS = "Apache-2.0; trained on BSDS500 images, which are for non-commercial research and education"

# PSNR in dB, whole images, float32, by the protocol of nlrn.evaluation; the cards have all figures.
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
    "nlrn-small-photo": ModelEntry(
        file="nlrn-small-photo.safetensors",
        sha256="b41530d511a62213365989fcc8764adcfc32087b82901b785ea22d6c0518ceed",
        task="photo",
        channels=3,
        parameters=88_393,
        steps=(2, 4, 6),
        sigma="",
        psnr="39.49 (PolyU, Canon 600D)",
        licence=_BSDS_TERMS,
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
        psnr="29.39 (classic5, quality 10)",
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
        psnr="27.20 (CBSD68, quality 10)",
        licence=_BSDS_TERMS,
    ),
}

CLASSICAL: dict[str, ClassicalEntry] = {
    "gaussian": ClassicalEntry(GaussianSmoothing, "denoise", "0..255", "26.58 (Set12, sigma 25)"),
    "wavelet": ClassicalEntry(Wavelet, "denoise", "0..255", "27.08 (Set12, sigma 25)"),
    "tv": ClassicalEntry(TV, "denoise", "0..255", "28.06 (Set12, sigma 25)"),
    "nlm": ClassicalEntry(NLM, "denoise", "0..255", "28.30 (Set12, sigma 25)"),
    "bm3d": ClassicalEntry(builder=BM3D, task="denoise", sigma="0..255", psnr="29.92 (Set12, sigma 25)"),
}


# What models may have been trained for (`NLRNConfig.task`) to do a task; a name that is not here fits them all.
FITTING = {
    "denoise": ("denoise", "photo"),
    "photo": ("denoise", "photo"),
    "upscale": ("upscale",),
    "dejpeg": ("dejpeg",),
}


def check_task(name: str, model: NLRN | BM3D | Denoiser[Config], task: str) -> None:
    """Raises `ModelError` if a model is for something else than `task`."""
    if model.config.task in FITTING and model.config.task not in FITTING[task]:
        raise ModelError(f"{name} is a model for {model.config.task}, not for {task}")


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    window_size: int | Literal["default"] | None = "default",
) -> NLRN | BM3D | Denoiser[Config]:
    """A model in evaluation mode and float32: `model(image, sigma=None) -> restored`.

    Args:
        name_or_path: a name of `nlrn models`, or a `.safetensors` file that nlrn wrote.
        device: where its weights go; a method without weights computes where the image is.
        window_size: another window than the model's own: odd, or `None` for the whole image. A model that was
            trained with whole-patch attention is only approximated by a window.

    Raises:
        ModelError: unknown name, unreadable file, weights that do not fit, or a window for a method that has none.

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
        return classical.builder()
    entry = MODELS.get(str(name_or_path))
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
    config, tensors = _parse(data, path)
    if window_size != "default":
        config = dataclasses.replace(config, window_size=window_size, patch_protocol=None)
    return build(config, tensors, str(path)).to(device)


@dataclass(frozen=True)
class About:
    """What a model's `.config` says of it, whoever wrote it.

    Args:
        channels: of the images it restores; `None` where it takes any.
        sigma_range: the noise levels it knows, in units of [0, 1]; `None` for a model that takes none.
    """

    channels: int | None
    sigma_range: tuple[float, float] | None

    @classmethod
    def of(cls, model: object) -> About:
        """A `model(image, sigma)` that says nothing takes any image and any noise."""
        config = getattr(model, "config", None)
        return cls(getattr(config, "channels", None), getattr(config, "sigma_range", (0.0, 1.0)))


def build(config: NLRNConfig, tensors: Mapping[str, Tensor], source: str) -> NLRN:
    """A network in evaluation mode with the given weights; `source` is named in errors."""
    model = NLRN(config)
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if missing or unknown or wrong:
        raise ModelError(
            f"{source}: the weights do not fit their configuration "
            f"(missing: {_some(missing)}; unknown: {_some(unknown)}; wrong shape: {_some(wrong)})"
        )
    bad = sorted(k for k, v in tensors.items() if not torch.isfinite(v).all())
    if bad:
        raise ModelError(f"{source}: weights with NaN or Inf: {_some(bad)}")
    model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    return model.eval().requires_grad_(False)


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
    )


def _parse(data: bytes, path: Path) -> tuple[NLRNConfig, dict[str, Tensor]]:
    try:
        tensors = load_safetensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a safetensors file ({error})") from error
    if CONFIG_KEY not in metadata:
        raise ModelError(f"{path} has no {CONFIG_KEY!r} in its metadata: not a model that nlrn wrote")
    try:
        return config_from_json(metadata[CONFIG_KEY]), tensors
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: unusable model configuration ({error})") from error


def config_to_json(config: NLRNConfig) -> str:
    """The configuration as the JSON that weight files carry."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True)


def config_from_json(text: str) -> NLRNConfig:
    """The inverse of `config_to_json`; unknown fields are an error."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
    }
    return NLRNConfig(**fields)


def save_weights(
    path: str | Path,
    config: NLRNConfig,
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file that `load_model` reads: to a temporary file first, then renamed.

    Args:
        path: the file, replaced if it exists.
        config: goes into the file's metadata.
        state_dict: weights and batch-norm statistics of an `NLRN`.
        metadata: more to note: training data, recipe, licence.
    """
    tensors = {
        k: v.detach().cpu().contiguous()
        for k, v in state_dict.items()
        if not k.endswith("num_batches_tracked")
    }
    data = dump_safetensors(tensors, {**(metadata or {}), CONFIG_KEY: config_to_json(config)})
    write_atomically(Path(path), data, overwrite=True)


def default_model(task: str, channels: int) -> str:
    """The name of the model for a task and a number of image channels, the grey one if there is no other.

    Photographs without a model of their own are a case of Gaussian noise.

    Raises:
        ModelError: no model for the task.
    """
    names = {entry.channels: name for name, entry in MODELS.items() if entry.task == task}
    if channels not in names and task == "photo":
        return default_model("denoise", channels)
    if channels not in names and 1 not in names:
        raise ModelError(f"no model that comes with nlrn is for {task}; name a weight file")
    return names.get(channels) or names[1]


def smallest_model(task: str, channels: int) -> str:
    """The name of the model with the fewest parameters among those that `default_model` chooses from."""
    default = default_model(task, channels)
    own = MODELS[default]
    fitting = [n for n, e in MODELS.items() if (e.task, e.channels) == (own.task, own.channels)]
    return min(fitting, key=lambda name: MODELS[name].parameters)
