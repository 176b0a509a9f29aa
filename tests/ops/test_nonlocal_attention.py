"""The non-local operation: chunked against reference, forward and backward."""

from __future__ import annotations

import pytest
import torch

from nlrn.ops.nonlocal_attention import AttentionState, choose_backend, chunked, nonlocal_attention
from nlrn.ops.windows import plan_tiling

# (batch, height, width, window, steps)
CASES = {
    "square": (1, 16, 16, 5, 1),
    "odd-size": (2, 19, 23, 7, 3),
    "tall": (1, 41, 9, 5, 2),
    "wide": (1, 9, 41, 5, 2),
    "window-larger-than-image": (1, 11, 13, 45, 2),
    "whole-image": (2, 12, 17, None, 3),
    "one-row": (1, 1, 37, 9, 2),
    "one-column": (1, 37, 1, 9, 2),
    "one-pixel": (3, 1, 1, 3, 2),
    "window-of-one": (1, 10, 10, 1, 2),
    "prime": (1, 31, 29, 11, 12),
    "span-just-below-size": (1, 15, 15, 7, 2),
}


def inputs(batch, height, width, steps, *, requires_grad=False, query_channels=6, value_channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def image(channels):
        x = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)
        return x.requires_grad_(requires_grad)

    return [(image(query_channels), image(query_channels), image(value_channels)) for _ in range(steps)]


def recur(steps, window, backend, **options):
    """The sum of all steps' outputs times position-dependent weights, and the outputs."""
    state, outputs = None, []
    for query, key, value in steps:
        output, state = nonlocal_attention(query, key, value, window, state, backend=backend, **options)
        outputs.append(output)
    return outputs


def history(steps):
    """The state after some steps, to be computed anew; `None` before the first."""
    return AttentionState.from_history(*list(zip(*steps, strict=True))[:2]) if steps else None


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "history"])
def test_chunked_equals_reference(case, stored):
    batch, height, width, window, count = case
    steps = inputs(batch, height, width, count)
    expected = recur(steps, window, "reference")
    if stored:
        actual = recur(steps, window, "chunked")
    else:
        options = {"keep_state": False, "backend": "chunked"}
        actual = [
            nonlocal_attention(*step, window, history(steps[:t]), **options)[0]
            for t, step in enumerate(steps)
        ]
    assert largest_difference(actual, expected) < 1e-10


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("training_backend", ["chunked", "dense"])
def test_gradients_equal_reference(case, training_backend):
    batch, height, width, window, count = case
    gradients = []
    for backend in ("reference", training_backend):
        steps = inputs(batch, height, width, count, requires_grad=True)
        outputs = recur(steps, window, backend)
        torch.manual_seed(1)
        loss = sum((out * torch.randn_like(out)).sum() + out.square().sum() for out in outputs)
        gradients.append(torch.autograd.grad(loss, [x for step in steps for x in step]))
    assert largest_difference(*gradients) < 1e-10


def test_gradcheck_of_two_steps():
    (q1, k1, v1), (q2, k2, v2) = inputs(1, 5, 6, 2, requires_grad=True, query_channels=2, value_channels=2)

    def function(q1, k1, v1, q2, k2, v2):
        first, state = nonlocal_attention(q1, k1, v1, 3)
        second, _ = nonlocal_attention(q2, k2, v2, 3, state)
        return first, second

    assert torch.autograd.gradcheck(function, (q1, k1, v1, q2, k2, v2))


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_memory_formats_do_not_matter(backend):
    ((query, key, value),) = inputs(2, 13, 18, 1)
    expected, _ = nonlocal_attention(query, key, value, 5, backend=backend)
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in (query, key, value)]
    strided = [torch.stack([x, x], -1)[..., 0] for x in (query, key, value)]
    assert not strided[0].is_contiguous()
    for variant in (channels_last, strided):
        actual, _ = nonlocal_attention(*variant, 5, backend=backend)
        assert (actual - expected).abs().max() < 1e-12


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize("memory", [2 << 30, 100_000], ids=["stored", "history"])
def test_band_of_rows_equals_whole_image(backend, memory):
    steps = inputs(1, 30, 11, 3)
    expected = recur(steps, 9, backend)
    radius, y0, y1 = 4, 8, 19
    top = y0 - radius
    state = None
    for (query, key, value), whole in zip(steps, expected, strict=True):
        band, state = nonlocal_attention(
            query[:, :, y0:y1],
            key[:, :, top : y1 + radius],
            value[:, :, top : y1 + radius],
            9,
            state,
            row_offset=y0 - top,
            backend=backend,
            max_memory=memory,
        )
        assert (band - whole[:, :, y0:y1]).abs().max() < 1e-10


