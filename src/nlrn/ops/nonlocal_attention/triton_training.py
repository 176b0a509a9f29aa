"""A step of the triton backend under autograd.

It stands apart because `torch.compiler.disable` imports the compiler, which takes as long as PyTorch itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .state import AttentionState
from .triton_layout import Geometry, no_logits, stored_dtype
from .triton_operators import triton_attention, triton_attention_backward
from .triton_tape import Tape, TapedLogits

LARGEST_PRODUCT = 4096.0  # a sixteenth of float16's largest number


def gradient_scale(output_grad: Tensor, value: Tensor) -> Tensor:
    """A power of two that brings the gradient of half-precision logits into the range of float16; `[1]`.

    That of a logit is its weight times a difference of products `<dO, v>`. With the largest product at
    `LARGEST_PRODUCT` weights from 1 down to 1e-8 are numbers of full precision, and the steps before may have gradients
    some times larger than the last one's, from which the scale comes.
    """
    if value.dtype == torch.float32:
        return value.new_ones(1)
    largest = [x.float().square().sum(1).amax().sqrt() for x in (output_grad, value)]
    scale = torch.exp2(torch.floor(torch.log2(LARGEST_PRODUCT / (largest[0] * largest[1]))))
    # No gradient at all, or one that is too small for a float32 to say so: any scale will do.
    return torch.where(torch.isinf(scale), 1.0, scale).reshape(1)


class _Step(torch.autograd.Function):
    """One step under autograd; `tape` is `None` for a step that shares its logits with no other.

    The token is an output of one step and an input of the next. It holds nothing, but makes autograd run the backward
    passes in the order in which the tape can be wound back, and its gradient shows that the later one has run.
    """

    @staticmethod
    def forward(ctx, query, key, value, token, tape, radius, row_offset):  # type: ignore[no-untyped-def]
        logits, load = no_logits(query), False
        if tape is not None:
            tape.advance()
            logits, load, ctx.step = tape.logits, tape.position > 1, tape.position
        output, normaliser = triton_attention(
            query, key, value, logits, radius, row_offset, load, tape is not None, True, True
        )
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.tape, ctx.radius, ctx.row_offset = tape, radius, row_offset
        ctx.set_materialize_grads(False)
        return output.to(value.dtype), query.new_empty(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, output_grad, token_grad):  # type: ignore[no-untyped-def]
        tape = ctx.tape
        if tape is not None:
            tape.rewind(ctx.step, token_grad is not None)
        query, key, value, output, normaliser = ctx.saved_tensors
        if output_grad is None:
            output_grad = torch.zeros_like(output, dtype=value.dtype)
        if tape is None:
            geometry, stored = Geometry.with_radius(query, key, ctx.radius, aligned=True), stored_dtype(value)
            logits = torch.empty(geometry.state_shape(stored), dtype=stored, device=query.device)
            gradient, scale, later = torch.empty_like(logits), gradient_scale(output_grad, value), []
        else:
            logits, later = tape.logits, tape.later
            if tape.gradient is None:
                tape.gradient, tape.scale = torch.empty_like(logits), gradient_scale(output_grad, value)
            gradient, scale = tape.gradient, tape.scale
            assert scale is not None
        grads = triton_attention_backward(
            output_grad,
            query,
            key,
            value,
            output,
            normaliser,
            logits,
            gradient,
            scale,
            later,
            tape is None,
            ctx.radius,
            ctx.row_offset,
        )
        if tape is not None:
            finished = tape.position == 0
            tape.later = [] if finished else [query.detach(), key.detach(), normaliser]
            tape.gradient, tape.scale = (None, None) if finished else (gradient, scale)
        return *grads, query.new_empty(0), None, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def step_under_autograd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    geometry: Geometry,
    state: AttentionState | None,
    row_offset: int,
    keep_state: bool,
) -> tuple[Tensor, AttentionState | None]:
    taped = state if isinstance(state, TapedLogits) else None
    token, tape = (query.new_empty(0), None) if taped is None else (taped.token, taped.tape)
    if taped is None and keep_state:
        stored = stored_dtype(value)
        tape = Tape(torch.empty(geometry.state_shape(stored), dtype=stored, device=query.device))
    output, token = _Step.apply(query, key, value, token, tape, geometry.radius, row_offset)  # type: ignore[no-untyped-call]
    if not keep_state:
        return output, None
    assert tape is not None
    return output, TapedLogits(tape, token) if taped is None else taped.after_a_step(token)
