"""Gradients of the non-local operation in every backend that trains, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from interpreter import INTERPRETED, passes_in_the_interpreter
from operation import (
    BACKWARD,
    CASES,
    HALF_BACKWARD,
    bits_with,
    check_gradients,
    gradients,
    images,
    recur,
    same_bits,
    scaled,
    ways,
)

CHANNELS = [(1, 1), (32, 64), (64, 128), (96, 80), (7, 48)]


def test_in_the_interpreter():
    passes_in_the_interpreter(__file__)


@ways(BACKWARD)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equal_reference(case, way):
    batch, height, width, window, count = case
    if window == 1 or height == width == 1:
        pytest.skip("see test_a_single_neighbour")
    check_gradients(images(batch, height, width, count), window, way)


@ways(BACKWARD)
@pytest.mark.parametrize(("side", "window"), [(1, 3), (10, 1)], ids=["one-pixel", "window-of-one"])
def test_a_single_neighbour(side, window, way):
    """Its weight is 1, so query and key have no gradient; kernels find it as the difference of two equal sums."""
    steps = way.leaves(images(1, side, side, 2))
    exact = gradients([[x.detach().double().requires_grad_() for x in s] for s in steps], window, "reference")
    grads = gradients(steps, window, way.backend, history=way.history)
    largest = max(x.abs().max() for x in exact)
    for actual, expected in zip(grads, exact, strict=True):
        assert (actual - expected).abs().max() <= 16 * torch.finfo(way.dtype).eps * largest


@ways(HALF_BACKWARD)
def test_half_precision(way):
    check_gradients(scaled(1, 9, 11, 3, 8, 16), 5, way)


@ways(BACKWARD)
@pytest.mark.parametrize(
    "channels", [(1, 1), (7, 20), (70, 20), (20, 140)] if INTERPRETED else CHANNELS, ids=str
)
def test_channels(channels, way):
    size, window = ((3, 9), 5) if INTERPRETED else ((27, 38), 21)
    check_gradients(scaled(1, *size, 2, *channels), window, way)


@ways([way for way in BACKWARD if way.backend == "native"])
def test_twelve_steps_of_the_full_network(way):
    check_gradients(scaled(1, 40, 50, 12, 64, 128), 45, way)


@ways(BACKWARD)
@pytest.mark.parametrize("window", [15, 45], ids=["one-block-a-row", "two-blocks"])
@pytest.mark.parametrize("width", (9,) if INTERPRETED else range(1, 76, 5))
def test_every_place_of_the_border(width, window, way):
    check_gradients(scaled(2, 2 if INTERPRETED else 6, width, 2, 8, 8), window, way)


@ways(BACKWARD, HALF_BACKWARD)
def test_without_propagation(way):
    check_gradients(scaled(1, 9, 9, 1, 8, 8), 5, way, keep_state=False)


@ways(BACKWARD)
def test_band_of_rows(way):
    """The first and the last rows of keys are beyond all windows: no gradient."""
    steps = [[q[:, :, 9:12], k, v] for q, k, v in images(1, 22, 5 if INTERPRETED else 37, 2)]
    check_gradients(steps, 5, way, row_offset=9)
    grads = gradients(way.leaves(steps), 5, way.backend, history=way.history, row_offset=9)
    for grad in (grads[1], grads[2], grads[4], grads[5]):
        assert grad[:, :, :7].abs().max() == grad[:, :, 14:].abs().max() == 0
        assert grad[:, :, 7:14].abs().amax((0, 1, 3)).min() > 0


@ways(BACKWARD)
def test_strides(way):
    steps = way.images(scaled(2, 3, 9, 1, 32, 32) if INTERPRETED else scaled(2, 13, 35, 1, 32, 32))
    expected = gradients(way.leaves(steps), 5, way.backend)
    channels_last = [[x.contiguous(memory_format=torch.channels_last) for x in step] for step in steps]
    slices = [[torch.stack([x, x], -1)[..., 1] for x in step] for step in steps]
    for other in (channels_last, slices):
        actual = gradients([[x.requires_grad_() for x in step] for step in other], 5, way.backend)
        # Plain PyTorch's products may take the factors in another order.
        assert same_bits(actual, expected) or all(
            (a - b).abs().max() < 1e-12 for a, b in zip(actual, expected, strict=True)
        )


@ways(BACKWARD)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_bits_every_time(threads, way):
    """With one number of threads: a kernel adds up the gradients of keys in as many parts."""
    for case in [(1, 5, 9, 3)] if INTERPRETED else [(1, 40, 50, 3), (2, 19, 23, 3), (1, 1, 37, 2)]:
        steps = way.leaves(images(*case))
        first, again = bits_with(
            (threads,), lambda steps=steps: gradients(steps, 11, way.backend, history=way.history)
        )
        assert same_bits(first, again)


@ways([way for way in BACKWARD if way.backend == "native"])
@pytest.mark.parametrize("case", [(1, 40, 50, 11, 3), (2, 19, 23, 7, 3), (1, 1, 37, 9, 2)], ids=str)
def test_several_threads(case, way):
    batch, height, width, window, count = case
    steps = images(batch, height, width, count)
    for _ in bits_with((3, 64), lambda: check_gradients(steps, window, way)):
        pass


@ways(BACKWARD)
def test_a_loss_on_some_steps_only(way):
    """The logits of a step without a loss still have a gradient; the last ones have none."""
    for last in (1, 2):
        steps = way.leaves(images(1, 5, 9, 3) if INTERPRETED else images(1, 9, 33, 3))
        if last == 1 and way.backend == "triton":
            continue  # a tape must be wound back from its last step
        doubles = [[x.detach().double().requires_grad_() for x in step] for step in steps]
        grads = []
        for backend, of, history in (("reference", doubles, False), (way.backend, steps, way.history)):
            loss = recur(of, 5, backend, history=history)[last].double().square().sum()
            grads.append(torch.autograd.grad(loss, [*(x for step in of[:last] for x in step[:2]), *of[last]]))
        for exact, actual in zip(*grads, strict=True):
            assert (actual - exact).norm() < 0.01 * exact.norm()


@ways(BACKWARD)
def test_large_logits(way):
    """Most weights are 0 then."""
    ((query, key, value),) = images(1, 9, 12 if INTERPRETED else 40, 1)
    # The Triton kernels' logits are in base 2, so that thousands of them have other errors than plain PyTorch's.
    size = 10 if way.backend == "triton" else 30
    check_gradients([(query * size, key * size, value)], 5, way)