def test_small_memory_changes_plan_but_not_result():
    steps = inputs(1, 40, 33, 3)
    expected = recur(steps, 9, "reference")
    plans = set()
    for memory in (60_000, 200_000, 1_000_000, 5_000_000):
        actual = recur(steps, 9, "chunked", max_memory=memory)
        assert largest_difference(actual, expected) < 1e-10
        plan = plan_tiling(
            (40, 33),
            40,
            0,
            9,
            logit_channels=6,
            value_channels=5,
            logit_buffers=1,
            element_size=8,
            max_memory=memory,
        )
        plans.add((plan.queries, plan.segment, plan.chunk))
    assert len(plans) > 2
    with pytest.raises(ValueError, match=r"needs at least \d+ bytes .* max_memory is 1000"):
        recur(steps, 9, "chunked", max_memory=1000)


def test_workspace_stays_within_max_memory(monkeypatch):
    """Every tensor that a call allocates is counted, except the result."""
    allocated = []
    for name in ("empty", "empty_like"):
        real = getattr(torch, name)

        def counting(*args, _real=real, **kwargs):
            tensor = _real(*args, **kwargs)
            allocated.append(tensor.nbytes)
            return tensor

        monkeypatch.setattr(torch, name, counting)
    ((query, key, value),) = inputs(1, 64, 64, 1)
    for memory in (300_000, 2_000_000, 100_000_000):
        allocated.clear()
        output, _ = nonlocal_attention(query, key, value, 11, max_memory=memory)
        assert sum(allocated) - output.nbytes <= memory


def test_state_is_consumed_without_gradients():
    first, second = inputs(1, 6, 6, 2)
    for memory in (2 << 30, 20_000):
        _, state = nonlocal_attention(*first, 3, max_memory=memory)
        nonlocal_attention(*second, 3, state, max_memory=memory)
        with pytest.raises(ValueError, match="already consumed"):
            nonlocal_attention(*second, 3, state, max_memory=memory)


@pytest.mark.parametrize("backend", ["chunked", "dense", "reference"])
def test_state_is_a_value_under_autograd(backend):
    first, second = inputs(1, 7, 6, 2, requires_grad=True)
    _, state = nonlocal_attention(*first, 3, backend=backend)
    once, _ = nonlocal_attention(*second, 3, state, backend=backend)
    twice, _ = nonlocal_attention(*second, 3, state, backend=backend)
    assert torch.equal(once, twice)
    single = torch.autograd.grad(once.sum(), first[0], retain_graph=True)[0]
    double = torch.autograd.grad(once.sum() + twice.sum(), first[0])[0]
    assert single.abs().max() > 0
    assert (double - 2 * single).abs().max() < 1e-12


def test_stored_state_refuses_gradients():
    first, second = inputs(1, 6, 6, 2)
    _, state = nonlocal_attention(*first, 3)
    with pytest.raises(ValueError, match="cannot be differentiated"):
        nonlocal_attention(second[0].requires_grad_(), *second[1:], 3, state)


def test_constant_value_is_a_fixed_point():
    ((query, key, value),) = inputs(1, 20, 17, 1)
    output, _ = nonlocal_attention(query, key, torch.full_like(value, 0.7), 7)
    assert (output - 0.7).abs().max() < 1e-12


