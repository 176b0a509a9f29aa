"""Configurations: schedule, those that come with the project, those that make no sense, own degradations."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch
from runs import CONFIGS, blind, config, options

from nlrn import load_model
from nlrn.files.images import Image, write_image
from nlrn.training.config import ConfigError, Phase, degradation, from_dict, load_config, to_dict
from nlrn.training.loop import train
from nlrn.training.schedule import Length, ema_weight, learning_rate_factor, phase_at


def test_schedule():
    assert learning_rate_factor(0, 0, 100, 0.25) == 0.01
    assert learning_rate_factor(500, 0.25, 100, 0.25) == 1
    assert learning_rate_factor(500, 1, 100, 0.25) == pytest.approx(0.002)
    phases = (Phase(0.75, 40, 40), Phase(0.25, 80, 10))
    assert [phase_at(phases, p).crop for p in (0, 0.74, 0.75, 1)] == [40, 40, 80, 80]
    assert ema_weight(10**6, 0.999) == pytest.approx(0.001)
    for lengths, got in (((10, 10), "both"), ((None, None), "neither")):
        with pytest.raises(ValueError, match=f"in steps or in minutes; got {got}"):
            Length(*lengths)
    for wrong in ((0, None), (None, 0.0), (None, math.nan), (None, math.inf)):
        with pytest.raises(ValueError, match=r"must be positive and finite, got (0|nan|inf)"):
            Length(*wrong)


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    (tmp_path / "floats.yaml").write_text(
        "{warmup_steps: 1e3, seed: 2.0, scales: [2.0, 3], model: {width: 8.0}}"
    )
    settings = load_config(tmp_path / "floats.yaml")
    numbers = (settings.warmup_steps, settings.seed, *settings.scales, settings.model.width)
    assert numbers == (1000, 2, 2, 3, 8)
    assert all(isinstance(number, int) for number in numbers)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations(path):
    settings = load_config(path)
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings
    if settings.model.sigma_range is not None:
        assert settings.model.sigma_range == pytest.approx(tuple(level / 255 for level in settings.sigma))
    assert f"nlrn train configs/{path.name}" in path.read_text()
    # BSD400 has 321 pixels on its short side.
    largest = max(phase.crop for phase in settings.phases)
    assert max(largest, settings.statistics_side) + 2 * settings.margin <= 321


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must hold names and values"),
        ("a: [", "is not a YAML file"),
        ("speed: 3", "has no speed; expected some of model, degradation"),
        ("model: {depth: 3}", "model has no depth; expected some of channels"),
        ("phases: [{share: 0.5, crop: 9, batch: 2}]", "must add up to 1"),
        ("sigma: [50, 10]", "sigma must be a range"),
        ("precision: float8", "precision must be"),
        ("quality: [0, 50]", "quality must be a range within 1..100"),
        ("scales: [1, 2]", "scales must be whole numbers from 2"),
        ("statistics_crop: 0", "statistics_crop must be at least 1"),
        ("margin: -1", "margin must not be negative"),
        ("faded: 2", "faded must be a share within 0..1, got 2"),
        ("drawn: -0.1", "drawn must be a share within 0..1, got -0.1"),
        ("recolored: 0.1", "recolored crops need a network of 3 channels, got 1"),
        ("toned: 0.1", "toned crops need a network of 3 channels, got 1"),
        (
            "phases: [{share: 0.5, crop: 9, batch: 2, frozen_norms: true}, {share: 0.5, crop: 9, batch: 2}]",
            "phases with frozen_norms must come last",
        ),
        ("luma: red", "luma must be gray or y"),
        ("{degradation: bicubic, phases: [{share: 1, crop: 25, batch: 2}]}", "multiples of 12, got \\[25\\]"),
        ("{degradation: jpeg, margin: 4, phases: [{share: 1, crop: 16, batch: 2}]}", "of 16, got \\[24\\]"),
        (
            "{degradation: photograph, phases: [{share: 1, crop: 16, batch: 2}]}",
            "a network of 3 channels, got 1",
        ),
        ("{degradation: camera, phases: [{share: 1, crop: 16, batch: 2}]}", "a network of 3 channels, got 1"),
        ("hold_out: all", "hold_out must be int, got 'all'"),
        ("seed: 1.5", "seed must be int, got 1.5"),
        ("deep_supervision: x", "deep_supervision must be float, got 'x'"),
        ("learning_rate: .nan", "learning_rate must be float, got nan"),
        ("validation_levels: 25", r"validation_levels must be tuple\[float, \.\.\.\], got 25"),
        ("betas: [0.9]", "betas must be"),
        ("statistics_batches: 0", "statistics_batches must be at least 1, got 0"),
        ("hold_out: -1", "hold_out must not be negative, got -1"),
        ("model: {noise_channel: 1}", "noise_channel must be bool, got 1"),
        ("model: {noise_channel: true, sigma_range: [0, 55]}", r"sigma_range must lie in \[0, 1\]"),
    ],
)
def test_bad_configurations(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_a_function_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def darker(clean, generator):\n    return clean / 2, None\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    settings = config(degradation="mine:darker")
    degraded, sigma = degradation(settings)(torch.ones(1, 1, 2, 2), torch.Generator())
    assert degraded.max() == 0.5
    assert sigma is None
    assert sys.path == before
    for wrong in ("mine:brighter", "nowhere:f", "poisson"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            degradation(dataclasses.replace(settings, degradation=wrong))


def test_the_documented_degradation_trains_a_blind_model(data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CONFIGS.parent)
    settings = config(degradation="examples.poisson_gaussian:degrade")
    model = dataclasses.replace(settings.model, noise_channel=False, sigma_range=None)
    path = train(dataclasses.replace(settings, model=model), options(data, tmp_path, 20))
    assert load_model(path)(torch.rand(1, 1, 9, 9)).shape == (1, 1, 9, 9)


@pytest.mark.parametrize(
    ("changes", "logged"),
    [
        ({"degradation": "bicubic", "luma": "y", "validation_levels": (2, 4)}, {"2", "4"}),
        ({"degradation": "jpeg", "margin": 8, "validation_levels": (10,)}, {"10"}),
        ({"degradation": "camera", "margin": 16, "channels": 3}, {""}),
    ],
)
def test_every_task_trains_and_is_validated(data, tmp_path, changes, logged):
    from skimage.data import astronaut, chelsea, coffee

    if changes.get("channels") == 3:
        data = tmp_path / "colour"
        data.mkdir()
        for number, picture in enumerate((astronaut(), chelsea(), coffee())):
            write_image(Image(np.ascontiguousarray(picture[:96, :112])), data / f"{number}.png")
    side = 48 if "margin" in changes else 24
    phases = (Phase(1.0, side - 2 * changes.get("margin", 0), 4),)
    entries = []
    path = train(
        blind(**{**changes, "phases": phases}), options(data, tmp_path / "run", 12, report=entries.append)
    )
    assert logged == entries[-1]["psnr"].keys()
    assert all(10 < psnr < 60 for psnr in entries[-1]["psnr"].values())
    channels = changes.get("channels", 1)
    assert load_model(path)(torch.rand(1, channels, 9, 9)).shape == (1, channels, 9, 9)
