"""Training with the Triton backend: what one buffer forbids, half precision, networks; see test_backward."""

from __future__ import annotations

import importlib
import weakref

import pytest
import torch
from interpreter import in_interpreter, on_gpu, passes_in_the_interpreter
from operation import Way, check_gradients, gradients, images, largest_difference, recur, same_bits, scaled
from torch import library as torch_library
from trained import no_worse_than_plain_pytorch, trained_steps

from nlrn import NLRN, NLRNConfig
from nlrn.ops.nonlocal_attention import nonlocal_attention, triton_layout, triton_operators

SINGLE = Way("triton", torch.float32)
leaves = SINGLE.leaves


def test_in_the_interpreter():
    passes_in_the_interpreter(__file__)


@in_interpreter
def test_several_strips(monkeypatch):
    parts = importlib.import_module("nlrn.ops.nonlocal_attention.triton_parts")
    monkeypatch.setattr(parts, "STRIP", 2)
    check_gradients(images(1, 9, 37, 2), 3, SINGLE)


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_trained_weights(dtype, monkeypatch):
    no_worse_than_plain_pytorch(trained_steps(monkeypatch, 17), "triton", dtype)


@in_interpreter
@pytest.mark.parametrize(
    ("dtype", "times"), [(torch.float16, 2.0), (torch.bfloat16, 1.25)], ids=["float16", "bfloat16"]
)
def test_trained_weights_over_twelve_steps(dtype, times, monkeypatch):
    """Logits and their gradient are rounded in each, to float16; in bfloat16 it was 2.2 times plain PyTorch's error."""
    grown = NLRNConfig(
        width=64, embedding=32, num_steps=12, window_size=45, noise_channel=True, sigma_range=(0.0, 0.3)
    )
    no_worse_than_plain_pytorch(trained_steps(monkeypatch, 16, grown), "triton", dtype, 45, times)


def gradients_of_two_losses(first, last):
    """Those of the first and the last of three steps, with these weights."""
    steps = Way("triton", torch.bfloat16).leaves(scaled(1, 9, 9, 3, 8, 16))
    outputs = recur(steps, 5, "triton")
    loss = first * outputs[0].float().square().sum() + last * outputs[2].float().square().sum()
    return [x.float() for x in torch.autograd.grad(loss, [x for step in steps for x in step])]


@in_interpreter
def test_gradients_of_any_size():
    """Float16, in which the gradient of the logits is kept, reaches from 6e-8 to 65504."""
    usual = gradients_of_two_losses(1.0, 1.0)
    for size in (1e-12, 1e12):
        scaled_up = [x / size for x in gradients_of_two_losses(size, size)]
        assert largest_difference(scaled_up, usual) < 2e-2 * max(x.abs().max() for x in usual)


@in_interpreter
def test_gradients_of_different_sizes():
    """The scale comes from the last step, and what the first one adds is a hundred times larger."""
    (both, last) = gradients_of_two_losses(100.0, 1.0), gradients_of_two_losses(0.0, 1.0)
    alone = gradients_of_two_losses(100.0, 0.0)
    expected = [a + b for a, b in zip(alone, last, strict=True)]
    assert largest_difference(both, expected) < 2e-2 * max(x.abs().max() for x in expected)
    assert all(x.isfinite().all() for x in gradients_of_two_losses(0.0, 0.0))


@in_interpreter
def test_an_input_without_gradient():
    steps = leaves(images(1, 5, 5, 2))
    (query, key, value), second = steps
    expected = gradients(steps, 5, "triton")
    # Only through the logits that it hands on does the first step have a gradient here.
    outputs = recur([(query.detach(), key, value.detach()), [x.detach() for x in second]], 5, "triton")
    (actual,) = torch.autograd.grad(outputs[1].sum(), key)
    assert actual.abs().max() > 0
    assert actual.shape == expected[1].shape


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_all_steps_share_two_buffers(dtype):
    """Of logits and their gradient, both in half precision where the images are."""
    first, second = Way("triton", dtype).leaves(images(1, 5, 5, 2))
    _, state = nonlocal_attention(*first, 5, backend="triton")
    output, later = nonlocal_attention(*second, 5, state)
    assert state.logits is later.logits
    assert later.logits.dtype == (torch.float32 if dtype == torch.float32 else torch.float16)
    torch.autograd.grad(output.sum(), second)
    assert later.tape.gradient.dtype == later.logits.dtype


@in_interpreter
def test_a_recurrence_without_backward_frees_its_buffers():
    first, second = leaves(images(1, 5, 5, 2))
    output, state = nonlocal_attention(*first, 5, backend="triton")
    output, state = nonlocal_attention(*second, 5, state)
    tape = weakref.ref(state.tape)
    del output, state
    assert tape() is None


def two_steps():
    steps = leaves(images(1, 5, 5, 2))
    first, state = nonlocal_attention(*steps[0], 5, backend="triton")
    second, later = nonlocal_attention(*steps[1], 5, state)
    return steps, (first, second), (state, later)


@in_interpreter
def test_a_later_step_without_loss_is_refused():
    _, (first, _), _ = two_steps()
    with pytest.raises(RuntimeError, match=r"attention step 1 needs .* they are those of step 2"):
        first.sum().backward()


@in_interpreter
def test_a_second_backward_is_refused():
    _, (_, second), _ = two_steps()
    loss = second.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"attention step 2 .* they are those of step 0"):
        loss.backward()


