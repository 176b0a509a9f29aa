"""What follows a convolution: against float64, in plain PyTorch and in Triton's interpreter."""

from __future__ import annotations

import re

import pytest
import torch
from benchmarks.instructions import GPUS, built
from interpreter import in_interpreter, needs_the_compiler, on_gpu, passes_in_the_interpreter
from torch import library as torch_library

from nlrn.models.nlrn import NLRN, NLRNConfig
from nlrn.ops.epilogue import finish, separate_bias

SHAPES = {
    "batch": (2, 20, 5, 7),
    "wide": (1, 16, 3, 150),
    "one-pixel": (2, 3, 1, 1),
    "one-column": (1, 5, 6, 1),
    "one-channel": (1, 1, 4, 5),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def images(shape, dtype, device="cpu"):
    """Features and what is added, channels last; bias and scale."""
    generator = torch.Generator().manual_seed(0)
    features, added = (
        torch.randn(shape, generator=generator)
        .to(device, dtype)
        .contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    bias, scale = (torch.randn(shape[1], generator=generator).to(device, dtype) for _ in range(2))
    return features, bias, added, scale[None, :, None, None]


def check(shape, dtype, device="cpu"):
    features, bias, added, scale = images(shape, dtype, device)
    exact = [x.double() for x in (features, bias[:, None, None], added, scale)]
    for more in ((), (added, scale)):
        expected = (exact[0] + exact[1] + (exact[2] * exact[3] if more else 0)).relu()
        actual, out = features.clone(), torch.full_like(features, 7)
        assert finish(actual, bias, *more) is actual
        # Rounded once.
        assert (actual.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
        before = features.clone()
        assert finish(features, bias, *more, out=out) is out
        assert torch.equal(out, actual)
        assert torch.equal(features, before)


def test_in_the_interpreter():
    passes_in_the_interpreter(__file__)


def test_in_plain_pytorch():
    features, bias, added, scale = images((2, 4, 5, 6), torch.float32)
    assert torch.equal(finish(features.clone()), features.relu())
    expected = torch.addcmul(features, added, scale).relu()
    assert torch.equal(finish(features.clone(), None, added, scale), expected)
    channels_first = (features + bias[:, None, None]).contiguous()
    expected = torch.addcmul(channels_first, added, scale).relu()
    assert torch.equal(finish(features.contiguous(), bias, added, scale), expected)
    before, out = channels_first - bias[:, None, None], torch.empty_like(channels_first)
    features = before.clone()
    assert finish(features, bias, added, scale, out=out) is out
    assert torch.equal(out, torch.addcmul(before + bias[:, None, None], added, scale).relu())
    assert torch.equal(features, before)


def test_who_adds_the_bias(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not separate_bias(torch.zeros(1))


@in_interpreter
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_one_kernel(shape, dtype):
    assert separate_bias(torch.zeros(1, dtype=dtype))
    check(shape, dtype)


@in_interpreter
def test_rows_of_an_image_in_place():
    features, bias, added, scale = images((2, 8, 9, 5), torch.float32)
    expected = features.clone()
    expected[:, :, 2:6] = torch.addcmul(features + bias[:, None, None], added, scale).relu()[:, :, 2:6]
    finish(features[:, :, 2:6], bias, added[:, :, 2:6], scale)
    assert (features - expected).abs().max() < 1e-6


def check_nan_stays(device="cpu"):
    """So that a result without sense is noticed, as PyTorch's ReLU has it."""
    features, bias, *_ = images((1, 4, 2, 2), torch.float32, device)
    features[0, 1, 0, 1] = float("nan")
    assert finish(features, bias).isnan().sum() == 1


@in_interpreter
def test_nan_stays():
    check_nan_stays()


@needs_the_compiler
@pytest.mark.parametrize("added", [True, False], ids=["added", "alone"])
def test_machine_code(added, monkeypatch, tmp_path):
    """What the interpreter cannot show: NumPy keeps NaN anyway. And numbers travel in vectors."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from nlrn.ops import epilogue_kernel

    types = dict.fromkeys(("features", "bias", "added", "scale", "out"), "*fp16")
    constants = {"PIXELS": 16, "CHANNELS": 128} | ({} if added else {"added": None, "scale": None})
    kernel = built(
        epilogue_kernel.finish, types, constants, GPUS["H100"], {"num_warps": 4}, unaligned=("count",)
    )
    assembly = kernel.asm["ptx"]
    assert re.search(r"\bmax\.NaN\.f32", assembly)
    assert not re.search(r"\bmax\.f32", assembly)
    # Of a program's 4 KiB 128 threads take 32 bytes each, of each image.
    assert len(re.findall(r"ld\.global\.v4\.b32", assembly)) == 2 + 2 * added
    assert re.findall(r"st\.global\S*", assembly) == ["st.global.v4.b32"] * 2


@in_interpreter
def test_registered_operator():
    features, bias, added, scale = images((1, 4, 2, 2), torch.float32)
    for more in ((None, None), (added, scale)):
        arguments = (features, bias, *more, torch.empty_like(features))
        torch_library.opcheck(torch.ops.nlrn.finish, arguments, test_utils=("test_schema", "test_faketensor"))


@in_interpreter
@pytest.mark.parametrize("height", [3, 8, 32], ids=lambda height: f"bands-of-{height}")
def test_a_network_in_bands(height):
    """All of inference as on a GPU: one projection, biases left to the epilogue."""
    from nlrn.inference.wavefront import BandPlan, run_bands

    model = NLRN(NLRNConfig(width=16, embedding=8, num_steps=2, window_size=5, initialization="official"))
    image = torch.rand(1, 1, 13, 10)
    with torch.no_grad():
        expected = model.eval()(image) - image
        for store in (True, False):
            actual = run_bands(model, image, None, 2, BandPlan(height, store))
            assert (actual - expected).abs().max() < 1e-5


class TestOnGPU:
    pytestmark = on_gpu

    @pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
    @pytest.mark.parametrize("shape", [*SHAPES.values(), (2, 128, 61, 67)], ids=str)
    def test_one_kernel(self, shape, dtype):
        check(shape, dtype, "cuda")

    def test_nan_stays(self):
        check_nan_stays("cuda")
