"""The Triton kernels of the non-local operation, forward and backward.

All images are dense and channels-last: `[B, H, W, C]` in memory; in `nonlocal_forward` pixels may be farther apart than
they have channels, so that query, key and value can be parts of one image. A program of `nonlocal_forward` and
`nonlocal_backward_query` serves a tile of 8x8 queries and goes through their keys in blocks. A program of
`nonlocal_backward_key` serves four chunks of keys, one below the other, and finds them in the logits of every query
tile whose windows may cover them. `triton_parts.py` says how keys are counted and logits are stored.

Softmax and all sums are float32, whatever the images are; where these are in half precision, so is what is kept of
logits and their gradient from step to step. Stored logits of keys that a query does not see are -inf: what the first
step has masked stays masked. Nothing is added up by more than one program, so the same input gives the same bits.

Beside memory and tensor cores these kernels wait for the issue of instructions: `benchmarks/instructions.py` counts
those of a block of keys, for a GPU that need not be there.
"""

import functools

import torch
import triton
import triton.language as tl

from .triton_layout import CHUNK, KEY_BLOCK
from .triton_parts import (
    CHUNK_KEYS,
    DOWN,
    QUERIES,
    SIDE,
    as_stored,
    chunks_in_tile,
    exp_of_difference,
    in_rows,
    keys_of_block,
    load_pixels,
    next_block,
    pixels_of_tile,
    products,
    reciprocal_of,
    seen_keys,
    span,
    span_across,
    store_logits,
    store_pixels,
    tile_of,
)

INTERPRETED = bool(triton.knobs.runtime.interpret)

# For two-byte and for four-byte images; channel blocks are no larger than the channels. Not measured yet: the largest
# blocks with which ptxas finds registers enough on an H100. Without tensor cores (float32, IEEE) those are smaller.
BLOCKS = {
    "nonlocal_forward": {
        2: {"BLOCK_CHANNELS": 64, "BLOCK_VALUES": 128, "num_warps": 4, "num_stages": 2},
        4: {"BLOCK_CHANNELS": 32, "BLOCK_VALUES": 128, "num_warps": 8, "num_stages": 1},
    },
    "nonlocal_backward_query": {
        2: {"BLOCK_CHANNELS": 64, "BLOCK_VALUES": 128, "num_warps": 4, "num_stages": 2},
        4: {"BLOCK_CHANNELS": 64, "BLOCK_VALUES": 32, "num_warps": 8, "num_stages": 1},
    },
    "nonlocal_backward_key": {
        2: {"BLOCK_CHANNELS": 64, "BLOCK_VALUES": 128, "num_warps": 4, "num_stages": 2},
        4: {"BLOCK_CHANNELS": 32, "BLOCK_VALUES": 64, "num_warps": 8, "num_stages": 1},
    },
}
# Bytes that two stages may take; a GPU that gives a program less shared memory gets one.
TWO_STAGES = 160 << 10


@functools.cache
def shared_memory(device: int) -> int:
    """Bytes that a program may take on a GPU."""
    return triton.runtime.driver.active.utils.get_device_properties(device)["max_shared_mem"]


