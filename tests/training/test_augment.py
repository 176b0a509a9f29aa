"""Crops that natural images have too few of."""

from __future__ import annotations

import pytest
import torch

from nlrn.training.augment import drawings, drawn, faded, recolored, toned


def seeded():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_faded_crops_are_flat_around_any_color(channels):
    clean = torch.rand(400, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    made = faded(clean, 0.25, seeded())
    changed = (made != clean).flatten(1).any(1)
    assert 0.15 < changed.float().mean() < 0.35
    flat, levels = made[changed], made[changed].mean((2, 3))
    assert (flat.std((2, 3)) <= 0.2 * clean[changed].std((2, 3)) + 1e-6).all()
    assert levels.min() < 0.1
    assert levels.max() > 0.9
    assert (levels.amax(1) - levels.amin(1)).max() > (0.7 if channels == 3 else -1)


def test_recolored_crops_have_the_same_greys_and_contrast():
    grey = torch.rand(64, 1, 8, 8, generator=seeded()).expand(-1, 3, -1, -1)
    torch.testing.assert_close(recolored(grey, 1.0, seeded()), grey)
    # Of colours so near to grey that no rotation leaves [0, 1].
    clean = 0.5 + 0.1 * (torch.rand(200, 3, 8, 8, generator=seeded()) - 0.5)
    made = recolored(clean, 0.5, seeded())
    changed = (made - clean).abs().flatten(1).amax(1) > 1e-6
    assert 0.35 < changed.float().mean() < 0.6
    centered, before = (x - x.mean(1, keepdim=True) for x in (made, clean))
    torch.testing.assert_close(made.mean(1), clean.mean(1))
    torch.testing.assert_close(centered.square().sum(1), before.square().sum(1))


def test_toned_crops_are_grey_or_of_one_tint():
    clean = torch.rand(400, 3, 8, 8, generator=seeded())
    made = toned(clean, 0.5, seeded())
    changed = (made != clean).flatten(1).any(1)
    assert 0.4 < changed.float().mean() < 0.6
    gray = (made == made[:, :1]).flatten(1).all(1)
    assert 0.18 < gray.float().mean() < 0.32
    # In a tinted crop every channel is a linear function of the first.
    pixels = made[changed & ~gray].flatten(2)
    assert len(pixels) > 60
    spread = torch.linalg.svdvals(pixels - pixels.mean(2, keepdim=True))
    assert (spread[:, 1] < 1e-3 * spread[:, 0]).all()
    torch.testing.assert_close(
        made[gray][:, 0], (clean * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)[gray]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_drawings(channels):
    made = drawings(torch.zeros(200, channels, 32, 32), seeded())
    assert made.shape == (200, channels, 32, 32)
    assert made.min() == 0
    assert made.max() == 1
    steps = (made[..., 1:] - made[..., :-1]).abs().amax((1, 2, 3))
    assert (steps > 0.3).float().mean() > 0.8  # edges
    same = (made[..., 1:] == made[..., :-1]).float().mean((1, 2, 3))
    assert (same > 0.4).float().mean() > 0.3  # flat areas
    clean = torch.full((200, channels, 32, 32), 2.0)
    kept = (drawn(clean, 0.25, seeded()) == 2).flatten(1).all(1).float().mean()
    assert 0.6 < kept < 0.9


def test_gratings_among_the_drawings():
    """One frequency, away from the axes, holds a quarter of the variance of many gratings, and of no other drawing."""
    made = drawings(torch.zeros(300, 1, 64, 64), seeded())[:, 0]
    spectrum = torch.fft.rfft2(made - made.mean((1, 2), keepdim=True)).abs().square()
    strongest = (
        2 * spectrum[:, 4:-3, 3:].amax((1, 2)) / (64 * 64 * (made.var((1, 2)) * 64 * 64).clamp(min=1e-6))
    )
    assert (strongest > 0.25).float().mean() > 0.05
