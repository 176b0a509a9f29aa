"""Runs on a CPU with a tiny net: they learn, go on where they were, and survive what goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from runs import CONFIGS, CPU, command, config, options
from safetensors.torch import load_file

from nlrn import NLRN, load_model
from nlrn.models.weights_file import save_weights
from nlrn.ops.nonlocal_attention import native_operators
from nlrn.training import clock as training_clock
from nlrn.training import logs, loop, validation
from nlrn.training.checkpoint import CheckpointError, read_header
from nlrn.training.config import Phase, load_config
from nlrn.training.crops import Crops
from nlrn.training.logs import CHECKPOINT
from nlrn.training.loop import Intervals, Run, train
from nlrn.training.schedule import Length
from nlrn.training.step import Trainer, TrainingError


def test_it_learns(data, tmp_path):
    """More than 2 dB over the noisy input, in far less than two minutes."""
    losses = []
    settings = load_config(CONFIGS / "tiny.yaml")
    path = train(settings, options(data, tmp_path, 200, report=losses.append))
    falling = [entry["loss"] for entry in losses if "loss" in entry]
    assert np.mean(falling[-5:]) < 0.7 * falling[0]
    assert losses[-1]["psnr"]["25"] > 20.2 + 5
    assert load_model(path).config == settings.model
    assert [p.name for p in (tmp_path / "validation").iterdir()] == ["00000200.png"]
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged[:4]] == [0, 10, 20, 30]
    assert logged[0]["backend"] in ("native", "dense")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path)).Reload()
    assert [round(event.value, 3) for event in board.Scalars("loss")] == [round(x, 3) for x in falling]
    assert board.Scalars("psnr/25")[-1].value == pytest.approx(losses[-1]["psnr"]["25"])


FROZEN = (Phase(0.25, 12, 4), Phase(0.75, 16, 2, frozen_norms=True))


@pytest.mark.parametrize(
    "changes", [{}, {"phases": FROZEN}, {"optimizer": "muon"}], ids=["plain", "frozen", "muon"]
)
def test_resumed_weights_are_bit_identical(data, tmp_path, changes):
    def stop(entry):
        if entry["step"] == 30:
            raise KeyboardInterrupt

    whole = load_file(train(config(**changes), options(data, tmp_path / "whole", 60)))
    with pytest.raises(KeyboardInterrupt):
        train(config(**changes), options(data, tmp_path / "parts", 60, report=stop))
    settings, progress, _ = read_header(tmp_path / "parts" / CHECKPOINT)
    assert progress.step == 20
    assert progress.frozen_norms == ("phases" in changes)
    resumed = load_file(train(settings, options(data, tmp_path / "parts", 60), resume=True))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_frozen_norms(data, tmp_path, monkeypatch):
    """The last phase begins with the averaged weights and ends with the statistics that it began with."""
    began = {}
    freeze = Trainer.freeze_norms

    def noted(trainer):
        freeze(trainer)
        assert trainer.model.training
        assert not any(m.training for m in trainer.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for name, value in trainer.model.state_dict().items():
            assert torch.equal(value, trainer.average.state_dict()[name]), name
            began[name] = value.clone()

    monkeypatch.setattr(Trainer, "freeze_norms", noted)
    ended = load_file(train(config(phases=FROZEN), options(data, tmp_path, 40)))
    changed = {name for name, value in ended.items() if not torch.equal(value, began[name])}
    assert "conv_a.weight" in changed
    assert "conv_a_norms.0.weight" in changed
    assert not any("running_" in name for name in changed)


def test_norms_frozen_from_the_start_keep_their_statistics(data, tmp_path):
    """Those of a batch would not fit: 28.6 dB became 5.5 when they were estimated anew."""
    settings = config(phases=(Phase(1.0, 12, 4, frozen_norms=True),))
    torch.manual_seed(1)
    model = NLRN(settings.model)
    for name, value in model.state_dict().items():
        if "running_" in name:
            value.uniform_(0.5, 2)
    save_weights(tmp_path / "begun.safetensors", settings.model, model.state_dict())
    path = train(settings, options(data, tmp_path / "run", 5, init=str(tmp_path / "begun.safetensors")))
    begun, ended = load_file(tmp_path / "begun.safetensors"), load_file(path)
    assert all(torch.equal(ended[name], begun[name]) for name in begun if "running_" in name)
    assert not torch.equal(ended["conv_a.weight"], begun["conv_a.weight"])
    fresh = load_file(train(settings, options(data, tmp_path / "fresh", 1)))
    assert (fresh["input_norm.running_var"] != 1).all()


def test_killed_and_resumed(data, tmp_path):
    process = subprocess.Popen(
        command(data, tmp_path, "--steps", "100000", "--every", "0"), stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 60
    while not (tmp_path / CHECKPOINT).exists() and time.time() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    settings, progress, _ = read_header(tmp_path / CHECKPOINT)
    assert progress.step >= 50
    train(settings, options(data, tmp_path, progress.step + 10), resume=True)
    assert read_header(tmp_path / CHECKPOINT)[1].step == progress.step + 10


def test_other_images_do_not_go_on_with_a_run(data, tmp_path):
    """Those held out of the first part of a run would be trained on in the second."""
    train(config(), options(data, tmp_path / "run", 10))
    others = tmp_path / "others"
    others.mkdir()
    for number, path in enumerate(sorted(data.iterdir())):
        (others / f"other-{number}.png").write_bytes(path.read_bytes())
    settings, *_ = read_header(tmp_path / "run" / CHECKPOINT)
    with pytest.raises(ValueError, match=r"was trained on 3 images of .* has other files"):
        train(settings, options(others, tmp_path / "run", 20), resume=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in data.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    train(settings, options(moved, tmp_path / "run", 20), resume=True)


def test_a_new_run_takes_nothing_that_is_not_a_runs(data, tmp_path):
    """Not in a folder that no run was in, and not before a step could be taken."""
    for name in ("log.jsonl", "validation/cat.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    train(config(), options(data, tmp_path, 5))
    assert (tmp_path / "validation" / "cat.png").read_text() == "mine"
    assert (tmp_path / "log.jsonl").read_text().startswith("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"--init .* lies in --out"):
        train(config(), options(data, tmp_path, 5, init=str(tmp_path / "model.safetensors")))
    broken = config(degradation="operator:truediv")
    with pytest.raises(TypeError, match="unsupported operand"):
        train(broken, options(data, tmp_path, 5))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_new_run_leaves_nothing_of_the_one_before(data, tmp_path):
    train(config(), options(data, tmp_path, 20))
    (tmp_path / "mine.txt").write_text("stays")
    train(config(), options(data, tmp_path, 10))
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 5, 10, 10]
    assert [path.name for path in (tmp_path / "validation").iterdir()] == ["00000010.png"]
    assert len(list(tmp_path.glob("events.*"))) == 1
    assert (tmp_path / "mine.txt").exists()


def test_a_failing_validation_loses_nothing(data, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(validation, "run", broken)
    monkeypatch.setattr(loop, "VALIDATION_REST", 0)
    entries = []
    whole = options(data, tmp_path, 30, report=entries.append)
    weights = train(config(), dataclasses.replace(whole, intervals=Intervals(10, 0.0, 0.0)))
    failed = [entry["step"] for entry in entries if entry.get("validation_failed") == "no such kernel"]
    assert failed == [10, 20, 30, 30]
    assert load_model(weights).config == config().model
    assert read_header(tmp_path / CHECKPOINT)[1].step == 30


class Clock:
    """In place of `time`: every look at it takes a hundredth of a second, and nothing else does."""

    now = 0.0

    def perf_counter(self):
        self.now += 0.01
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(training_clock, "time", Clock())
    return training_clock.time


def test_slow_validations_come_less_often(data, tmp_path, monkeypatch, clock):
    """A network of 128 channels spent a third of its time on being looked at."""
    looks = []

    def slow(loop):
        looks.append(loop.progress.seconds)
        clock.sleep(0.1)
        return {}

    monkeypatch.setattr(loop._Loop, "validate", slow)
    train(config(), Run(data, tmp_path, Length(minutes=0.05), CPU, intervals=Intervals(1, 1e9, 0.0)))
    assert 2 <= len(looks) <= 5
    assert all(later - one > 0.9 for one, later in itertools.pairwise(looks[:-1]))


def test_weights_are_there_before_the_last_validation(data, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config(), options(data, tmp_path, 20))
    assert load_model(tmp_path / logs.WEIGHTS).config == config().model
    assert read_header(tmp_path / CHECKPOINT)[1].step == 20


def test_why_the_operation_is_slow_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: "was not compiled")
    entries = []
    train(config(), options(data, tmp_path, 10, report=entries.append))
    assert entries[0] == {
        "step": 0,
        "precision": "float32",
        "backend": "dense",
        "refused": "native was not compiled",
    }


def test_minutes(data, tmp_path, clock):
    """To the second, and the log has every step: a run that ends between two looks takes a last one."""
    train(config(), Run(data, tmp_path, Length(minutes=0.02), CPU, intervals=Intervals(10**6)))
    _, progress, _ = read_header(tmp_path / CHECKPOINT)
    assert progress.step > 5
    assert progress.seconds == pytest.approx(1.2, abs=0.02)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "loss" in entry] == [progress.step]


def test_a_run_by_the_clock_goes_on(data, tmp_path, clock):
    """With the time that it had left, from where it was."""

    def stop(entry):
        if entry["step"] == 30:
            raise KeyboardInterrupt

    run = Run(data, tmp_path, Length(minutes=0.03), CPU, intervals=Intervals(10, 0.0, 1e9), report=stop)
    with pytest.raises(KeyboardInterrupt):
        train(config(), run)
    settings, before, _ = read_header(tmp_path / CHECKPOINT)
    assert before.step == 20
    entries, began = [], clock.now
    train(settings, dataclasses.replace(run, report=entries.append), resume=True)
    took, (_, after, _) = clock.now - began, read_header(tmp_path / CHECKPOINT)
    shares = [entry["progress"] for entry in entries if "progress" in entry]
    assert shares == sorted(shares)
    assert shares[0] > before.seconds / 1.8
    assert after.seconds == pytest.approx(1.8, abs=0.02)
    assert after.step > 30
    assert took > after.seconds - before.seconds


def test_too_many_bad_steps_end_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SKIPPED_AT_MOST", 20)
    monkeypatch.setattr(
        Crops, "draw", lambda self, count, size, g: torch.full((count, 1, size, size), torch.nan)
    )
    with pytest.raises(TrainingError, match="20 steps in a row had a gradient that is not finite"):
        train(config(), options(data, tmp_path, 1000))


def test_bad_checkpoints(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
        read_header(tmp_path / "x")


def test_export(data, tmp_path, capsys):
    from nlrn.cli import main

    weights = load_file(train(config(), options(data, tmp_path, 20)))
    with pytest.raises(SystemExit) as stopped:
        main(["export-weights", str(tmp_path / CHECKPOINT), "-o", str(tmp_path / "released.safetensors")])
    assert stopped.value.code == 0
    released = load_file(tmp_path / "released.safetensors")
    assert released.keys() == weights.keys()
    assert all(torch.equal(released[name], weights[name]) for name in weights)
    card = (tmp_path / "released.md").read_text()
    digest = hashlib.sha256((tmp_path / "released.safetensors").read_bytes()).hexdigest()
    for needed in (digest, "20 steps", "learning_rate: 0.004", "parameters", f"3 images of {data.name}"):
        assert needed in card
    assert re.search(r"images held out: 25: \d\d\.\d\d dB", card)
    assert load_model(tmp_path / "released.safetensors").config == config().model
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "export-weights",
                str(tmp_path / CHECKPOINT),
                "-o",
                str(tmp_path / "half.safetensors"),
                "--float16",
            ]
        )
    assert stopped.value.code == 0
    half = load_file(tmp_path / "half.safetensors")
    assert all(torch.equal(half[name], weights[name].half()) for name in half if "running_" not in name)
