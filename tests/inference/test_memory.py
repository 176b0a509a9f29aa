"""What restoring takes: estimates that bound it, what fits, and what happens when there is less."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch
from networks import network, peak_difference

from nlrn import NLRN, NLRNConfig
from nlrn.inference import memory, restore, wavefront
from nlrn.inference.planning import MIB, Plan, peak_memory, plans
from nlrn.inference.wavefront import BandPlan, run_bands
from nlrn.ops.nonlocal_attention import AttentionState, nonlocal_attention, triton
from nlrn.ops.nonlocal_attention.memory import history_bytes
from nlrn.ops.nonlocal_attention.state import History


@pytest.mark.parametrize("store", [True, False], ids=["logits", "history"])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "stem": 4}], ids=["paper", "stem"])
def test_buffers_do_not_grow_with_the_height(store, options, monkeypatch):
    """Rows held at any time, over all buffers."""

    def most_rows(height):
        alive, most = {}, 0
        real_append, real_drop = wavefront.RowBuffer.append, wavefront.RowBuffer.drop

        def note(buffer):
            nonlocal most
            alive[id(buffer)] = 0 if buffer._rows is None else buffer._rows.shape[2]
            most = max(most, sum(alive.values()))

        def append(self, rows):
            real_append(self, rows)
            note(self)

        def drop(self, before):
            real_drop(self, before)
            note(self)

        with monkeypatch.context() as patch:
            patch.setattr(wavefront.RowBuffer, "append", append)
            patch.setattr(wavefront.RowBuffer, "drop", drop)
            run_bands(network(**options), torch.rand(1, 1, height, 8), None, 3, BandPlan(8, store))
        assert sum(alive.values()) == 0
        return most

    assert most_rows(800) == most_rows(400) < 1000


def test_nothing_fits():
    with pytest.raises(
        MemoryError, match=r"restoring 40x30 pixels takes at least \d+ MiB .* 1 MiB are allowed"
    ):
        restore(network(), torch.rand(1, 1, 30, 40), max_memory=MIB)


def test_falls_back_when_memory_runs_out(monkeypatch):
    model = network()
    image = torch.rand(1, 1, 40, 30)
    expected = model(image)
    real, tried = run_bands, []

    def scarce(model, image, sigma, steps, plan, **options):
        tried.append(plan)
        if plan.height > 8 or plan.store_logits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, image, sigma, steps, plan, **options)

    monkeypatch.setattr("nlrn.inference.within_memory.run_bands", scarce)
    assert peak_difference(restore(model, image), expected) < 1e-5
    assert tried[0].height == 40
    assert tried[0].store_logits
    assert len(tried) > 2
    monkeypatch.setattr(
        "nlrn.inference.within_memory.run_bands",
        lambda *a, **k: (_ for _ in ()).throw(RuntimeError(next(words))),
    )
    for message in (
        "DefaultCPUAllocator: can't allocate memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        "CUDA error: out of memory",
    ):
        words = itertools.repeat(message)
        with pytest.raises(MemoryError, match="even in the smallest pieces"):
            restore(model, image)
    monkeypatch.setattr(
        "nlrn.inference.within_memory.run_bands", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("other"))
    )
    with pytest.raises(RuntimeError, match="other"):
        restore(model, image)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("height", "band", "store"),
    [(256, 256, True), (512, 64, True), (512, 24, False), (1024, 24, False), (1024, 128, False)],
)
@pytest.mark.parametrize(
    "network",
    [
        "width=64, embedding=32, num_steps=6, window_size=21",
        "width=128, embedding=64, num_steps=6, window_size=15, stride=2, stem=32",
    ],
    ids=["paper", "stem"],
)
def test_estimate_bounds_the_measured_peak(network, height, band, store, dtype):
    """Peak resident memory of a process of its own against the estimate."""
    code = f"""
