"""Non-local blocks and networks of other affinities, against dense float64 arithmetic from their definition."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nlrn import NLRN, NLRNConfig, NonLocalBlock, load_model
from nlrn.inference import restore
from nlrn.models.learned_affinities import AFFINITIES, DEFAULT
from nlrn.models.weights_file import config_from_json, config_to_json, save_weights
from nlrn.ops.framework import Affinity

each_affinity = pytest.mark.parametrize("name", AFFINITIES)
TINY = {"width": 6, "embedding": 4, "num_steps": 2, "window_size": 5}


def block_of(name, window_size=5, seed=0):
    """A block in float64 whose values are not zero."""
    torch.manual_seed(seed)
    block = NonLocalBlock(6, 4, window_size, name).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block


def features(height=7, width=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, height, width, generator=generator, dtype=torch.float64)


def patches(x):
    """The 3x3 patches around all pixels, mirrored at the border: `[B, C, 9, N]`."""
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    height, width = x.shape[2:]
    parts = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(parts, 2).flatten(3)


def dense_logits(block, name, x):
    """`[B, N, N]`, from the definition."""
    if name == DEFAULT:
        return block.query(x).flatten(2).mT @ block.key(x).flatten(2)
    theta = block.affinity.theta(x)
    if name == "dot_product":
        return theta.flatten(2).mT @ block.affinity.psi(x).flatten(2)
    if name == "symmetric_embedded_gaussian":
        return theta.flatten(2).mT @ theta.flatten(2)
    if name == "gaussian":
        flat = theta.flatten(2)
        return -(flat[..., :, None] - flat[..., None, :]).square().sum(1)
    around = patches(theta)
    return -(around[..., :, None] - around[..., None, :]).square().mean((1, 2))


def dense_mean(block, name, x, logits):
    """The weighted mean `[B, C, H, W]` over a window, or over the whole image."""
    height, width = x.shape[2:]
    y, z = (t.flatten() for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    radius = max(height, width) if block.window_size is None else block.window_size // 2
    near = ((y[:, None] - y).abs() <= radius) & ((z[:, None] - z).abs() <= radius)
    if name == "dot_product":
        weights = logits * near / near.sum(1, keepdim=True)
    else:
        weights = logits.masked_fill(~near, -torch.inf).softmax(-1)
    return (block.value(x).flatten(2) @ weights.mT).view_as(x)


def gradients(block, x, result):
    torch.manual_seed(7)
    return torch.autograd.grad((result * torch.randn_like(result)).sum(), [x, *block.parameters()])


@each_affinity
@pytest.mark.parametrize("window_size", [5, None, 31], ids=str)
def test_block_and_gradients_by_definition(name, window_size):
    block, x = block_of(name, window_size), features().requires_grad_()
    actual = block(x)
    expected = x + dense_mean(block, name, x, dense_logits(block, name, x))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    for one, other in zip(gradients(block, x, actual), gradients(block, x, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in AFFINITIES if name != "dot_product"])
def test_logits_are_propagated(name):
    """Of two steps the second sees the sum of both logits; gradients reach the first."""
    block, x = block_of(name), features().requires_grad_()
    other = features(seed=2)
    _, state = block.propagate(x)
    actual, _ = block.propagate(other, state, keep_state=False)
    logits = dense_logits(block, name, x) + dense_logits(block, name, other)
    expected = other + dense_mean(block, name, other, logits)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    for one, two in zip(gradients(block, x, actual), gradients(block, x, expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


@each_affinity
def test_starts_as_the_identity_and_trains(name):
    block, x = NonLocalBlock(8, window_size=5, affinity=name), torch.randn(1, 8, 11, 10)
    assert torch.equal(block(x), x)
    nn.init.normal_(block.value.weight)
    block(x).square().sum().backward()
    for projection in block.projections:
        assert projection.weight.grad.abs().max() > 0


class Cosine(nn.Module, Affinity):
    """An affinity of a user's own with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def features(self, image):
        unit = F.normalize(image, dim=1)
        return self.scale * unit, unit


def test_an_affinity_of_your_own():
    block, x = block_of(Cosine()), features().requires_grad_()
    unit = F.normalize(x, dim=1).flatten(2)
    expected = x + dense_mean(block, "", x, block.affinity.scale * unit.mT @ unit)
    actual = block(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    for one, other in zip(gradients(block, x, actual), gradients(block, x, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
    assert "affinity.scale" in block.state_dict()


def network(name, **options):
    torch.manual_seed(3)
    propagation = name != "dot_product"
    model = NLRN(NLRNConfig(**TINY, affinity=name, correlation_propagation=propagation, **options))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


@each_affinity
def test_weight_files(name, tmp_path):
    model = network(name)
    save_weights(tmp_path / "a.safetensors", model.config, model.state_dict())
    loaded, image = load_model(tmp_path / "a.safetensors"), torch.rand(1, 1, 9, 9)
    assert loaded.config == model.config
    assert torch.equal(loaded(image), model(image))


def test_the_paper_s_affinity_is_written_as_before():
    config = NLRNConfig(**TINY)
    assert "affinity" not in json.loads(config_to_json(config))
    assert config_from_json(config_to_json(config)) == config
    names = {name for name, _ in NLRN(config).attention.named_parameters()}
    assert names == {f"{part}.{kind}" for part in ("query", "key", "value") for kind in ("weight", "bias")}


@pytest.mark.parametrize("name", [name for name in AFFINITIES if name != DEFAULT])
def test_larger_images_in_tiles(name):
    """With less memory than the whole image takes, the same numbers."""
    model = network(name)
    model.attention.max_memory = 1 << 20
    image = torch.rand(1, 1, 150, 20)
    expected = model(image)
    needed = model._memory((1, 1, 150, 20))
    for memory in (8 * needed, needed - 1):
        actual = restore(model, image, max_memory=memory)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@each_affinity
def test_far_pixels_change_nothing(name):
    model, image = network(name).double(), torch.rand(1, 1, 60, 12, dtype=torch.float64)
    other = image.clone()
    other[:, :, :10] = 1 - other[:, :, :10]
    halo = model.info.halo
    difference = (model(image) - model(other)).abs()[0, 0].amax(1)
    assert difference[10 + halo :].max() < 1e-9
    assert difference[10 + halo // 2] > 0


def test_refuses():
    with pytest.raises(ValueError, match=r"affinity must be one of embedded_gaussian, .*, got 'cosine'"):
        NLRNConfig(affinity="cosine")
    with pytest.raises(ValueError, match=r"affinity must be one of embedded_gaussian, .*, got 'cosine'"):
        NonLocalBlock(8, affinity="cosine")
    with pytest.raises(ValueError, match="dot_product has no logits to propagate"):
        NLRNConfig(affinity="dot_product")
