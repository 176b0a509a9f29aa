"""Captured steps, without a GPU: a tape of operations that is replayed on the same memory, as a CUDA graph is."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from nlrn.ops import resize
from nlrn.training import graph
from nlrn.training.config import Phase, degradation, load_config
from nlrn.training.crops import Crops
from nlrn.training.graph import WARM_UP, Steps
from nlrn.training.step import Trainer, TrainingError

CPU = torch.device("cpu")
TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"
# Reading a number from the device, copying numbers to it, and results whose size depends on values: all three wait.
WAITING = {"_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "_unique2", "is_nonzero"}


class Tape(TorchDispatchMode):
    """Records every operation of a computation, and does it again on the same tensors."""

    def __init__(self):
        super().__init__()
        self.entries = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        # Lists that the caller clears later are kept as they were.
        self.entries.append((operation, tree_map(lambda x: x, args), dict(kwargs or {}), result))
        return result

    def names(self):
        return {operation.overloadpacket.__name__ for operation, *_ in self.entries}

    @torch.no_grad()
    def replay(self):
        for operation, args, kwargs, result in self.entries:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    made = []

    def capture(body, generator):
        """A capture records and does not compute: what the recording changed is put back."""
        trainer = body.__self__._trainer
        kept = [t for m in (trainer.model, trainer.average) for t in m.state_dict().values()]
        kept += [v for o in trainer.optimizers for state in o.state.values() for v in state.values()]
        before = [t.clone() for t in kept]
        tape = Tape()
        with tape:
            outcome = body()
        for tensor, old in zip(kept, before, strict=True):
            tensor.copy_(old)
        made.append(tape)

        def replay():
            tape.replay()
            return outcome

        return replay

    monkeypatch.setattr(graph, "warm_up", lambda body: body())
    monkeypatch.setattr(graph, "capture", capture)
    return made


def configuration(channels=1, **changes):
    tiny = load_config(TINY)
    model = dataclasses.replace(tiny.model, width=8, embedding=4, window_size=5, channels=channels)
    if changes.get("degradation", "gaussian") != "gaussian":
        model = dataclasses.replace(model, noise_channel=False, sigma_range=None)
    return dataclasses.replace(tiny, model=model, **changes)


def run(settings, side, captured, steps=8):
    shape = (72, 80) if settings.model.channels == 1 else (72, 80, 3)
    rng = np.random.default_rng(0)
    crops = Crops([rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(3)], CPU)
    trainer = Trainer(settings, CPU)
    take = Steps(trainer, crops, Phase(1.0, side, 4), captured=captured)
    outcomes = [take(step, 1e-3 * (step + 1)) for step in range(steps)]
    return trainer, torch.stack([loss for loss, _ in outcomes]), [bool(taken) for _, taken in outcomes]


def darker(clean, generator):
    """A degradation of the user's own that no graph could hold."""
    return clean * float(torch.rand(1, generator=generator)), None


TASKS = {
    "gaussian": (configuration(), 16),
    "faded": (configuration(faded=0.5), 16),
    "drawn": (configuration(drawn=0.5), 16),
    "bfloat16": (configuration(precision="bfloat16"), 16),
    "bicubic": (configuration(degradation="bicubic", phases=(Phase(1.0, 24, 4),)), 24),
    "jpeg": (configuration(3, degradation="jpeg", margin=8, phases=(Phase(1.0, 16, 4),)), 16),
    "camera": (configuration(3, degradation="camera", margin=16, phases=(Phase(1.0, 16, 4),)), 16),
    "own": (configuration(degradation=f"{__name__}:darker"), 16),
}