import torch
from nlrn.models.nlrn import NLRN, NLRNConfig
from nlrn.inference.planning import *
config = NLRNConfig({network})
model = NLRN(config).eval().requires_grad_(False)
from nlrn.inference.wavefront import run_bands
# Not getrusage: its figure begins with that of the parent process.
peak = lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
run_bands(model, torch.rand(1, 1, 16, 16), None, 6, BandPlan(16, True), dtype=torch.{dtype})
before = peak()
plan = BandPlan({band}, {store}, 64 * MIB)
run_bands(model, torch.rand(1, 1, {height}, 256), None, 6, plan, dtype=torch.{dtype})
used, bound = peak() - before, peak_memory(config, (1, 1, {height}, 256), 6, Plan(plan), "cpu", torch.{dtype})
assert 0.3 * bound < used <= bound, (used / MIB, bound / MIB)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_backend_that_has_no_room_for_logits_keeps_a_history(monkeypatch):
    """In bfloat16 the chunked backend, which serves where the kernel refuses, stores twice the bytes planned."""
    model, image = network(num_steps=3), torch.rand(1, 1, 50, 40)
    expected = run_bands(model, image, None, 3, BandPlan(16, True))
    seen = []

    def without_logits(*args, **options):
        output, state = nonlocal_attention(*args, **{**options, "max_memory": 200_000})
        seen.append(state)
        return output, state

    monkeypatch.setattr("nlrn.inference.wavefront.nonlocal_attention", without_logits)
    monkeypatch.setattr(
        "nlrn.ops.nonlocal_attention.native_operators.loaded_kernel", lambda dtype: "switched off"
    )
    actual = run_bands(model, image, None, 3, BandPlan(16, True))
    assert any(isinstance(state, History) for state in seen)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_memory_of_a_band_does_not_depend_on_the_height():
    config = NLRNConfig()
    for store in (True, False):
        plan = Plan(BandPlan(24, store))
        low, high = (peak_memory(config, (1, 1, h, 4000), 12, plan) for h in (1000, 6000))
        assert high - low == 8 * 4000 * 5000  # the image itself


@pytest.mark.parametrize("window", [45, None])
def test_a_history_has_room_on_a_gpu(window, monkeypatch):
    """Where it has not, the triton backend refuses, and another one would compute a photograph in its stead."""
    config, width, seen = NLRNConfig(window_size=window), 4096 if window else 40, []

    def operation(query, key, value, window, state, *, max_memory, **options):
        if state is not None:
            channels = query.shape[1] * (state.steps + 1)
            seen.append(history_bytes(value.shape, channels, window, value.itemsize) - max_memory)
        return torch.empty_like(value[:, :, : query.shape[2]]), None

    monkeypatch.setattr(wavefront, "nonlocal_attention", operation)
    plan = BandPlan(32, False, workspace=0)
    model, image = NLRN(config).eval().half().to("meta"), torch.empty(1, 1, 96, width, device="meta").half()
    with torch.no_grad():
        run_bands(model, image, None, 12, plan)
    assert max(seen) <= 0
    assert len(seen) == 11 * 3
    gpu, cpu = (
        peak_memory(config, (1, 1, 96, width), 12, Plan(plan), device, torch.float16)
        for device in ("cuda", "cpu")
    )
    assert gpu - cpu == history_bytes((1, 128, 96, width), 12 * 64, window, 2)


def test_whole_image_attention_without_the_kernel(monkeypatch):
    """Its keys alone are more than the memory that bands have for a step."""
    monkeypatch.setattr("nlrn.ops.nonlocal_attention.native.refusal", lambda *arguments: "is not here")
    model = network(window_size=None, width=64, embedding=64, num_steps=2, heads=(2,))
    (plan,) = plans(model.config, (1, 1, 360, 360), 2, 4 << 30)
    query, image = torch.zeros(1, 64, 1, 360), torch.zeros(1, 64, 360, 360)
    history = AttentionState.from_history((query,), (image,))
    output, _ = nonlocal_attention(
        query, image, image, None, history, keep_state=False, max_memory=plan.bands.workspace
    )
    assert output.shape == query.shape


def test_memory_limit_of_a_control_group(tmp_path, monkeypatch):
    """What the kernel keeps of files that were read is as good as free."""
    (tmp_path / "usage").write_text("4000\n")
    (tmp_path / "limit").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 3000\nactive_file 100\n")
    monkeypatch.setattr(memory, "CGROUPS", ((str(tmp_path), "limit", "usage", "inactive_file"),))
    assert memory.available_memory(torch.device("cpu")) == 4000
    assert memory.default_budget(torch.device("cpu")) == 2000
    (tmp_path / "limit").write_text("max\n")
    assert memory.available_memory(torch.device("cpu")) > 1 << 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("window", [1, 5, 21, 45, None], ids=str)
def test_stored_logits_of_the_triton_backend_are_counted(window, dtype):
    for rows, height, width in ((1, 1, 1), (8, 30, 50), (64, 300, 4000), (37, 37, 37)):
        query, key = (torch.empty(2, 4, n, width, device="meta") for n in (rows, height))
        shape = triton.Geometry.of(query, key, window).state_shape(dtype)
        counted = wavefront.stored_logits_bytes(2, rows, (height, width), window, dtype.itemsize)
        assert dtype.itemsize * math.prod(shape) <= counted
