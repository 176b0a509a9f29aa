"""Several processes under torchrun, on a CPU: one gradient, one clock, and what happens when one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import CONFIGS, CPU, command, config, options
from safetensors.torch import load_file

from nlrn.training.checkpoint import read_header
from nlrn.training.config import load_config, to_dict
from nlrn.training.logs import CHECKPOINT, WEIGHTS
from nlrn.training.loop import train
from nlrn.training.processes import own_device

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
    """With frozen norms two that share a batch have the gradient of one that has it all, clipped and not."""
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
        return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["psnr"]["25"]

    assert psnr(both) == pytest.approx(psnr(alone), abs=1.5)


def test_torchrun_with_frozen_norms(data, tmp_path):
    """Where norms have no statistics of their own, two processes end with the weights of one."""
    first = train(load_config(CONFIGS / "tiny.yaml"), options(data, tmp_path / "first", 40))
    more = ("--init", str(first), "--frozen-norms", "--steps", "10")
    subprocess.run(command(data, tmp_path / "alone", *more), check=True, capture_output=True, env=ONE_THREAD)
    torchrun(command(data, tmp_path / "both", *more)[3:])
    before, alone, both = (load_file(tmp_path / name / WEIGHTS) for name in ("first", "alone", "both"))
    assert alone.keys() == both.keys()
    moved = sum((alone[name] - before[name]).square().sum() for name in alone).sqrt()
    apart = sum((alone[name] - both[name]).square().sum() for name in alone).sqrt()
    assert moved > 0.1
    assert apart < 1e-4 * moved  # sums in another order; without averaging it is 0.4


def test_every_process_has_its_own_gpu(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert own_device(torch.device("cuda:1")) == torch.device("cuda", 1)
    assert own_device(CPU) == CPU
    monkeypatch.delenv("LOCAL_RANK")
    assert own_device(torch.device("cuda")) == torch.device("cuda", 0)
    assert current == [3, 1, 0]
