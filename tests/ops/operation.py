"""The non-local operation in tests: images, recurrences, and the ways of computing it, each with its bound of error."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import libraries
import pytest
import torch
from interpreter import INSTALLED, INTERPRETED

from nlrn.ops.nonlocal_attention import AttentionState, nonlocal_attention

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
# For the interpreter, which takes a thousand times as long.
SMALL_CASES = {
    "square": (1, 16, 16, 5, 1),
    "odd-size": (2, 9, 13, 5, 3),
    "tall": (1, 26, 5, 5, 2),
    "wide": (1, 5, 26, 5, 2),
    "several-tiles": (1, 13, 37, 13, 2),
    "window-larger-than-image": (1, 9, 11, 45, 2),
    "whole-image": (2, 7, 10, None, 3),
    "one-row": (1, 1, 21, 9, 2),
    "one-column": (1, 21, 1, 9, 2),
    "one-pixel": (3, 1, 1, 3, 2),
    "window-of-one": (1, 10, 10, 1, 2),
}
if INTERPRETED:
    CASES = SMALL_CASES


@dataclass(frozen=True)
class Way:
    """A way of computing the operation.

    Args:
        backend: name of the backend.
        dtype: dtype of the images.
        kernel: the C++ library of the native backend.
        history: logits computed anew from the queries and keys of all steps, in place of stored ones.
        device: device of the images.
    """

    backend: str
    dtype: torch.dtype
    kernel: str = ""
    history: bool = False
    device: str = "cpu"

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        state = "history" if self.history else "stored"
        return "-".join(part for part in (self.backend, self.kernel, dtype, state) if part)

    @property
    def threads(self) -> tuple[int, ...]:
        """Numbers of threads that give the same bits: any, except in plain PyTorch's matrix products."""
        return (1, 3, 64) if self.backend == "native" else (1,)

    @property
    def plain(self) -> torch.dtype:
        """The dtype of plain PyTorch that it is compared with: the native kernel sums bfloat16 up in float32."""
        return torch.float32 if self.backend == "native" else self.dtype

    @property
    def floor(self) -> float:
        """The error that is allowed where plain PyTorch happens to have none."""
        return {torch.float64: 1e-10, torch.bfloat16: 1e-6}.get(self.dtype, 1e-7)

    @property
    def roundings(self) -> float:
        """The error of a gradient that is allowed besides, as a part of the largest gradient."""
        if self.dtype == torch.float64:
            return 1e-12
        return 2**-8 if self.backend == "native" else 4 * torch.finfo(torch.float32).eps

    def images(self, steps):
        """Steps in its dtype and on its device."""
        return [[x.detach().to(self.device, self.dtype) for x in step] for step in steps]

    def leaves(self, steps):
        """The same, with gradients."""
        return [[x.requires_grad_() for x in step] for step in self.images(steps)]


def _native(found, dtype, histories):
    return [Way("native", dtype, library, history) for library in found for history in histories]


# The last outcomes of the reference, exact and in plain PyTorch.
KEPT: OrderedDict[bytes, list[torch.Tensor]] = OrderedDict()
MOST_KEPT = 4

BOTH = (False, True)
if INTERPRETED and INSTALLED:
    HALF = [Way("triton", dtype, history=h) for dtype in (torch.float16, torch.bfloat16) for h in BOTH]
    FORWARD = [Way("triton", torch.float32, history=h) for h in BOTH]
    # One buffer of logits for all steps: under autograd there is no history.
    BACKWARD = [Way("triton", torch.float32)]
    HALF_BACKWARD = [way for way in HALF if not way.history]
else:
    HALF = HALF_BACKWARD = []
    FORWARD = [
        *(Way("chunked", torch.float64, history=h) for h in BOTH),
        *_native(libraries.FLOAT32, torch.float32, BOTH),
        *_native(libraries.BFLOAT16, torch.bfloat16, BOTH),
    ]
    BACKWARD = [
        Way("dense", torch.float64),
        Way("chunked", torch.float64, history=True),
        *_native(libraries.BFLOAT16, torch.bfloat16, BOTH),
    ]


def ways(*lists):
    """Runs a test for each way, with the library that it asks for in place."""
    flat = [way for several in lists for way in several]
    return pytest.mark.parametrize("way", flat, ids=str, indirect=True)


