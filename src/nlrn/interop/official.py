"""The official TensorFlow models as `NLRN` weights, equal to the official graphs.

Two generations exist. The first (`NLRN_v0`, variables in the scope `model/`) takes images in 0..255, returns the
residual alone and propagates correlations; the second (no scope) takes 0..1, adds the residual and does not
propagate. Ours takes 0..1 and adds the residual: the scale of 255 is folded into the input batch norm and the
output convolution.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..models.nlrn import STEP_NORMS, NLRNConfig
from .tf_checkpoint import CheckpointError, read_checkpoint

EPS = 1e-3
# Optimiser slots and counters that lie in the same files.
IGNORED = re.compile(r"(/Adam(_1)?|/Momentum|beta[12]_power|global_step|learning_rate.*)$")
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
CONVOLUTIONS = {
    "conv1": "input_conv",
    "rnn/non_local_theta": "attention.query",
    "rnn/non_local_phi": "attention.key",
    "rnn/non_local_g": "attention.value",
    "rnn/RB1_a": "conv_a",
    "rnn/RB1_b": "conv_b",
    "conv_end": "output_conv",
}


@dataclass(frozen=True)
class OfficialModel:
    """The network of an official checkpoint.

    Args:
        config: configuration of the network, with attention over the whole patch and the official patch protocol.
        tensors: its weights.
        generation: `"v0"` or `"new"`.
        input_range: white of the images that the official graph takes, 255 or 1.
    """

    config: NLRNConfig
    tensors: dict[str, Tensor]
    generation: Literal["v0", "new"]
    input_range: float


def import_official(
    path: str | Path,
    *,
    scope: str | None = None,
    correlation_propagation: bool | None = None,
    input_range: float | None = None,
    window_size: int | None = None,
) -> OfficialModel:
    """Reads an official checkpoint.

    Args:
        path: prefix, file or folder of a TensorFlow V2 checkpoint.
        scope: prefix of its variables, `"model/"` or `""`; by default the one that is there. `model/` means v0.
        correlation_propagation: whether logits are propagated; by default true for v0.
        input_range: white of the official graph's input, 255 or 1; by default 255 for v0. It is also the scale
            of the residual.
        window_size: a window instead of attention over the whole patch: an approximation. Whole images are
            then restored as such, not in patches.

    Raises:
        CheckpointError: no such checkpoint, a damaged one, or one of another network; variables that are
            missing, left over or misshapen are named.
    """
    variables = {k: v for k, v in read_checkpoint(path).items() if not IGNORED.search(k)}
    if scope is None:
        scope = "model/" if any(name.startswith("model/") for name in variables) else ""
    elif scope and not scope.endswith("/"):
        scope += "/"
    own = {k.removeprefix(scope): v for k, v in variables.items() if k.startswith(scope)}
    if "conv1/kernel" not in own or "rnn/non_local_theta/kernel" not in own:
        some = ", ".join(sorted(variables)[:3]) or "nothing"
        raise CheckpointError(f"{path} holds no official NLRN in scope {scope!r}: found {some}")

    v0 = scope == "model/"
    white = (255.0 if v0 else 1.0) if input_range is None else input_range
    names = _names(own, path)
    tensors: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        array = own.pop(theirs)
        if theirs.endswith("kernel"):
            if array.ndim != 4:
                raise CheckpointError(
                    f"{path}: {theirs} should be a convolution kernel, its shape is {array.shape}"
                )
            array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
        tensors[ours] = torch.from_numpy(array.astype(np.float32))
    if own:
        raise CheckpointError(f"{path} has variables that an NLRN does not: {', '.join(sorted(own)[:3])}")
    _fold_range(tensors, white)
    config = NLRNConfig(
        channels=tensors["input_conv.weight"].shape[1],
        width=tensors["input_conv.weight"].shape[0],
        embedding=tensors["attention.query.weight"].shape[0],
        num_steps=sum(name.startswith("attention_norms") for name in tensors) // len(NORM),
        window_size=window_size,
        correlation_propagation=v0 if correlation_propagation is None else correlation_propagation,
        initialization="official",
        patch_protocol=None if window_size else (45 if v0 else 43, 7),
    )
    return OfficialModel(config, tensors, "v0" if v0 else "new", white)


def _names(variables: dict[str, np.ndarray], path: str | Path) -> dict[str, str]:
    """Their names -> ours."""
    norms = [name for name in variables if re.fullmatch(r"rnn/batch_normalization(_\d+)?/gamma", name)]
    steps, rest = divmod(len(norms), len(STEP_NORMS))
    if rest or not steps:
        raise CheckpointError(
            f"{path} has {len(norms)} batch norms in its recurrence; an NLRN has {len(STEP_NORMS)} per step"
        )
    modules = {"batch_normalization": "input_norm", "batch_normalization_1": f"output_norms.{steps}"}
    for k in range(len(norms)):
        suffix = f"_{k}" if k else ""
        modules[f"rnn/batch_normalization{suffix}"] = f"{STEP_NORMS[k % 3]}.{k // 3}"
    names = {f"{theirs}/{k}": f"{ours}.{v}" for theirs, ours in modules.items() for k, v in NORM.items()}
    for theirs, ours in CONVOLUTIONS.items():
        names |= {f"{theirs}/kernel": f"{ours}.weight", f"{theirs}/bias": f"{ours}.bias"}
    missing = sorted(names.keys() - variables.keys())
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} variables of an NLRN: {', '.join(missing[:3])}")
    return names


def _fold_range(tensors: dict[str, Tensor], white: float) -> None:
    """From input and residual in 0..white to 0..1.

    The input norm sees x / white: its mean and variance shrink, and since eps stays, gamma makes up for it.
    """
    variance = tensors["input_norm.running_var"].double()
    shrunk = variance / white**2
    gain = white * ((shrunk + EPS) / (variance + EPS)).sqrt()
    tensors["input_norm.weight"] = (tensors["input_norm.weight"].double() * gain).float()
    tensors["input_norm.running_mean"] = tensors["input_norm.running_mean"] / white
    tensors["input_norm.running_var"] = shrunk.float()
    for name in ("output_conv.weight", "output_conv.bias"):
        tensors[name] = tensors[name] / white
