"""The configuration of a training run: everything but its data and its length."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..degradations.batches import Degradation, bicubic, gaussian, jpeg
from ..degradations.camera import camera
from ..degradations.photograph import photograph
from ..files.planes import Luma
from ..models.nlrn import NLRNConfig

# Crops with their margins are multiples of this, by degradation; those of "bicubic" of every scale.
UNITS = {"jpeg": 16, "camera": 16, "photograph": 16}
IN_COLOR = ("camera", "photograph")
# A number with an exponent.
EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")


class ConfigError(ValueError):
    """A configuration with unknown or impossible entries."""


@dataclass(frozen=True)
class Phase:
    """A part of a run with one size of crops.

    Args:
        share: part of the run, from 0 to 1.
        crop: side of the square crops in pixels.
        batch: crops in a step, over all ranks together.
        frozen_norms: train from the averaged weights with fixed batch-norm statistics instead of those of each batch.
            They are estimated when the phase begins; in the first phase they are those that the run starts from.
            Such phases come last.
    """

    share: float
    crop: int
    batch: int
    frozen_norms: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Args:
        model: the network.
        degradation: one of `DEGRADATIONS`, or a function of your own as `package.module:function`.
        sigma: range of the noise levels of `"gaussian"`, in 8-bit grey levels.
        scales: enlargements of `"bicubic"`.
        quality: range of the qualities of `"jpeg"`.
        margin: pixels around every crop that are degraded and then cut off, so that the network does not learn what
            the degradation does at borders.
        luma: conversion of RGB images for a network of one channel: `"gray"` (rgb2gray) or `"y"` (Y of rgb2ycbcr).
        faded: share of the crops whose contrast is taken away, around any colour: smooth areas, at which a recurrent
            network can drift, fill few crops of natural images.
        recolored: share of the crops of RGB images whose channels change places or whose hue is turned.
        toned: share of the crops of RGB images that are turned grey or take one tint, as old prints have.
        drawn: share of the crops that are drawings: gradients, gratings, shapes and text in any colours.
        phases: crop sizes over the run; the shares add up to 1.
        learning_rate: the rate after the warm-up.
        optimizer: `"adamw"`, or `"muon"`: Muon for the weights of all convolutions but the first and the last, AdamW
            for the rest.
        betas: decays of AdamW's averages.
        weight_decay: decoupled weight decay of both optimisers.
        clip: largest norm of the gradient.
        warmup_steps: steps over which the learning rate rises.
        hold: share of the run after which the learning rate begins to fall (cosine).
        ema: decay of the averaged weights.
        deep_supervision: weight of the mean loss of all heads but the last.
        precision: dtype of the convolutions and, in the triton and native backends, of queries, keys and values;
            `"auto"` is bfloat16 where the device has instructions for it, float32 elsewhere. The softmax is computed
            in float32 everywhere.
        seed: seed of crops, noise and initial weights.
        hold_out: images kept from training, for validation.
        validation_levels: noise levels in 8-bit grey levels, scales or qualities, by degradation; other degradations
            have no levels.
        statistics_batches: batches over which batch-norm statistics of the averaged weights are estimated.
        statistics_crop: side of the crops in them; by default that of the last phase. Larger ones, in which pixels see
            more neighbours, make a model steadier on large smooth areas.
    """

    model: NLRNConfig
    degradation: str = "gaussian"
    sigma: tuple[float, float] = (0.0, 55.0)
    scales: tuple[int, ...] = (2, 3, 4)
    quality: tuple[float, float] = (5.0, 95.0)
    margin: int = 0
    luma: Luma = "gray"
    faded: float = 0.0
    recolored: float = 0.0
    toned: float = 0.0
    drawn: float = 0.0
    phases: tuple[Phase, ...] = (Phase(1.0, 40, 40),)
    learning_rate: float = 1.5e-3
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip: float = 0.2
    warmup_steps: int = 300
    hold: float = 0.25
    ema: float = 0.999
    deep_supervision: float = 0.3
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    hold_out: int = 12
    validation_levels: tuple[float, ...] = (25.0,)
    statistics_batches: int = 200
    statistics_crop: int | None = None

    @property
    def statistics_side(self) -> int:
        """`statistics_crop`, or its default."""
        return self.statistics_crop or self.phases[-1].crop

    def __post_init__(self) -> None:
        if not self.phases or abs(sum(phase.share for phase in self.phases) - 1) > 1e-6:
            raise ConfigError(
                f"the shares of the phases must add up to 1, got {[p.share for p in self.phases]}"
            )
        if any(phase.crop < 1 or phase.batch < 1 for phase in self.phases):
            raise ConfigError("crop and batch of a phase must be at least 1")
        frozen = [phase.frozen_norms for phase in self.phases]
        if frozen != sorted(frozen):
            raise ConfigError("phases with frozen_norms must come last")
        low, high = self.sigma
        if not 0 <= low <= high <= 255:
            raise ConfigError(f"sigma must be a range within 0..255, got {list(self.sigma)}")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ConfigError(f"quality must be a range within 1..100, got {list(self.quality)}")
        if not self.scales or any(scale < 2 or scale != int(scale) for scale in self.scales):
            raise ConfigError(f"scales must be whole numbers from 2, got {list(self.scales)}")
        for name in ("statistics_batches", "statistics_crop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        for name in ("margin", "hold_out", "warmup_steps", "weight_decay", "deep_supervision"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("faded", "recolored", "toned", "drawn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be a share within 0..1, got {getattr(self, name)}")
        for name in ("recolored", "toned"):
            if getattr(self, name) and self.model.channels != 3:
                raise ConfigError(f"{name} crops need a network of 3 channels, got {self.model.channels}")
        if self.luma not in ("gray", "y"):
            raise ConfigError(f"luma must be gray or y, got {self.luma!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigError(f"optimizer must be adamw or muon, got {self.optimizer!r}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        unit = (
            math.lcm(*map(int, self.scales))
            if self.degradation == "bicubic"
            else UNITS.get(self.degradation, 1)
        )
        sides = [side + 2 * self.margin for side in (*(p.crop for p in self.phases), self.statistics_side)]
        if any(side % unit for side in sides):
            raise ConfigError(
                f"{self.degradation} needs crops with their margins to be multiples of {unit}, got {sorted(set(sides))}"
            )
        if self.degradation in IN_COLOR and self.model.channels != 3:
            raise ConfigError(
                f"{self.degradation} noise needs a network of 3 channels, got {self.model.channels}"
            )
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.ema < 1 or not 0 <= self.hold <= 1:
            raise ConfigError("learning_rate and clip must be positive, ema in [0, 1), hold in [0, 1]")


def load_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Reads a YAML file; `changes` replace its top-level entries.

    Raises:
        ConfigError: unknown or impossible entries.
        OSError: the file cannot be read.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML with 1e-3 as a number, as its version 1.2 reads it; PyYAML asks for 1.0e-3."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("+-.0123456789"))
    try:
        entries = yaml.load(path.read_text(), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"{path} must hold names and values, got {type(entries).__name__}")
    return from_dict({**entries, **(changes or {})}, str(path))


def from_dict(entries: Mapping[str, Any], source: str = "the configuration") -> TrainingConfig:
    """Makes a configuration from plain values, as YAML and checkpoints hold them.

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
        raise ConfigError(f"{source} has no {', '.join(unknown)}; expected some of {', '.join(known)}")
    hints = get_type_hints(kind)
    plain = {name: _whole(_tuples(value), hints[name]) for name, value in values.items()}
    for name, value in plain.items():
        if not _is(value, hints[name]):
            raise ConfigError(f"{source}: {name} must be {known[name].type}, got {values[name]!r}")
    return kind(**plain)


def _whole(value: Any, hint: Any) -> Any:
    """The value with whole numbers such as 1e3 as integers, where the annotation has an int."""
    if isinstance(value, tuple):
        return tuple(_whole(item, hint) for item in value)
    integral = int in (hint, *get_args(hint))
    return int(value) if integral and isinstance(value, float) and value.is_integer() else value


def _tuples(value: Any) -> Any:
    """The value with tuples for lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _is(value: Any, hint: Any) -> bool:
    """True if a value is of an annotated type; numbers are finite, and an int is a float too."""
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, type(kinds[0]))  # which of them is for the class to say
    if get_origin(hint) is tuple:
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if kinds:
        return any(_is(value, kind) for kind in kinds)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def degradation(config: TrainingConfig) -> Degradation:
    """The function that makes crops worse; a module of a user's own is also looked for in the working folder.

    Raises:
        ConfigError: a function that cannot be imported.
    """
    if config.degradation in DEGRADATIONS:
        return DEGRADATIONS[config.degradation](config)
    module, colon, name = config.degradation.partition(":")
    try:
        if not colon:
            raise ImportError(f"expected {', '.join(DEGRADATIONS)} or package.module:function")
        found = getattr(_import(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"degradation {config.degradation!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"degradation {config.degradation!r} is not a function")
    return found  # type: ignore[no-any-return]


def _import(module: str) -> Any:
    """A module, from the working folder where it is nowhere else: a console script does not look there."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)


# By name: the degradation of a configuration.
DEGRADATIONS: dict[str, Callable[[TrainingConfig], Degradation]] = {
    "gaussian": lambda config: gaussian((config.sigma[0] / 255, config.sigma[1] / 255)),
    "bicubic": lambda config: bicubic([int(scale) for scale in config.scales]),
    "jpeg": lambda config: jpeg(config.quality),
    "camera": lambda config: camera,
    "photograph": lambda config: photograph,
}
