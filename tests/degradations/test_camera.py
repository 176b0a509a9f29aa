"""What the camera model must have: reproducible, noise that depends on light, correlations, a range of strengths."""

from __future__ import annotations

import pytest
import torch

from nlrn.degradations.camera import camera, correlated_noise, sensor_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_one_generator_one_picture():
    clean = torch.rand(6, 3, 32, 32, generator=generator(1))
    (first, strength), (second, _) = camera(clean, generator()), camera(clean, generator())
    assert torch.equal(first, second)
    assert first.shape == clean.shape
    assert strength.shape == (6,)
    assert ((first >= 0) & (first <= 1)).all()


def test_noise_depends_on_light():
    """Gamma lifts the noise of the dark parts."""
    dark, bright = (
        sensor_noise(torch.full((16, 3, 64, 64), level), generator()).std() for level in (0.1, 0.9)
    )
    assert dark > 1.4 * bright
    assert sensor_noise(torch.zeros(4, 3, 32, 32), generator()).min() >= 0  # black cannot get darker


def test_demosaicing_leaves_no_noise_in_a_clean_picture(monkeypatch):
    """Only noise is added, not the loss of sharpness."""
    monkeypatch.setattr("nlrn.degradations.camera.SHOT", (1e-12, 1e-11))
    edges = torch.zeros(4, 3, 32, 32)
    edges[..., 16:] = 0.8
    assert sensor_noise(edges, generator()).abs().max() < 1e-2


def test_correlated_noise():
    noise = correlated_noise(torch.empty(64, 3, 64, 64), generator())
    strengths = noise.std((1, 2, 3))
    assert 0.5 / 255 < strengths.min() < 2 / 255
    assert 20 / 255 < strengths.max() < 40 / 255
    unit = noise / strengths.view(-1, 1, 1, 1)
    assert correlation(unit[..., 1:], unit[..., :-1]) > 0.2
    assert correlation(unit[:, 0], unit[:, 1]) > 0.2


def test_what_is_not_rgb():
    with pytest.raises(ValueError, match=r"RGB images \[B, 3, H, W\], got shape \(1, 1, 32, 32\)"):
        camera(torch.rand(1, 1, 32, 32), generator())