def test_pixels_beyond_the_window_do_not_matter():
    ((query, key, value),) = inputs(1, 30, 30, 1)
    before, _ = nonlocal_attention(query, key, value, 7)
    key[:, :, 4:], value[:, :, 4:] = key[:, :, 4:].flip(2), value[:, :, 4:].flip(2)
    after, _ = nonlocal_attention(query, key, value, 7)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


@pytest.mark.parametrize("turn", [lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.rot90(1, (2, 3))])
def test_flips_and_rotations_commute(turn):
    ((query, key, value),) = inputs(1, 21, 14, 1)
    expected, _ = nonlocal_attention(query, key, value, 5)
    actual, _ = nonlocal_attention(turn(query), turn(key), turn(value), 5)
    assert (actual - turn(expected)).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_at_most_twice_that_of_plain_pytorch(dtype):
    steps = inputs(1, 24, 24, 3, query_channels=16, value_channels=16)
    expected = recur(steps, 11, "reference")
    rounded = [tuple(x.to(dtype) for x in step) for step in steps]
    plain = recur(rounded, 11, "reference")
    own = recur(rounded, 11, "chunked")
    assert own[0].dtype == dtype
    assert largest_difference(own, expected) <= 2 * largest_difference(plain, expected)


def test_large_logits_do_not_overflow():
    ((query, key, value),) = inputs(1, 12, 12, 1)
    output, _ = nonlocal_attention(query.float() * 100, key.float() * 100, value.float(), 5)
    expected, _ = nonlocal_attention(query * 100, key * 100, value, 5, backend="reference")
    assert torch.isfinite(output).all()
    assert (output - expected).abs().max() < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window_size": 4}, "window_size must be odd and positive, or None, got 4"),
        ({"window_size": -1}, "got -1"),
        ({"query": torch.zeros(1, 3, 8, 8)}, "same channels, got 3 and 2"),
        ({"query": torch.zeros(1, 2, 8, 7)}, "batch and width"),
        ({"key": torch.zeros(1, 2, 8)}, "key must be"),
        ({"value": torch.zeros(1, 2, 7, 8)}, "must cover the same pixels"),
        ({"value": torch.zeros(1, 2, 8, 8, dtype=torch.float64)}, "dtype and device of value"),
        ({"row_offset": 1}, r"query rows 1\.\.8 do not lie within the 8 rows"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {name: torch.zeros(1, 2, 8, 8) for name in ("query", "key", "value")} | {"window_size": 3}
    with pytest.raises(ValueError, match=message):
        nonlocal_attention(**(arguments | change))


def test_state_of_another_size_is_refused():
    (small,), (large,) = inputs(1, 8, 8, 1), inputs(1, 24, 24, 1)
    for memory in (2 << 30, 30_000):
        _, state = nonlocal_attention(*small, 3, max_memory=memory)
        with pytest.raises(ValueError, match="belongs to other shapes"):
            nonlocal_attention(*large, 3, state)


@pytest.mark.parametrize("other", [(4, 8, 8), (1, 4, 16), (1, 5, 5)], ids=["batch", "form", "size"])
@pytest.mark.parametrize("backend", ["reference", "dense", "chunked"])
def test_stored_states_know_their_image(backend, other):
    """Dense logits of another batch would be broadcast, those of as many pixels in another form added up."""
    differentiable = backend != "chunked"
    (first,) = inputs(1, 8, 8, 1, requires_grad=differentiable)
    (second,) = inputs(*other, 1, requires_grad=differentiable)
    _, state = nonlocal_attention(*first, 3, backend=backend)
    with pytest.raises(ValueError, match="belongs to other shapes"):
        nonlocal_attention(*second, 3, state, backend=backend)


def test_no_backend_lists_reasons():
    image = torch.zeros(1, 2, 4, 4, dtype=torch.int32)
    with pytest.raises(
        ValueError,
        match=r"native: computes .*; chunked: needs a floating point dtype, got torch.int32; reference: ",
    ):
        choose_backend(image, image, image, 3)


def test_nothing_is_kept_between_calls():
    assert not [name for name, x in vars(chunked).items() if isinstance(x, torch.Tensor)]
