"""The C++ kernel for bfloat16 within the library; its numbers are in test_forward and test_backward."""

from __future__ import annotations

import pytest
import torch
from libraries import BFLOAT16, use
from operation import Way, check, images, recur
from torch import library as torch_library

from nlrn.ops.nonlocal_attention import choose_backend, native_operators, nonlocal_attention
from nlrn.ops.nonlocal_attention.compile import compile_kernels

NONE_HERE = native_operators.loaded_kernel(torch.bfloat16)
WAY = Way("native", torch.bfloat16)
needs_kernel = pytest.mark.skipif(not BFLOAT16, reason=f"no bfloat16 kernel: {NONE_HERE}")


@pytest.fixture(params=BFLOAT16)
def variant(request, monkeypatch):
    use(request.param, torch.bfloat16, monkeypatch)


@needs_kernel
def test_a_block_of_keys_never_reaches_beyond_the_memory(variant, monkeypatch):
    """Sixteen keys of a row are read at once: what a wrong answer would not show, the width of what is read does."""
    seen, real = [], native_operators._images
    monkeypatch.setattr(
        native_operators, "_images", lambda taken: seen.append(taken[0].shape[3]) or real(taken)
    )
    query, key, value = WAY.images(images(1, 5, 3, 1))[0]
    nonlocal_attention(query, key, value, 3, backend="native")
    _, keys, _ = seen
    assert keys >= 16


@needs_kernel
def test_the_matrix_products_of_pytorch_still_work(variant):
    """PyTorch has tile registers of its own in the threads that it shares with the kernel."""
    x = torch.randn(64, 64, dtype=torch.bfloat16)
    before = x @ x
    recur(WAY.images(images(1, 9, 9, 1)), 5, "native")
    assert torch.equal(x @ x, before)


@needs_kernel
def test_logits_are_stored_in_float16(variant):
    ((query, key, value),) = WAY.images(images(1, 8, 8, 1))
    _, state = nonlocal_attention(query, key, value, 3)
    assert state.backend == "native"
    assert state.logits.dtype == torch.float16


@needs_kernel
def test_refusals():
    image = torch.zeros(1, 2, 8, 8, dtype=torch.bfloat16)
    assert choose_backend(image, image, image, 3) == "native"
    assert choose_backend(image, image, image, 3, max_memory=1000) == "chunked"
    trains = native_operators.loaded_kernel(torch.bfloat16).has_gradients
    assert choose_backend(image.clone().requires_grad_(), image, image, 3) == (
        "native" if trains else "chunked"
    )
    half = image.half()
    with pytest.raises(ValueError, match="computes in float32 or bfloat16, not in"):
        nonlocal_attention(half, half, half, 3, backend="native")


@needs_kernel
def test_registered_operator():
    ((query, key, value),) = WAY.images(images(1, 8, 9, 1))
    tile = native_operators.state_tile(8, 9, 2, torch.bfloat16)
    logits = torch.zeros(1, 2, 3, tile, dtype=torch.float16)
    arguments = ([query], [key], value, logits, 2, 0, True)
    torch_library.opcheck(
        native_operators.window_step, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_a_processor_without_bfloat16(monkeypatch):
    class Asked:
        @staticmethod
        def nlrn_supports(name):
            return 0

    monkeypatch.setattr(native_operators, "_open", lambda path: Asked)
    reason = native_operators.loaded_kernel.__wrapped__(torch.bfloat16)
    if not BFLOAT16 and "no bfloat16 instructions" not in reason:
        pytest.skip(f"no bfloat16 kernel: {reason}")
    assert "this processor has no bfloat16 instructions of amx, avx512bf16" in reason
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: reason)
    check(images(1, 9, 9, 2), 5, Way("chunked", torch.bfloat16))


def test_a_compiler_that_does_not_know_the_instructions(monkeypatch, tmp_path):
    (tmp_path / "cxx").write_text(
        '#!/bin/sh\ncase "$*" in *-mavx512bf16*) echo "unrecognized option" >&2; exit 1;; esac\nwhile [ "$1" != -o ]; do shift; done\n: > "$2"\n'
    )
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    made = compile_kernels(tmp_path / "out")
    assert {path.name for path in made} >= {"generic.so"}
    assert not {"amx.so", "avx512bf16.so"} & {path.name for path in made}
    monkeypatch.setattr(native_operators, "LIBRARIES", tmp_path / "out")
    reason = native_operators.loaded_kernel.__wrapped__(torch.bfloat16)
    if (tmp_path / "out" / "amx.txt").is_file():
        assert "cannot compile the amx kernel: unrecognized option" in reason


@needs_kernel
def test_autocast_begins_within_a_recurrence():
    """Logits in float32 are then gone on with in float32."""
    ((query, key, value),) = Way("native", torch.float32).images(images(1, 8, 9, 1))
    with torch.no_grad():
        _, state = nonlocal_attention(query, key, value, 5)
        assert state.logits.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = nonlocal_attention(query, key, value, 5, state)
    assert output.dtype == torch.float32
    expected = recur([(query, key, value)] * 2, 5, "reference")[1]
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
