"""The check of what was removed; the crop is smooth, and the thresholds are measured elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from nlrn.files.images import Image
from nlrn.restoration import Restorer
from nlrn.restoration.removed import removed_cautions
from nlrn.restoration.stack import RestoredPages

CLEAN = astronaut()[3:99, 61:157]
STRUCTURE, LEFT = "may be structure", "still has noise"


@pytest.fixture(scope="module")
def restorer():
    return Restorer()


def noisy(sigma: float, color: bool) -> np.ndarray:
    clean = CLEAN if color else CLEAN.mean(-1)
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    return (clean + noise).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("color", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize(
    ("there", "taken", "said"),
    [
        (10, 10, None),
        (10, "auto", None),
        (0, 20, STRUCTURE),
        (20, 10, LEFT),
    ],
)
def test_a_level_that_is_wrong_is_said(restorer, there, taken, said, color):
    warnings = restorer.array(noisy(there, color), taken)[1].warnings
    assert [said in one for one in warnings] == [True] if said else warnings == ()


def pair(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture with noise, and without."""
    clean = torch.linspace(0.3, 0.7, 128).expand(1, 1, 128, 128)
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), clean


def test_hidden_pixels_and_pixels_at_the_ends_do_not_count():
    image, restored = pair(0.1)
    assert LEFT in removed_cautions(image, torch.lerp(image, restored, 0.6), 0.03, None)[0]
    hidden = torch.ones(image.shape, dtype=torch.bool)
    assert removed_cautions(image, torch.lerp(image, restored, 0.6), 0.03, hidden) == ()
    assert removed_cautions(image.round(), torch.lerp(image, restored, 0.6), 0.03, None) == ()


def test_too_little_to_tell_and_no_level():
    image, restored = pair(0.1)
    assert removed_cautions(image[..., :56, :56], restored[..., :56, :56], 0.5, None) == ()
    assert removed_cautions(image, restored, 0.0, None) == ()


def test_methods_without_a_network_are_not_checked():
    assert Restorer("gaussian").array(noisy(5, False), 20)[1].warnings == ()


def test_a_stack_says_it_once(restorer):
    class Pages:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Image:
            return Image(np.roll(noisy(0, False), index, 0))

        def group(self, index: int) -> None:
            return None

    pages = RestoredPages(restorer, Pages(), 20)
    assert len(list(pages)) == 2
    assert [STRUCTURE in one for one in pages.report().warnings] == [True]


def test_only_a_part_of_a_large_picture_is_looked_at(monkeypatch):
    seen = []
    finest = torch.Tensor.argsort
    monkeypatch.setattr(torch.Tensor, "argsort", lambda self, *a: seen.append(len(self)) or finest(self, *a))
    large = torch.rand(1, 1, 1200, 1600, generator=torch.Generator().manual_seed(0))
    removed_cautions(large, large / 2, 0.1, None)
    assert 500 < seen[0] < 4000
