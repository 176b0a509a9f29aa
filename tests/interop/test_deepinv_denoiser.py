"""NLRN under deepinv's call, and the example of plug-and-play deblurring; deepinv is not needed."""

from __future__ import annotations

import warnings

import pytest
import torch
from examples.plug_and_play import main

from nlrn import load_model
from nlrn.interop.deepinv import NLRNDenoiser


@pytest.fixture(scope="module")
def denoiser():
    return NLRNDenoiser("nlrn-small-gray")


@pytest.mark.parametrize(
    "sigma",
    [0.1, torch.tensor(0.1), torch.tensor([0.1]), torch.tensor([0.1, 0.1]), torch.full((2, 1, 1, 1), 0.1)],
    ids=lambda x: "number" if isinstance(x, float) else str(list(x.shape)),
)
def test_every_form_of_sigma(denoiser, sigma):
    x = torch.rand(2, 1, 12, 17)
    assert torch.allclose(denoiser(x, sigma), load_model("nlrn-small-gray")(x, 0.1), atol=1e-6)
    assert torch.equal(denoiser(x, sigma=sigma, update_statistics=False), denoiser(x, sigma))


def test_one_level_per_image(denoiser):
    x = torch.rand(3, 1, 12, 17)
    together = denoiser(x, torch.tensor([0.0, 0.1, 0.5]))
    for i, sigma in enumerate((0.0, 0.1, 0.5)):
        assert torch.allclose(together[i : i + 1], denoiser(x[i : i + 1], sigma), atol=1e-5)


def test_noise_beyond_the_range_is_removed(denoiser):
    """At twice the highest level the result is better than what the highest level alone gives; no warning comes."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 1, 48, 48), 0.3)
    clean[..., 24:] = 0.7
    sigma = 2 * denoiser.sigma_range[1]
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error = (denoiser(noisy, sigma) - clean).square().mean()
    alone = (load_model("nlrn-small-gray")(noisy, denoiser.sigma_range[1]) - clean).square().mean()
    assert error < alone / 2


def test_gradients():
    denoiser = NLRNDenoiser("nlrn-small-gray")
    for sigma in (0.1, 0.6):
        x = torch.rand(1, 1, 9, 11, requires_grad=True)
        denoiser(x, sigma).sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0
    assert list(denoiser.parameters())
    assert denoiser.to(torch.float64)(torch.rand(1, 1, 1, 1).double(), 0.1).dtype == torch.float64


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (None, "expected sigma"),
        (-0.1, "finite and >= 0"),
        (float("nan"), "finite and >= 0"),
        (torch.tensor([0.1, 0.2, 0.3]), r"one per image \(2\), got shape \(3,\)"),
    ],
    ids=str,
)
def test_bad_sigma(denoiser, sigma, message):
    with pytest.raises(ValueError, match=message):
        denoiser(torch.rand(2, 1, 8, 8), sigma)


def test_other_models():
    with pytest.raises(
        ValueError, match="expected a model for denoising that takes sigma, got nlrn for upscale"
    ):
        NLRNDenoiser("nlrn-small-upscale")
    assert NLRNDenoiser("tv")(torch.rand(2, 3, 8, 8), 0.1).shape == (2, 3, 8, 8)


def test_plug_and_play_deblurring():
    psnr = main(64)
    assert psnr["NLRN"] > psnr["total variation"] + 0.3
    assert psnr["NLRN"] > psnr["wavelet"] + 0.3
    assert psnr["total variation"] > psnr["blurred"]
