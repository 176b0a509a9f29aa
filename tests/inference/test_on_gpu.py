"""Whole images on a GPU: every way of walking over one, against the CPU; memory as estimated; captured for one size."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from nlrn import load_model
from nlrn.inference import restore
from nlrn.inference.planning import Plan, peak_memory
from nlrn.inference.wavefront import BandPlan, run_bands

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda")
SIGMA = 25 / 255


def noisy(height, width):
    clean = torch.from_numpy(data.camera()[:height, :width].copy())[None, None] / 255
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def psnr(actual, expected):
    return -10 * (actual.cpu() - expected).square().mean().log10().item()


@pytest.fixture(scope="module")
def example():
    """A noisy photograph, and what the CPU makes of it."""
    image = noisy(150, 131)
    return image, restore(load_model("nlrn-small-gray"), image, SIGMA)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("store", [True, False], ids=["stored", "history"])
@pytest.mark.parametrize("height", [8, 32, 150], ids=lambda height: f"bands-of-{height}")
def test_equals_the_cpu(height, store, transposed, precision, example):
    image, expected = example
    model = load_model("nlrn-small-gray", device=GPU)
    with torch.no_grad():
        residual = run_bands(
            model, image.to(GPU), SIGMA, 6, BandPlan(height, store), dtype=precision, transposed=transposed
        )
    actual = image + residual.cpu()
    if precision == torch.float32:
        assert (actual - expected).abs().max() < 1e-4
    else:
        assert psnr(actual, expected) > (60 if precision == torch.float16 else 48)


@pytest.mark.parametrize("store", [True, False], ids=["stored", "history"])
@pytest.mark.parametrize("height", [32, 256], ids=lambda height: f"bands-of-{height}")
def test_memory_is_as_estimated(height, store):
    model, plan = load_model("nlrn-small-gray", device=GPU), BandPlan(height, store)
    image = noisy(256, 512).to(GPU)

    def run():
        with torch.no_grad():
            run_bands(model, image, SIGMA, 6, plan, dtype=torch.float16)

    run()  # kernels are compiled and libraries take what they keep
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    used = torch.cuda.max_memory_allocated() - before
    bound = peak_memory(model.config, (1, 1, 256, 512), 6, Plan(plan), "cuda", torch.float16)
    assert used <= bound, (used / 2**20, bound / 2**20)


@pytest.mark.filterwarnings("default")  # of the compiler itself
def test_compiled_for_one_size(example):
    """As a CUDA graph, which reads the image of every call and not that of the first."""
    image, expected = example
    model = load_model("nlrn-small-gray", device=GPU)
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False, fullgraph=True)
    image, sigma = image.to(GPU), torch.tensor([SIGMA], device=GPU)
    restore(compiled, image, sigma)  # compiles
    restore(compiled, image, sigma)  # captures
    other = restore(compiled, 1 - image, sigma).cpu()
    assert (restore(compiled, image, sigma).cpu() - expected).abs().max() < 1e-4
    assert (other - expected).abs().max() > 0.1
