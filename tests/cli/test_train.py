"""`nlrn train`: what it refuses, and options that change a configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nlrn import NLRN
from nlrn.files.images import Image, write_image
from nlrn.models.weights_file import save_weights
from nlrn.training.config import load_config

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TINY, "--steps", 1), "--data must name"),
        (("--data", "data", "--steps", 1), "give a configuration, or --resume"),
        ((TINY, "--data", "data"), "in steps or in minutes; got neither"),
        ((TINY, "--data", "data", "--steps", 1, "--minutes", 1), "in steps or in minutes; got both"),
        ((TINY, "--data", "nowhere", "--steps", 1), "does not exist"),
        ((TINY, "--data", "data", "--steps", 1), "2 are to be held out"),
        ((TINY, "--data", "data", "--steps", 1, "--hold-out", 0), "crops of 28 pixels need images as large"),
        (("none.yaml", "--data", "data", "--steps", 1), "No such file or directory: none.yaml"),
        (("--resume", "--data", "data", "--steps", 1), "run/checkpoint.safetensors"),
        ((TINY, "--data", "data", "--steps", 1, "--frozen-norms"), "--frozen-norms needs trained weights"),
        (("--resume", "--data", "data", "--steps", 1, "--frozen-norms"), "not to --resume"),
        (
            (TINY, "--data", "data", "--steps", 1, "--hold-out", 0, "--init", "nope"),
            "no model and no weight file",
        ),
    ],
)
def test_refused(nlrn, tmp_path, arguments, message):
    (tmp_path / "data").mkdir()
    for i in range(2):
        write_image(Image(np.zeros((20, 20), np.uint8)), tmp_path / "data" / f"{i}.png")
    if "held out" in message:
        arguments = (*arguments, "--hold-out", 2)
    outcome = nlrn("train", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_frozen_norms(nlrn, tmp_path):
    """The norms keep the statistics that the weights came with, though the configuration says nothing of it."""
    (tmp_path / "data").mkdir()
    drawn = np.random.default_rng(0).integers(0, 256, (2, 60, 60), np.uint8)
    for i, picture in enumerate(drawn):
        write_image(Image(picture), tmp_path / "data" / f"{i}.png")
    config = load_config(TINY).model
    state = NLRN(config).state_dict()
    for name, value in state.items():
        if "running_" in name:
            value.uniform_(0.5, 2)
    save_weights(tmp_path / "begun.safetensors", config, state)
    run = (TINY, "--data", "data", "--steps", 2, "--hold-out", 0, "--init", "begun.safetensors")
    for options, kept in (((), False), (("--frozen-norms",), True)):
        assert nlrn("train", *run, *options, "--overwrite").code == 0
        ended = load_file(tmp_path / "run" / "model.safetensors")
        same = [torch.equal(ended[name], state[name]) for name in ended if "running_" in name]
        assert all(same) if kept else not any(same)
