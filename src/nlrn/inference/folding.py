"""Batch norms in evaluation mode, folded into the layers around them; exact but for rounding.

With the scale a and the shift b of a norm, BN(x) = a x + b:

- the one after `conv_a`, and the one after `conv_b` and the addition of s^0, scale these convolutions' weights and
  biases (and s^0);
- the one between the non-local module and `conv_a` goes into the values: the weights of an average add up to one, so
  a (x_i + sum_j w_j v_j) + b = a x_i + sum_j w_j (a v_j + b). Whatever `conv_a` then pads with zeros is what the norm
  would have made, so there is no border to correct.

The norm of the input stays: it precedes a convolution that pads with zeros, and has two to four channels. A stem and a
tail have no norms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.nlrn import NLRN


@dataclass(frozen=True)
class Affine:
    """`scale * x + shift`, both `[1, C, 1, 1]`, or `[n, 1, C, 1, 1]` for n norms."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norms: Iterable[nn.Module], dtype: torch.dtype) -> Affine:
        """The affine maps of batch norms of the same size in evaluation mode."""
        found, same = [], set()
        for norm in norms:
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            found.append((norm.running_mean, norm.running_var, norm.weight, norm.bias))
            same.add(norm.eps)
        # All at once: they are many, and small.
        mean, variance, weight, bias = (
            torch.stack(x).to(dtype)[:, None, :, None, None] for x in zip(*found, strict=True)
        )
        (eps,) = same
        scale = weight / (variance + eps).sqrt()
        return cls(scale, bias - mean * scale)


@dataclass(frozen=True)
class Kernel:
    """Weight and bias of a convolution."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class FoldedStep:
    """A step of the recurrence: from ReLU(BN(s^{t-1})) to ReLU(BN(s^t)), where BN is the norm of a step or a head.

    Args:
        value: kernel of the non-local module's values; `conv_a` reads their average plus `features` times the input.
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
class FullResolution:
    """The stem and the tail around a recurrence at a part of the resolution: `Stem` and `Tail` of the network."""

    stem_a: Kernel
    stem_b: Kernel
    up: Kernel
    tail_a: Kernel


@dataclass(frozen=True)
class Folded:
    """A network for inference, in the precision in which it is computed.

    Args:
        around: the convolutions at full resolution but for the last; `None` for the network of the paper.
        start: the convolution whose result is s^0.
        first: the norm between s^0 and the first step.
        query, key: of the non-local module.
        steps: the steps of the recurrence.
        last: the convolution that makes the residual.
    """

    around: FullResolution | None
    start: Kernel
    first: Affine
    query: Kernel
    key: Kernel
    steps: list[FoldedStep]
    last: Kernel


def fold(model: NLRN, steps: int, dtype: torch.dtype, *, transposed: bool = False) -> Folded:
    """Folds the norms of a network into its other weights.

    Args:
        model: a network in evaluation mode.
        steps: one of its heads.
        dtype: dtype of the result; folding is done in float32 at least.
        transposed: transpose the kernels, for a transposed image.
    """
    exact = torch.promote_types(model.start_conv.weight.dtype, torch.float32)

    def laid_out(weight: Tensor) -> Tensor:
        """`[O, k, k, I]`: channels last, as the images are, or every call would bring the weight there."""
        return (weight.transpose(2, 3) if transposed else weight).movedim(1, -1).contiguous()

    def kernel(conv: nn.Conv2d) -> Kernel:
        assert conv.bias is not None
        return Kernel(laid_out(conv.weight).to(dtype).movedim(-1, 1), conv.bias.to(dtype))

    def kernels(conv: nn.Conv2d, after: Affine) -> list[Kernel]:
        """The convolution followed by each of some norms."""
        assert conv.bias is not None
        scale, shift = after.scale.flatten(1), after.shift.flatten(1)
        weights = (laid_out(conv.weight).to(exact) * scale[:, :, None, None, None]).to(dtype).movedim(-1, 2)
        biases = (conv.bias.to(exact) * scale + shift).to(dtype)
        return [Kernel(*pair) for pair in zip(weights.unbind(), biases.unbind(), strict=True)]

    befores = Affine.of([*model.attention_norms[:steps], model.output_norms[str(steps)]], exact)
    before_a, before_b = (
        Affine.of(norms[:steps], exact) for norms in (model.conv_a_norms, model.conv_b_norms)
    )
    afters = Affine(befores.scale[1:], befores.shift[1:])
    folded = map(
        FoldedStep,
        kernels(model.attention.value, before_a),
        before_a.scale.to(dtype).unbind(),
        kernels(model.conv_a, before_b),
        kernels(model.conv_b, afters),
        afters.scale.to(dtype).unbind(),
    )
    around = None
    if model.config.stem is not None:
        stem, tail, up = model.stem, model.tail, kernel(model.tail.up)
        if transposed:
            up = _transposed_positions(up, model.config.stride)
        around = FullResolution(kernel(stem.conv_a), kernel(stem.conv_b), up, kernel(tail.conv_a))
    return Folded(
        around,
        kernel(model.start_conv),
        Affine(befores.scale[0].to(dtype), befores.shift[0].to(dtype)),
        kernel(model.attention.query),
        kernel(model.attention.key),
        list(folded),
        kernel(model.last_conv),
    )


def _transposed_positions(up: Kernel, stride: int) -> Kernel:
    """`up` for a transposed image: its output channels are rows and columns of a position, and features."""

    def turned(parameter: Tensor) -> Tensor:
        parts = parameter.reshape(stride, stride, -1, *parameter.shape[1:])
        return parts.transpose(0, 1).flatten(0, 2)

    return Kernel(turned(up.weight), turned(up.bias))
