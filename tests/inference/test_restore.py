"""Whole-image inference: every way of walking over an image gives the same numbers."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from nlrn import NLRN, NLRNConfig
from nlrn.inference import memory, planning, restore, wavefront
from nlrn.inference.patches import patch_positions, restore_tiles
from nlrn.inference.planning import MIB, Plan, peak_memory, plans
from nlrn.inference.precision import ieee_float32
from nlrn.inference.wavefront import BandPlan, run_bands
from nlrn.ops.nonlocal_attention import nonlocal_attention, triton

CONFIGS = {
    "propagating": {},
    "no-propagation": {"correlation_propagation": False},
    "whole-image-window": {"window_size": None},
    "noise-channel": {"noise_channel": True, "sigma_range": (0.0, 0.2), "channels": 3},
}


def network(**options) -> NLRN:
    torch.manual_seed(0)
    small = {"width": 8, "embedding": 4, "num_steps": 3, "window_size": 7, "initialization": "official"}
    model = NLRN(NLRNConfig(**(small | options))).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.bias.data.normal_(std=0.3)
    return model


def peak_difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("size", [(41, 23), (9, 30), (1, 13), (13, 1), (1, 1), (2, 3)], ids=str)
def test_bands_equal_the_network(options, size):
    model = network(**options).double()
    image = torch.rand(2, model.config.channels, *size, dtype=torch.float64)
    expected = model(image, 0.1) - image
    for height in (1, 2, 5, 8, 16, 64):
        for store in (True, False):
            for transposed in (False, True):
                plan = BandPlan(height, store)
                actual = run_bands(model, image, 0.1, 3, plan, transposed=transposed)
                assert peak_difference(actual, expected) < 1e-12, (height, store, transposed)


def test_early_head_in_bands():
    model = network(heads=(1, 3))
    image = torch.rand(1, 1, 20, 12)
    actual = run_bands(model, image, None, 1, BandPlan(4, True))
    assert peak_difference(actual, model(image, steps=1) - image) < 1e-5


def test_no_pixel_is_computed_twice(monkeypatch):
    """The rows that each convolution and each attention produces add up to the image exactly."""
    model = network()
    rows = []
    real = torch.nn.functional.conv2d

    def counting(x, weight, *args, **kwargs):
        result = real(x, weight, *args, **kwargs)
        if weight.shape[-1] == 3:
            rows.append(result.shape[2])
        return result

    monkeypatch.setattr(wavefront.F, "conv2d", counting)
    done = []
    run_bands(model, torch.rand(1, 1, 50, 10), None, 3, BandPlan(8, True), on_rows=done.append)
    assert sum(rows) == 50 * (2 + 2 * 3)
    assert sum(done) == 50 * 3


@pytest.mark.parametrize("store", [True, False], ids=["logits", "history"])
def test_buffers_do_not_grow_with_the_height(store, monkeypatch):
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
            run_bands(network(), torch.rand(1, 1, height, 8), None, 3, BandPlan(8, store))
        assert sum(alive.values()) == 0
        return most

    assert most_rows(400) == most_rows(200) < 1000


def test_restore_picks_every_kind_of_plan_and_all_agree(monkeypatch):
    model = network()
    image = torch.rand(1, 1, 150, 140)
    expected = model(image)
    monkeypatch.setattr(planning, "MIB", 1 << 10)  # workspaces of a few hundred KiB for a tiny network
    kinds = set()
    everything = plans(model.config, (1, 1, 150, 140), 3, 1 << 40)
    for plan in everything:
        smallest = peak_memory(model.config, (1, 1, 150, 140), 3, plan)
        chosen = plans(model.config, (1, 1, 150, 140), 3, smallest)[0]
        kind = (chosen.tile is not None, chosen.bands.store_logits, chosen.bands.height >= 150)
        if kind not in kinds:
            kinds.add(kind)
            assert peak_difference(restore(model, image, max_memory=smallest), expected) < 1e-5
    assert {(False, True, True), (False, True, False), (False, False, False)} <= kinds


def test_tiles_with_the_exact_halo_are_exact_and_smaller_ones_are_not():
    model = network(num_steps=2)
    halo = model.config.halo
    image = torch.rand(2, 1, 60, 75)
    expected = model(image)

    def run(piece, sigma):
        return model(piece)

    assert peak_difference(restore_tiles(run, image, None, 16, halo), expected) < 1e-5
    assert peak_difference(restore_tiles(run, image, None, 16, halo // 3), expected) > 1e-5


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

    monkeypatch.setattr("nlrn.inference.run_bands", scarce)
    assert peak_difference(restore(model, image), expected) < 1e-5
    assert tried[0].height == 40
    assert tried[0].store_logits
    assert len(tried) > 2
    monkeypatch.setattr(
        "nlrn.inference.run_bands",
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
        "nlrn.inference.run_bands", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("other"))
    )
    with pytest.raises(RuntimeError, match="other"):
        restore(model, image)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("height", "band", "store"), [(256, 256, True), (512, 64, True), (512, 24, False), (1024, 24, False)]
)
def test_estimate_bounds_the_measured_peak(height, band, store, dtype):
    """Peak resident memory of a process of its own against the estimate."""
    code = f"""
