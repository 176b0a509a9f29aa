"""Training on a CPU with a tiny net: it learns, goes on where it was, and survives what goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nlrn import NLRN, load_model
from nlrn.data.datasets import Crops
from nlrn.data.images import Image, write_image
from nlrn.degradations.resize import low_resolution
from nlrn.models.zoo import save_weights
from nlrn.ops.nonlocal_attention import native_operators
from nlrn.training import loop, validation
from nlrn.training.checkpoint import CheckpointError, read_header
from nlrn.training.config import (
    DEGRADATIONS,
    ConfigError,
    Phase,
    degradation,
    from_dict,
    load_config,
    to_dict,
)
from nlrn.training.growth import adapt_weights
from nlrn.training.loop import CHECKPOINT, Intervals, Run, train
from nlrn.training.schedule import Length, ema_weight, learning_rate_factor, phase_at
from nlrn.training.step import Trainer, TrainingError, faded, step_generator, weighted_loss

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


def config(**changes):
    small = load_config(CONFIGS / "tiny.yaml", {"statistics_batches": 2, "hold_out": 1})
    model = dataclasses.replace(small.model, width=8, embedding=4, window_size=5)
    changes = {"phases": (Phase(0.5, 12, 4), Phase(0.5, 16, 2)), **changes}
    return dataclasses.replace(small, model=model, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from skimage.data import brick, camera, coins, moon

    folder = tmp_path_factory.mktemp("images")
    for number, picture in enumerate((camera(), coins(), moon(), brick())):
        write_image(Image(np.ascontiguousarray(picture[:160, 40:240])), folder / f"{number}.png")
    return folder


def options(data, out, steps, **fields):
    return Run(data, out, Length(steps), CPU, intervals=Intervals(10, 0.0, 1e9), **fields)


def command(data, out, *more):
    return [
        *(sys.executable, "-m", "nlrn", "train", str(CONFIGS / "tiny.yaml")),
        *("--data", str(data), "--out", str(out), "--device", "cpu", *more),
    ]


def test_it_learns(data, tmp_path):
    """More than 2 dB over the noisy input, in far less than two minutes."""
    losses = []
    settings = load_config(CONFIGS / "tiny.yaml")
    path = train(settings, options(data, tmp_path, 200, report=losses.append))
    falling = [entry["loss"] for entry in losses if "loss" in entry]
    assert np.mean(falling[-5:]) < 0.7 * falling[0]
    assert losses[-1]["psnr_25"] > 20.2 + 5
    assert load_model(path).config == settings.model
    assert [p.name for p in (tmp_path / "validation").iterdir()] == ["00000200.png"]
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged[:4]] == [0, 10, 20, 30]
    assert logged[0]["backend"] in ("native", "dense")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path)).Reload()
    assert [round(event.value, 3) for event in board.Scalars("loss")] == [round(x, 3) for x in falling]
    assert board.Scalars("psnr_25")[-1].value == pytest.approx(losses[-1]["psnr_25"])


FROZEN = (Phase(0.25, 12, 4), Phase(0.75, 16, 2, frozen_norms=True))


@pytest.mark.parametrize("changes", [{}, {"phases": FROZEN}], ids=["plain", "frozen"])
def test_resumed_weights_are_bit_identical(data, tmp_path, changes):
    def stop(entry):
        if entry["step"] == 30:
            raise KeyboardInterrupt

    whole = load_file(train(config(**changes), options(data, tmp_path / "whole", 60)))
    with pytest.raises(KeyboardInterrupt):
        train(config(**changes), options(data, tmp_path / "parts", 60, report=stop))
    settings, progress, _ = read_header(tmp_path / "parts" / CHECKPOINT)
    assert progress.step == 20
    assert progress.frozen_norms == bool(changes)
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


def test_slow_validations_come_less_often(data, tmp_path, monkeypatch):
    """A network of 128 channels spent a third of its time on being looked at."""
    looks = []

    def slow(loop):
        looks.append(loop.progress.seconds)
        time.sleep(0.1)
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
    assert load_model(tmp_path / loop.WEIGHTS).config == config().model
    assert read_header(tmp_path / CHECKPOINT)[1].step == 20


def test_why_the_operation_is_slow_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: "was not compiled")
    entries = []
    train(config(), options(data, tmp_path, 10, report=entries.append))
    assert entries[0] == {"step": 0, "backend": "dense", "refused": "native was not compiled"}


def test_every_process_has_its_own_gpu(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert loop.own_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert loop.own_device(torch.device("cuda:1")) == torch.device("cuda", 1)
    assert loop.own_device(CPU) == CPU
    monkeypatch.delenv("LOCAL_RANK")
    assert loop.own_device(torch.device("cuda")) == torch.device("cuda", 0)
    assert current == [3, 1, 0]


def test_only_the_network_trains_with_tf32(data, tmp_path, monkeypatch):
    """Where the GPU has it. What is to be learnt, and the statistics that are used afterwards, are exact."""
    seen = set()

    def noted(kind, function):
        def call(*args):
            seen.add((kind(*args), torch.backends.cuda.matmul.fp32_precision))
            return function(*args)

        return call

    heads = noted(
        lambda model, *_: "trained" if model.conv_a.weight.requires_grad else "average", NLRN.all_heads
    )
    monkeypatch.setattr(NLRN, "all_heads", heads)
    degrade = DEGRADATIONS["gaussian"]
    monkeypatch.setitem(DEGRADATIONS, "gaussian", lambda c: noted(lambda *_: "degraded", degrade(c)))
    before = torch.backends.cuda.matmul.fp32_precision
    train(config(), options(data, tmp_path, 10))
    assert seen == {("trained", "tf32"), ("average", "ieee"), ("degraded", "ieee")}
    assert torch.backends.cuda.matmul.fp32_precision == before


INDUCTOR = pytest.mark.filterwarnings("ignore")  # of torch to torch, which torch otherwise hides


@INDUCTOR
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_fused_norms_train_the_same():
    """Loss, gradients and statistics, with those of the batch and with frozen ones."""
    plain, fused = (Trainer(config(precision="float32"), CPU) for _ in range(2))
    fused.model.fuse_norms()
    with torch.no_grad():
        for a, b in zip(plain.model.parameters(), fused.model.parameters(), strict=True):
            b.copy_(a.add_(0.05 * torch.randn_like(a)))  # not the identity that training begins with
    clean = torch.rand(4, 1, 12, 12)
    for frozen in (False, True):
        for trainer in (plain, fused):
            if frozen:
                trainer.freeze_norms()
            trainer.run(clean, step_generator(0, 1, CPU), 1, 0.0)
        gradients = [{name: p.grad for name, p in t.parameters.items()} for t in (plain, fused)]
        largest = max(g.abs().max() for g in gradients[0].values())
        for name, gradient in gradients[0].items():
            assert (gradient - gradients[1][name]).abs().max() < 1e-5 * largest, name
        buffers = [dict(t.model.named_buffers()) for t in (plain, fused)]
        for name, buffer in buffers[0].items():
            torch.testing.assert_close(buffers[1][name], buffer, msg=name)
    assert plain.model.input_norm.num_batches_tracked == 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@INDUCTOR
def test_norms_that_cannot_be_fused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/compiler"))
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"torch\.compile cannot fuse the norms here .*ompiler"):
        train(config(), options(data, tmp_path, 2, fuse=True))


def test_minutes(data, tmp_path):
    train(config(), Run(data, tmp_path, Length(minutes=0.02), CPU, intervals=Intervals(5)))
    _, progress, _ = read_header(tmp_path / CHECKPOINT)
    assert progress.step > 5
    assert progress.seconds == pytest.approx(1.2, abs=0.6)


def test_a_step_that_is_not_finite_changes_nothing():
    trainer = Trainer(config(), CPU)
    clean = torch.rand(4, 1, 12, 12)
    for step in range(3):
        trainer.run(clean, step_generator(0, step, CPU), step, 1e-3)

    def everything():
        state = [*trainer.model.state_dict().values(), *trainer.average.state_dict().values()]
        optimizer = [v for s in trainer.optimizer.state.values() for v in s.values()]
        return [x.clone() for x in state + optimizer if x.is_floating_point()]

    before = everything()
    _, taken = trainer.run(clean * float("nan"), step_generator(0, 3, CPU), 3, 1e-3)
    assert not taken
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    _, taken = trainer.run(clean, step_generator(0, 4, CPU), 4, 1e-3)
    assert taken
    assert any((a != b).any() for a, b in zip(before, everything(), strict=True))


def test_a_run_by_the_clock_goes_on(data, tmp_path):
    """With the time that it had left, from where it was."""

    def stop(entry):
        if entry["step"] == 30:
            raise KeyboardInterrupt

    run = Run(data, tmp_path, Length(minutes=0.03), CPU, intervals=Intervals(10, 0.0, 1e9), report=stop)
    with pytest.raises(KeyboardInterrupt):
        train(config(), run)
    settings, before, _ = read_header(tmp_path / CHECKPOINT)
    assert before.step == 20
    entries, began = [], time.perf_counter()
    train(settings, dataclasses.replace(run, report=entries.append), resume=True)
    took, (_, after, _) = time.perf_counter() - began, read_header(tmp_path / CHECKPOINT)
    shares = [entry["progress"] for entry in entries if "progress" in entry]
    assert shares == sorted(shares)
    assert shares[0] > before.seconds / 1.8
    assert after.seconds == pytest.approx(1.8, abs=0.6)
    assert after.step > 30
    assert took > after.seconds - before.seconds


def test_the_loss_weighs_every_level_alike():
    """An error as large as the noise counts 25 times its level, whichever it is (below 4 it is 4); other heads 0.3 of theirs."""
    levels = torch.tensor([4.0, 25.0, 50.0, 1.0]) / 255
    clean = torch.zeros(4, 1, 3, 3)
    wrong = clean + levels.sqrt().view(-1, 1, 1, 1)
    one = weighted_loss([wrong[:3]], clean[:3], levels[:3], 0.3)
    assert float(one) == pytest.approx(25 / 255)
    assert float(weighted_loss([wrong[3:]], clean[3:], levels[3:], 0.3)) == pytest.approx(25 / 4 / 255)
    assert float(weighted_loss([2 * wrong[:3], wrong[:3]], clean[:3], levels[:3], 0.3)) == pytest.approx(
        2.2 * 25 / 255
    )
    assert float(weighted_loss([wrong[:3]], clean[:3], None, 0.3)) == pytest.approx(float(levels[:3].mean()))


def test_the_average_follows_the_weights():
    """Each step takes a share of what the weights are away from it; that of a step without a finite gradient is none."""
    settings = config()
    trainer, clean = Trainer(settings, CPU), torch.rand(4, 1, 12, 12)
    trainer.schedule(500, 1e-3)
    weight = ema_weight(500, settings.ema)
    before = {name: x.clone() for name, x in trainer.average.state_dict().items() if x.is_floating_point()}
    trainer.update(*trainer.batch(clean, step_generator(0, 0, CPU)))
    newest, after = trainer.model.state_dict(), trainer.average.state_dict()
    assert 0 < weight < 0.1
    for name, old in before.items():
        torch.testing.assert_close(after[name], old + weight * (newest[name] - old))
    assert not torch.equal(after["output_conv.weight"], before["output_conv.weight"])


def test_too_many_bad_steps_end_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SKIPPED_AT_MOST", 20)
    monkeypatch.setattr(
        Crops, "draw", lambda self, count, size, g: torch.full((count, 1, size, size), torch.nan)
    )
    with pytest.raises(TrainingError, match="20 steps in a row had a gradient that is not finite"):
        train(config(), options(data, tmp_path, 1000))


GRADIENTS = """
import os, sys, torch, torch.distributed as dist
from nlrn.training.config import from_dict
from nlrn.training.step import Trainer, step_generator
settings, clean = torch.load(sys.argv[1])
ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
if ranks > 1:
    dist.init_process_group("gloo")
