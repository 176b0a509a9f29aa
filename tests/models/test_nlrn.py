"""The network: size, structure, options, errors."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from nlrn import NLRN, NLRNConfig, NonLocalBlock

ROOT = Path(__file__).resolve().parents[2]
TINY = {"width": 12, "embedding": 6, "num_steps": 3, "window_size": 7}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(**options) -> NLRN:
    torch.manual_seed(0)
    return NLRN(NLRNConfig(**(TINY | {"initialization": "official"} | options))).eval()


@pytest.mark.parametrize(("channels", "parameters"), [(1, 340_099), (3, 344_713)])
def test_size_is_the_papers(channels, parameters):
    assert count(NLRN(NLRNConfig(channels=channels))) == parameters


def test_size_with_a_stem():
    config = NLRNConfig(stride=2, stem=32, num_steps=6, window_size=15, heads=(2, 4, 6), noise_channel=True,
                        sigma_range=(0.0, 0.2))  # fmt: skip
    assert count(NLRN(config)) == 385_985
    assert count(NLRN(NLRNConfig(stride=1, stem=None))) == 340_099


def test_a_head_costs_a_batch_norm():
    one, two = NLRN(NLRNConfig()), NLRN(NLRNConfig(heads=(6, 12)))
    assert count(two) - count(one) == 2 * 128


STEM = {"stride": 2, "stem": 5}


@pytest.mark.parametrize("options", [{}, STEM], ids=["paper", "stem"])
def test_trainable_initialisation_starts_as_identity(options):
    torch.manual_seed(0)
    model = NLRN(NLRNConfig(**TINY, **options))
    image = torch.rand(2, 1, 11, 13)
    assert torch.equal(model(image), image)
    change, _ = model.step(0, torch.randn(2, 12, 6, 7), None, None, last=True)
    assert not change.any()


def test_official_initialisation_is_glorot_everywhere():
    model = tiny()
    assert all(m.weight.abs().max() > 0 for m in model.modules() if isinstance(m, nn.Conv2d))
    ratio = (
        NLRN(NLRNConfig(initialization="official")).attention.query.weight.std()
        / NLRN(NLRNConfig()).attention.query.weight.std()
    )
    assert abs(ratio.item() - 1 / 0.35) < 0.1


def with_statistics(model: NLRN) -> NLRN:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return model


def test_network_follows_its_equations():
    """Written out once more, with the reference attention, in float64."""
    from nlrn.ops.nonlocal_attention import nonlocal_attention

    model = with_statistics(tiny().double())
    image = torch.rand(2, 1, 11, 9, dtype=torch.float64)
    block, state = model.attention, None
    s0 = s = model.input_conv(model.input_norm(image))
    for t in range(3):
        h = model.attention_norms[t](s).relu()
        z, state = nonlocal_attention(
            block.query(h), block.key(h), block.value(h), 7, state, backend="reference"
        )
        h = model.conv_a(model.conv_a_norms[t](h + z))
        s = model.conv_b(model.conv_b_norms[t](h).relu()) + s0
    expected = image + model.output_conv(model.output_norms["3"](s).relu())
    assert (model(image) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("size", [(10, 6), (11, 9), (1, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_stem_and_tail_follow_their_equations(stride, size):
    """Written out once more: positions by strided slices, a sum over the pixels of each."""
    model = with_statistics(tiny(num_steps=1, stride=stride, stem=5, channels=3).double())
    stem, tail, conv = model.stem, model.tail, nn.functional.conv2d
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    rows, columns = (torch.arange(-(-n // stride) * stride).clamp(max=n - 1) for n in size)
    padded = image[:, :, rows][..., columns] - 0.5
    full = stem.conv_b(stem.conv_a(padded).relu())
    places = [(i, j) for i in range(stride) for j in range(stride)]
    start = stem.down.bias[:, None, None] + sum(
        conv(full.relu()[..., i::stride, j::stride], stem.down.weight[..., i : i + 1, j : j + 1])
        for i, j in places
    )
    change, _ = model.step(0, start, None, None, last=True)
    rectified = model.output_norms["1"](start + change).relu()
    total = torch.zeros_like(full)
    parts = conv(rectified, tail.up.weight, tail.up.bias).chunk(stride**2, 1)
    for (i, j), part in zip(places, parts, strict=True):
        total[..., i::stride, j::stride] = full[..., i::stride, j::stride] + part
    residual = tail.conv_b(tail.conv_a(total.relu()).relu())
    expected = image + residual[..., : size[0], : size[1]]
    assert (model(image) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("option", [{"correlation_propagation": False}, {"window_size": 5}, {"num_steps": 2}])
def test_options_change_the_result(option):
    image = torch.rand(1, 1, 16, 16)
    assert not torch.allclose(tiny()(image), tiny(**option)(image))


def test_window_none_is_a_window_over_everything():
    image = torch.rand(1, 1, 9, 8)
    assert torch.allclose(tiny(window_size=None)(image), tiny(window_size=17)(image), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "halo", "reached"),
    [
        ({}, 3 * (3 + 2) + 2, 17),
        # A stem and a tail of two pixels each, and the rest of a position; the halo is whole positions.
        (STEM, 2 * (15 + 1 + 2), 2 * 15 + 2 + 2 + 1),
        ({"stride": 3, "stem": 5}, 3 * (15 + 1 + 2), 3 * 15 + 2 + 2 + 2),
    ],
    ids=["paper", "stem", "stride-3"],
)
def test_pixels_beyond_the_halo_do_not_matter(options, halo, reached):
    """Of every pixel of a position: how far the furthest of them reaches."""
    model = tiny(**options).double()
    assert model.config.halo == halo
    image = torch.rand(1, 1, 8, 150, dtype=torch.float64)
    far = 0
    for x in range(model.config.stride):
        changed = image.clone()
        changed[..., x] += 1
        difference = (model(image) - model(changed)).abs().amax((0, 1, 2))
        far = max(far, difference.nonzero().max().item() - x)
    assert reached - 1 <= far <= reached <= halo


def test_heads_share_the_output_convolution():
    model = tiny(heads=(1, 3))
    image = torch.rand(1, 1, 10, 10)
    short = tiny(num_steps=1)
    short.load_state_dict({k: v for k, v in model.state_dict().items() if k in short.state_dict()})
    assert torch.equal(model(image, steps=1), short(image))
    assert not torch.equal(model(image, steps=1), model(image))
    with pytest.raises(ValueError, match="can stop after 1, 3 steps, got steps=2"):
        model(image, steps=2)


@pytest.mark.parametrize("options", [{}, STEM], ids=["paper", "stem"])
def test_gradients_reach_every_parameter(options):
    model = tiny(**options).train()
    model(torch.rand(2, 1, 12, 12)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


class TestNoiseChannel:
    options: ClassVar = {"noise_channel": True, "sigma_range": (0.0, 0.2)}

    def test_sigma_matters_and_may_differ_within_a_batch(self):
        model = tiny(**self.options)
        image = torch.rand(1, 1, 10, 10).repeat(2, 1, 1, 1)
        both = model(image, torch.tensor([0.05, 0.15]))
        assert torch.allclose(both[0], model(image[:1], 0.05)[0], atol=1e-6)
        assert torch.allclose(both[1], model(image[:1], 0.15)[0], atol=1e-6)
        assert not torch.allclose(both[0], both[1])

    def test_level_is_four_sigma(self):
        model = tiny(**self.options)
        image = torch.zeros(1, 1, 2, 2)
        encoded = model.encode(image, model.noise_level(image, 0.1))
        assert torch.allclose(encoded[:, 1], torch.tensor(0.4) / torch.tensor(1.001).sqrt())

    @pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
    def test_impossible_sigma(self, sigma):
        with pytest.raises(ValueError, match="sigma must be finite and >= 0"):
            tiny(**self.options)(torch.rand(1, 1, 8, 8), sigma)

    def test_missing_sigma(self):
        with pytest.raises(ValueError, match="this model needs sigma"):
            tiny(**self.options)(torch.rand(1, 1, 8, 8))

    def test_wrong_number_of_sigmas(self):
        with pytest.raises(
            ValueError, match=r"one per image \(2,\) or of each pixel \(2, 1, 8, 8\), got shape \(3,\)"
        ):
            tiny(**self.options)(torch.rand(2, 1, 8, 8), torch.tensor([0.1, 0.1, 0.1]))

    def test_sigma_beyond_the_range_warns_and_is_clamped(self):
        model = tiny(**self.options)
        image = torch.rand(1, 1, 8, 8)
        with pytest.warns(UserWarning, match=r"sigma 76\.5 is outside .* \(0\.\.51, .*using 51"):
            clamped = model(image, 0.3)
        assert torch.equal(clamped, model(image, 0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"window_size": 8}, "window_size must be odd"),
        ({"stride": 2}, "a stride above 1 needs a stem, got stride=2, stem=None"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"stem": 0}, "stem must be at least 1, got 0"),
        ({"heads": (2, 1, 3)}, "heads must rise"),
        ({"heads": (1, 2)}, "heads must rise"),
        ({"initialization": "he"}, "initialization must be"),
        ({"noise_channel": True}, "needs a sigma_range"),
        ({"patch_protocol": (45, 0)}, "patch_protocol must be"),
    ],
)
def test_bad_configuration(options, message):
    with pytest.raises(ValueError, match=message):
        NLRNConfig(**(TINY | options))


def test_wrong_image():
    with pytest.raises(ValueError, match=r"must be \[B, 1, H, W\] .* got shape \(1, 3, 8, 8\)"):
        tiny()(torch.rand(1, 3, 8, 8))


class TestNonLocalBlock:
    def test_starts_as_the_identity_bit_for_bit(self):
        features = torch.randn(2, 8, 17, 5)
        assert torch.equal(NonLocalBlock(8, window_size=5)(features), features)

    def test_improves_a_small_trained_network(self):
        """The example: identical when inserted into a trained CNN, better after a short fine-tune."""
        example = runpy.run_path(str(ROOT / "examples" / "nonlocal_block.py"))
        result = example["main"]()
        assert result["identical at first"] is True
        assert result["fine-tuned with block"] > result["fine-tuned without block"] + 0.3
        assert result["fine-tuned with block"] > result["trained"] + 0.3
