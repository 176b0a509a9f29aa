"""The weights inside the package: what they are, and that they still compute what they computed when trained."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nlrn import load_model
from nlrn.models import zoo
from nlrn.models.weights_file import ModelError
from nlrn.models.zoo import MODELS, WEIGHTS, default_model, smallest_model

PAIRS = Path(__file__).parents[1] / "data" / "weights"


@pytest.mark.parametrize("name", MODELS)
def test_sha256(name):
    entry = MODELS[name]
    assert hashlib.sha256((WEIGHTS / entry.file).read_bytes()).hexdigest() == entry.sha256


@pytest.mark.parametrize("name", MODELS)
def test_entry_tells_the_truth(name):
    entry, model = MODELS[name], load_model(name)
    assert entry.parameters == sum(p.numel() for p in model.parameters())
    assert (entry.task, entry.channels, entry.steps) == (
        model.config.task,
        model.config.channels,
        model.config.heads,
    )
    levels = model.config.sigma_range
    assert entry.sigma == ("" if levels is None else f"{255 * levels[0]:g}..{255 * levels[1]:g}")


@pytest.mark.parametrize("name", MODELS)
def test_card(name):
    entry = MODELS[name]
    card = (WEIGHTS / entry.file).with_suffix(".md").read_text()
    psnr = entry.psnr.split()[0]
    for needed in (entry.sha256, f"{entry.parameters:,}", psnr, "training data", "licence", "hardware"):
        assert needed in card


@pytest.mark.parametrize("name", MODELS)
def test_stored_outputs(name):
    pair = np.load(PAIRS / f"{name}.io.npz")
    model, image = load_model(name), torch.from_numpy(pair["input"])
    for steps in MODELS[name].steps:
        expected = torch.from_numpy(pair[f"output_{steps}"])
        sigma = float(pair["sigma"]) / 255 if model.config.noise_channel else None
        torch.testing.assert_close(model(image, sigma, steps=steps), expected, rtol=0, atol=1e-4)


def test_damage_is_noticed(tmp_path, monkeypatch):
    name = "nlrn-small-gray"
    data = bytearray((WEIGHTS / MODELS[name].file).read_bytes())
    data[-5] ^= 1
    (tmp_path / MODELS[name].file).write_bytes(data)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="is damaged: its sha256"):
        load_model(name)


def test_defaults():
    assert MODELS[default_model("denoise", 1)].channels == 1
    assert MODELS[default_model("denoise", 3)].channels == 3
    assert default_model("denoise", 1, 50 / 255) == "nlrn-gray"
    assert default_model("denoise", 1, 24.99 / 255) == "nlrn-small-gray"
    assert default_model("denoise", 1, math.nextafter(25 / 255, 0)) == "nlrn-gray"  # rounded in other units
    assert default_model("denoise", 3, 50 / 255) == "nlrn-color"
    assert default_model("denoise", 3, 15 / 255) == "nlrn-small-color"
    assert smallest_model("denoise", 1) == "nlrn-small-gray"
    assert default_model("upscale", 3) == "nlrn-small-upscale"  # of luma
    assert default_model("photo", 1) == "nlrn-photo"
    assert default_model("photo", 3) == default_model("photo", 3, 0.9 / 255) == "nlrn-small-photo"
    assert default_model("photo", 3, 1.1 / 255) == "nlrn-photo"
    with pytest.raises(ModelError, match="no model that comes with nlrn is for sharpening"):
        default_model("sharpening", 1)
