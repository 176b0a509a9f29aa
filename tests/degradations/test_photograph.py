"""What the noise of photographs must have: four kinds, grey that stays grey, what a program leaves of it."""

from __future__ import annotations

import pytest
import torch

from nlrn.degradations import photograph as module
from nlrn.degradations.photograph import film_grain, partly_smoothed, photograph, white_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_one_generator_one_picture():
    clean = torch.rand(8, 3, 32, 32, generator=generator(1))
    (first, strength), (second, _) = photograph(clean, generator()), photograph(clean, generator())
    assert torch.equal(first, second)
    assert first.shape == clean.shape
    assert strength.shape == (8,)
    assert ((first >= 0) & (first <= 1)).all()


def test_the_strength_is_that_of_the_noise(monkeypatch):
    """Where neither JPEG nor the ends of the range change the noise."""
    monkeypatch.setattr(module, "UNCOMPRESSED", 1.0)
    monkeypatch.setattr(module, "WHITE_SIGMA", (0.0, 0.1))
    clean = torch.full((32, 3, 64, 64), 0.5)
    noisy, strength = photograph(clean, generator())
    left = (noisy - clean).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(left, strength, rtol=1e-3, atol=1e-5)


def test_most_images_are_compressed():
    clean = torch.full((200, 3, 32, 32), 0.5)
    noisy, _ = photograph(clean, generator())
    at_levels = (255 * noisy - (255 * noisy).round()).abs().flatten(1).amax(1) < 1e-3
    assert 0.65 < at_levels.float().mean() < 0.85


def test_grey_stays_grey():
    clean = torch.rand(40, 1, 32, 32, generator=generator(1)).expand(-1, 3, -1, -1)
    noisy, strength = photograph(clean, generator())
    torch.testing.assert_close(noisy, noisy[:, :1].expand_as(noisy), rtol=0, atol=1e-6)
    assert ((noisy - clean).abs().flatten(1).amax(1) > 0.3 * strength).all()


def test_white_noise_is_white_and_spans_its_levels():
    noise = white_noise(torch.empty(100, 3, 32, 32), generator())
    levels = noise.std((1, 2, 3))
    assert levels.min() < 1 / 255
    assert 47 / 255 < levels.max() < 52 / 255
    strong = (noise / levels.view(-1, 1, 1, 1))[50:]
    assert abs(correlation(strong[..., 1:], strong[..., :-1])) < 0.02
    assert abs(correlation(strong[:, 0], strong[:, 1])) < 0.02


def test_grain_is_blurred_and_strongest_in_middle_tones():
    middle, dark = (film_grain(torch.full((64, 3, 48, 48), tone), generator()) for tone in (0.5, 0.02))
    torch.testing.assert_close(middle.std() / dark.std(), torch.tensor(3 / (1 + 8 * 0.02 * 0.98)))
    unit = middle / middle.std((1, 2, 3), keepdim=True)
    assert correlation(unit[..., 1:], unit[..., :-1]) > 0.3
    close = (middle[:, 0] - middle[:, 2]).abs().flatten(1).amax(1) < 1e-6
    assert 0.3 < close.float().mean() < 0.7


def test_noise_left_by_a_program_lies_at_edges():
    clean = torch.zeros(16, 3, 32, 32)
    clean[..., 16:] = 1.0
    noise = 0.05 * torch.randn(clean.shape, generator=generator())
    left = partly_smoothed(clean, noise, generator())
    at_edge, flat = (part.std() for part in (left[..., 15:17], left[..., :10]))
    assert at_edge > 0.95 * noise.std()
    assert flat < 0.5 * noise.std()


def test_what_is_not_rgb():
    with pytest.raises(ValueError, match=r"RGB images \[B, 3, H, W\], got shape \(1, 1, 32, 32\)"):
        photograph(torch.rand(1, 1, 32, 32), generator())


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_the_kinds_have_their_shares(batch):
    """However small the batches are."""
    source = generator()
    counts = torch.tensor([module._counts(batch, source) for _ in range(2000)]).double()
    assert (counts.sum(1) == batch).all()
    assert (counts.mean(0) / batch).tolist() == pytest.approx(module.SHARES, abs=0.03)


def test_each_part_has_its_own_kind(monkeypatch):
    """In the order of the shares; a kind without an image is left out."""
    monkeypatch.setattr(module, "SMOOTHED", 0.0)
    monkeypatch.setattr(module, "_counts", lambda count, generator: [2, 0, 3, 1])
    for value, kind in enumerate(("sensor_noise", "correlated_noise", "white_noise", "film_grain"), 1):
        monkeypatch.setattr(module, kind, lambda part, _, value=value: torch.full_like(part, value / 10))
    _, strength = photograph(torch.rand(6, 3, 16, 16, generator=generator()), generator())
    assert strength.tolist() == pytest.approx([0.1, 0.1, 0.3, 0.3, 0.3, 0.4])
