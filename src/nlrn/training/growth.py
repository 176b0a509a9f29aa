"""Released weights as the start of another network: of other image channels, or a larger one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.nlrn import STEP_NORMS

# Where new channels begin with random weights. All else that reads them or writes to them begins at zero.
RANDOM = ("input_conv", "conv_a", "attention.query")


def adapt_weights(state: dict[str, Tensor], to: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for another network: other image channels, no noise channel, more heads, features, embedding or steps.

    The first convolution and norm spread a grey channel over three; the last convolution repeats it. For a network
    without a noise channel theirs is left out. A head or step that the weights do not have begins as their last one.

    A wider network computes the same at first: what new features are made of is random, and what is made of them is
    zero (as in Chen et al., Net2Net, arXiv 1511.05641), so that both have gradients. One of more steps does so at the
    old one's heads.

    Args:
        state: of the network to start from.
        to: of the new network, freshly initialised.

    Raises:
        ValueError: weights of another network, or of one with more features or a larger embedding.
    """
    channels = len(state["output_conv.bias"])
    adapted = {}
    for name, target in to.items():
        value = state.get(_source(name, state))
        if value is None and name.endswith("num_batches_tracked"):
            value = target
        if value is None:
            raise ValueError(f"the weights to start from have no {name}")
        if value.shape != target.shape:
            given = tuple(value.shape)
            value = _grown(name, _to_channels(name, value, target, channels), target)
            if value is None:
                raise ValueError(
                    f"the weights to start from have {name} of {given}, this network needs {tuple(target.shape)}"
                )
        adapted[name] = value.clone()
    return adapted


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
    if name == "input_conv.weight":
        picture, level = value[:, :channels], value[:, channels:]
        if channels == 1 and target.shape[1] >= 3:
            picture = picture.expand(-1, 3, -1, -1) / 3
        return torch.cat([picture, level], 1)[:, : target.shape[1]]
    if name.startswith("output_conv.") and channels == 1 and len(target) == 3:
        return value.expand(3, *value.shape[1:])
    return value


def _grown(name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """`value` among the new channels of `target`, or `None` if it has more than that."""
    if any(old > new for old, new in zip(value.shape, target.shape, strict=True)):
        return None
    if value.shape[2:] != target.shape[2:] or (name.startswith("input_norm") and value.shape != target.shape):
        return None
    image_side = {"input_conv.weight": 1, "output_conv.weight": 0, "output_conv.bias": 0}.get(name)
    if image_side is not None and value.shape[image_side] != target.shape[image_side]:
        return None
    own = "norms." in name or name.startswith(RANDOM)
    grown = target.clone() if own else torch.zeros_like(target)
    grown[: len(value)] = 0
    grown[tuple(slice(length) for length in value.shape)] = value
    return grown
