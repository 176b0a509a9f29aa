"""The contract of every method that comes with nlrn, and of a method of a user's own."""

from __future__ import annotations

import pytest
import torch

from nlrn import ModelInfo, load_model
from nlrn.inference import restore
from nlrn.models.classical.bm3d import BM3D, BM3DConfig
from nlrn.models.contract import info_of
from nlrn.models.zoo import CLASSICAL, MODELS

TASKS = ("denoise", "photo", "upscale", "dejpeg")


@pytest.fixture(scope="module", params=[*MODELS, *CLASSICAL])
def model(request):
    return load_model(request.param)


def channels(model):
    own = info_of(model).channels
    return [1, 3] if own is None else [own]


def picture(*shape, dtype=torch.float32):
    """A smooth picture and noise of 0.1."""
    generator = torch.Generator().manual_seed(sum(shape))
    y, x = (torch.linspace(0, 3, n, dtype=torch.float64) for n in shape[2:])
    clean = (0.5 + 0.3 * torch.sin(y[:, None] + x)).expand(shape)
    return (clean + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def level(model):
    return None if info_of(model).sigma_range is None else 0.1


def test_declaration(model):
    info = model.info
    assert info.task in TASKS
    assert info.channels in (1, 3, None)
    assert list(info.steps) == sorted(set(info.steps))
    assert info.cut in ("bands", "tiles", "whole")
    assert info.cut == "whole" or info.halo is not None
    assert info.cut != "tiles" or info.memory is not None
    assert torch.float32 in info.precisions


@pytest.mark.parametrize("size", [(24, 20), (1, 1), (7, 1), (1, 9), (13, 11)], ids=str)
def test_shape_dtype_and_input(model, size):
    for count in channels(model):
        image = picture(2, count, *size)
        before = image.clone()
        restored = model(image, level(model))
        assert restored.shape == image.shape
        assert restored.dtype == image.dtype
        assert restored.device == image.device
        assert torch.isfinite(restored).all()
        assert torch.equal(image, before)


def test_float64_is_computed_as_such(model):
    image = picture(1, channels(model)[0], 16, 18, dtype=torch.float64)
    info = model.info
    if torch.float64 not in info.precisions:
        pytest.skip(f"{info.name} does not compute in float64")
    if isinstance(model, torch.nn.Module):
        model.double()
    restored = model(image, level(model))
    if isinstance(model, torch.nn.Module):
        model.float()
    assert restored.dtype == torch.float64
    assert (restored.float() - model(image.float(), level(model))).abs().mean() < 1e-4


def test_a_constant_stays(model):
    for count in channels(model):
        image = torch.full((1, count, 24, 20), 0.4)
        for sigma in [None] if level(model) is None else [0.0, 0.1]:
            # Networks come near it; methods that average keep it.
            bound = 0.02 if isinstance(model, torch.nn.Module) else 1e-4
            assert (model(image, sigma) - image).abs().max() < bound


def test_no_noise_is_removed_from_a_clean_image_that_is_said_to_be_clean(model):
    if level(model) is None:
        pytest.skip("the method takes no sigma")
    image = picture(1, channels(model)[0], 24, 20)
    smooth = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    bound = 0.02 if isinstance(model, torch.nn.Module) else 1e-6
    assert (model(smooth, 0.0) - smooth).abs().max() < bound


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_methods_change_what_sigma_says(name):
    """Nothing at 0, for each image of a batch; and little far below a grey level, beyond rounding of their own."""
    method = load_model(name)
    image = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(method(image, 0.0), image)
    one = method(image, torch.tensor([0.0, 0.1]))
    assert torch.equal(one[0], image[0])
    assert not torch.equal(one[1], image[1])
    assert (method(image[:1, :1], 1e-6) - image[:1, :1]).abs().max() < 1e-3


def test_flips_and_turns(model):
    if not model.info.symmetric:
        pytest.skip("the method does not claim to be symmetric")
    image = picture(1, channels(model)[0], 24, 20)
    restored = model(image, level(model))
    for turn in (lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.rot90(1, (2, 3))):
        assert (model(turn(image), level(model)) - turn(restored)).abs().max() < 1e-4


def test_sigma_per_image(model):
    if level(model) is None:
        pytest.skip("the method takes no sigma")
    image = picture(2, channels(model)[0], 16, 18)
    together = model(image, torch.tensor([0.05, 0.15]))
    for i, sigma in enumerate((0.05, 0.15)):
        assert (together[i : i + 1] - model(image[i : i + 1], sigma)).abs().max() < 1e-5


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), None], ids=str)
def test_impossible_sigma(model, sigma):
    if level(model) is None:
        pytest.skip("the method takes no sigma")
    with pytest.raises(ValueError, match="sigma"):
        model(picture(1, channels(model)[0], 8, 8), sigma)