import torch
from nlrn.models.nlrn import NLRN, NLRNConfig
from nlrn.inference.planning import *
config = NLRNConfig(width=64, embedding=32, num_steps=6, window_size=21)
model = NLRN(config).eval().requires_grad_(False)
from nlrn.inference.wavefront import run_bands
# Not getrusage: its figure begins with that of the parent process.
peak = lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
run_bands(model, torch.rand(1, 1, 16, 16), None, 6, BandPlan(16, True), dtype=torch.{dtype})
before = peak()
plan = BandPlan({band}, {store}, 64 * MIB)
run_bands(model, torch.rand(1, 1, {height}, 256), None, 6, plan, dtype=torch.{dtype})
used, bound = peak() - before, peak_memory(config, (1, 1, {height}, 256), 6, Plan(plan), torch.{dtype})
assert 0.3 * bound < used <= bound, (used / MIB, bound / MIB)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_backend_that_has_no_room_for_logits_keeps_a_history(monkeypatch):
    """In bfloat16 the chunked backend, which takes over where the kernel refuses, stores twice the bytes that were planned."""
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
    assert any(state is not None and state.logits is None for state in seen)
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
            channels = query.shape[1] * (len(state.queries) + 1)
            seen.append(triton.history_bytes(value.shape, channels, window, value.itemsize) - max_memory)
        return torch.empty_like(value[:, :, : query.shape[2]]), None

    monkeypatch.setattr(wavefront, "nonlocal_attention", operation)
    plan = BandPlan(32, False, workspace=0)
    model, image = NLRN(config).eval().half().to("meta"), torch.empty(1, 1, 96, width, device="meta").half()
    with torch.no_grad():
        run_bands(model, image, None, 12, plan)
    assert max(seen) <= 0
    assert len(seen) == 11 * 3
    gpu, cpu = (
        peak_memory(config, (1, 1, 96, width), 12, Plan(plan), torch.float16, device)
        for device in ("cuda", "cpu")
    )
    assert gpu - cpu == triton.history_bytes((1, 128, 96, width), 12 * 64, window, 2)


def test_the_level_is_looked_at_once(monkeypatch):
    """Not in every band: on a GPU each look waits for all that was started before."""
    model, looks = network(**CONFIGS["noise-channel"]), []
    check = NLRN.check_sigma
    monkeypatch.setattr(NLRN, "check_sigma", lambda *args: looks.append(1) or check(*args))
    run_bands(model, torch.rand(1, 3, 64, 16), torch.tensor([0.1]), 3, BandPlan(8, True))
    assert len(looks) == 1


def test_wide_images_walk_along_the_width():
    config = NLRNConfig()
    budget = peak_memory(config, (1, 1, 6000, 300), 12, Plan(BandPlan(24, True)))
    tall, wide = (plans(config, (1, 1, *size), 12, budget)[0] for size in ((6000, 300), (300, 6000)))
    assert not tall.transposed
    assert wide.transposed
    assert tall.bands == wide.bands


