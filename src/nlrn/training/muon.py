"""Muon: momentum whose matrix is made orthogonal before it is added to the weights.

For the matrix M `[out, in k k]` of a convolution's momentum with the singular value decomposition U S V^T a step
subtracts about `learning_rate * 0.2 sqrt(max(out, in k k)) * U V^T`: every direction counts the same, and the root mean
square of a step is that of AdamW, so that both take one learning rate. U V^T comes from five Newton-Schulz iterations.

PyTorch's own takes matrices only, and neither a learning rate on the device nor steps to be skipped there, which a
captured step needs.

Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024); the scale from Liu et al., Muon
is Scalable for LLM Training, arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

ITERATION = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
RMS = 0.2  # of a step of AdamW, as a share of the learning rate


def orthogonalize(matrix: Tensor) -> Tensor:
    """About U V^T of `matrix` = U S V^T: singular values from 0.7 to 1.2."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = ITERATION
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for the weights of convolutions and matrices.

    A step does nothing where `found_inf` is 1, as those of PyTorch's fused optimisers; nothing waits for the device.

    Args:
        parameters: weights of two dimensions or more; all dimensions but the first are taken for one.
        lr: the learning rate, a tensor on their device.
        momentum: decay of the averaged gradients.
        weight_decay: decoupled decay, times the learning rate.
        dtype: dtype of the iterations.
    """

    found_inf: Tensor

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: Tensor,
        momentum: float = 0.95,
        weight_decay: float = 1e-4,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf = torch.zeros((), device=lr.device)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step with the gradients at hand."""
        taken = 1 - self.found_inf
        for group in self.param_groups:
            rate = group["lr"] * taken
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                gradient = torch.where(taken > 0, parameter.grad, 0)
                average = state["momentum"]
                average.lerp_(gradient, (1 - group["momentum"]) * taken)
                ahead = gradient.lerp(average, group["momentum"]).flatten(1)
                step = orthogonalize(ahead.to(self._dtype)).to(parameter.dtype).view(parameter.shape)
                scale = RMS * max(ahead.shape) ** 0.5
                parameter.mul_(1 - rate * group["weight_decay"]).sub_(step * (rate * scale))
