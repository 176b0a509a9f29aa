"""Hidden pixels do not reach the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nlrn

COLOR = (240, 200, 180)


def cut_out(hidden: tuple[int, int, int], dtype: str = "uint8") -> np.ndarray:
    y, x = np.mgrid[:40, :40]
    alpha = np.clip(12.5 - np.hypot(x - 20, y - 20), 0, 1)
    image = np.empty((40, 40, 4), dtype)
    image[..., :3] = hidden
    image[alpha > 0, :3] = COLOR
    image[..., 3] = (alpha * (255 if dtype == "uint8" else 65535)).round()
    return image


@pytest.mark.parametrize("task", ["denoise", "denoise 25", "dejpeg", "upscale"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "tensor"])
def test_hidden_colours_do_not_matter(task, kind, tiny_colour, tiny_dejpeg, tiny_upscaler):
    restore = {
        "denoise": lambda image: nlrn.denoise(image, model=tiny_colour),
        "denoise 25": lambda image: nlrn.denoise(image, 25, model=tiny_colour),
        "dejpeg": lambda image: nlrn.dejpeg(image, model=tiny_dejpeg),
        "upscale": lambda image: nlrn.upscale(image, 2, model=tiny_upscaler),
    }[task]
    results = []
    for hidden in ((0, 0, 0), (0, 255, 0)):
        given = cut_out(hidden, "uint16" if kind == "uint16" else "uint8")
        if kind == "tensor":
            result = restore(torch.from_numpy(given).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        else:
            result = restore(given)
        if task != "upscale":
            assert (result[given[..., 3] == 0, :3] == hidden).all()
        results.append(result)
    visible = results[0][..., 3] > 0
    assert np.array_equal(results[0][visible], results[1][visible])


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 3)])
def test_masked_arrays(shape, tiny_grey, tiny_upscaler):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, shape)
    mask = np.zeros(shape, bool)
    mask[5:9, 3:12] = True
    results, enlarged = [], []
    for hidden in (np.nan, -1e20):
        given = np.ma.MaskedArray(np.where(mask, hidden, values), mask)
        result = nlrn.denoise(given, 0.1, model=tiny_grey)
        assert isinstance(result, np.ma.MaskedArray)
        assert np.array_equal(result.mask, mask)
        np.testing.assert_array_equal(result.data[mask], given.data[mask])
        results.append(result)
        enlarged.append(nlrn.upscale(given, 2, model=tiny_upscaler))
    assert np.array_equal(results[0].compressed(), results[1].compressed())
    assert enlarged[0].mask.sum() == 4 * mask.sum()
    assert np.array_equal(enlarged[0].compressed(), enlarged[1].compressed())
