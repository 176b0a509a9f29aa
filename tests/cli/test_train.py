"""`nlrn train`: what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlrn.data.images import Image, write_image

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TINY, "--steps", 1), "--data must name"),
        (("--data", "data", "--steps", 1), "give a configuration, or --resume"),
        ((TINY, "--data", "data"), "give one of them"),
        ((TINY, "--data", "data", "--steps", 1, "--minutes", 1), "give one of them"),
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