@pytest.mark.parametrize("task", TASKS)
def test_captured_steps_are_the_same_steps(task, tapes):
    """Every step has its own learning rate, average, crops and noise, though its kernels were launched once."""
    settings, side = TASKS[task]
    plain, losses, _ = run(settings, side, captured=False)
    captured, replayed, taken = run(settings, side, captured=True)
    assert all(taken)
    assert len(tapes) == 1
    torch.testing.assert_close(replayed, losses)
    assert len(set(replayed.tolist())) == len(replayed)
    for one, other in ((plain.model, captured.model), (plain.average, captured.average)):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(
                other.state_dict()[name], value, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("task", TASKS)
def test_nothing_in_a_step_waits_for_the_device(task, tapes):
    settings, side = TASKS[task]
    run(settings, side, captured=True, steps=WARM_UP + 1)
    assert not tapes[0].names() & WAITING


def test_own_degradations_are_a_step_ahead_in_a_thread(monkeypatch):
    settings, side = TASKS["own"]
    trainer, crops = Trainer(settings, CPU), Crops([np.arange(1600, dtype=np.uint8).reshape(40, 40)], CPU)
    threads, made, kept = [], threading.Semaphore(0), trainer.degrade

    def seen(clean, generator):
        threads.append(threading.get_ident())
        made.release()
        return kept(clean, generator)

    monkeypatch.setattr(trainer, "degrade", seen)
    take = Steps(trainer, crops, Phase(1.0, side, 4), captured=False)
    take(0, 1e-3)
    assert made.acquire(timeout=30)
    assert made.acquire(timeout=30)
    assert threads[0] == threading.get_ident() != threads[1]
    take(1, 1e-3)
    assert made.acquire(timeout=30)
    assert threads[1] == threads[2]


def test_images_that_do_not_fit_on_a_gpu(monkeypatch):
    """They stay where they are, and their crops are made by the thread, from the second step on."""
    image = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * image.size - 1, 1 << 30))
    assert Crops([image], torch.device("cuda")).apart
    settings, side = TASKS["gaussian"]
    losses, threads = [], set()
    for apart in (False, True):
        crops = Crops([image], CPU)
        crops.apart = apart
        draw, trainer = crops.draw, Trainer(settings, CPU)

        def seen(*args, draw=draw, apart=apart):
            threads.add((apart, threading.current_thread() is threading.main_thread()))
            return draw(*args)

        monkeypatch.setattr(crops, "draw", seen)
        take = Steps(trainer, crops, Phase(1.0, side, 4), captured=False)
        losses.append([float(take(step, 1e-3)[0]) for step in range(3)])
        take.close()
    assert threads == {(False, True), (True, True), (True, False)}
    assert all(np.isfinite(losses[1]))
    assert len(set(losses[1])) == 3


def test_an_error_in_an_own_degradation_reaches_the_run(monkeypatch):
    settings, side = TASKS["own"]
    trainer, crops = Trainer(settings, CPU), Crops([np.zeros((40, 40), np.uint8)], CPU)
    take = Steps(trainer, crops, Phase(1.0, side, 4), captured=False)

    def broken(clean, generator):
        raise ValueError("no such noise")

    kept = trainer.degrade
    monkeypatch.setattr(trainer, "degrade", lambda *args: kept(*args) if not take._taken else broken(*args))
    take(0, 1e-3)
    with pytest.raises(ValueError, match="no such noise"):
        take(1, 1e-3)


def test_steps_in_another_order_have_their_own_batches():
    settings, side = TASKS["own"]
    crops = Crops([np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)], CPU)
    losses = {}
    for order in ((5, 2), (2,), (5,)):
        trainer = Trainer(settings, CPU)
        take = Steps(trainer, crops, Phase(1.0, side, 4), captured=False)
        losses[order] = [float(take(step, 0.0)[0]) for step in order]
    assert losses[(5, 2)] == [*losses[(5,)], *losses[(2,)]]


def test_a_bad_step_changes_nothing_when_replayed(tapes, monkeypatch):
    """The check is on the device, so it is in the graph."""
    settings, side = TASKS["own"]
    trainer, crops = Trainer(settings, CPU), Crops([np.zeros((32, 32), np.uint8)], CPU)
    take = Steps(trainer, crops, Phase(1.0, side, 4), captured=True)
    for step in range(WARM_UP + 1):
        take(step, 1e-3)

    def weights():
        return {name: value.clone() for name, value in trainer.average.state_dict().items()}

    before = weights()
    monkeypatch.setattr(trainer, "degrade", lambda clean, generator: (clean * float("nan"), None))
    # Not the next step, whose batch is there already.
    assert not take(WARM_UP + 2, 1e-3)[1]
    for name, value in weights().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name


def test_why_a_step_cannot_be_captured(monkeypatch):
    """The first error, not that of the capture's end, which fails after it."""

    class Capture:
        def __init__(self, *args, **kwargs):
            pass

        def register_generator_state(self, generator):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *args):
            raise RuntimeError("capture failed due to a previous error")

    def body():
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Capture)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    with pytest.raises(TrainingError, match=r"\(RuntimeError: operation not permitted .* is capturing\)$"):
        graph.capture(body, torch.Generator())


def test_a_step_that_cannot_be_captured_is_taken_without(monkeypatch, caplog):
    def refusing(body, generator):
        raise TrainingError("the training step cannot be captured")

    monkeypatch.setattr(graph, "warm_up", lambda body: body())
    monkeypatch.setattr(graph, "capture", refusing)
    settings, side = TASKS["gaussian"]
    _, losses, _ = run(settings, side, captured=False)
    _, without, taken = run(settings, side, captured=True)
    assert caplog.text.count("training goes on without, more slowly") == 1
    assert all(taken)
    assert torch.equal(without, losses)


def test_a_captured_enlargement_keeps_what_it_reads(monkeypatch):
    """The cache that others share forgets, and a graph reads memory that it was captured with."""
    settings, side = TASKS["bicubic"]
    degrade, made = degradation(settings), []
    monkeypatch.setattr(resize, "_recent_taps", lambda *key: made.append(key))
    clean, generator = torch.rand(4, 1, side, side), torch.Generator()
    first, again = degrade(clean, generator)[0], degrade(clean, generator)[0]
    assert torch.equal(first, again)
    assert not made
