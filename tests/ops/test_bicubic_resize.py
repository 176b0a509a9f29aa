"""MATLAB's imresize: against resize-right, which agrees with it, and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlrn.ops.resize import bicubic_resize


def peer(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from resize_right import resize
    from resize_right.interp_methods import cubic

    return resize(
        image, out_shape=(height, width), interp_method=cubic, antialiasing=True, pad_mode="symmetric"
    )


@pytest.mark.parametrize("shape", [(48, 60), (37, 25), (96, 12)])
@pytest.mark.parametrize(
    ("numerator", "denominator"), [(1, 2), (1, 3), (1, 4), (2, 1), (3, 1), (4, 1), (5, 7)]
)
def test_resize_right(shape, numerator, denominator):
    image = np.random.default_rng(0).random(shape)
    size = tuple(max(1, length * numerator // denominator) for length in shape)
    resized = bicubic_resize(torch.from_numpy(image), *size).numpy()
    assert resized.shape == size
    np.testing.assert_allclose(resized, peer(image, *size), atol=3e-7)


def by_definition(line: np.ndarray, length: int) -> np.ndarray:
    scale = length / len(line)
    shrink = min(scale, 1)
    mirrored = np.concatenate([line[::-1], line, line[::-1]])
    result = np.empty(length)
    for i in range(length):
        x = np.abs(((i + 0.5) / scale - 0.5 - np.arange(-len(line), 2 * len(line))) * shrink)
        weights = np.where(
            x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x <= 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
        )
        result[i] = weights @ mirrored / weights.sum()
    return result


@pytest.mark.parametrize("length", [5, 8, 10, 17, 20, 40])
def test_definition(length):
    line = np.random.default_rng(1).random(20)
    resized = bicubic_resize(torch.from_numpy(np.outer(line, [1.0, 1.0])), length, 2).numpy()
    np.testing.assert_allclose(resized[:, 0], by_definition(line, length), atol=1e-12)


def test_a_picture_smaller_than_the_kernel():
    resized = bicubic_resize(torch.full((1, 2, 1), 0.3, dtype=torch.float64), 7, 5)
    assert resized.shape == (1, 7, 5)
    torch.testing.assert_close(resized, torch.full((1, 7, 5), 0.3, dtype=torch.float64))


def test_refusals():
    with pytest.raises(ValueError, match=r"cannot resize \(4, 0\) to \(2, 2\)"):
        bicubic_resize(torch.zeros(1, 4, 0), 2, 2)
