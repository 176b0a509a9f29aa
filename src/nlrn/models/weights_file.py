"""Weight files: a network's configuration and weights as safetensors, never pickle.

The metadata hold the configuration as JSON and the version of the format, `major.minor`. A reader ignores fields that a
newer minor version has added, with a note, and refuses a newer major version: a field that changes what a network
computes, or one that is taken away, makes a new major version. Files without a version are of version 1.0.

| version | what it added |
|---|---|
| 1.0 | |
| 1.1 | `stride` and `stem` |
| 1.2 | `affinity`, and other weights with it; networks with that of the paper are written as before |
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from ..files.atomic import write_atomically
from .learned_affinities import DEFAULT
from .nlrn import NLRN, NLRNConfig

CONFIG_KEY = "nlrn.config"
VERSION_KEY = "nlrn.format"
VERSION = (1, 2)

log = logging.getLogger(__name__)


class ModelError(ValueError):
    """An unknown model name, or a weight file that cannot be used."""


def save_weights(
    path: str | Path,
    config: NLRNConfig,
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a safetensors file that `load_model` reads: to a temporary file first, then renamed.

    Args:
        path: the file, replaced if it exists.
        config: configuration, which goes into the file's metadata.
        state_dict: weights and batch-norm statistics of an `NLRN`.
        metadata: further notes, such as training data, recipe and licence.
        dtype: dtype of the weights in the file, float16 for half the size; batch-norm statistics stay as they are.
            By default all stay as they are.

    Raises:
        ValueError: a weight beyond the range of `dtype`.
        OSError: the file cannot be written.
    """
    tensors = {}
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        narrower = dtype is not None and "running_" not in name
        tensor = value.detach().cpu().to(dtype if narrower else value.dtype).contiguous()
        if narrower and not torch.isfinite(tensor).all() and torch.isfinite(value).all():
            raise ValueError(f"{name} has a weight beyond the range of {str(dtype).removeprefix('torch.')}")
        tensors[name] = tensor
    version = ".".join(map(str, VERSION))
    about = {**(metadata or {}), CONFIG_KEY: config_to_json(config), VERSION_KEY: version}
    write_atomically(Path(path), dump_safetensors(tensors, about), overwrite=True)


def read_weights(data: bytes, source: str) -> tuple[NLRNConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a weight file's bytes; `source` is named in errors.

    Raises:
        ModelError: another kind of file, a configuration that makes no sense, or a newer major version.
    """
    try:
        tensors = load_safetensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source} is not a safetensors file ({error})") from error
    if CONFIG_KEY not in metadata:
        raise ModelError(f"{source} has no {CONFIG_KEY!r} in its metadata: not a model that nlrn wrote")
    version = _version(metadata.get(VERSION_KEY, "1.0"), source)
    try:
        fields = json.loads(metadata[CONFIG_KEY])
        if version > VERSION:
            fields = _known(fields, metadata[VERSION_KEY], source)
        return _config(fields), tensors
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{source}: unusable model configuration ({error})") from error


def build(config: NLRNConfig, tensors: Mapping[str, Tensor], source: str) -> NLRN:
    """A network in evaluation mode and float32 with the given weights; `source` is named in errors.

    Raises:
        ModelError: weights that are missing, unknown, of another shape or not finite.
    """
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


def config_to_json(config: NLRNConfig) -> str:
    """The configuration as the JSON that weight files carry."""
    fields = dataclasses.asdict(config)
    if config.affinity == DEFAULT:
        del fields["affinity"]  # a field that older readers do not miss
    return json.dumps(fields, sort_keys=True)


def config_from_json(text: str) -> NLRNConfig:
    """The inverse of `config_to_json`.

    Raises:
        ValueError, TypeError: unknown fields, or values that make no sense.
    """
    return _config(json.loads(text))


def _config(fields: Mapping[str, Any]) -> NLRNConfig:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return NLRNConfig(**values)


def _version(text: str, source: str) -> tuple[int, int]:
    """The version of a file that this reader reads."""
    try:
        major, minor = map(int, text.split("."))
    except ValueError as error:
        raise ModelError(f"{source} has the format version {text!r}; expected major.minor") from error
    if major > VERSION[0]:
        own = ".".join(map(str, VERSION))
        raise ModelError(
            f"{source} has weight-file format {text}, and this nlrn reads up to {own}; install a newer nlrn"
        )
    return major, minor


def _known(fields: Mapping[str, Any], version: str, source: str) -> dict[str, Any]:
    """The fields of a newer minor version that this reader knows."""
    known = {field.name for field in dataclasses.fields(NLRNConfig)}
    ignored = sorted(fields.keys() - known)
    if ignored:
        log.warning(
            "%s has weight-file format %s; ignoring its field %s", source, version, ", ".join(ignored)
        )
    return {name: value for name, value in fields.items() if name in known}


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
    )
