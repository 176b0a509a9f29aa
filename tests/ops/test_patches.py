"""Block matching against a loop over all positions, and patches as an adjoint pair."""

from __future__ import annotations

import pytest
import torch

from nlrn.ops.block_matching import block_matching, reference_positions
from nlrn.ops.patches import Aggregation, extract_patches


def image(*shape, seed=0):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loop(plane, size, stride, search, count):
    """Distances of the most similar patches, for each reference."""
    height, width = plane.shape
    found = []
    for y in reference_positions(height, size, stride):
        for x in reference_positions(width, size, stride):
            distances = {}
            for b in range(max(0, y - search // 2), min(height - size, y + search // 2) + 1):
                for a in range(max(0, x - search // 2), min(width - size, x + search // 2) + 1):
                    difference = plane[y : y + size, x : x + size] - plane[b : b + size, a : a + size]
                    distances[b * width + a] = difference.square().mean().item()
            nearest = sorted(distances.items(), key=lambda item: item[1])[:count]
            found.append(nearest + [(None, float("inf"))] * (count - len(nearest)))
    return found


@pytest.mark.parametrize(
    ("height", "width", "size", "stride", "search"),
    [(20, 17, 4, 3, 7), (33, 9, 8, 3, 39), (8, 8, 8, 3, 5), (40, 12, 5, 1, 3), (9, 30, 4, 30, 9)],
    ids=["usual", "search-larger-than-image", "one-patch", "every-pixel", "stride-larger-than-image"],
)
def test_equals_a_loop(height, width, size, stride, search):
    plane = image(height, width)
    positions, distances = block_matching(plane, size, stride, search, 9)
    expected = by_loop(plane, size, stride, search, 9)
    assert positions.shape == distances.shape == (len(expected), 9)
    for found, far, nearest in zip(positions.tolist(), distances.tolist(), expected, strict=True):
        assert far == pytest.approx([distance for _, distance in nearest], abs=1e-12)
        exist = [at for at, _ in nearest if at is not None]
        assert found[: len(exist)] == exist


def test_the_reference_comes_first_among_equals():
    positions, distances = block_matching(torch.ones(20, 33), 8, 3, 39, 16)
    columns = reference_positions(33, 8, 3)
    assert positions[:, 0].tolist() == [y * 33 + x for y in reference_positions(20, 8, 3) for x in columns]
    assert distances.abs().max() == 0


def test_some_rows():
    plane = image(50, 20)
    rows = reference_positions(50, 8, 3)
    whole = block_matching(plane, 8, 3, 11, 4)
    parts = [block_matching(plane, 8, 3, 11, 4, part) for part in (rows[:5], rows[5:14], rows[14:])]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_refuses():
    with pytest.raises(ValueError, match="no smaller than a patch of 8, got 9x7"):
        block_matching(image(9, 7), 8, 3, 11, 4)
    for search, count in ((10, 4), (3, 10)):
        with pytest.raises(ValueError, match=f"got {search} and {count}"):
            block_matching(image(20, 20), 8, 3, search, count)


def test_patches_of_several_planes():
    planes = image(2, 9, 11)
    patches = extract_patches(planes, torch.tensor([[0, 3 * 11 + 5]]), 3)
    assert patches.shape == (2, 1, 2, 9)
    assert torch.equal(patches[1, 0, 1].view(3, 3), planes[1, 3:6, 5:8])


def test_aggregation_is_the_adjoint():
    """<R x, p> = <x, R^T p>: with weights 1 the mean is `R^T p / R^T 1`."""
    planes, positions = image(2, 9, 11), torch.arange(9 * 11).view(9, 11)[:7, :9].flatten()
    patches = image(2, len(positions), 9, seed=1)
    total = Aggregation((2, 9, 11), torch.ones(9, dtype=torch.float64))
    total.add(positions, patches, torch.ones(2, len(positions), dtype=torch.float64), 0, 9)
    put_back = total.mean() * total._weight
    forward = (extract_patches(planes, positions, 3) * patches).sum()
    torch.testing.assert_close((planes * put_back).sum(), forward)


def test_the_mean_of_an_images_own_patches_is_the_image():
    planes = image(3, 12, 10)
    positions, _ = block_matching(planes[0], 4, 3, 5, 6)
    used = positions.flatten()
    window = torch.rand(16, dtype=torch.float64) + 0.1
    weights = image(3, len(used), seed=2) + 0.1
    total = Aggregation((3, 12, 10), window)
    total.add(used, extract_patches(planes, used, 4), weights, 0, 12)
    torch.testing.assert_close(total.mean(), planes)


def test_bands_of_rows_add_up():
    planes = image(1, 20, 10)
    upper, lower = torch.arange(0, 60), torch.arange(60, 170)
    upper, lower = (p[p % 10 < 7] for p in (upper, lower))
    total = Aggregation((1, 20, 10), torch.ones(16, dtype=torch.float64))
    for positions, top, bottom in ((upper, 0, 9), (lower, 6, 20)):
        patches = extract_patches(planes, positions, 4)
        total.add(positions, patches, torch.ones(1, len(positions), dtype=torch.float64), top, bottom)
    torch.testing.assert_close(total.mean(), planes)
