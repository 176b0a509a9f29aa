"""`--for`: what it refuses and says."""

from __future__ import annotations

import numpy as np
import pytest

from nlrn.files.images import Image, read_image, write_image


@pytest.fixture
def grainy(tmp_path):
    noise = np.random.default_rng(0).normal(0, 5, (48, 48))
    rows = np.linspace(40, 200, 48)[:, None]
    write_image(Image((rows + noise).round().clip(0, 255).astype(np.uint8)), tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("denoise", ("--for", "holiday"), "--for must be one of photo, scan, screenshot, measurement, got 'holiday'"),
        ("restore", ("--for", "holiday"), "--for must be one of photo, scan, screenshot, measurement, got 'holiday'"),
        ("denoise", ("--for", "scan", "--sigma", "5"), "--for scan takes a model that has no noise level, and --sigma"),
        ("denoise", ("--for", "photo", "--model", "bm3d"), "--for photo chooses the model, and --model another one"),
        (
            "denoise",
            ("--for", "measurement", "--noise", "poisson-gaussian"),
            "--for measurement chooses the model, and --noise another one",
        ),
        ("denoise", ("--for", "photo", "--demo"), "--demo has white noise; give files for --for"),
        ("upscale", ("--for", "photo"), "No such option: --for"),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused_before_the_work(nlrn, grainy, command, arguments, message):
    names = () if "--demo" in arguments else ("a.png",)
    outcome = nlrn(command, *names, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert [path.name for path in grainy.iterdir()] == ["a.png"]


@pytest.mark.parametrize("command", ["denoise", "restore"])
def test_the_note_says_that_it_was_chosen_by_hand(nlrn, grainy, command):
    outcome = nlrn(command, "a.png", "--for", "scan", "-o", "b.png")
    assert outcome.code == 0
    assert "(nlrn-photo, " in outcome.err
    assert "note: chosen by hand, for a scan" in outcome.err
    assert (read_image(grainy / "b.png").pixels != read_image(grainy / "a.png").pixels).any()


@pytest.mark.parametrize("command", ["denoise", "restore"])
def test_a_dry_run_names_the_model_of_the_purpose(nlrn, grainy, command):
    outcome = nlrn(command, "a.png", "--for", "measurement", "--dry-run")
    assert (outcome.code, "nlrn-small-gray" in outcome.err) == (0, True)
    outcome = nlrn(command, "a.png", "--for", "scan", "--dry-run")
    assert (outcome.code, "nlrn-photo" in outcome.err) == (0, True)