def images(batch, height, width, steps, *, query_channels=6, value_channels=5):
    """Random queries, keys and values of some steps, in float64."""
    generator = torch.Generator().manual_seed(0)

    def image(channels):
        return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)

    return [(image(query_channels), image(query_channels), image(value_channels)) for _ in range(steps)]


def scaled(batch, height, width, steps, query_channels, value_channels):
    """The same with logits whose size does not depend on the channels."""
    drawn = images(batch, height, width, steps, query_channels=query_channels, value_channels=value_channels)
    return [[q / query_channels**0.25, k / query_channels**0.25, v] for q, k, v in drawn]


def recur(steps, window, backend, *, history=False, **options):
    """The outputs of all steps."""
    state, outputs = None, []
    for t, step in enumerate(steps):
        if history:
            options["keep_state"] = False
            state = history_of(steps[:t])
        output, state = nonlocal_attention(*step, window, state, backend=backend, **options)
        outputs.append(output)
    return outputs


def history_of(steps):
    """The state after some steps, to be computed anew; `None` before the first."""
    return AttentionState.from_history(*list(zip(*steps, strict=True))[:2]) if steps else None


def gradients(steps, window, backend, **options):
    """The gradients of a loss on the outputs of all steps."""
    generator, loss = torch.Generator().manual_seed(1), 0
    for output in recur(steps, window, backend, **options):
        weights = torch.randn(output.shape, dtype=torch.float64, generator=generator).to(output.device)
        loss = loss + (output.double() * weights).sum() + output.double().square().sum()
    return torch.autograd.grad(loss, [x for step in steps for x in step])


def bits_with(threads, compute):
    """The tensors that `compute` makes with each number of threads, and with the first one again."""
    before = torch.get_num_threads()
    try:
        for number in (*threads, threads[0]):
            torch.set_num_threads(number)
            yield compute()
    finally:
        torch.set_num_threads(before)


def largest_difference(a, b):
    """The largest difference of two lists of tensors, in float64."""
    return max((x.double() - y.double()).abs().max().item() for x, y in zip(a, b, strict=True))


def same_bits(a, b):
    """True where two lists of tensors are equal to the bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def of_reference(compute, steps, window, **options):
    """`compute` with the reference backend, made once for all ways that see the same numbers."""
    digest = hashlib.sha256(repr((compute.__name__, window, sorted(options.items()))).encode())
    for x in (x.detach().contiguous() for step in steps for x in step):
        digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.cpu().view(torch.uint8).numpy().data)
    key = digest.digest()
    if key not in KEPT:
        KEPT[key] = compute(steps, window, "reference", **options)
        if len(KEPT) > MOST_KEPT:
            KEPT.popitem(last=False)
    return KEPT[key]


def check(steps, window, way, **options):
    """Asserts outputs with no more than twice the error of plain PyTorch."""
    steps = way.images(steps)
    with torch.no_grad():
        exact = of_reference(recur, [[x.double() for x in step] for step in steps], window, **options)
        plain = of_reference(recur, [[x.to(way.plain) for x in step] for step in steps], window, **options)
        actual = recur(steps, window, way.backend, history=way.history, **options)
    assert all(x.dtype == way.dtype for x in actual)
    allowed = 2 * largest_difference([x.to(way.dtype) for x in plain], exact) + way.floor
    assert largest_difference(actual, exact) <= allowed


def check_gradients(steps, window, way, **options):
    """Asserts gradients with no more than twice the error of plain PyTorch, and some roundings of the largest."""
    steps = way.leaves(steps)
    doubles = [[x.detach().double().requires_grad_() for x in step] for step in steps]
    exact = of_reference(gradients, doubles, window, **options)
    plain = of_reference(gradients, steps, window, **options)
    actual = gradients(steps, window, way.backend, history=way.history, **options)
    assert all(x.dtype == way.dtype and x.shape == y.shape for x, y in zip(actual, exact, strict=True))
    largest = max(x.abs().max().item() for x in exact)
    allowed = 2 * largest_difference(plain, exact) + way.roundings * largest
    assert largest_difference(actual, exact) <= allowed
