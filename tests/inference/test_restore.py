"""Whole-image inference: every way of walking over an image gives the same numbers."""

from __future__ import annotations

import threading

import pytest
import torch
from networks import CONFIGS, network, peak_difference

from nlrn import NLRN, NLRNConfig
from nlrn.inference import planning, restore, wavefront, within_memory
from nlrn.inference.patches import patch_positions, restore_tiles
from nlrn.inference.planning import Plan, peak_memory, plans
from nlrn.inference.precision import ieee_float32
from nlrn.inference.wavefront import BandPlan, run_bands


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


@pytest.mark.parametrize("store", [True, False], ids=["stored", "history"])
def test_a_plan_with_tiles_is_exact(store):
    """The last resort, which is chosen for images that are wide and high beyond what the tests can hold."""
    model, image = network(num_steps=2), torch.rand(2, 1, 50, 61)
    seen = []
    plan = Plan(BandPlan(8, store, 1 << 20), tile=16)
    result = within_memory._run_plan(model, image, None, 2, plan, torch.float32, seen.append)
    assert peak_difference(result, model(image)) < 1e-5
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_tiles_with_the_exact_halo_are_exact_and_smaller_ones_are_not():
    model = network(num_steps=2)
    halo = model.config.halo
    image = torch.rand(2, 1, 60, 75)
    expected = model(image)

    def run(piece, sigma):
        return model(piece)

    assert peak_difference(restore_tiles(run, image, None, 16, halo), expected) < 1e-5
    assert peak_difference(restore_tiles(run, image, None, 16, halo // 3), expected) > 1e-5


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
        assert peak_difference(both[1:], restore(model, image[1:], 0.15, patches=patches)) < 1e-5


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


def test_threads_share_exact_arithmetic():
    """The settings belong to the process: the first thread in makes them, the last one out restores them."""
    backend = torch.backends.mkldnn.matmul
    before = torch.get_float32_matmul_precision()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with ieee_float32():
            inside.set()
            leave.wait(10)

    try:
        torch.set_float32_matmul_precision("medium")
        with ieee_float32():
            thread = threading.Thread(target=other)
            thread.start()
            assert inside.wait(10)
        assert backend.fp32_precision == "ieee"  # for the other one
        leave.set()
        thread.join()
        assert backend.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(before)
