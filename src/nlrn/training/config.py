"""What a training run is, apart from its data and its length."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..models.nlrn import NLRNConfig

# Clean crops [B, C, P, P] and a generator -> degraded crops and sigma [B] (None for a model that ignores it).
Degradation = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor | None]]


class ConfigError(ValueError):
    """A configuration that makes no sense."""


@dataclass(frozen=True)
class Phase:
    """A part of a run with one size of crops.

    Args:
        share: of the run, in parts of 1.
        crop: side of the square crops in pixels.
        batch: crops in a step, over all ranks together.
    """

    share: float
    crop: int
    batch: int


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Args:
        model: the network.
        degradation: `"gaussian"`, or a function of your own as `package.module:function`.
        sigma: range of the noise levels of `"gaussian"`, in 8-bit grey levels.
        phases: crop sizes over the run; the shares add up to 1.
        learning_rate: after the warm-up.
        betas: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        warmup_steps: over which the learning rate rises.
        hold: share of the run after which the learning rate begins to fall (cosine).
        ema: decay of the averaged weights.
        deep_supervision: weight of the mean loss of all heads but the last.
        precision: of the convolutions; correlations are always float32.
        seed: of crops, noise and initial weights.
        hold_out: images kept from training, for validation.
        validation_sigmas: in 8-bit grey levels.
        statistics_batches: batches over which batch-norm statistics of the averaged weights are estimated.
    """

    model: NLRNConfig
    degradation: str = "gaussian"
    sigma: tuple[float, float] = (0.0, 55.0)
    phases: tuple[Phase, ...] = (Phase(1.0, 40, 40),)
    learning_rate: float = 1.5e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 0.2
    warmup_steps: int = 300
    hold: float = 0.25
    ema: float = 0.999
    deep_supervision: float = 0.3
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    hold_out: int = 12
    validation_sigmas: tuple[float, ...] = field(default=(25.0,))
    statistics_batches: int = 200

    def __post_init__(self) -> None:
        if not self.phases or abs(sum(phase.share for phase in self.phases) - 1) > 1e-6:
            raise ConfigError(
                f"the shares of the phases must add up to 1, got {[p.share for p in self.phases]}"
            )
        if any(phase.crop < 1 or phase.batch < 1 for phase in self.phases):
            raise ConfigError("crop and batch of a phase must be at least 1")
        low, high = self.sigma
        if not 0 <= low <= high <= 255:
            raise ConfigError(f"sigma must be a range within 0..255, got {list(self.sigma)}")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision must be float32 or bfloat16, got {self.precision!r}")
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.ema < 1 or not 0 <= self.hold <= 1:
            raise ConfigError("learning_rate and clip must be positive, ema in [0, 1), hold in [0, 1]")


def load_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Reads a YAML file; `changes` replace its top-level entries.

    Raises:
        ConfigError: unknown or impossible entries.
        OSError: the file cannot be read.
    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"{path} must hold names and values, got {type(entries).__name__}")
    return from_dict({**entries, **(changes or {})}, str(path))


def from_dict(entries: Mapping[str, Any], source: str = "the configuration") -> TrainingConfig:
    """A configuration from plain values, as YAML and checkpoints hold them.

    Raises:
        ConfigError: unknown or impossible entries.
    """
    values = dict(entries)
    try:
        model = _make(NLRNConfig, values.pop("model", {}), f"{source}: model")
        phases = values.pop("phases", None)
        if phases is not None:
            values["phases"] = tuple(_make(Phase, phase, f"{source}: phases") for phase in phases)
        config: TrainingConfig = _make(TrainingConfig, {"model": model, **values}, source)
        return config
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{source}: {error}") from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def to_dict(config: TrainingConfig) -> dict[str, Any]:
    """The inverse of `from_dict`."""
    return dataclasses.asdict(config)


def _make(kind: Any, values: Mapping[str, Any], source: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise ConfigError(f"{source} has no {', '.join(unknown)}; it knows {', '.join(known)}")
    return kind(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """Tuples for lists; numbers such as 1e-3, which YAML reads as text, as numbers."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def degradation(config: TrainingConfig) -> Degradation:
    """The function that makes crops worse.

    Raises:
        ConfigError: a function that cannot be imported.
    """
    if config.degradation == "gaussian":
        return _gaussian(config)
    module, colon, name = config.degradation.partition(":")
    try:
        if not colon:
            raise ImportError("expected gaussian or package.module:function")
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"degradation {config.degradation!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"degradation {config.degradation!r} is not a function")
    return found  # type: ignore[no-any-return]


def _gaussian(config: TrainingConfig) -> Degradation:
    low, high = (level / 255 for level in config.sigma)

    def gaussian(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count, device = clean.shape[0], clean.device
        # Stratified: every batch spans all levels.
        place = torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)
        sigma = low + (high - low) / count * place
        noise = torch.randn(clean.shape, generator=generator, device=device)
        return clean + noise * sigma.view(-1, 1, 1, 1), sigma

    return gaussian
