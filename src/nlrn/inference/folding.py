"""Batch norms in evaluation mode, folded into the layers around them; exact but for rounding.

With the scale a and the shift b of a norm, BN(x) = a x + b:

- the one after `conv_a`, and the one after `conv_b` and the addition of s^0, scale these convolutions' weights and biases (and s^0);
- the one between the non-local module and `conv_a` goes into the values: the weights of an average add up to one, so
  a (x_i + sum_j w_j v_j) + b = a x_i + sum_j w_j (a v_j + b). Whatever `conv_a` then pads with zeros is what the norm
  would have made, so there is no border to correct.

The norm of the input stays: it precedes a convolution that pads with zeros, and has two to four channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.nlrn import NLRN


@dataclass(frozen=True)
class Affine:
    """`scale * x + shift`, both `[1, C, 1, 1]`."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: nn.Module, dtype: torch.dtype) -> Affine:
        """What a batch norm does in evaluation mode."""
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance, weight, bias = (
            x.to(dtype) for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        scale = weight / (variance + norm.eps).sqrt()
        return cls(scale.view(1, -1, 1, 1), (bias - mean * scale).view(1, -1, 1, 1))


@dataclass(frozen=True)
class Kernel:
    """Weight and bias of a convolution."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class FoldedStep:
    """A step of the recurrence: from ReLU(BN(s^{t-1})) to ReLU(BN(s^t)), where BN is the next norm, of a step or a head.

    Args:
        value: of the non-local module; its average plus `features` times the input is what `conv_a` sees.
        features: that scale.
        conv_a, conv_b: the convolutions; each is followed by a ReLU.
        start: the scale of s^0, which is added to the result of `conv_b`.
    """

    value: Kernel
    features: Tensor
    conv_a: Kernel
    conv_b: Kernel
    start: Tensor


@dataclass(frozen=True)
class Folded:
    """A network for inference, in the precision in which it is computed.

    Args:
        input: the first convolution; its result is s^0.
        first: the norm between s^0 and the first step.
        query, key: of the non-local module.
        steps: of the recurrence.
        output: the last convolution.
    """

    input: Kernel
    first: Affine
    query: Kernel
    key: Kernel
    steps: list[FoldedStep]
    output: Kernel


def fold(model: NLRN, steps: int, dtype: torch.dtype, *, transposed: bool = False) -> Folded:
    """What is left of a network without its norms.

    Args:
        model: in evaluation mode.
        steps: one of its heads.
        dtype: of the result; folded in float32 at least.
        transposed: for a transposed image, whose kernels are transposed too.
    """
    exact = torch.promote_types(model.input_conv.weight.dtype, torch.float32)

    def kernel(conv: nn.Conv2d, after: Affine | None = None) -> Kernel:
        assert conv.bias is not None
        weight, bias = conv.weight.to(exact), conv.bias.to(exact)
        if after is not None:
            weight = weight * after.scale.view(-1, 1, 1, 1)
            bias = bias * after.scale.flatten() + after.shift.flatten()
        return Kernel((weight.transpose(2, 3) if transposed else weight).to(dtype), bias.to(dtype))

    def norm(module: nn.Module) -> Affine:
        return Affine.of(module, exact)

    befores = [norm(m) for m in [*model.attention_norms[:steps], model.output_norms[str(steps)]]]
    folded = []
    for t in range(steps):
        before_a, before_b, after = norm(model.conv_a_norms[t]), norm(model.conv_b_norms[t]), befores[t + 1]
        folded.append(
            FoldedStep(
                kernel(model.attention.value, before_a),
                before_a.scale.to(dtype),
                kernel(model.conv_a, before_b),
                kernel(model.conv_b, after),
                after.scale.to(dtype),
            )
        )
    return Folded(
        kernel(model.input_conv),
        Affine(befores[0].scale.to(dtype), befores[0].shift.to(dtype)),
        kernel(model.attention.query),
        kernel(model.attention.key),
        folded,
        kernel(model.output_conv),
    )
