"""`nlrn adapt`: from noisy files to a weight file, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn import NLRN, NLRNConfig
from nlrn.files.images import Image, read_image, write_image
from nlrn.models.weights_file import save_weights


@pytest.fixture
def noisy(tmp_path):
    pixels = np.random.default_rng(0).normal(128, 25, (48, 48)).clip(0, 255).astype(np.uint8)
    write_image(Image(pixels), tmp_path / "noisy.png")
    return tmp_path / "noisy.png"


@pytest.fixture
def start(tmp_path):
    config = NLRNConfig(
        width=8, embedding=4, num_steps=2, window_size=5, noise_channel=True, sigma_range=(0.0, 0.3)
    )
    save_weights(tmp_path / "start.safetensors", config, NLRN(config).state_dict())
    return tmp_path / "start.safetensors"


def test_result_is_a_model_for_denoise(nlrn, noisy, start, tmp_path):
    adapted = nlrn(
        "adapt", noisy, "--minutes", 0.003, "--model", start, "--sigma", 25, "-o", "mine.safetensors"
    )
    assert adapted.code == 0
    assert adapted.out.splitlines()[-1] == "written: mine.safetensors"
    assert adapted.out.startswith(("adapted: ", "not adapted: no better"))
    assert "adapting: 100%" in adapted.err
    done = nlrn("denoise", noisy, "--sigma", 25, "--model", "mine.safetensors", "-o", "clean.png")
    assert done.code == 0
    assert read_image(tmp_path / "clean.png").pixels.shape == (48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "mine.pt"), "must be named *.safetensors, got mine.pt"),
        (
            ("-o", "nowhere/mine.safetensors"),
            "the folder of the output nowhere/mine.safetensors does not exist",
        ),
        (("-o", "start.safetensors"), "start.safetensors exists; pass --overwrite"),
        (("-o", "m.safetensors", "--minutes", "0"), "must be positive and finite, got 0"),
        (
            ("-o", "m.safetensors", "--noise", "poisson"),
            "noise must be 'poisson-gaussian', got 'poisson'",
        ),
        (("-o", "m.safetensors", "--gain", "2"), "--gain describes --noise poisson-gaussian"),
        (("-o", "m.safetensors", "--model", "bm3d"), "bm3d has no weights to adapt"),
        (("-o", "m.safetensors", "--pairs"), "pairs need two frames of one scene"),
        (("-o", "m.safetensors", "--sigma", "5", "--noise", "poisson-gaussian"), "give one of them"),
    ],
)
def test_refused(nlrn, noisy, start, tmp_path, arguments, message):
    before = sorted(tmp_path.iterdir())
    done = nlrn("adapt", noisy, *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_missing_file(nlrn, tmp_path):
    done = nlrn("adapt", "absent.png", "-o", "m.safetensors")
    assert done.code == 2
    assert done.err == "nlrn: absent.png does not exist\n"
