"""Training with the C++ kernel in bfloat16: memory, states, networks; its numbers are in test_backward."""

from __future__ import annotations

import pytest
import torch
from libraries import BFLOAT16, use
from operation import Way, gradients, images, scaled
from skimage import data
from torch import library as torch_library
from trained import no_worse_than_plain_pytorch, trained_steps

from nlrn.models import nonlocal_block
from nlrn.models.zoo import load_model
from nlrn.ops.nonlocal_attention import choose_backend, native, native_operators, nonlocal_attention
from nlrn.ops.nonlocal_attention.state import History

WAY = Way("native", torch.bfloat16)
leaves = WAY.leaves
pytestmark = pytest.mark.skipif(
    not BFLOAT16, reason=f"no bfloat16 kernel: {native_operators.loaded_kernel(torch.bfloat16)}"
)


@pytest.fixture(params=BFLOAT16, autouse=True)
def variant(request, monkeypatch):
    use(request.param, torch.bfloat16, monkeypatch)


def in_float64(steps):
    return [[x.detach().double().requires_grad_() for x in step] for step in steps]


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
    exact = gradients(in_float64(steps), 15, "reference")
    memory = native.stored_gradient_bytes(*steps[0], 15, 2)
    state, stored = None, []
    for step in steps:
        _, state = nonlocal_attention(*step, 15, state, max_memory=memory)
        stored.append(not isinstance(state, History))
    assert stored == [True, True, False, False]
    for x, y in zip(gradients(steps, 15, "native", max_memory=memory), exact, strict=True):
        assert (x.double() - y).norm() < 0.01 * y.norm()


def test_a_step_without_propagation_stores_nothing():
    ((query, key, value),) = leaves(images(1, 9, 33, 1))
    output, state = nonlocal_attention(query, key, value, 5, keep_state=False)
    assert state is None
    assert not any(x.dtype == torch.float16 for x in output.grad_fn.saved_tensors)


def test_another_backend_goes_on_with_the_history():
    first, second = leaves(images(1, 9, 33, 2))
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
    first, second = leaves(images(1, 9, 33, 2))
    _, state = nonlocal_attention(*first, 5)
    output, _ = nonlocal_attention(*second, 5, state)
    grad = torch.autograd.grad(output.float().square().sum(), first[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.float().sum().backward()


def test_the_error_is_that_of_rounded_factors():
    """The bound of `check_gradients` is that of sums in bfloat16; these are in float32, so a hundredth is left."""
    steps = leaves(scaled(2, 40, 40, 6, 32, 64))
    exact = gradients(in_float64(steps), 21, "reference")
    for x, y in zip(gradients(steps, 21, "native"), exact, strict=True):
        assert (x.double() - y).norm() < 0.01 * y.norm()


def test_trained_weights(monkeypatch):
    no_worse_than_plain_pytorch(trained_steps(monkeypatch, 40), "native", torch.bfloat16)


def test_a_state_is_a_value():
    """It may be used twice, and differentiated twice."""
    first, second = leaves(images(1, 9, 33, 2))
    _, state = nonlocal_attention(*first, 5)
    outputs = [nonlocal_attention(*second, 5, state)[0] for _ in range(2)]
    assert isinstance(state, native.RecordedLogits)
    once = torch.autograd.grad(outputs[0].float().square().sum(), first[:2], retain_graph=True)
    again = torch.autograd.grad(outputs[1].float().square().sum(), first[:2], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    # Both at once: what they hand to the step before is added up.
    outputs = [nonlocal_attention(*second, 5, state)[0] for _ in range(2)]
    both = torch.autograd.grad(sum(x.float().square().sum() for x in outputs), first[:2])
    for a, b in zip(both, once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=2**-6, atol=1e-3)


def test_stored_logits_have_no_gradients():
    first, second = leaves(images(1, 9, 33, 2))
    with torch.no_grad():
        _, state = nonlocal_attention(*first, 5)
    with pytest.raises(ValueError, match="native: cannot differentiate stored logits"):
        nonlocal_attention(*second, 5, state)


def test_refusals():
    image = torch.zeros(1, 2, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    assert choose_backend(image, image, image, 3) == "native"
    assert choose_backend(image, image, image, 3, max_memory=10_000) == "chunked"
    with pytest.raises(ValueError, match="in bfloat16 only, on processors with AMX or AVX512-BF16"):
        nonlocal_attention(image.float(), image.float(), image.float(), 3, backend="native")


def test_autocast():
    """What trains in bfloat16 takes it: float32 in, bfloat16 out, gradients for what went in."""
    query, key, value = (x[0].float().requires_grad_() for x in zip(*images(1, 12, 40, 1), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        output, state = nonlocal_attention(query, key, value, 5)
    assert output.dtype == torch.bfloat16
    assert state.history.queries[0].dtype == torch.bfloat16
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
            output, state = nonlocal_attention(*arguments, **(options | {"backend": backend}))
            return output.to(getattr(torch, precision)), state

        monkeypatch.setattr(nonlocal_block, "nonlocal_attention", attention)
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
    ((query, key, value),) = ([x.bfloat16() for x in step] for step in images(1, 8, 9, 1))
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


def test_nan_stays():
    steps = leaves(images(1, 9, 40, 1))
    with torch.no_grad():
        steps[0][0][0, 0, 4, 20] = float("nan")
    query_grad, key_grad, _ = gradients(steps, 5, "native")
    assert query_grad[0, :, 4, 20].isnan().all()
    assert key_grad[0, :, 4, 20].isnan().all()
    assert query_grad[0, :, 4, 30].isfinite().all()
