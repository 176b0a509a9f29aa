"""Muon: against PyTorch's, and in a training step."""

from __future__ import annotations

import pytest
import torch
from runs import CPU, config

from nlrn.training.config import ConfigError
from nlrn.training.muon import Muon, orthogonalize
from nlrn.training.step import Trainer, step_generator


@pytest.mark.parametrize("shape", [(6, 3, 2, 2), (16, 2, 3, 3), (4, 9, 1, 1)], ids=str)
def test_steps_equal_pytorchs(shape):
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(shape, generator=generator).requires_grad_()
    theirs = own.detach().flatten(1).clone().requires_grad_()
    rate = torch.tensor(0.02)
    muon = Muon([own], rate, weight_decay=0.1)
    peer = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        own.grad, theirs.grad = gradient, gradient.flatten(1).clone()
        muon.step()
        peer.step()
    # Both iterate in bfloat16, in other orders.
    moved = 5 * 0.02 * 0.2 * max(theirs.shape) ** 0.5
    torch.testing.assert_close(own.flatten(1), theirs, rtol=0, atol=0.02 * moved)


def test_orthogonal():
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    for given in (matrix, matrix.T, 1e-6 * matrix):
        values = torch.linalg.svdvals(orthogonalize(given))
        assert values.min() > 0.6
        assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(
        orthogonalize(matrix).flatten(), (left @ right).flatten(), 0
    )
    assert cosine > 0.97


def test_a_step_that_is_skipped():
    weight = torch.randn(4, 4, requires_grad=True)
    muon = Muon([weight], torch.tensor(0.1))
    weight.grad = torch.randn(4, 4)
    muon.step()
    before = weight.detach().clone(), muon.state[weight]["momentum"].clone()
    weight.grad = torch.full((4, 4), float("nan"))
    muon.found_inf = torch.tensor(1.0)
    muon.step()
    assert torch.equal(weight, before[0])
    assert torch.equal(muon.state[weight]["momentum"], before[1])


def test_which_weights_are_matrices():
    trainer = Trainer(config(optimizer="muon"), CPU)
    trainer.run(torch.rand(4, 1, 12, 12), step_generator(0, 0, CPU), 0, 1e-3)
    with_momentum = {n for n, p in trainer.parameters.items() if "momentum" in trainer.optimizer_state(p)}
    block = {f"attention.{name}.weight" for name in ("query", "key", "value")}
    assert with_momentum == block | {"conv_a.weight", "conv_b.weight"}
    others = trainer.parameters.keys() - with_momentum
    assert all("exp_avg" in trainer.optimizer_state(trainer.parameters[name]) for name in others)


def test_another_name_is_refused():
    with pytest.raises(ConfigError, match="optimizer must be adamw or muon, got 'sgd'"):
        config(optimizer="sgd")
