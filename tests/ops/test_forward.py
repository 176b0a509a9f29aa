"""The non-local operation in every backend, precision and instruction set, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from interpreter import INTERPRETED, passes_in_the_interpreter
from operation import CASES, FORWARD, HALF, bits_with, check, images, recur, same_bits, scaled, ways

from nlrn.ops.nonlocal_attention import nonlocal_attention

STORED = [way for way in FORWARD if not way.history]
CHANNELS = [(1, 1), (32, 64), (64, 128), (64, 80), (96, 80), (7, 48)]


def test_in_the_interpreter():
    passes_in_the_interpreter(__file__)


@ways(FORWARD)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_reference(case, way):
    batch, height, width, window, count = case
    check(images(batch, height, width, count), window, way)


@ways(HALF)
def test_half_precision(way):
    check(scaled(1, 9, 13, 3, 16, 16), 9, way)


@ways(STORED, HALF)
@pytest.mark.parametrize("channels", [(1, 1), (7, 20), (70, 140)] if INTERPRETED else CHANNELS, ids=str)
def test_channels(channels, way):
    size, window = ((9, 10), 7) if INTERPRETED else ((27, 38), 21)
    check(scaled(1, *size, 2, *channels), window, way)


@ways(STORED)
@pytest.mark.skipif(INTERPRETED, reason="takes minutes in the interpreter")
def test_twelve_steps_of_the_full_network(way):
    check([[q / 2, k / 2, v] for q, k, v in scaled(1, 50, 55, 12, 64, 128)], 45, way)


@ways(STORED)
@pytest.mark.parametrize("width", (1, 9) if INTERPRETED else range(1, 70, 3))
def test_every_place_of_the_border(width, way):
    check(images(1, 5, width, 2), 15, way)


@ways(FORWARD)
def test_band_of_rows(way):
    """Two rows of keys on either side are beyond all windows."""
    steps = images(2, 25, 11, 2)
    bands = [[q[:, :, 8:17], k[:, :, 3:22], v[:, :, 3:22]] for q, k, v in steps]
    check(bands, 7, way, row_offset=5)


@ways(FORWARD)
def test_strides(way):
    ((query, key, value),) = way.images(scaled(2, 7, 9, 1, 32, 32))
    plain = (query, key, value)
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    slices = [torch.stack([x, x], -1)[..., 1] for x in plain]
    wider = [torch.cat([x, x], 3).contiguous(memory_format=torch.channels_last)[..., :9] for x in plain]
    expected = recur([plain], 5, way.backend)[0]
    for other in (channels_last, slices, wider):
        (actual,) = recur([other], 5, way.backend)
        # Plain PyTorch's products may take the factors in another order.
        assert torch.equal(actual, expected) or (actual - expected).abs().max() < 1e-12


@ways(FORWARD)
def test_the_same_bits_every_time_and_with_any_number_of_threads(way):
    steps = way.images(images(1, 9, 12, 2) if INTERPRETED else images(1, 40, 50, 2))
    first, *others = bits_with(way.threads, lambda: recur(steps, 11, way.backend, history=way.history))
    assert all(same_bits(first, other) for other in others)


@ways(FORWARD)
def test_large_logits(way):
    first, second = images(1, 9, 9, 2)
    large = (first[0] * 100, first[1] * 100, first[2])
    check([large], 5, way)
    check([large, second], 5, way)


@ways([way for way in FORWARD if way.history or way.dtype != torch.bfloat16])
def test_logits_that_cancel(way):
    """The softmax is relative to the largest logit of all steps together, not of any before.

    Logits of bfloat16 images are stored in float16, which is too coarse for thousands that cancel.
    """
    ((query, key, value),) = way.images(images(1, 9, 14, 1))
    steps = [(query * 20, key * 20, value), (-query * 20, key * 20, value)]
    last = recur(steps, 5, way.backend, history=way.history)[1]
    average = nonlocal_attention(query.float() * 0, key.float() * 0, value.float(), 5, backend="reference")[0]
    # Float32 adds up logits of thousands with an error of 1e-3; bfloat16 rounds the average too.
    assert (last - average).abs().max() < (1e-2 if way.dtype == torch.bfloat16 else 1e-3)


@ways(FORWARD)
def test_logits_that_grow_from_step_to_step(way):
    ((query, key, value),) = images(1, 9, 12, 1) if INTERPRETED else images(1, 12, 20, 1)
    check([(query, key, value)] * (3 if INTERPRETED else 12), 9, way)


@ways(FORWARD, HALF)
def test_a_constant_image_is_a_fixed_point(way):
    query, key, _ = way.images(images(1, 9, 12, 1) if INTERPRETED else images(1, 21, 30, 1))[0]
    value = torch.full((1, 3, *query.shape[2:]), 0.7, dtype=way.dtype)
    (output,) = recur([(query, key, value)], 9, way.backend)
    assert (output - value).abs().max() <= 4 * torch.finfo(way.dtype).eps


@ways(STORED, [way for way in HALF if not way.history])
def test_a_state_is_used_once(way):
    ((query, key, value),) = way.images(images(1, 8, 8, 1))
    _, state = nonlocal_attention(query, key, value, 3, backend=way.backend)
    assert state.backend == way.backend
    nonlocal_attention(query, key, value, 3, state)
    with pytest.raises(ValueError, match="already consumed"):
        nonlocal_attention(query, key, value, 3, state)


@ways(STORED)
def test_a_state_stays_with_its_backend(way):
    ((query, key, value),) = way.images(images(1, 8, 8, 1))
    _, state = nonlocal_attention(query, key, value, 3, backend=way.backend)
    other = "native" if way.backend == "chunked" else "chunked"
    query, key, value = (x.float() for x in (query, key, value))
    with pytest.raises(ValueError, match=f"cannot read logits that the {way.backend} backend stored"):
        nonlocal_attention(query, key, value, 3, state, backend=other)


@ways(STORED)
@pytest.mark.parametrize("other", [(4, 8, 8), (1, 4, 16), (1, 5, 5), (1, 24, 24)], ids=str)
def test_a_state_of_other_shapes(other, way):
    """Logits of another batch would be broadcast, those of as many pixels in another form added up."""
    first, second = way.images(images(1, 8, 8, 1))[0], way.images(images(*other, 1))[0]
    _, state = nonlocal_attention(*first, 3, backend=way.backend)
    with pytest.raises(ValueError, match="belongs to other shapes"):
        nonlocal_attention(*second, 3, state)


@ways(STORED)
def test_the_last_step_keeps_no_state(way):
    first, second = way.images(images(1, 9, 9, 2))
    _, state = nonlocal_attention(*first, 5, backend=way.backend)
    assert nonlocal_attention(*second, 5, state, keep_state=False)[1] is None
