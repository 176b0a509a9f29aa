"""The C++ kernel, in every instruction set that this machine has, against the reference in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_nonlocal_attention import CASES, inputs
from torch import library as torch_library

from nlrn import NLRN, NLRNConfig, denoise, load_model
from nlrn.inference import restore
from nlrn.ops.nonlocal_attention import choose_backend, native, native_operators, nonlocal_attention
from nlrn.ops.nonlocal_attention.compile import LIBRARIES, VARIANTS, CompileError, compile_kernels

pytestmark = pytest.mark.skipif(
    isinstance(native_operators.loaded_kernel(), str), reason=f"no kernel: {native_operators.loaded_kernel()}"
)


def variants(dtype: str) -> dict[str, native_operators.Library]:
    """The libraries for a dtype that this machine can run."""
    found = {}
    for name, variant in VARIANTS.items():
        functions = native_operators._open(LIBRARIES / f"{name}.so") if variant.dtype == dtype else ""
        if not isinstance(functions, str) and functions.nlrn_supports(name.encode()):
            found[name] = native_operators.Library(name, functions)
    return found


@pytest.fixture(params=variants("float32").values(), ids=lambda library: library.name)
def variant(request, monkeypatch):
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: request.param)
    return request.param


def recur(steps, window, backend, **options):
    state, outputs = None, []
    with torch.no_grad():
        for query, key, value in steps:
            output, state = nonlocal_attention(query, key, value, window, state, backend=backend, **options)
            outputs.append(output)
    return outputs


def error(actual, exact):
    return max((x.double() - y).abs().max().item() for x, y in zip(actual, exact, strict=True))


def check(steps, window, **options):
    """No more than twice the error of plain PyTorch in the same precision."""
    single = [[x.float() for x in step] for step in steps]
    exact = recur([[x.double() for x in step] for step in single], window, "reference")
    allowed = 2 * error(recur(single, window, "reference"), exact) + 1e-7
    assert error(recur(single, window, "native", **options), exact) <= allowed


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("memory", [2 << 30, None], ids=["stored", "history"])
def test_equals_reference(case, memory, variant):
    batch, height, width, window, count = case
    steps = inputs(batch, height, width, count)
    if memory is None:
        query, _, value = (x.float() for x in steps[0])
        memory = native.workspace_bytes(query, value, window, count)
    check(steps, window, max_memory=memory)


@pytest.mark.parametrize("channels", [(1, 1), (32, 64), (64, 128), (64, 80), (7, 48)], ids=str)
def test_channels(channels, variant):
    query, value = channels
    steps = inputs(1, 27, 38, 2, query_channels=query, value_channels=value)
    check([[q / query**0.25, k / query**0.25, v] for q, k, v in steps], 21)


def test_the_sizes_of_the_full_network(variant):
    steps = inputs(1, 60, 70, 3, query_channels=64, value_channels=128)
    check([[q / 3, k / 3, v] for q, k, v in steps], 45)


def test_band_of_rows(variant):
    steps = [[x.float() for x in step] for step in inputs(2, 30, 11, 3)]
    whole = recur(steps, 9, "native")
    state = None
    for (query, key, value), expected in zip(steps, whole, strict=True):
        band, state = nonlocal_attention(
            query[:, :, 8:19], key[:, :, 4:23], value[:, :, 4:23], 9, state, row_offset=4, backend="native"
        )
        assert (band - expected[:, :, 8:19]).abs().max() < 1e-5


def test_strides(variant):
    ((query, key, value),) = inputs(2, 13, 18, 1)
    plain = [x.float() for x in (query, key, value)]
    expected = recur([plain], 5, "native")[0]
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    slices = [torch.stack([x, x], -1)[..., 1] for x in plain]
    wider = [torch.cat([x, x], 3).contiguous(memory_format=torch.channels_last)[..., :18] for x in plain]
    for other in (channels_last, slices, wider):
        assert torch.equal(recur([other], 5, "native")[0], expected)


def test_the_same_bits_every_time_and_with_any_number_of_threads(variant):
    steps = [[x.float() for x in step] for step in inputs(1, 40, 50, 2)]
    first = recur(steps, 11, "native")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 3)
        again = recur(steps, 11, "native")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_large_logits(variant):
    ((query, key, value),) = inputs(1, 9, 9, 1)
    check([(query * 100, key * 100, value)], 5)


def test_logits_of_a_history_that_cancel(variant):
    """The softmax is relative to the largest logit of all steps together, not of any before."""
    ((query, key, value),) = [[x.float() for x in step] for step in inputs(1, 9, 14, 1)]
    steps = [(query * 20, key * 20, value), (-query * 20, key * 20, value)]
    memory = native.workspace_bytes(query, value, 5, 2)
    last = recur(steps, 5, "native", max_memory=memory)[1]
    average = nonlocal_attention(query * 0, key * 0, value, 5, backend="reference")[0]
    assert (last - average).abs().max() < 1e-3


def test_a_state_is_used_once(variant):
    ((query, key, value),) = [[x.float() for x in step] for step in inputs(1, 8, 8, 1)]
    _, state = nonlocal_attention(query, key, value, 3)
    assert state.backend == "native"
    nonlocal_attention(query, key, value, 3, state)
    with pytest.raises(ValueError, match="already consumed"):
        nonlocal_attention(query, key, value, 3, state)


def test_a_state_stays_with_its_backend(variant):
    ((query, key, value),) = [[x.float() for x in step] for step in inputs(1, 8, 8, 1)]
    _, state = nonlocal_attention(query, key, value, 3, backend="chunked")
    assert choose_backend(query, key, value, 3, state) == "chunked"
    with pytest.raises(ValueError, match="cannot read logits that the chunked backend stored"):
        nonlocal_attention(query, key, value, 3, state, backend="native")


def test_a_state_of_other_shapes(variant):
    ((query, key, value),) = [[x.float() for x in step] for step in inputs(1, 8, 8, 1)]
    _, state = nonlocal_attention(query, key, value, 3)
    larger = [torch.cat([x, x], 3) for x in (query, key, value)]
    with pytest.raises(ValueError, match="belongs to other shapes"):
        nonlocal_attention(*larger, 3, state)


def test_what_it_leaves_to_others():
    image = torch.zeros(1, 2, 8, 8)
    assert choose_backend(image, image, image, 3) == "native"
    assert choose_backend(image.double(), image.double(), image.double(), 3) == "chunked"
    assert choose_backend(image.requires_grad_(), image, image, 3) == "dense"
    assert choose_backend(image, image, image, 3, max_memory=1000) == "chunked"
    with torch.no_grad():
        assert choose_backend(image, image, image, 3) == "native"
        assert choose_backend(image, image, image, 3, max_memory=1000) == "chunked"
    with pytest.raises(ValueError, match=r"backend 'native' cannot compute this: has gradients in bf"):
        nonlocal_attention(image, image, image, 3, backend="native")


def test_registered_operator():
    ((query, key, value),) = [[x.float() for x in step] for step in inputs(1, 8, 9, 1)]
    logits = torch.zeros(1, 2, 3, native_operators.state_tile(8, 9, 2))
    arguments = ([query], [key], value, logits, 2, 0, True)
    torch_library.opcheck(
        native_operators.window_step, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_the_network_without_the_kernel(monkeypatch):
    torch.manual_seed(0)
    model = NLRN(NLRNConfig(width=16, embedding=8, num_steps=3, window_size=9)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.rand(1, 1, 40, 33)
    fast = restore(model, image)
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: "it was not compiled")
    sample = torch.zeros(1, 2, 8, 8)
    assert choose_backend(sample, sample, sample, 3) == "chunked"
    assert (restore(model, image) - fast).abs().max() < 1e-4


def test_a_whole_network_compiles_and_is_exported():
    model = load_model("nlrn-small-gray")
    image, other, sigma = torch.rand(1, 1, 20, 24), torch.rand(1, 1, 33, 47), torch.tensor([0.1])
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(image, sigma), model(image, sigma))
        assert torch.equal(compiled(image, 0.1), model(image, 0.1))
        assert (denoise(image, 0.1, model=compiled) - restore(model, image, 0.1)).abs().max() < 1e-5
        sizes = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
        exported = torch.export.export(model, (image, sigma), dynamic_shapes=(sizes, None))
        assert torch.equal(exported.module()(other, sigma), model(other, sigma))
    assert sum(node.target is torch.ops.nlrn.window_step.default for node in exported.graph.nodes) == 6


def test_a_network_with_a_stem_compiles_and_is_exported():
    """For images of any size, and exported for sides that are whole positions."""
    config = NLRNConfig(stride=2, stem=4, width=16, embedding=16, num_steps=2, window_size=5)
    model = NLRN(dataclasses.replace(config, initialization="official")).eval()
    image, odd, other = (torch.rand(1, 1, *size) for size in ((32, 26), (21, 19), (64, 46)))
    sizes = {2: 2 * torch.export.Dim("height", min=9), 3: 2 * torch.export.Dim("width", min=9)}
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(odd), model(odd))
        exported = torch.export.export(model, (image,), dynamic_shapes=(sizes,))
        assert torch.equal(exported.module()(other), model(other))
    assert sum(node.target is torch.ops.nlrn.window_step.default for node in exported.graph.nodes) == 2


def test_no_libraries(monkeypatch, tmp_path):
    monkeypatch.setattr(native_operators, "LIBRARIES", tmp_path)
    assert "was not compiled" in native_operators.loaded_kernel.__wrapped__()
    (tmp_path / "generic.so").write_bytes(b"no library")
    assert "cannot be loaded" in native_operators.loaded_kernel.__wrapped__()


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(CompileError, match=r"no C\+\+ compiler"):
        compile_kernels(tmp_path)


def test_a_compiler_that_fails(monkeypatch, tmp_path):
    (tmp_path / "cxx").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    with pytest.raises(CompileError, match=r"cannot compile .*: broken"):
        compile_kernels(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_mark_of_a_constant_is_that_of_torch():
    marked = torch.compiler.assume_constant_result(lambda: 1)
    assert vars(marked).items() <= vars(native._threads).items()
