"""Trained weights as the start of another network: of other image channels, or a larger one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.nlrn import STEP_NORMS

# Layers whose new channels begin with random weights. New channels of all others begin at zero.
RANDOM = ("input_conv", "conv_a", "attention.query", "attention.affinity.theta", "stem.", "tail.conv_a")
# Layers that read the image and layers that make the residual, without a stem and with one.
READS_IMAGE = ("input_conv.weight", "stem.conv_a.weight")
MAKES_RESIDUAL = ("output_conv.", "tail.conv_b.")


def adapt_weights(state: dict[str, Tensor], to: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for another network: other image channels, no noise channel, more heads, features, embedding or steps.

    A window has no weights: another window starts from any weights.

    The first convolution and norm spread a grey channel over three; the last convolution repeats it. A noise
    channel is left out where the new network has none. A head or step that the weights lack begins as their last one.

    A wider network computes the same at first: the weights that make new features are random, and the weights that read
    them are zero (as in Chen et al., Net2Net, arXiv 1511.05641), so that both have gradients. A network of more steps
    computes the same at the heads of the old one.

    Args:
        state: state of the network to start from.
        to: state of the new network, freshly initialised.

    Raises:
        ValueError: weights of another network, or of one with more features or a larger embedding.
    """
    channels = next((len(value) for name, value in state.items() if _is_residual_bias(name)), 0)
    adapted = {}
    for name, target in to.items():
        value = state.get(_source(name, state))
        if value is None and name.endswith("num_batches_tracked"):
            value = target
        if value is None:
            raise ValueError(f"the weights to start from have no {name}")
        if value.shape != target.shape:
            given = tuple(value.shape)
            value = _to_channels(name, value, target, channels)
            if name.startswith("tail.up.") and "stem.down.weight" in to:
                # Output channels are positions and features; features grow within each position.
                positions = to["stem.down.weight"].shape[2] * to["stem.down.weight"].shape[3]
                value = _grown_by_position(name, value, target, positions)
            else:
                value = _grown(name, value, target)
            if value is None:
                raise ValueError(
                    f"the weights to start from have {name} of {given}, this network needs {tuple(target.shape)}"
                )
        adapted[name] = value.clone()
    return adapted


def _is_residual_bias(name: str) -> bool:
    return name.startswith(MAKES_RESIDUAL) and name.endswith(".bias")


def _source(name: str, state: dict[str, Tensor]) -> str:
    """The name of the weights that a parameter begins with: its own, or that of the last head or step."""
    module, _, rest = name.partition(".")
    if name in state or module not in ("output_norms", *STEP_NORMS):
        return name
    last = max((int(key.split(".")[1]) for key in state if key.startswith(f"{module}.")), default=0)
    return f"{module}.{last}.{rest.partition('.')[2]}"


def _to_channels(name: str, value: Tensor, target: Tensor, channels: int) -> Tensor:
    """`value` of a network with so many image channels, for one of other image channels or without a noise level."""
    if name.startswith("input_norm"):
        picture, level = value[:channels], value[channels:]
        if channels == 1 and len(target) >= 3:
            picture = picture.expand(3)
        return torch.cat([picture, level])[: len(target)]
    if name in READS_IMAGE:
        picture, level = value[:, :channels], value[:, channels:]
        if channels == 1 and target.shape[1] >= 3:
            picture = picture.expand(-1, 3, -1, -1) / 3
        return torch.cat([picture, level], 1)[:, : target.shape[1]]
    if name.startswith(MAKES_RESIDUAL) and channels == 1 and len(target) == 3:
        return value.expand(3, *value.shape[1:])
    return value


def _grown(name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """`value` among the new channels of `target`, or `None` if it has more than that."""
    if any(old > new for old, new in zip(value.shape, target.shape, strict=True)):
        return None
    if value.shape[2:] != target.shape[2:] or (name.startswith("input_norm") and value.shape != target.shape):
        return None
    image_side = 1 if name in READS_IMAGE else 0 if name.startswith(MAKES_RESIDUAL) else None
    if image_side is not None and value.shape[image_side] != target.shape[image_side]:
        return None
    own = "norms." in name or name.startswith(RANDOM)
    grown = target.clone() if own else torch.zeros_like(target)
    grown[: len(value)] = 0
    grown[tuple(slice(length) for length in value.shape)] = value
    return grown


def _grown_by_position(name: str, value: Tensor, target: Tensor, positions: int) -> Tensor | None:
    """`_grown` of channels that are so many positions, each with features of its own."""
    if len(value) % positions:
        return None
    parts = [
        _grown(name, *pair) for pair in zip(value.chunk(positions), target.chunk(positions), strict=True)
    ]
    return (
        None
        if any(part is None for part in parts)
        else torch.cat([part for part in parts if part is not None])
    )
