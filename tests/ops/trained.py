"""Queries, keys and values as they are in a trained network: keys have much in common, which random ones have not."""

from __future__ import annotations

import torch
from skimage import data

from nlrn import NLRN, load_model
from nlrn.models import nonlocal_block
from nlrn.ops.nonlocal_attention import nonlocal_attention
from nlrn.training.growth import adapt_weights


def trained_steps(monkeypatch, side=20, grown=None):
    """Of all steps of `nlrn-small-gray`, or of a larger network made of it, on a noisy crop of a photograph."""
    model = load_model("nlrn-small-gray")
    if grown is not None:
        larger = NLRN(grown).eval()
        larger.load_state_dict(adapt_weights(model.state_dict(), larger.state_dict()))
        model = larger
    crop = torch.from_numpy(data.camera()[100 : 100 + side, 100 : 100 + side])[None, None] / 255
    noise = torch.randn(crop.shape, generator=torch.Generator().manual_seed(0))
    steps = []

    def recorded(query, key, value, *rest, **options):
        steps.append([query, key, value])
        return nonlocal_attention(query, key, value, *rest, **options)

    monkeypatch.setattr(nonlocal_block, "nonlocal_attention", recorded)
    with torch.no_grad():
        model(crop + 25 / 255 * noise, 25 / 255)
    return steps


def gradients_of_a_loss(steps, backend, dtype, window):
    """Of all queries, all keys and all values."""
    leaves = [[x.to(dtype).requires_grad_() for x in step] for step in steps]
    generator, state, loss = torch.Generator().manual_seed(1), None, 0
    for query, key, value in leaves:
        output, state = nonlocal_attention(query, key, value, window, state, backend=backend)
        loss = loss + (output.double() * torch.randn(output.shape, generator=generator)).sum()
    grads = torch.autograd.grad(loss, [x for step in leaves for x in step])
    return [torch.cat([x.double().flatten() for x in grads[kind::3]]) for kind in range(3)]


def no_worse_than_plain_pytorch(steps, backend, dtype, window=21, times=2.0):
    rounded = [[x.to(dtype) for x in step] for step in steps]
    exact = gradients_of_a_loss(rounded, "reference", torch.float64, window)
    plain, actual = (gradients_of_a_loss(rounded, name, dtype, window) for name in ("reference", backend))
    for kind, (a, p, e) in enumerate(zip(actual, plain, exact, strict=True)):
        assert (a - e).norm() <= times * (p - e).norm(), ("query", "key", "value")[kind]
