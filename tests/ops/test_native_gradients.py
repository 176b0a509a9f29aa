"""Training with the C++ kernel: gradients in bfloat16 against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from bfloat16_variants import bfloat16_variants, use
from skimage import data
from test_nonlocal_attention import CASES, inputs, largest_difference, recur
from torch import library as torch_library
from trained import no_worse_than_plain_pytorch, trained_steps

from nlrn.models import nlrn as network
from nlrn.models.zoo import load_model
from nlrn.ops.nonlocal_attention import choose_backend, native, native_operators, nonlocal_attention

FOUND = bfloat16_variants()
pytestmark = pytest.mark.skipif(
    not FOUND, reason=f"no bfloat16 kernel: {native_operators.loaded_kernel(torch.bfloat16)}"
)


@pytest.fixture(params=FOUND, autouse=True)
def variant(request, monkeypatch):
    return use(FOUND[request.param](), monkeypatch)


@pytest.fixture(params=[1, 3], ids=["one-thread", "three-threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def leaves(steps, dtype=torch.bfloat16):
    return [[x.detach().to(dtype).requires_grad_() for x in step] for step in steps]


def weighted(outputs):
    """A loss on all of them."""
    generator = torch.Generator().manual_seed(1)
    loss = 0
    for output in outputs:
        weights = torch.randn(output.shape, dtype=torch.float64, generator=generator)
        loss = loss + (output.double() * weights).sum()
    return loss


def gradients(steps, window, backend, **options):
    """Of a loss on every step."""
    loss = weighted(recur(steps, window, backend, **options))
    return torch.autograd.grad(loss, [x for step in steps for x in step])


def check(steps, window, **options):
    """No more than twice the error of plain PyTorch in bfloat16, or a rounding of the largest gradient."""
    rounded = leaves(steps)
    exact = gradients(leaves(rounded, torch.float64), window, "reference", **options)
    plain = gradients(rounded, window, "reference", **options)
    actual = gradients(rounded, window, "native", **options)
    assert all(x.dtype == torch.bfloat16 and x.shape == y.shape for x, y in zip(actual, exact, strict=True))
    allowed = 2 * largest_difference([x.double() for x in plain], exact)
    allowed += 2**-8 * max(x.abs().max().item() for x in exact)
    assert largest_difference([x.double() for x in actual], exact) <= allowed


def scaled(batch, height, width, steps, query, value):
    drawn = inputs(batch, height, width, steps, query_channels=query, value_channels=value)
    return [[q / query**0.25, k / query**0.25, v] for q, k, v in drawn]


@pytest.fixture
def history(monkeypatch):
    """As if no memory were left for logits."""
    monkeypatch.setattr(native, "_differentiates_stored", lambda *arguments: False)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equal_reference(case, threads):
    batch, height, width, window, count = case
    check(inputs(batch, height, width, count), window)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.usefixtures("history")
def test_a_history_equals_the_reference(case):
    batch, height, width, window, count = case
    check(inputs(batch, height, width, count), window)


@pytest.mark.parametrize("window", [1, 5, 15, None], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (9, 5), (21, 34), (6, 67)], ids=str)
def test_stored_logits_equal_a_history(size, window, monkeypatch):
    steps = leaves(scaled(2, *size, 4, 32, 32))
    stored = gradients(steps, window, "native")
    monkeypatch.setattr(native, "_differentiates_stored", lambda *arguments: False)
    for x, y in zip(stored, gradients(steps, window, "native"), strict=True):
        assert (x.double() - y.double()).norm() <= 0.01 * y.double().norm() + 1e-6


def test_memory():
    """Logits of all steps and two gradients count; a recurrence that outgrows the memory goes on with its history."""
    steps = leaves(scaled(1, 20, 40, 4, 32, 32))
    exact = gradients(leaves(steps, torch.float64), 15, "reference")
    memory = native.stored_gradient_bytes(*steps[0], 15, 2)
    state, stored, outputs = None, [], []
    for step in steps:
        output, state = nonlocal_attention(*step, 15, state, max_memory=memory)
        stored.append(state.logits is not None)
        outputs.append(output)
    assert stored == [True, True, False, False]
    grads = torch.autograd.grad(weighted(outputs), [x for step in steps for x in step])
    for x, y in zip(grads, exact, strict=True):
        assert (x.double() - y).norm() < 0.01 * y.norm()


def test_a_step_without_propagation_stores_nothing():
    ((query, key, value),) = leaves(inputs(1, 9, 33, 1))
    output, state = nonlocal_attention(query, key, value, 5, keep_state=False)
    assert state is None
    assert not any(x.dtype == torch.float16 for x in output.grad_fn.saved_tensors)


def test_an_output_that_nothing_comes_of():
    """Its logits still have a gradient, and the last ones have none."""
    steps = leaves(inputs(1, 9, 33, 3))
    exact = leaves(steps, torch.float64)
    grads = []
    for backend, of in (("native", steps), ("reference", exact)):
        output = recur(of, 5, backend)[1]
        grads.append(torch.autograd.grad(output.double().square().sum(), [*of[0][:2], *of[1]]))
    for x, y in zip(*grads, strict=True):
        assert (x.double() - y).norm() < 0.01 * y.norm()


def test_another_backend_goes_on_with_the_history():
    first, second = leaves(inputs(1, 9, 33, 2))
    _, state = nonlocal_attention(*first, 5)
    expected, _ = nonlocal_attention(*second, 5, state)
    other, _ = nonlocal_attention(*second, 5, state, backend="chunked")
    with torch.no_grad():
        unrecorded, _ = nonlocal_attention(*second, 5, state)
    # The kernel's weights are rounded to bfloat16; values reach to four.
    for output in (other, unrecorded):
        torch.testing.assert_close(output.float(), expected.float(), rtol=2**-7, atol=2**-7)
    # What was stored is as it was.
    assert torch.equal(nonlocal_attention(*second, 5, state)[0], expected)


def test_no_second_derivatives():
    first, second = leaves(inputs(1, 9, 33, 2))
    _, state = nonlocal_attention(*first, 5)
    output, _ = nonlocal_attention(*second, 5, state)
    grad = torch.autograd.grad(output.float().square().sum(), first[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.float().sum().backward()


@pytest.mark.parametrize("channels", [(1, 1), (32, 64), (64, 128), (96, 80), (7, 48)], ids=str)
def test_channels(channels):
    check(scaled(1, 27, 38, 2, *channels), 21)


@pytest.mark.parametrize("window", [15, 45], ids=["one-block-a-row", "two-blocks"])
@pytest.mark.parametrize("width", range(1, 76, 5))
def test_every_place_of_the_border(width, window, threads):
    check(scaled(2, 6, width, 2, 8, 8), window)


def test_twelve_steps_of_the_full_network():
    check(scaled(1, 40, 50, 12, 64, 128), 45)


def test_the_error_is_that_of_rounded_factors():
    """The bound of `check` is that of sums in bfloat16; these are in float32, so a hundredth is left."""
    steps = leaves(scaled(2, 40, 40, 6, 32, 64))
    exact = gradients(leaves(steps, torch.float64), 21, "reference")
    for x, y in zip(gradients(steps, 21, "native"), exact, strict=True):
        assert (x.double() - y).norm() < 0.01 * y.norm()


def test_trained_weights(monkeypatch):
    no_worse_than_plain_pytorch(trained_steps(monkeypatch, 40), "native", torch.bfloat16)


def test_band_of_rows(threads):
    """The first and the last rows of keys are beyond all windows: no gradient."""
    steps = [[query[:, :, 9:20], key, value] for query, key, value in inputs(1, 30, 37, 2)]
    check(steps, 5, row_offset=9)
    grads = gradients(leaves(steps), 5, "native", row_offset=9)
    for grad in (grads[1], grads[2], grads[4], grads[5]):
        assert grad[:, :, :7].abs().max() == grad[:, :, 22:].abs().max() == 0
        assert grad[:, :, 7:22].abs().amax((0, 1, 3)).min() > 0


def test_strides():
    plain = leaves(scaled(2, 13, 35, 1, 32, 32))
    expected = gradients(plain, 5, "native")
    channels_last = [[x.contiguous(memory_format=torch.channels_last) for x in plain[0]]]
    slices = [[torch.stack([x, x], -1)[..., 1] for x in plain[0]]]
    for other in (channels_last, slices):
        assert all(
            torch.equal(*pair) for pair in zip(gradients(leaves(other), 5, "native"), expected, strict=True)
        )


def test_the_same_bits_every_time(threads):
    first, again = (gradients(leaves(inputs(1, 40, 50, 3)), 11, "native") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_state_is_a_value():
    """It may be used twice, and differentiated twice."""
    first, second = leaves(inputs(1, 9, 33, 2))
    _, state = nonlocal_attention(*first, 5)
    outputs = [nonlocal_attention(*second, 5, state)[0] for _ in range(2)]
    assert state.logits is not None
    once = torch.autograd.grad(outputs[0].float().square().sum(), first[:2], retain_graph=True)
    again = torch.autograd.grad(outputs[1].float().square().sum(), first[:2], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    # Both at once: what they hand to the step before is added up.
    outputs = [nonlocal_attention(*second, 5, state)[0] for _ in range(2)]
    both = torch.autograd.grad(sum(x.float().square().sum() for x in outputs), first[:2])
    for a, b in zip(both, once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=2**-6, atol=1e-3)


def test_stored_logits_have_no_gradients():
    first, second = leaves(inputs(1, 9, 33, 2))
    with torch.no_grad():
        _, state = nonlocal_attention(*first, 5)
    with pytest.raises(ValueError, match="native: cannot differentiate stored logits"):
        nonlocal_attention(*second, 5, state)


def test_what_it_leaves_to_others():
    image = torch.zeros(1, 2, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    assert choose_backend(image, image, image, 3) == "native"
    assert choose_backend(image, image, image, 3, max_memory=10_000) == "chunked"
    with pytest.raises(ValueError, match="in bfloat16 only, on processors with AMX or AVX512-BF16"):
        nonlocal_attention(image.float(), image.float(), image.float(), 3, backend="native")


def test_autocast():
    """What trains in bfloat16 takes it: float32 in, bfloat16 out, gradients for what went in."""
    query, key, value = (x[0].float().requires_grad_() for x in zip(*inputs(1, 12, 40, 1), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        output, state = nonlocal_attention(query, key, value, 5)
    assert output.dtype == torch.bfloat16
    assert state.queries[0].dtype == torch.bfloat16
    output.float().sum().backward()
    assert query.grad.dtype == torch.float32
    torch.testing.assert_close(value.grad.sum(), torch.tensor(5.0 * 12 * 40), rtol=1e-2, atol=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert nonlocal_attention(query, key, value, 5)[0].dtype == torch.bfloat16


def test_a_trained_network(monkeypatch):
    """Of all its weights, against dense attention whose output is rounded as the kernel's is.

    The sums of features and averages in bfloat16 are most of the error; the better a network is trained, the smaller
    the gradients are that it is measured by. So the bound is the error of dense attention, and no constant. For one
    draw of noise the ratio of the two errors is anything from 0.7 to 5, so several are taken together.
    """
    model = load_model("nlrn-small-gray").train()
    weights = [p.requires_grad_() for p in model.parameters() if p.ndim == 4]
    camera = torch.from_numpy(data.camera()).float() / 255
    sigma = torch.tensor([5, 15, 25, 35, 45, 55]) / 255

    def grads(noisy, clean, precision, backend):
        def attention(*arguments, **options):
            output, state = nonlocal_attention(*arguments, backend=backend, **options)
            return output.to(getattr(torch, precision)), state

        monkeypatch.setattr(network, "nonlocal_attention", attention)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = (model(noisy, sigma).float() - clean).square().mean()
        return torch.autograd.grad(loss, weights)

    errors = torch.zeros(2, len(weights))
    for draw in range(3):
        left = 100 + 13 * draw
        clean = torch.stack([camera[None, i : i + 40, left : left + 40] for i in range(0, 240, 40)])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2 + draw))
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        exact = grads(noisy, clean, "float32", "dense")
        for of, backend in zip(errors, ("dense", "native"), strict=True):
            approximate = grads(noisy, clean, "bfloat16", backend)
            of += torch.stack([(x - y).square().sum() for x, y in zip(approximate, exact, strict=True)])
    plain, actual = errors.sqrt()
    assert (actual < 1.5 * plain).all()


def test_registered_operators():
    ((query, key, value),) = ([x.bfloat16() for x in step] for step in inputs(1, 8, 9, 1))
    tests = ("test_schema", "test_faketensor")
    none = value.new_empty(0)
    for steps, stored in ((2, False), (1, True)):
        arguments = ([query] * steps, [key] * steps, value, none, 2, 0, stored)
        torch_library.opcheck(native_operators.window_attention, arguments, test_utils=tests)
        output, normaliser, logits = native_operators.window_attention(*arguments)
        assert stored == bool(logits.numel())
        rest = (*arguments[:3], output, normaliser, logits, none, 2, 0, stored)
        torch_library.opcheck(
            native_operators.window_attention_backward, (torch.ones_like(value), *rest), test_utils=tests
        )


def test_large_logits():
    """Most weights are 0 then, and what is not finite stays so."""
    ((query, key, value),) = inputs(1, 9, 40, 1)
    check([(query * 30, key * 30, value)], 5)
    steps = leaves([(query, key, value)])
    with torch.no_grad():
        steps[0][0][0, 0, 4, 20] = float("nan")
    query_grad, key_grad, _ = gradients(steps, 5, "native")
    assert query_grad[0, :, 4, 20].isnan().all()
    assert key_grad[0, :, 4, 20].isnan().all()
    assert query_grad[0, :, 4, 30].isfinite().all()
