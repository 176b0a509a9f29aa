"""The call `nonlocal_attention`: arguments, states, choice of a backend, memory, symmetry; see test_forward."""

from __future__ import annotations

import pytest
import torch
from operation import Way, check, images, largest_difference, recur, scaled

from nlrn.ops.nonlocal_attention import choose_backend, nonlocal_attention
from nlrn.ops.windows import plan_tiling

DOUBLE = Way("chunked", torch.float64)


def test_gradcheck_of_two_steps():
    (q1, k1, v1), (q2, k2, v2) = DOUBLE.leaves(images(1, 5, 6, 2, query_channels=2, value_channels=2))

    def function(q1, k1, v1, q2, k2, v2):
        first, state = nonlocal_attention(q1, k1, v1, 3)
        second, _ = nonlocal_attention(q2, k2, v2, 3, state)
        return first, second

    assert torch.autograd.gradcheck(function, (q1, k1, v1, q2, k2, v2))


def test_small_memory_changes_plan_but_not_result():
    steps = images(1, 40, 33, 3)
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
    ((query, key, value),) = images(1, 64, 64, 1)
    for memory in (300_000, 2_000_000, 100_000_000):
        allocated.clear()
        output, _ = nonlocal_attention(query, key, value, 11, max_memory=memory)
        assert sum(allocated) - output.nbytes <= memory


def test_state_is_consumed_without_gradients():
    first, second = images(1, 6, 6, 2)
    for memory in (2 << 30, 20_000):
        _, state = nonlocal_attention(*first, 3, max_memory=memory)
        nonlocal_attention(*second, 3, state, max_memory=memory)
        with pytest.raises(ValueError, match="already consumed"):
            nonlocal_attention(*second, 3, state, max_memory=memory)


@pytest.mark.parametrize("backend", ["chunked", "dense", "reference"])
def test_state_is_a_value_under_autograd(backend):
    first, second = DOUBLE.leaves(images(1, 7, 6, 2))
    _, state = nonlocal_attention(*first, 3, backend=backend)
    once, _ = nonlocal_attention(*second, 3, state, backend=backend)
    twice, _ = nonlocal_attention(*second, 3, state, backend=backend)
    assert torch.equal(once, twice)
    single = torch.autograd.grad(once.sum(), first[0], retain_graph=True)[0]
    double = torch.autograd.grad(once.sum() + twice.sum(), first[0])[0]
    assert single.abs().max() > 0
    assert (double - 2 * single).abs().max() < 1e-12


def test_stored_state_refuses_gradients():
    first, second = images(1, 6, 6, 2)
    _, state = nonlocal_attention(*first, 3)
    with pytest.raises(ValueError, match="cannot be differentiated"):
        nonlocal_attention(second[0].requires_grad_(), *second[1:], 3, state)


def test_pixels_beyond_the_window_do_not_matter():
    ((query, key, value),) = images(1, 30, 30, 1)
    before, _ = nonlocal_attention(query, key, value, 7)
    key[:, :, 4:], value[:, :, 4:] = key[:, :, 4:].flip(2), value[:, :, 4:].flip(2)
    after, _ = nonlocal_attention(query, key, value, 7)
    assert torch.equal(before[:, :, 0], after[:, :, 0])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


@pytest.mark.parametrize("turn", [lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.rot90(1, (2, 3))])
def test_flips_and_rotations_commute(turn):
    ((query, key, value),) = images(1, 21, 14, 1)
    expected, _ = nonlocal_attention(query, key, value, 5)
    actual, _ = nonlocal_attention(turn(query), turn(key), turn(value), 5)
    assert (actual - turn(expected)).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_plain_backend_in_other_precisions(dtype):
    check(scaled(1, 24, 24, 3, 16, 16), 11, Way("chunked", dtype))


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
    (small,), (large,) = images(1, 8, 8, 1), images(1, 24, 24, 1)
    for memory in (2 << 30, 30_000):
        _, state = nonlocal_attention(*small, 3, max_memory=memory)
        with pytest.raises(ValueError, match="belongs to other shapes"):
            nonlocal_attention(*large, 3, state)


@pytest.mark.parametrize("other", [(4, 8, 8), (1, 4, 16), (1, 5, 5)], ids=["batch", "form", "size"])
@pytest.mark.parametrize("backend", ["reference", "dense"])
def test_dense_logits_know_their_image(backend, other):
    (first,), (second,) = DOUBLE.leaves(images(1, 8, 8, 1)), DOUBLE.leaves(images(*other, 1))
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