class TestPatches:
    def test_positions(self):
        assert patch_positions(45, 45, 7) == [0]
        assert patch_positions(46, 45, 7) == [0, 1]
        assert patch_positions(59, 45, 7) == [0, 7, 14]
        assert patch_positions(60, 45, 7) == [0, 7, 14, 15]
        assert patch_positions(10, 45, 7) == [0]

    def test_average_of_patches(self):
        """Against the protocol written as loops."""
        model = network(window_size=None)
        image = torch.rand(2, 1, 20, 17)
        total, weight = torch.zeros_like(image), torch.zeros_like(image)
        for y in (0, 5, 9):
            for x in (0, 5, 6):
                total[..., y : y + 11, x : x + 11] += model(image[..., y : y + 11, x : x + 11])
                weight[..., y : y + 11, x : x + 11] += 1
        actual = restore(model, image, patches=(11, 5))
        assert peak_difference(actual, total / weight) < 1e-6

    def test_configuration_decides_and_can_be_overridden(self):
        model = network(patch_protocol=(11, 5))
        image = torch.rand(1, 1, 20, 17)
        assert torch.equal(restore(model, image), restore(model, image, patches=(11, 5)))
        assert peak_difference(restore(model, image, patches=None), model(image)) < 1e-5
        assert peak_difference(restore(model, image), model(image)) > 1e-4


def test_sigma_per_image():
    model = network(noise_channel=True, sigma_range=(0.0, 0.2))
    image = torch.rand(2, 1, 24, 12)
    sigma = torch.tensor([0.05, 0.15])
    assert peak_difference(restore(model, image, sigma), model(image, sigma)) < 1e-5
    for patches in (None, (11, 5)):
        both = restore(model, image, sigma, patches=patches)
        assert peak_difference(both[1:], restore(model, image[1:], 0.15, patches=patches)) < 1e-6


def test_ensemble_is_symmetric_and_averages_eight():
    model = network().double()
    image = torch.rand(1, 1, 15, 22, dtype=torch.float64)
    result = restore(model, image, ensemble=True)
    for turn in (lambda x: x.rot90(1, (2, 3)), lambda x: x.flip(2), lambda x: x.transpose(2, 3)):
        assert peak_difference(restore(model, turn(image), ensemble=True), turn(result)) < 1e-12
        assert peak_difference(restore(model, turn(image)), turn(restore(model, image))) > 1e-6


def test_any_method_can_be_restored_with():
    seen = []
    image = torch.rand(1, 3, 5, 4)
    assert torch.equal(restore(lambda x, sigma=None: x * 2, image, 0.1, progress=seen.append), image * 2)
    assert seen == [1.0]
    with pytest.raises(ValueError, match="no steps to choose from"):
        restore(lambda x, sigma=None: x, image, steps=3)


def test_progress_rises_to_one():
    for options in ({}, {"ensemble": True}, {"patches": (9, 4)}):
        seen = []
        restore(network(), torch.rand(1, 1, 30, 20), progress=seen.append, **options)
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(1.0)


def test_result_has_no_gradients_and_can_be_used_in_autograd():
    image = torch.rand(1, 1, 8, 8, requires_grad=True)
    result = restore(network(), image)
    assert not result.requires_grad
    (result * torch.ones_like(result).requires_grad_()).sum().backward()


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        restore(network().train(), torch.rand(1, 1, 8, 8))


def test_float32_is_ieee_whatever_the_process_allows():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        backend = torch.backends.mkldnn.matmul
        assert backend.fp32_precision == "bf16"
        with ieee_float32():
            assert backend.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert backend.fp32_precision == "bf16"
        model, image = network(), torch.rand(1, 1, 40, 40)
        expected = model.double()(image.double()).float()
        assert peak_difference(restore(model.float(), image), expected) < 1e-5
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_limit_of_a_control_group(tmp_path, monkeypatch):
    (tmp_path / "usage").write_text("1000\n")
    (tmp_path / "limit").write_text("5000\n")
    paths = (str(tmp_path / "usage"), str(tmp_path / "limit"))
    monkeypatch.setattr(memory, "CGROUPS", (paths,))
    assert memory.available_memory(torch.device("cpu")) == 4000
    assert memory.default_budget(torch.device("cpu")) == 2000
    (tmp_path / "limit").write_text("max\n")
    assert memory.available_memory(torch.device("cpu")) > 1 << 20