trainer = Trainer(from_dict(settings), torch.device("cpu"), rank, ranks)
trainer.freeze_norms()
with torch.no_grad():
    for p in trainer.model.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
trainer.run(clean, step_generator(0, 0, clean.device), 0, 0.0)
flat = torch.cat([p.grad.flatten() for p in trainer.parameters.values()])
torch.save(flat, f"{sys.argv[2]}-{rank}")
if ranks > 1:
    dist.destroy_process_group()
"""


def test_processes_average_their_gradients(tmp_path):
    """With batch norm frozen two that share a batch end with the gradient of one that has it all, with clipping and without."""
    clean, script = torch.rand(4, 1, 12, 12), tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    for clip in (1e9, 1e-2):
        torch.save((to_dict(config(clip=clip)), clean), tmp_path / "batch")
        torchrun([str(script), str(tmp_path / "batch"), str(tmp_path / "both")], module=False)
        alone = [sys.executable, str(script), str(tmp_path / "batch"), str(tmp_path / "alone")]
        subprocess.run(alone, check=True, env=ONE_THREAD, timeout=120)
        one = torch.load(tmp_path / "alone-0")
        assert one.norm() <= clip * 1.001
        for rank in (0, 1):
            other = torch.load(tmp_path / f"both-{rank}")
            assert (one - other).abs().max() < 1e-5 * one.abs().max()


TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(arguments, module=True):
    what = ["-m", "nlrn"] if module else []
    subprocess.run(
        [*TORCHRUN, *what, *arguments], check=True, capture_output=True, env=ONE_THREAD, timeout=120
    )


def children(parent):
    """Processes whose parent this is, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_and_it_resumes(data, tmp_path, rank):
    arguments = command(data, tmp_path, "--steps", "1000000", "--every", "0")[3:]
    with subprocess.Popen(
        [*TORCHRUN, "-m", "nlrn", *arguments], stderr=subprocess.PIPE, env=ONE_THREAD, text=True
    ) as job:
        try:
            deadline = time.time() + 60
            while not (tmp_path / CHECKPOINT).exists() and time.time() < deadline:
                time.sleep(0.1)
            os.kill(children(job.pid)[rank], signal.SIGKILL)
            _, said = job.communicate(timeout=60)
        finally:
            job.kill()
    assert job.returncode != 0
    assert "SIGKILL" in said
    settings, progress, _ = read_header(tmp_path / CHECKPOINT)
    train(settings, options(data, tmp_path, progress.step + 10), resume=True)
    assert read_header(tmp_path / CHECKPOINT)[1].step == progress.step + 10


