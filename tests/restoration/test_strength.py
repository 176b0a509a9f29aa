"""Strength: how much of what a restoration takes away really goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nlrn
from nlrn.restoration.strength import check_strength, partly
from pictures import picture


def luma(rgb):
    return rgb @ np.array([0.2989, 0.587, 0.114]) / 0.9999


@pytest.mark.parametrize(
    ("task", "shape"),
    [("denoise", (12, 10)), ("denoise", (12, 10, 3)), ("denoise", (12, 10, 4)), ("dejpeg", (12, 10, 3))],
)
def test_a_strength_is_a_mixture(task, shape, tiny_grey, tiny_colour, tiny_dejpeg):
    model = tiny_dejpeg if task == "dejpeg" else tiny_grey if len(shape) == 2 else tiny_colour
    image = picture(shape, "float64")
    options = {"model": model} | ({"sigma": 0.1} if task == "denoise" else {})
    restore = getattr(nlrn, task)
    whole = restore(image, **options)
    assert np.abs(whole - image).max() > 0.01
    assert np.allclose(restore(image, strength=0.3, **options), image + 0.3 * (whole - image), atol=1e-6)
    assert np.allclose(restore(image, strength=0, **options), image, atol=1e-6)


def test_luma_and_color_apart(tiny_colour):
    image = picture((12, 10, 3), "float64")
    change = nlrn.denoise(image, sigma=0.1, model=tiny_colour) - image
    color_only = nlrn.denoise(image, sigma=0.1, model=tiny_colour, strength=(0, 1)) - image
    assert np.abs(luma(color_only)).max() < 1e-6
    luma_only = nlrn.denoise(image, sigma=0.1, model=tiny_colour, strength=(1, 0)) - image
    assert np.allclose(luma_only, luma(change)[..., None], atol=1e-6)
    assert np.allclose(color_only + luma_only, change, atol=1e-6)
    grey = picture((12, 10), "float64")
    half = nlrn.denoise(grey, sigma=0.1, model="gaussian", strength=(0.5, 0))
    assert np.allclose(half, (grey + nlrn.denoise(grey, sigma=0.1, model="gaussian")) / 2, atol=1e-6)


def test_full_strength_changes_nothing_to_the_bit():
    image, restored = torch.rand(2, 1, 3, 5, 6).unbind()
    assert partly(image, restored, (1.0, 1.0)) is restored


def test_numbers_of_numpy_are_numbers():
    assert check_strength((np.float32(0.5), np.int64(1)), "denoise") == (0.5, 1.0)


@pytest.mark.parametrize(
    "strength", [-0.1, 1.1, float("nan"), "0.5", True, (0.5,), (0.1, 0.2, 0.3), (0.5, 2), None]
)
def test_impossible_strengths(strength):
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1"):
        check_strength(strength, "denoise")


def test_enlarging_has_no_strength():
    with pytest.raises(
        ValueError, match=r"strength is for denoise, dejpeg and restore, not for upscale, got 0.5"
    ):
        nlrn.upscale(np.zeros((8, 8), np.uint8), 2, strength=0.5)
