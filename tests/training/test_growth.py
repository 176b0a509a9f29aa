"""Weights that start a larger network."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nlrn import NLRN, NLRNConfig
from nlrn.training.growth import adapt_weights

SMALL = NLRNConfig(
    width=6,
    embedding=3,
    num_steps=2,
    window_size=5,
    noise_channel=True,
    sigma_range=(0.0, 0.3),
    heads=(1, 2),
)
STRIDED = dataclasses.replace(SMALL, stride=2, stem=4)


def network(config):
    """With every number drawn, statistics of the norms too."""
    torch.manual_seed(0)
    model = NLRN(config).eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand_like(value) + 0.5 if "running_var" in name else 0.3 * torch.randn_like(value)
            )
    return model


def grown(model, **changes):
    larger = NLRN(dataclasses.replace(model.config, **changes)).eval()
    larger.load_state_dict(adapt_weights(model.state_dict(), larger.state_dict()))
    return larger


@pytest.mark.parametrize("initialization", ["trainable", "official"])
@pytest.mark.parametrize(
    ("small", "changes"),
    [
        (SMALL, {"width": 16}),
        (SMALL, {"embedding": 8}),
        (SMALL, {"width": 9, "embedding": 4, "channels": 3}),
        (STRIDED, {"width": 16, "embedding": 8}),
        (STRIDED, {"stem": 7}),
        (STRIDED, {"width": 9, "stem": 5, "channels": 3}),
    ],
    ids=str,
)
def test_a_wider_network_computes_the_same(small, changes, initialization):
    model = network(small)
    larger = grown(model, initialization=initialization, **changes)
    image = torch.rand(2, 1, 9, 11)
    picture = image.expand(-1, changes.get("channels", 1), -1, -1)
    for steps in (1, 2):
        difference = larger(picture, 0.1, steps=steps) - model(image, 0.1, steps=steps)
        assert difference.abs().max() < 1e-5


def test_new_features_can_learn():
    """All that reads the new ones has gradients at once, and after a step all that makes them."""
    model = grown(network(SMALL), width=16, embedding=8).train()
    names = ("query", "key", "value")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 1, 9, 11), 0.1).square().mean().backward()
        reading = [getattr(model.attention, name).weight.grad[:, 6:] for name in names]
        reading += [
            model.conv_a.weight.grad[:, 6:],
            model.conv_b.weight.grad[:, 6:],
            model.output_conv.weight.grad[:, 6:],
        ]
        assert all(grad.abs().max() > 0 for grad in reading)
        optimizer.step()
    making = [model.input_conv, model.conv_a, model.conv_b, model.attention.value]
    assert all(conv.weight.grad[6:].abs().max() > 0 for conv in making)
    assert model.attention.key.weight.grad[3:].abs().max() > 0


def test_new_features_of_the_stem_can_learn():
    model = grown(network(STRIDED), stem=7).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 1, 10, 12), 0.1).square().mean().backward()
        assert model.stem.down.weight.grad[:, 4:].abs().max() > 0
        assert model.tail.conv_b.weight.grad[:, 4:].abs().max() > 0
        optimizer.step()
    making = [model.stem.conv_a, model.stem.conv_b, model.tail.conv_a]
    assert all(conv.weight.grad[4:].abs().max() > 0 for conv in making)
    assert all(part[4:].abs().max() > 0 for part in model.tail.up.weight.grad.chunk(4))


def test_a_network_without_a_stem_does_not_start_one_with_it():
    with pytest.raises(ValueError, match="the weights to start from have no stem"):
        grown(network(SMALL), stride=2, stem=4)


@pytest.mark.parametrize("small", [SMALL, STRIDED], ids=["paper", "stem"])
def test_more_steps_go_on_from_the_last(small):
    model = network(small)
    larger = grown(model, num_steps=5, heads=(1, 2, 5))
    image = torch.rand(1, 1, 9, 11)
    for steps in (1, 2):
        assert torch.equal(larger(image, 0.1, steps=steps), model(image, 0.1, steps=steps))
    state = model.state_dict()
    for norms in ("attention_norms", "conv_a_norms", "conv_b_norms"):
        assert torch.equal(larger.state_dict()[f"{norms}.4.running_mean"], state[f"{norms}.1.running_mean"])
    assert torch.equal(larger.state_dict()["output_norms.5.weight"], state["output_norms.2.weight"])


@pytest.mark.parametrize("changes", [{"width": 5}, {"embedding": 2}], ids=str)
def test_a_smaller_network_is_refused(changes):
    with pytest.raises(ValueError, match=r"the weights to start from have .* this network needs"):
        grown(network(SMALL), **changes)


def test_other_image_channels_are_refused():
    colour = network(dataclasses.replace(SMALL, channels=3))
    with pytest.raises(ValueError, match="this network needs"):
        grown(colour, channels=1)
    with pytest.raises(ValueError, match="this network needs"):
        grown(network(dataclasses.replace(SMALL, channels=2)), channels=3)
