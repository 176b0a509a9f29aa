"""The Triton backend without gradients: what is its own, interpreted, compiled and on GPUs; see test_forward."""

from __future__ import annotations

import importlib
import re

import pytest
import torch
from benchmarks.instructions import GPUS, KERNELS, compiled, launches, machine_code
from interpreter import in_interpreter, needs_the_compiler, on_gpu, passes_in_the_interpreter
from operation import Way, check, images, largest_difference, recur, same_bits, scaled
from skimage import data
from torch import library as torch_library

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.inference import restore
from nlrn.ops.nonlocal_attention import (
    choose_backend,
    nonlocal_attention,
    refusals,
    triton,
    triton_layout,
    triton_operators,
)

HALF = [torch.float16, torch.bfloat16]
SINGLE = Way("triton", torch.float32)


def triton_parts():
    return importlib.import_module("nlrn.ops.nonlocal_attention.triton_parts")


def test_in_the_interpreter():
    passes_in_the_interpreter(__file__)


@in_interpreter
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "history"])
def test_several_strips(stored, monkeypatch):
    """Of two tiles, the last of one, in place of 32."""
    monkeypatch.setattr(triton_parts(), "STRIP", 2)
    check(images(2, 9, 37, 2), 3, Way("triton", torch.float32, history=not stored))


@in_interpreter
@pytest.mark.filterwarnings(
    "ignore:overflow encountered in cast:RuntimeWarning"
)  # NumPy's, at what becomes -inf
def test_large_logits():
    """Beyond float16, whose largest number is 65504: as exact as float32, but for the rounding of the output."""
    (query, key, value), second = images(1, 9, 9, 2)
    steps = [[x.half() for x in step] for step in ([150 * query, 150 * key, value], second)]
    single = [[x.float() for x in step] for step in steps]
    check(single, 5, SINGLE)
    exact = recur([[x.double() for x in step] for step in steps], 5, "reference")
    allowed = 2 * largest_difference([x.double() for x in recur(single, 5, "reference")], exact)
    allowed += max(x.abs().max().item() for x in exact) * torch.finfo(torch.float16).eps
    assert largest_difference([x.double() for x in recur(steps, 5, "triton")], exact) <= allowed


@in_interpreter
@pytest.mark.parametrize("width", [1, 9])
def test_parts_of_one_image(width, monkeypatch):
    """As one matrix product makes them; nothing is copied."""
    ((query, key, value),) = SINGLE.images(images(2, 7, width, 1))
    expected = recur([[query, key, value]], 5, "triton")[0]
    together = torch.cat([query, key, value], 1).contiguous(memory_format=torch.channels_last)
    parts = together.split([query.shape[1], key.shape[1], value.shape[1]], 1)
    if width > 1:
        monkeypatch.setattr(torch.Tensor, "contiguous", lambda *arguments, **options: pytest.fail("a copy"))
    assert torch.equal(recur([parts], 5, "triton")[0], expected)


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_the_last_step_writes_no_logits(dtype):
    first, second = [[x.to(dtype) for x in step] for step in images(1, 9, 9, 2)]
    _, state = nonlocal_attention(*first, 5, backend="triton")
    before = state.logits.clone()
    assert nonlocal_attention(*second, 5, state, keep_state=False)[1] is None
    assert torch.equal(state.logits.view(torch.uint8), before.view(torch.uint8))


@in_interpreter
def test_a_state_is_used_once_and_stays_with_its_backend():
    image = torch.zeros(1, 2, 8, 8)
    _, state = nonlocal_attention(image, image, image, 3, backend="triton")
    assert state.backend == choose_backend(image, image, image, 3, state) == "triton"
    with pytest.raises(ValueError, match="cannot read logits that the triton backend stored"):
        nonlocal_attention(image, image, image, 3, state, backend="chunked")
    nonlocal_attention(image, image, image, 3, state)
    with pytest.raises(ValueError, match="already consumed"):
        nonlocal_attention(image, image, image, 3, state)


@in_interpreter
def test_a_state_of_other_shapes_or_precision():
    image, larger = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 16)
    _, state = nonlocal_attention(image, image, image, 3, backend="triton")
    with pytest.raises(ValueError, match="belongs to other shapes"):
        nonlocal_attention(larger, larger, larger, 3, state)
    half = image.half()
    _, state = nonlocal_attention(half, half, half, 3, backend="triton")
    with pytest.raises(ValueError, match=r"belongs to half precision, this call is in torch\.float32"):
        nonlocal_attention(image, image, image, 3, state)