@in_interpreter
def test_a_backward_in_two_parts_is_refused():
    """The gradient that the first part left would count in the second."""
    steps, (first, second), _ = two_steps()
    torch.autograd.grad(second.sum(), steps[1], retain_graph=True)
    with pytest.raises(RuntimeError, match=r"attention step 1 .* those of step 1 in another backward pass"):
        first.sum().backward()


@in_interpreter
def test_a_step_alone_has_any_number_of_backwards():
    (step,) = leaves(images(1, 5, 5, 1))
    output, _ = nonlocal_attention(*step, 5, backend="triton", keep_state=False)
    once, again = (torch.autograd.grad(output.square().sum(), step, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@in_interpreter
def test_a_gradient_of_the_gradient_is_refused():
    steps, (_, second), _ = two_steps()
    (grad,) = torch.autograd.grad(second.square().sum(), steps[1][0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@in_interpreter
def test_a_state_is_taken_once_and_before_the_backward():
    steps, (_, second), (state, later) = two_steps()
    with pytest.raises(ValueError, match="already consumed"):
        nonlocal_attention(*steps[1], 5, state)
    second.sum().backward()
    with pytest.raises(ValueError, match="wound back by a backward pass"):
        nonlocal_attention(*steps[1], 5, later)


@in_interpreter
def test_a_step_without_gradients_in_between():
    """It moves the logits on, and nothing moves them back."""
    steps, (_, second), (_, later) = two_steps()
    with torch.no_grad():
        nonlocal_attention(*steps[1], 5, later)
    with pytest.raises(RuntimeError, match="those of step 3"):
        second.sum().backward()


@in_interpreter
def test_refusals():
    first, second = leaves(images(1, 8, 8, 2))
    with pytest.raises(ValueError, match=r"needs \d+ bytes for the logits of all steps and their gradient"):
        nonlocal_attention(*first, 5, backend="triton", max_memory=10_000)
    with torch.no_grad():
        _, stored = nonlocal_attention(*first, 5, backend="triton")
        _, history = nonlocal_attention(*first, 5, backend="triton", max_memory=10_000)
    for state in (stored, history):
        with pytest.raises(ValueError, match="cannot be differentiated"):
            nonlocal_attention(*second, 5, state, backend="triton")


@in_interpreter
def test_registered_operator():
    query, key, value = [x.float() for x in images(1, 8, 9, 1)[0]]
    geometry = triton_layout.Geometry.with_radius(query, key, 2, aligned=True)
    logits, logits_grad = torch.zeros(2, *geometry.state_shape(torch.float32))
    output, normaliser = triton_operators.triton_attention(
        query, key, value, logits, 2, 0, False, True, True, True
    )
    arguments = (output, query, key, value, output, normaliser, logits, logits_grad, torch.ones(1))
    for rest in ([], False, 2, 0), ([query, key, normaliser], False, 2, 0), ([], True, 2, 0):
        torch_library.opcheck(
            triton_operators.triton_attention_backward,
            (*arguments, *rest),
            test_utils=("test_schema", "test_faketensor"),
        )


@in_interpreter
@pytest.mark.parametrize("propagation", [True, False], ids=["propagation", "no-propagation"])
def test_a_training_step_of_the_network(propagation):
    """Losses on two heads, as in training; against dense attention."""
    config = NLRNConfig(
        width=16,
        embedding=8,
        num_steps=3,
        window_size=7,
        heads=(2, 3),
        correlation_propagation=propagation,
        initialization="official",
    )
    torch.manual_seed(0)
    model = NLRN(config).train()
    image, clean = torch.rand(2, 2, 1, 8, 9)
    grads = {}
    for backend in ("dense", "triton"):
        model.attention.backend = backend
        model.zero_grad()
        sum((output - clean).square().mean() for output in model.all_heads(image)).backward()
        grads[backend] = [p.grad for p in model.parameters()]
    largest = max(x.abs().max().item() for x in grads["dense"])
    assert largest_difference(grads["triton"], grads["dense"]) < 1e-5 * largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
class TestOnGPU:
    """At the sizes of the full network."""

    pytestmark = on_gpu

    def test_equal_reference(self, dtype):
        way = Way("triton", dtype, device="cuda")
        check_gradients(scaled(1, 96, 80, 3, 64, 128), 45, way, max_memory=8 << 30)

    def test_odd_sizes(self, dtype):
        for size in ((1, 77), (61, 35)):
            way = Way("triton", dtype, device="cuda")
            check_gradients(scaled(2, *size, 2, 20, 140), 21, way, max_memory=8 << 30)

    def test_the_same_bits_every_time(self, dtype):
        steps = Way("triton", dtype, device="cuda").leaves(scaled(2, 48, 48, 3, 64, 128))
        first, again = gradients(steps, 45, "triton"), gradients(steps, 45, "triton")
        assert same_bits(first, again)

    def test_in_a_cuda_graph(self, dtype):
        steps = Way("triton", dtype, device="cuda").leaves(scaled(2, 48, 48, 3, 64, 128))
        everything = [x for step in steps for x in step]

        def train():
            loss = sum(output.float().square().mean() for output in recur(steps, 45, "triton"))
            return torch.autograd.grad(loss, everything)

        expected = train()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = train()
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
