"""The Triton kernel of `epilogue.py`."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("count",))
def finish(features, bias, added, scale, out, count, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """`out = relu(features + bias + scale * added)` for `count` pixels, channels last; `added` may be `None`."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, CHANNELS)
    at = pixel[:, None] * channels + channel[None, :]
    exists = (pixel < count)[:, None] & (channel < channels)[None, :]
    x = tl.load(features + at, mask=exists).to(tl.float32)
    x += tl.load(bias + channel, mask=channel < channels)[None, :]
    if added is not None:
        factor = tl.load(scale + channel, mask=channel < channels).to(tl.float32)
        x += factor[None, :] * tl.load(added + at, mask=exists).to(tl.float32)
    x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=exists)
