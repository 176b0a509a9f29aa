"""The C++ kernel for bfloat16, with every instruction set that this machine has, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from bfloat16_variants import bfloat16_variants, use
from test_native import error, recur
from test_nonlocal_attention import CASES, inputs
from torch import library as torch_library

from nlrn.ops.nonlocal_attention import choose_backend, native, native_operators, nonlocal_attention
from nlrn.ops.nonlocal_attention.compile import compile_kernels

NONE_HERE = native_operators.loaded_kernel(torch.bfloat16)
FOUND = bfloat16_variants()
needs_kernel = pytest.mark.skipif(not FOUND, reason=f"no bfloat16 kernel: {NONE_HERE}")


@pytest.fixture(params=FOUND)
def variant(request, monkeypatch):
    return use(FOUND[request.param](), monkeypatch)


def in_bfloat16(steps):
    return [[x.bfloat16() for x in step] for step in steps]


def check(steps, window, backend="native", **options):
    """No more than twice the error of plain PyTorch, which computes in float32 and rounds its result to bfloat16."""
    steps = in_bfloat16(steps)
    exact = recur([[x.double() for x in step] for step in steps], window, "reference")
    single = recur([[x.float() for x in step] for step in steps], window, "reference")
    allowed = 2 * error([x.bfloat16() for x in single], exact) + 1e-6
    actual = recur(steps, window, backend, **options)
    assert all(x.dtype == torch.bfloat16 for x in actual)
    assert error(actual, exact) <= allowed


@needs_kernel
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("memory", [2 << 30, None], ids=["stored", "history"])
def test_equals_reference(case, memory, variant):
    batch, height, width, window, count = case
    steps = inputs(batch, height, width, count)
    if memory is None:
        query, _, value = in_bfloat16(steps)[0]
        memory = native.workspace_bytes(query, value, window, count)
    check(steps, window, max_memory=memory)


@needs_kernel
def test_a_block_of_keys_never_reaches_beyond_the_memory(variant, monkeypatch):
    """Sixteen keys of a row are read at once: what a wrong answer would not show, the width of what is read does."""
    seen, real = [], native_operators._images
    monkeypatch.setattr(
        native_operators, "_images", lambda images: seen.append(images[0].shape[3]) or real(images)
    )
    query, key, value = in_bfloat16(inputs(1, 5, 3, 1))[0]
    nonlocal_attention(query, key, value, 3, backend="native")
    _, keys, _ = seen
    assert keys >= 16


@needs_kernel
@pytest.mark.parametrize("channels", [(1, 1), (32, 64), (64, 128), (96, 80), (7, 48)], ids=str)
def test_channels(channels, variant):
    query, value = channels
    steps = inputs(1, 27, 38, 2, query_channels=query, value_channels=value)
    check([[q / query**0.25, k / query**0.25, v] for q, k, v in steps], 21)


@needs_kernel
def test_twelve_steps_of_the_full_network(variant):
    steps = inputs(1, 60, 70, 12, query_channels=64, value_channels=128)
    check([[q / 6, k / 6, v] for q, k, v in steps], 45)


@needs_kernel
@pytest.mark.parametrize("width", range(1, 70, 3))
def test_every_place_of_the_border(width, variant):
    check(inputs(1, 5, width, 2), 15)


@needs_kernel
def test_band_of_rows(variant):
    steps = in_bfloat16(inputs(2, 30, 11, 3))
    whole = recur(steps, 9, "native")
    state = None
    for (query, key, value), expected in zip(steps, whole, strict=True):
        band, state = nonlocal_attention(
            query[:, :, 8:19], key[:, :, 4:23], value[:, :, 4:23], 9, state, row_offset=4, backend="native"
        )
        # The tiles lie elsewhere, so sums may round to the neighbouring number.
        torch.testing.assert_close(band, expected[:, :, 8:19], rtol=2**-7, atol=2**-9)


@needs_kernel
def test_strides(variant):
    (plain,) = in_bfloat16(inputs(2, 13, 18, 1, query_channels=32, value_channels=32))
    expected = recur([plain], 5, "native")[0]
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    slices = [torch.stack([x, x], -1)[..., 1] for x in plain]
    wider = [torch.cat([x, x], 3).contiguous(memory_format=torch.channels_last)[..., :18] for x in plain]
    for other in (channels_last, slices, wider):
        assert torch.equal(recur([other], 5, "native")[0], expected)


@needs_kernel
def test_the_same_bits_every_time_and_with_any_number_of_threads(variant):
    steps = in_bfloat16(inputs(1, 40, 50, 2))
    first = recur(steps, 11, "native")
    threads = torch.get_num_threads()
    try:
        for number in (1, threads, threads + 3, 64):
            torch.set_num_threads(number)
            again = recur(steps, 11, "native")
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(threads)


@needs_kernel
def test_large_logits(variant):
    first, second = inputs(1, 9, 9, 2)
    check([(first[0] * 100, first[1] * 100, first[2])], 5)
    check([(first[0] * 100, first[1] * 100, first[2]), second], 5)


@needs_kernel
def test_logits_that_grow_from_step_to_step(variant):
    ((query, key, value),) = inputs(1, 12, 20, 1)
    check([(query, key, value)] * 12, 9)


@needs_kernel
def test_a_constant_image_is_a_fixed_point(variant):
    ((query, key, _),) = in_bfloat16(inputs(1, 21, 30, 1))
    value = torch.full((1, 3, 21, 30), 0.7, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(nonlocal_attention(query, key, value, 9, backend="native")[0], value)


@needs_kernel
def test_the_matrix_products_of_pytorch_still_work(variant):
    """PyTorch has tile registers of its own in the threads that it shares with the kernel."""
    x = torch.randn(64, 64, dtype=torch.bfloat16)
    before = x @ x
    recur(in_bfloat16(inputs(1, 9, 9, 1)), 5, "native")
    assert torch.equal(x @ x, before)


@needs_kernel
def test_states(variant):
    ((query, key, value),) = in_bfloat16(inputs(1, 8, 8, 1))
    with torch.no_grad():
        _, state = nonlocal_attention(query, key, value, 3)
        assert state.backend == "native"
        assert state.logits.dtype == torch.float16
        larger = [torch.cat([x, x], 3) for x in (query, key, value)]
        with pytest.raises(ValueError, match="belongs to other shapes"):
            nonlocal_attention(*larger, 3, state)
        nonlocal_attention(query, key, value, 3, state)
        with pytest.raises(ValueError, match="already consumed"):
            nonlocal_attention(query, key, value, 3, state)


@needs_kernel
def test_what_it_leaves_to_others():
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
    ((query, key, value),) = in_bfloat16(inputs(1, 8, 9, 1))
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
    if not FOUND and "no bfloat16 instructions" not in reason:
        pytest.skip(f"no bfloat16 kernel: {reason}")
    assert "this processor has no bfloat16 instructions of amx, avx512bf16" in reason
    monkeypatch.setattr(native_operators, "loaded_kernel", lambda dtype: reason)
    check(inputs(1, 9, 9, 2), 5, None)


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
    ((query, key, value),) = ([x.float() for x in step] for step in inputs(1, 8, 9, 1))
    with torch.no_grad():
        _, state = nonlocal_attention(query, key, value, 5)
        assert state.logits.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = nonlocal_attention(query, key, value, 5, state)
    assert output.dtype == torch.float32
    expected = recur([(query, key, value)] * 2, 5, "reference")[1]
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
