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
from nlrn.ops.nonlocal_attention import choose_backend, native_operators, nonlocal_attention

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


def gradients(steps, window, backend, **options):
    """Of a loss on every step."""
    outputs = recur(steps, window, backend, **options)
    generator = torch.Generator().manual_seed(1)
    loss = 0
    for output in outputs:
        weights = torch.randn(output.shape, dtype=torch.float64, generator=generator)
        loss = loss + (output.double() * weights).sum()
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


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equal_reference(case, threads):
    batch, height, width, window, count = case
    check(inputs(batch, height, width, count), window)


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
    assert state.backend == "chunked"
    once = torch.autograd.grad(outputs[0].float().square().sum(), first[:2], retain_graph=True)
    again = torch.autograd.grad(outputs[1].float().square().sum(), first[:2])
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


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
    the gradients are that it is measured by. So the bound is the error of dense attention, and no constant.
    """
    model = load_model("nlrn-small-gray").train()
    weights = [p.requires_grad_() for p in model.parameters() if p.ndim == 4]
    camera = torch.from_numpy(data.camera()).float() / 255
    clean = torch.stack([camera[None, i : i + 40, 100:140] for i in range(0, 240, 40)])
    sigma = torch.tensor([5, 15, 25, 35, 45, 55]) / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy = clean + sigma.view(-1, 1, 1, 1) * noise

    def grads(precision, backend):
        def attention(*arguments, **options):
            output, state = nonlocal_attention(*arguments, backend=backend, **options)
            return output.to(getattr(torch, precision)), state

        monkeypatch.setattr(network, "nonlocal_attention", attention)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = (model(noisy, sigma).float() - clean).square().mean()
        return torch.autograd.grad(loss, weights)

    exact = grads("float32", "dense")
    plain, actual = (grads("bfloat16", backend) for backend in ("dense", "native"))
    for a, p, e in zip(actual, plain, exact, strict=True):
        assert (a - e).norm() < 1.5 * (p - e).norm()


def test_registered_operators():
    ((query, key, value),) = ([x.bfloat16() for x in step] for step in inputs(1, 8, 9, 1))
    tests = ("test_schema", "test_faketensor")
    arguments = ([query, query], [key, key], value, 2, 0)
    torch_library.opcheck(native_operators.window_attention, arguments, test_utils=tests)
    output, normaliser = native_operators.window_attention(*arguments)
    rest = (*arguments[:3], output, normaliser, 2, 0)
    torch_library.opcheck(
        native_operators.window_attention_backward, (torch.ones_like(output), *rest), test_utils=tests
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