def blocks(
    kernel: str, image: torch.Tensor, channels: int, value_channels: int, shared_memory: int
) -> dict[str, int]:
    """The compile-time numbers of a kernel, for images like `image` and that much shared memory."""
    chosen = dict(BLOCKS[kernel][image.element_size()])
    for name, number in (("BLOCK_CHANNELS", channels), ("BLOCK_VALUES", value_channels)):
        # A product of matrices takes sides of 16 and more.
        chosen[name] = max(16, min(chosen[name], triton.next_power_of_2(number)))
    if shared_memory < TWO_STAGES:
        chosen["num_stages"] = 1
    return chosen | {"CHUNKS": KEY_BLOCK[image.element_size()] // CHUNK}


# Sizes that change from image to image and from band to band: compiling anew where one happens to be a multiple of 16
# gains nothing.
SIZES = ("rows", "height", "width", "radius", "row_offset", "stored_blocks")


@triton.jit
def probe(number):
    """Nothing: shows that kernels can be compiled and launched here."""
    pass


@triton.jit(do_not_specialize=SIZES)
def nonlocal_forward(
    query,
    key,
    value,
    logits,
    references,
    output,
    normaliser,
    rows,
    height,
    width,
    radius,
    row_offset,
    channels,
    value_channels,
    first_value,
    query_stride,
    key_stride,
    value_stride,
    stored_blocks,
    block_length,
    LOAD: tl.constexpr,
    STORE: tl.constexpr,
    HALF: tl.constexpr,
    ALIGNED: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Value channels from `first_value` on of the output, the softmax's normaliser, the summed logits.

    The normaliser is two numbers for each query: a reference, and the log of the sum of exponentials relative to it.
    The backward pass stores logits relative to that: the largest one in half precision, else zero.
    `LOAD` adds the stored logits to those of this step, `STORE` writes the sums back.

    `HALF` is for half-precision images, whose logits are float16, each relative to the largest one that its query sees
    in its block of keys; these references are float32 and lie behind the logits of the block. Float16 is precise near
    zero only, and this is where it puts the logits that matter. A reference for all keys would have to be known
    before they have been seen: the maximum of the step before drifts away from zero, its own costs a second pass. The
    maximum of a block is known when the block is written, and no logit is farther from it than from that of all.
    """
    BLOCK_KEYS: tl.constexpr = CHUNKS * CHUNK_KEYS
    BLOCK_LOGITS: tl.constexpr = QUERIES * BLOCK_KEYS
    batch, tile_y, tile_x, tile = tile_of(tl.program_id(0), rows, width)
    y, x, pixel, exists = pixels_of_tile(batch, tile_y, tile_x, rows, width)
    top, span_height = span(tile_y, rows, height, row_offset, radius)
    left, span_width = span_across(tile_x, width, radius, ALIGNED)
    keys, reciprocal = span_height * span_width, reciprocal_of(span_width)
    stored, reference_at = tl.arange(0, BLOCK_LOGITS), tl.arange(0, QUERIES)
    at = tile * stored_blocks * block_length
    logits += at
    references += at // 2 + BLOCK_LOGITS // 2

    own = load_pixels(query, query_stride, pixel, exists, channels, 0, BLOCK_CHANNELS)
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, BLOCK_VALUES], tl.float32)
    row, column = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32)
    # Logits come from memory, a block ahead of their use.
    if LOAD:
        ahead = tl.load(logits + stored)
        if HALF:
            reference_ahead = tl.load(references + reference_at)
    for number in range(0, keys, BLOCK_KEYS):
        key_row, key_x, key_pixel, key_exists = keys_of_block(
            row, column, number, keys, left, width, span_width, reciprocal, ALIGNED, BLOCK_KEYS
        )
        above = (batch * height + top + row).to(tl.int64) * width
        if LOAD:
            s = in_rows(ahead, HALF, CHUNKS).to(tl.float32)
            # The last block is loaded twice, which costs less than a mask.
            more = tl.where(keys > number + BLOCK_KEYS, block_length, 0)
            ahead = tl.load(logits + more + stored)
            if HALF:
                s += reference_ahead[:, None]
                reference_ahead = tl.load(references + more // 2 + reference_at)
        else:
            s = tl.zeros([QUERIES, BLOCK_KEYS], tl.float32)
        s = products(
            own,
            s,
            query,
            query_stride,
            pixel,
            exists,
            key + above * key_stride,
            key_stride,
            key_pixel,
            key_exists,
            channels,
            ONE_BLOCK,
            BLOCK_CHANNELS,
        )
        if not LOAD:
            seen = seen_keys(y + row_offset, x, top + key_row, key_x, key_exists, radius) & exists[:, None]
            s = tl.where(seen, s, float("-inf"))
        largest_here = tl.max(s, 1)
        if STORE:
            store_logits(logits, references, stored, s, largest_here, HALF, CHUNKS)

        new_largest = tl.maximum(largest, largest_here)
        # A query that has seen no key yet has no maximum to subtract.
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        p = exp_of_difference(s, shift, HALF)
        decay = tl.exp(largest - shift)
        v = load_pixels(
            value + above * value_stride,
            value_stride,
            key_pixel,
            key_exists,
            value_channels,
            first_value,
            BLOCK_VALUES,
        )
        # Summed as rounded, so that they add up to one.
        weights = p.to(v.dtype)
        total = total * decay + tl.sum(weights.to(tl.float32), 1)
        sums = tl.dot(weights, v, sums * decay[:, None], input_precision="ieee")
        largest = new_largest
        row, column = next_block(row, column, span_width, reciprocal, BLOCK_KEYS)
        logits += block_length
        references += block_length // 2

    total, largest = tl.where(exists, total, 1.0), tl.where(exists, largest, 0.0)
    store_pixels(output, pixel, exists, value_channels, first_value, sums / total[:, None], BLOCK_VALUES)
    reference = largest if HALF else tl.zeros([QUERIES], tl.float32)
    tl.store(normaliser + 2 * pixel, reference, mask=exists)
    tl.store(normaliser + 2 * pixel + 1, largest - reference + tl.log(total), mask=exists)


@triton.jit(do_not_specialize=SIZES)
def nonlocal_backward_query(
    key,
    value,
    output_grad,
    shared,
    normaliser,
    other_query,
    other_key,
    other_normaliser,
    logits,
    references,
    logits_grad,
    scale,
    query_grad,
    rows,
    height,
    width,
    radius,
    row_offset,
    channels,
    value_channels,
    first_channel,
    stored_blocks,
    block_length,
    UPDATE: tl.constexpr,
    LOGITS: tl.constexpr,
    ADD: tl.constexpr,
    HALF: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    ONE_VALUE_BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Brings logits and their gradient to this step, and writes channels from `first_channel` on of the query's
    gradient.

    `LOGITS` says where the logits come from: `"forward"`, as `nonlocal_forward` stored them; `"rewound"`, those of the
    later step less its products, which are of `other_query` and `other_key`; `"computed"`, the products of these two
    alone. They are stored relative to the normaliser's reference, which serves all blocks. With `ADD` the gradient
    holds that of the later steps on entry. Without `UPDATE` both are there already. The stored gradient is `scale` (a
    power of two) times the gradient, which in float16 would often be too small a number.
    """
    BLOCK_KEYS: tl.constexpr = CHUNKS * CHUNK_KEYS
    BLOCK_LOGITS: tl.constexpr = QUERIES * BLOCK_KEYS
    batch, tile_y, tile_x, tile = tile_of(tl.program_id(0), rows, width)
    y, x, pixel, exists = pixels_of_tile(batch, tile_y, tile_x, rows, width)
    top, span_height = span(tile_y, rows, height, row_offset, radius)
    left, span_width = span_across(tile_x, width, radius, True)
    keys, reciprocal = span_height * span_width, reciprocal_of(span_width)
    stored = tl.arange(0, BLOCK_LOGITS)
    at = tile * stored_blocks * block_length
    logits += at
    logits_grad += at
    references += at // 2 + BLOCK_LOGITS // 2

    scaled = tl.load(scale)
    if UPDATE:
        if LOGITS != "forward":
            other = load_pixels(other_query, channels, pixel, exists, channels, 0, BLOCK_CHANNELS)
        output_grad_block = load_pixels(
            output_grad, value_channels, pixel, exists, value_channels, 0, BLOCK_VALUES
        )
        shift = -tl.load(normaliser + 2 * pixel, mask=exists, other=0.0)
        if LOGITS == "rewound":
            shift += tl.load(other_normaliser + 2 * pixel, mask=exists, other=0.0)
        log_total = tl.load(normaliser + 2 * pixel + 1, mask=exists, other=0.0)
        shared_part = tl.load(shared + pixel, mask=exists, other=0.0)
    sums = tl.zeros([QUERIES, BLOCK_CHANNELS], tl.float32)
    row, column = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32)
    for number in range(0, keys, BLOCK_KEYS):
        key_row, key_x, key_pixel, key_exists = keys_of_block(
            row, column, number, keys, left, width, span_width, reciprocal, True, BLOCK_KEYS
        )
        above = (batch * height + top + row).to(tl.int64) * width
        if UPDATE:
            # [queries, keys]
            s = tl.zeros([QUERIES, BLOCK_KEYS], tl.float32) + shift[:, None]
            if LOGITS == "forward":
                s += in_rows(tl.load(logits + stored), HALF, CHUNKS).to(tl.float32)
                if HALF:
                    s += tl.load(references + tl.arange(0, QUERIES))[:, None]
            else:
                of_others = products(
                    other,
                    tl.zeros([QUERIES, BLOCK_KEYS], tl.float32),
                    other_query,
                    channels,
                    pixel,
                    exists,
                    other_key + above * channels,
                    channels,
                    key_pixel,
                    key_exists,
                    channels,
                    ONE_BLOCK,
                    BLOCK_CHANNELS,
                )
            if LOGITS == "rewound":
                s += in_rows(tl.load(logits + stored), HALF, CHUNKS).to(tl.float32) - of_others
            if LOGITS == "computed":
                seen = seen_keys(y + row_offset, x, top + key_row, key_x, key_exists, radius)
                s = tl.where(seen & exists[:, None], s + of_others, float("-inf"))
            tl.store(logits + stored, as_stored(s.to(logits.dtype.element_ty), HALF, CHUNKS))
            p_grad = products(
                output_grad_block,
                tl.zeros([QUERIES, BLOCK_KEYS], tl.float32),
                output_grad,
                value_channels,
                pixel,
                exists,
                value + above * value_channels,
                value_channels,
                key_pixel,
                key_exists,
                value_channels,
                ONE_VALUE_BLOCK,
                BLOCK_VALUES,
            )
            s_grad = exp_of_difference(s, log_total, HALF) * (p_grad - shared_part[:, None]) * scaled
            if ADD:
                s_grad += in_rows(tl.load(logits_grad + stored), HALF, CHUNKS).to(tl.float32)
            if HALF:
                s_grad = tl.minimum(tl.maximum(s_grad, -65504.0), 65504.0)
            as_kept = s_grad.to(logits_grad.dtype.element_ty)
            tl.store(logits_grad + stored, as_stored(as_kept, HALF, CHUNKS))
        else:
            s_grad = in_rows(tl.load(logits_grad + stored), HALF, CHUNKS).to(tl.float32)
        k = load_pixels(
            key + above * channels, channels, key_pixel, key_exists, channels, first_channel, BLOCK_CHANNELS
        )
        sums = tl.dot(s_grad.to(k.dtype), k, sums, input_precision="ieee")
        row, column = next_block(row, column, span_width, reciprocal, BLOCK_KEYS)
        logits += block_length
        logits_grad += block_length
        references += block_length // 2
    store_pixels(query_grad, pixel, exists, channels, first_channel, sums / scaled, BLOCK_CHANNELS)


@triton.jit(do_not_specialize=SIZES)
def nonlocal_backward_key(
    query,
    output_grad,
    normaliser,
    logits,
    logits_grad,
    scale,
    key_grad,
    value_grad,
    rows,
    height,
    width,
    radius,
    row_offset,
    channels,
    value_channels,
    first_channel,
    first_value,
    stored_blocks,
    block_length,
    HALF: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Channels from `first_channel` on of the key's gradient, from `first_value` on of the value's.

    Needs logits and their gradient as `nonlocal_backward_query` left them.
    """
    groups, across = tl.cdiv(height, DOWN), tl.cdiv(width, CHUNK_KEYS)
    program = tl.program_id(0)
    batch, first_y = program // (groups * across), program // across % groups * DOWN
    first_x = program % across * CHUNK_KEYS
    number = tl.arange(0, DOWN * CHUNK_KEYS)
    key_y, key_x = first_y + number // CHUNK_KEYS, first_x + number % CHUNK_KEYS
    key_pixel = (batch * height + key_y).to(tl.int64) * width + key_x
    key_exists = (key_y < height) & (key_x < width)
    # Which query tiles may see these keys: rows and columns from low to high.
    low_y = tl.maximum(first_y - radius - row_offset, 0)
    high_y = tl.minimum(tl.minimum(first_y + DOWN, height) - 1 + radius - row_offset, rows - 1)
    low_x = tl.maximum(first_x - radius, 0) // SIDE
    high_x = tl.minimum(tl.minimum(first_x + CHUNK_KEYS, width) - 1 + radius, width - 1) // SIDE
    # The keys of a band may reach beyond the windows of its queries.
    count = tl.where(high_y < low_y, 0, tl.maximum(high_y, 0) // SIDE - low_y // SIDE + 1) * (
        high_x - low_x + 1
    )

    # Transposed, so that what is computed here is the right factor: a left one in registers would be laid out anew
    # between products, which ptxas then runs one after the other. [channels, keys]
    key_sums = tl.zeros([BLOCK_CHANNELS, DOWN * CHUNK_KEYS], tl.float32)
    value_sums = tl.zeros([BLOCK_VALUES, DOWN * CHUNK_KEYS], tl.float32)
    # Logits and their gradient come from memory, a tile ahead of their use.
    tile_y, tile_x = low_y // SIDE, low_x
    sizes = (rows, height, width, radius, row_offset, stored_blocks, block_length)
    at, there = chunks_in_tile(batch, tile_y, tile_x, first_y, first_x, sizes, CHUNKS)
    s_ahead = tl.load(logits + at, mask=there & (count > 0), other=float("-inf"))
    gradient_ahead = tl.load(logits_grad + at, mask=there & (count > 0), other=0.0)
    for i in range(0, count):
        _, _, pixel, exists = pixels_of_tile(batch, tile_y, tile_x, rows, width)
        s, s_grad = s_ahead, gradient_ahead
        last_of_row = tile_x == high_x
        tile_x = tl.where(last_of_row, low_x, tile_x + 1)
        tile_y += last_of_row.to(tl.int32)
        at, there = chunks_in_tile(batch, tile_y, tile_x, first_y, first_x, sizes, CHUNKS)
        s_ahead = tl.load(logits + at, mask=there & (i + 1 < count), other=float("-inf"))
        gradient_ahead = tl.load(logits_grad + at, mask=there & (i + 1 < count), other=0.0)

        # [queries, keys]
        log_total = tl.load(normaliser + 2 * pixel + 1, mask=exists, other=0.0)
        p = exp_of_difference(in_rows(s, HALF, DOWN).to(tl.float32), log_total, HALF)
        gradient = load_pixels(
            output_grad, value_channels, pixel, exists, value_channels, first_value, BLOCK_VALUES
        )
        value_sums = tl.dot(tl.trans(gradient), p.to(gradient.dtype), value_sums, input_precision="ieee")
        q = load_pixels(query, channels, pixel, exists, channels, first_channel, BLOCK_CHANNELS)
        s_grad = in_rows(s_grad, HALF, DOWN).to(q.dtype)
        key_sums = tl.dot(tl.trans(q), s_grad, key_sums, input_precision="ieee")
    store_pixels(
        key_grad,
        key_pixel,
        key_exists,
        channels,
        first_channel,
        tl.trans(key_sums) / tl.load(scale),
        BLOCK_CHANNELS,
    )
    store_pixels(
        value_grad, key_pixel, key_exists, value_channels, first_value, tl.trans(value_sums), BLOCK_VALUES
    )
