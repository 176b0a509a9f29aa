"""The C++ kernel within the library: choice, memory, registration, networks, compilers; numbers are in test_forward."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from operation import Way, images, largest_difference, recur
from torch import library as torch_library

from nlrn import NLRN, NLRNConfig, denoise, load_model
from nlrn.inference import restore
from nlrn.ops.nonlocal_attention import choose_backend, native, native_operators, nonlocal_attention
from nlrn.ops.nonlocal_attention.compile import CompileError, compile_kernels
from nlrn.ops.nonlocal_attention.state import History

pytestmark = pytest.mark.skipif(
    isinstance(native_operators.loaded_kernel(), str), reason=f"no kernel: {native_operators.loaded_kernel()}"
)


def test_a_history_where_memory_is_short():
    steps = Way("native", torch.float32).images(images(1, 20, 23, 3))
    query, _, value = steps[0]
    memory = native.workspace_bytes(query, value, 7, 3)
    _, state = nonlocal_attention(*steps[0], 7, backend="native", max_memory=memory)
    assert isinstance(state, History)
    actual = recur(steps, 7, "native", max_memory=memory)
    assert largest_difference(actual, recur(steps, 7, "reference")) < 1e-5


def test_refusals():
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
    ((query, key, value),) = Way("native", torch.float32).images(images(1, 8, 9, 1))
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