def test_torchrun_by_the_clock(data, tmp_path):
    """Both processes must stop at the same step, though their clocks differ."""
    torchrun(command(data, tmp_path, "--minutes", "0.05")[3:])
    assert read_header(tmp_path / CHECKPOINT)[1].seconds > 3


def test_torchrun(data, tmp_path):
    """Two processes end with about the loss of one: their batch-norm statistics are their own."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    train(load_config(CONFIGS / "tiny.yaml"), options(data, alone, 100))
    torchrun(command(data, both, "--steps", "100")[3:])

    def psnr(folder):
        return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["psnr_25"]

    assert psnr(both) == pytest.approx(psnr(alone), abs=1.5)


def test_crops_stay_inside_and_follow_the_generator():
    ramp = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
    crops = Crops([ramp, ramp[:25, :20] // 2], CPU)
    first = crops.draw(64, 18, torch.Generator().manual_seed(1))
    assert first.shape == (64, 1, 18, 18)
    assert torch.equal(first, crops.draw(64, 18, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, crops.draw(64, 18, torch.Generator().manual_seed(2)))
    with pytest.raises(ValueError, match="crops of 21 pixels need images as large; the smallest has 20"):
        crops.draw(1, 21, torch.Generator())


def test_faded_crops_are_flat_at_every_level():
    clean = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = faded(clean, 0.25, torch.Generator().manual_seed(1))
    changed = (made != clean).flatten(1).any(1)
    assert 0.18 < changed.float().mean() < 0.32
    flat, levels = made[changed], made[changed].mean((1, 2, 3))
    assert (flat.std((2, 3)) <= 0.2 * clean[changed].std((2, 3)) + 1e-6).all()
    assert levels.min() < 0.1
    assert levels.max() > 0.9
    assert 0 <= flat.min() <= flat.max() <= 1


def test_noise_levels_are_stratified():
    degrade = degradation(config(sigma=(10.0, 50.0)))
    _, sigma = degrade(torch.zeros(8, 1, 4, 4), torch.Generator().manual_seed(0))
    assert ((255 * sigma - 10) // 5).tolist() == list(range(8))


def blind(**changes):
    """The tiny configuration for a network that takes no noise level."""
    channels = changes.pop("channels", 1)
    model = dataclasses.replace(config().model, noise_channel=False, sigma_range=None, channels=channels)
    return dataclasses.replace(config(), model=model, **changes)


@pytest.mark.parametrize(
    ("changes", "logged"),
    [
        ({"degradation": "bicubic", "luma": "y", "validation_levels": (2, 4)}, {"psnr_2", "psnr_4"}),
        ({"degradation": "jpeg", "margin": 8, "validation_levels": (10,)}, {"psnr_10"}),
        ({"degradation": "camera", "margin": 16, "channels": 3}, {"psnr"}),
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
    assert logged <= entries[-1].keys()
    assert all(10 < entries[-1][name] < 60 for name in logged)
    channels = changes.get("channels", 1)
    assert load_model(path)(torch.rand(1, channels, 9, 9)).shape == (1, channels, 9, 9)


def test_margins_are_seen_by_the_degradation_only(monkeypatch):
    trainer = Trainer(blind(margin=4, phases=(Phase(1.0, 8, 2),)), CPU)
    trainer.degrade = lambda clean, generator: (clean.cumsum(3), None)
    clean = torch.rand(2, 1, 16, 16)
    target, degraded, _ = trainer.batch(clean, torch.Generator())
    assert torch.equal(target, clean[:, :, 4:12, 4:12])
    assert torch.equal(degraded, clean.cumsum(3)[:, :, 4:12, 4:12])


def test_a_batch_holds_every_scale_and_quality():
    clean = torch.rand(9, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    degraded, strength = degradation(blind(degradation="bicubic", phases=(Phase(1.0, 24, 9),)))(
        clean, torch.Generator()
    )
    for group, scale in zip(degraded.split(3), (2, 3, 4), strict=True):
        assert torch.equal(group, low_resolution(clean[3 * (scale - 2) : 3 * (scale - 1)], scale))
    assert strength.unique().numel() == 3
    degraded, strength = degradation(blind(degradation="jpeg", phases=(Phase(1.0, 16, 9),)))(
        clean, torch.Generator().manual_seed(0)
    )
    errors = (degraded - clean).square().mean((1, 2, 3)).sqrt()
    assert errors[0] > 2 * errors[-1]
    assert (strength.diff() < 0).all()


def test_weights_for_noise_start_a_blind_network():
    torch.manual_seed(0)
    first, second = NLRN(config().model).eval(), NLRN(blind().model).eval()
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    second.load_state_dict(adapt_weights(first.state_dict(), second.state_dict()))
    norm, bare = first.state_dict(), second.state_dict()
    assert torch.equal(bare["input_conv.weight"], norm["input_conv.weight"][:, :1])
    assert second(torch.rand(1, 1, 9, 9)).isfinite().all()


def test_a_function_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def darker(clean, generator):\n    return clean / 2, None\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = config(degradation="mine:darker")
    degraded, sigma = degradation(settings)(torch.ones(1, 1, 2, 2), torch.Generator())
    assert degraded.max() == 0.5
    assert sigma is None
    for wrong in ("mine:brighter", "nowhere:f", "poisson"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            degradation(dataclasses.replace(settings, degradation=wrong))


def test_grey_weights_start_a_colour_network():
    grey = config().model
    colour = dataclasses.replace(grey, channels=3)
    torch.manual_seed(0)
    first, second = NLRN(grey).eval(), NLRN(colour).eval()
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    second.load_state_dict(adapt_weights(first.state_dict(), second.state_dict()))
    image = torch.rand(1, 1, 9, 9)
    expected = first(image, 0.1)
    # A grey image in three channels: each comes out as the grey network's.
    assert (second(image.expand(-1, 3, -1, -1), 0.1) - expected).abs().max() < 1e-4


def test_schedule():
    assert learning_rate_factor(0, 0, 100, 0.25) == 0.01
    assert learning_rate_factor(500, 0.25, 100, 0.25) == 1
    assert learning_rate_factor(500, 1, 100, 0.25) == pytest.approx(0.002)
    phases = (Phase(0.75, 40, 40), Phase(0.25, 80, 10))
    assert [phase_at(phases, p).crop for p in (0, 0.74, 0.75, 1)] == [40, 40, 80, 80]
    assert ema_weight(10**6, 0.999) == pytest.approx(0.001)
    with pytest.raises(ValueError, match="give one of them"):
        Length(10, 10)


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
        ("a: [", "is no YAML file"),
        ("speed: 3", "has no speed; it knows model, degradation"),
        ("model: {depth: 3}", "model has no depth; it knows channels"),
        ("phases: [{share: 0.5, crop: 9, batch: 2}]", "must add up to 1"),
        ("sigma: [50, 10]", "sigma must be a range"),
        ("precision: float8", "precision must be"),
        ("quality: [0, 50]", "quality must be a range within 1..100"),
        ("scales: [1, 2]", "scales must be whole numbers from 2"),
        ("statistics_crop: 0", "statistics_crop must be at least 1"),
        ("margin: -1", "margin must not be negative"),
        ("faded: 2", "faded must be a share within 0..1, got 2"),
        (
            "phases: [{share: 0.5, crop: 9, batch: 2, frozen_norms: true}, {share: 0.5, crop: 9, batch: 2}]",
            "phases with frozen_norms must come last",
        ),
        ("luma: red", "luma must be gray or y"),
        ("{degradation: bicubic, phases: [{share: 1, crop: 25, batch: 2}]}", "multiples of 12, got \\[25\\]"),
        ("{degradation: jpeg, margin: 4, phases: [{share: 1, crop: 16, batch: 2}]}", "of 16, got \\[24\\]"),
        ("{degradation: camera, phases: [{share: 1, crop: 16, batch: 2}]}", "a network of 3 channels, got 1"),
    ],
)
def test_bad_configurations(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "bad.yaml")


def test_bad_checkpoints(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        read_header(tmp_path / "x")


def test_bfloat16_convolutions_keep_float32_logits():
    trainer = Trainer(config(precision="bfloat16"), CPU)
    loss, taken = trainer.run(torch.rand(4, 1, 12, 12), step_generator(0, 0, CPU), 0, 1e-3)
    assert taken
    assert torch.isfinite(loss)


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


def test_the_documented_degradation_trains_a_blind_model(data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CONFIGS.parent)
    settings = config(degradation="examples.poisson_gaussian:degrade")
    model = dataclasses.replace(settings.model, noise_channel=False, sigma_range=None)
    path = train(dataclasses.replace(settings, model=model), options(data, tmp_path, 20))
    assert load_model(path)(torch.rand(1, 1, 9, 9)).shape == (1, 1, 9, 9)