@in_interpreter
def test_autocast():
    """Half precision for kernels that keep logits in float32, float32 for the rest."""
    image = torch.zeros(1, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = nonlocal_attention(image, image, image, 3, backend="triton")
        assert output.dtype == torch.bfloat16
        assert nonlocal_attention(image, image, image, 3, state)[0].dtype == torch.bfloat16
        half = image.bfloat16()
        assert nonlocal_attention(half, half, half, 3, backend="chunked")[0].dtype == torch.float32


@in_interpreter
def test_refusals():
    image = torch.zeros(1, 2, 8, 8)
    assert choose_backend(image, image, image, 3) != "triton"
    for dtype in (torch.float64, torch.int32):
        other = image.to(dtype)
        with pytest.raises(ValueError, match="computes in float32, float16 and bfloat16, not in torch"):
            nonlocal_attention(other, other, other, 3, backend="triton")
    _, state = nonlocal_attention(image, image, image, 3, backend="triton", max_memory=1000)
    with pytest.raises(ValueError, match=r"needs 2560 bytes for a history, max_memory is 1000"):
        nonlocal_attention(image, image, image, 3, state, backend="triton", max_memory=1000)
    # Another backend goes on from the history.
    nonlocal_attention(image, image, image, 3, state, backend="chunked")


def test_refusals_without_a_gpu_or_without_triton(monkeypatch):
    image = torch.zeros(1, 2, 8, 8)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refusals(image, image, image, 3)["triton"] == "runs on CUDA devices, not on cpu"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert triton_operators.loaded_kernels.__wrapped__() == "triton is not installed"


@in_interpreter
def test_registered_operator():
    query, key, value = [x.float() for x in images(1, 8, 9, 1)[0]]
    for exact in (False, True):
        geometry = triton_layout.Geometry.with_radius(query, key, 2, aligned=exact)
        logits = torch.zeros(geometry.state_shape(torch.float32))
        torch_library.opcheck(
            triton_operators.triton_attention,
            (query, key, value, logits, 2, 0, True, True, exact, exact),
            test_utils=("test_schema", "test_faketensor"),
        )


@in_interpreter
def test_torch_compile_sees_through_it():
    query, key, value = [x.float() for x in images(1, 5, 6, 1)[0]]

    def step(query, key, value):
        assert triton.refusal(query, key, value, 5, None, 1 << 30) is None
        output, state = triton.attention(
            query * 1, key, value, 5, None, 0, keep_state=True, max_memory=1 << 30
        )
        return output, state.logits

    compiled = torch.compile(step, backend="eager", fullgraph=True)
    for actual, expected in zip(compiled(query, key, value), step(query, key, value), strict=True):
        assert torch.equal(actual.nan_to_num(), expected.nan_to_num())


@in_interpreter
def test_a_whole_network_compiles_and_is_exported():
    """Through the operators: with and without logits that are handed on."""
    config = NLRNConfig(width=16, embedding=8, num_steps=3, window_size=5, initialization="official")
    model, image = NLRN(config).eval(), torch.rand(1, 1, 8, 9)
    model.attention.backend = "triton"
    with torch.no_grad():
        expected = model(image)
        assert torch.equal(torch.compile(model, backend="aot_eager", fullgraph=True)(image), expected)
        exported = torch.export.export(model, (image,))
    operators = [node.target for node in exported.graph.nodes if "triton_attention" in str(node.target)]
    assert len(operators) == config.num_steps
    assert torch.equal(exported.module()(image), expected)


def noise_of_half_precision(device, backend=None):
    """PSNR of a restored photograph in float16 to the same in float32."""
    side = slice(100, 132 if device == "cpu" else 356)
    clean = torch.from_numpy(data.camera()[side, side].copy())[None, None].to(device) / 255
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(device)
    model = load_model("nlrn-small-gray", device=device, backend=backend)
    single, half = (restore(model, noisy, 25 / 255, precision=x) for x in (torch.float32, torch.float16))
    return -10 * (half - single).square().mean().log10().item()


@in_interpreter
def test_a_trained_network_in_half_precision():
    assert noise_of_half_precision("cpu", "triton") > 60


def most_frequent(kernel, dtype=torch.float16):
    """As most steps of the full network launch it, on an H100."""
    return compiled(kernel, dtype, next(iter(launches(kernel, dtype).values())), GPUS["H100"])


@needs_the_compiler
@pytest.mark.parametrize("kernel", ["nonlocal_forward", "nonlocal_backward_query"])
def test_logits_travel_in_vectors(kernel, monkeypatch, tmp_path):
    """16 bytes at a time: the mask must not depend on a single key. They are most of what a step reads and writes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assembly = most_frequent(kernel).asm["ptx"]
    assert "st.global.v4" in assembly
    assert not re.search(r"(ld|st)\.global\S*\.b16", assembly)


@needs_the_compiler
@pytest.mark.parametrize("dtype", HALF, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_instructions(kernel, dtype, monkeypatch, tmp_path):
    """As few as they are, and products that do not wait for one another: both were lost for next to nothing before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    code = machine_code(most_frequent(kernel, dtype))
    assert not code.spilled
    assert code.loop <= 850  # of 4 warps, for 64 keys
    assert code.products >= 8
    assert code.waits <= 2


@pytest.mark.slow
@needs_the_compiler
@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles_for_gpus_that_are_not_here(kernel, dtype, gpu, monkeypatch, tmp_path):
    """The interpreter takes code that the compiler does not."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for constants in launches(kernel, dtype).values():
        assert compiled(kernel, dtype, constants, gpu).metadata.shared <= gpu.shared_memory


class TestTrainedOnGPU:
    pytestmark = on_gpu

    def test_half_precision(self):
        assert noise_of_half_precision("cuda") > 60


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "history"])
class TestOnGPU:
    """At the sizes of the full network."""

    pytestmark = on_gpu

    def test_equals_reference(self, dtype, stored):
        way = Way("triton", dtype, history=not stored, device="cuda")
        check(scaled(2, 96, 80, 3, 64, 128), 45, way, max_memory=4 << 30)

    def test_odd_sizes(self, dtype, stored):
        way = Way("triton", dtype, history=not stored, device="cuda")
        for size in ((1, 1), (1, 77), (61, 35)):
            check(scaled(2, *size, 2, 20, 140), 21, way, max_memory=4 << 30)

    def test_the_same_bits_every_time(self, dtype, stored):
        steps = Way("triton", dtype, device="cuda").images(scaled(1, 96, 80, 2, 64, 128))
        first, again = (recur(steps, 45, "triton", history=not stored, max_memory=4 << 30) for _ in range(2))
        assert same_bits(first, again)