def test_wrong_images(model):
    shapes = [(1, 8, 8), (1, channels(model)[0], 0, 8)]
    if model.info.channels is not None:
        shapes.append((1, 2, 8, 8))
    for shape in shapes:
        with pytest.raises(ValueError, match=r"image must be \[B, .* got shape"):
            model(torch.zeros(shape), level(model))


def test_steps(model):
    info = model.info
    for steps in info.steps:
        assert info.check_steps(steps) == steps
    with pytest.raises(ValueError, match=r"can stop after .* got steps=99|has no steps .* got steps=99"):
        info.check_steps(99)


SMALL = BM3DConfig(patch_size=4, search_size=7, group_sizes=(4, 4))


def test_tiles_equal_the_whole_image():
    """In less memory than the whole image takes."""
    method = BM3D(SMALL)
    # In float32 a distance or a coefficient may fall on the other side of a threshold.
    image, seen = picture(2, 1, 200, 150, dtype=torch.float64), []
    whole = 2 * method.info.memory(tuple(image.shape))
    calls = []

    class Counted:
        info = method.info

        def __call__(self, image, sigma=None):
            calls.append(tuple(image.shape[2:]))
            return method(image, sigma)

    sigma = torch.tensor([0.1, 0.05], dtype=torch.float64)
    expected = method(image, sigma)
    actual = restore(Counted(), image, sigma, max_memory=whole - 1, progress=seen.append)
    assert len(calls) > 1
    assert (actual - expected).abs().max() < 1e-5
    assert seen == sorted(seen)
    assert seen[-1] == 1
    calls.clear()
    restore(Counted(), image, sigma, max_memory=2 * whole)
    assert calls == [(200, 150)]


def test_a_method_for_which_nothing_fits():
    with pytest.raises(
        MemoryError, match=r"150x200 pixels with bm3d takes at least \d+ MiB .* 0 MiB are allowed"
    ):
        restore(BM3D(SMALL), picture(1, 1, 200, 150), 0.1, max_memory=1000)


def test_a_method_that_runs_out_of_memory_gets_smaller_tiles():
    calls = []

    class Hungry:
        info = ModelInfo("hungry", "denoise", cut="tiles", halo=2, memory=lambda shape: 1)

        def __call__(self, image, sigma=None):
            calls.append(tuple(image.shape[2:]))
            if image.shape[2] > 100:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return image + 1

    image = picture(1, 1, 150, 70)
    assert torch.equal(restore(Hungry(), image, 0.1), image + 1)
    assert calls[0] == (150, 70)
    assert (130, 70) in calls
    assert (68, 66) in calls


def test_a_method_without_a_declaration():
    info = info_of(lambda image, sigma=None: image)
    assert (info.channels, info.sigma_range, info.steps, info.cut) == (None, (0.0, 1.0), (), "whole")
    assert info.task not in TASKS


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 200, 300), (1, 3, 100, 300)], ids=str)
def test_memory_of_bm3d_is_bounded(shape):
    """Peak resident memory of a process of its own against the declaration, where all groups are full."""
    import subprocess
    import sys

    code = f"""
import torch
from nlrn.models.classical.bm3d import BM3D
model, peak = BM3D(), lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
model(torch.rand(1, {shape[1]}, 30, 30), 0.1)
before = peak()
model(0.5 + 0.01 * torch.rand{shape}, 0.1)
used, bound = peak() - before, model.info.memory({shape})
assert 0.3 * bound < used <= bound, (used / 2**20, bound / 2**20)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
