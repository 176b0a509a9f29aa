"""The ablation as a command: cells that differ in one thing, a table of differences, and runs that go on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks import ablation
from PIL import Image


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Small cells, and a folder of four images."""
    for name, value in {"CROP": 24, "SIDE": 32, "HELD": 1, "WINDOWS": (3, None), "STEPS": (1, 2)}.items():
        monkeypatch.setattr(ablation, name, value)
    monkeypatch.setattr(
        ablation, "BASE", ablation.NLRNConfig(width=8, embedding=4, num_steps=1, window_size=3)
    )
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (48, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def run(monkeypatch, folder, out, *options):
    arguments = ["--data", folder, "--out", out, *options]
    monkeypatch.setattr("sys.argv", ["ablation", *map(str, arguments)])
    ablation.main()
    return {
        (row["question"], row["answer"]): row for row in json.loads((out / "table.json").read_text())["rows"]
    }


def test_answers_differ_in_one_thing():
    found = {question.name: question.answers for question in ablation.questions()}
    assert list(found) == ["window", "steps", "propagation", "affinity"]
    assert [network.window_size for network in found["window"].values()] == list(ablation.WINDOWS)
    assert [network.num_steps for network in found["steps"].values()] == list(ablation.STEPS)
    for name in ("window", "steps", "propagation"):
        assert ablation.BASE in found[name].values()
    keys = {ablation.key(network) for answers in found.values() for network in answers.values()}
    networks = {network for answers in found.values() for network in answers.values()}
    assert len(keys) == len(networks)
    widest = max(window for window in ablation.WINDOWS if window is not None)
    assert widest <= ablation.CROP


def test_a_run_goes_on_and_more_seeds_add_to_its_table(monkeypatch, small, tmp_path):
    out = tmp_path / "out"
    first = run(monkeypatch, small, out, "--steps", 3, "--questions", "window,steps")
    # The network of a window of 3 and one step answers both questions, and propagation.
    assert {answer for question, answer in first if question == "window"} == {"3", "whole image"}
    assert first["window", "3"]["PSNR"] == first["steps", "1"]["PSNR"] == first["propagation", "on"]["PSNR"]
    assert first["window", "3"]["difference"] == 0
    assert first["window", "3"]["steps"] == 3
    assert {path.name for path in out.glob("*.png")} == {"steps.png"}  # of numbers, there is one window
    trained = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/model.safetensors")}
    assert len(trained) == 3
    second = run(monkeypatch, small, out, "--steps", 3, "--questions", "window", "--seeds", 2)
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items())
    assert second["window", "whole image"]["seeds"] == 2
    results = {
        (window, seed): json.loads(
            (out / f"cells/window-{window}-steps-1-seed-{seed}/result.json").read_text()
        )
        for window in (3, "whole")
        for seed in (0, 1)
    }
    differences = [results["whole", seed]["psnr"] - results[3, seed]["psnr"] for seed in (0, 1)]
    assert second["window", "whole image"]["difference"] == pytest.approx(np.mean(differences), abs=6e-4)
    assert second["window", "whole image"]["deviation"] == pytest.approx(
        np.std(differences, ddof=1), abs=6e-4
    )


def test_images_held_out_are_not_trained_on(monkeypatch, small, tmp_path):
    run(monkeypatch, small, tmp_path / "out", "--steps", 1, "--questions", "propagation")
    linked = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert len(linked) == 3
    assert linked < {path.name for path in small.iterdir()}


def test_unknown_questions(monkeypatch, small, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, small, tmp_path / "out", "--steps", 1, "--questions", "depth")
    assert "no question is named depth; there are window, steps" in capsys.readouterr().err
