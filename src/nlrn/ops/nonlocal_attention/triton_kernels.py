"""The Triton kernels of the non-local operation, forward and backward.

All images are dense and channels-last: `[B, H, W, C]` in memory. A program of `nonlocal_forward` and
`nonlocal_backward_query` serves a tile of 8x8 queries; its keys are the rectangle of the image that the windows of the
tile cover, cut off at the border and counted row by row: key n of a span that is `span_width` wide lies in row
`n // span_width` of it. Stored logits are in that order too: `[B * tiles, queries of a tile, keys]`. A program of
`nonlocal_backward_key` serves a tile of keys and finds its columns in the logits of every query tile whose windows may
cover it.

Softmax and all sums are float32, whatever the images are; where these are in half precision, so is what is kept of
logits and their gradient from step to step. Nothing is added up by more than one program, so the same input gives the
same bits.
"""

import functools

import torch
import triton
import triton.language as tl

from .triton_operators import KEYS_PER_REFERENCE

INTERPRETED = bool(triton.knobs.runtime.interpret)

# For two-byte and for four-byte images; channel blocks are no larger than the channels. Not measured yet: the largest
# blocks with which ptxas finds registers enough on an H100. Without tensor cores (float32, IEEE) those are smaller.
BLOCKS = {
    "nonlocal_forward": {
        2: {
            "BLOCK_KEYS": KEYS_PER_REFERENCE,
            "BLOCK_CHANNELS": 64,
            "BLOCK_VALUES": 128,
            "num_warps": 4,
            "num_stages": 2,
        },
        4: {"BLOCK_KEYS": 32, "BLOCK_CHANNELS": 32, "BLOCK_VALUES": 128, "num_warps": 8, "num_stages": 1},
    },
    "nonlocal_backward_query": {
        2: {
            "BLOCK_KEYS": KEYS_PER_REFERENCE,
            "BLOCK_CHANNELS": 64,
            "BLOCK_VALUES": 128,
            "num_warps": 8,
            "num_stages": 2,
        },
        4: {"BLOCK_KEYS": 32, "BLOCK_CHANNELS": 64, "BLOCK_VALUES": 32, "num_warps": 8, "num_stages": 1},
    },
    "nonlocal_backward_key": {
        2: {
            "BLOCK_KEYS": KEYS_PER_REFERENCE,
            "BLOCK_CHANNELS": 64,
            "BLOCK_VALUES": 128,
            "num_warps": 8,
            "num_stages": 2,
        },
        4: {"BLOCK_KEYS": 32, "BLOCK_CHANNELS": 32, "BLOCK_VALUES": 64, "num_warps": 8, "num_stages": 1},
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
    return chosen


# Sizes that change from image to image and from band to band: compiling anew where one happens to be a multiple of 16
# gains nothing.
SIZES = ("rows", "height", "width", "radius", "row_offset")


@triton.jit
def probe(number):
    """Nothing: shows that kernels can be compiled and launched here."""
    pass


@triton.jit
def _tile(program, rows, width, TILE: tl.constexpr):
    """Image, row and column of the tile that a program serves."""
    down, across = tl.cdiv(rows, TILE), tl.cdiv(width, TILE)
    return program // (down * across), program // across % down, program % across


@triton.jit
def _pixels_of_tile(batch, tile_y, tile_x, rows, width, TILE: tl.constexpr):
    """Row, column and number of the pixels of a tile, and which of them exist."""
    number = tl.arange(0, TILE * TILE)
    y, x = tile_y * TILE + number // TILE, tile_x * TILE + number % TILE
    return y, x, (batch * rows + y).to(tl.int64) * width + x, (y < rows) & (x < width)


@triton.jit
def _span(tile, queries, keys, offset, radius, TILE: tl.constexpr):
    """Along one axis: the first key that the windows of a tile cover, and how many they cover."""
    first = tl.maximum(tile * TILE + offset - radius, 0)
    last = tl.minimum(tl.minimum(tile * TILE + TILE, queries) - 1 + offset + radius, keys - 1)
    return first, last - first + 1


@triton.jit
def _load(image, pixel, exists, channels, start, BLOCK: tl.constexpr):
    """`[pixels, BLOCK]`: channels from `start` on, zero where there is nothing."""
    channel = start + tl.arange(0, BLOCK)
    at = image + pixel[:, None] * channels + channel[None, :]
    return tl.load(at, mask=exists[:, None] & (channel < channels)[None, :], other=0.0)


@triton.jit
def _store(image, pixel, exists, channels, start, block, BLOCK: tl.constexpr):
    channel = start + tl.arange(0, BLOCK)
    at = image + pixel[:, None] * channels + channel[None, :]
    mask = exists[:, None] & (channel < channels)[None, :]
    tl.store(at, block.to(image.dtype.element_ty), mask=mask)


@triton.jit
def _products(
    first,
    left,
    left_pixel,
    left_exists,
    right,
    right_pixel,
    right_exists,
    channels,
    ONE_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`[left, right]`: products of pixels, summed over the channels; `first` is the left's first block."""
    if ONE_BLOCK:
        block = _load(right, right_pixel, right_exists, channels, 0, BLOCK)
        products = tl.dot(first, tl.trans(block), input_precision="ieee")
    else:
        products = tl.zeros([left_pixel.shape[0], right_pixel.shape[0]], tl.float32)
        for start in range(0, channels, BLOCK):
            a = _load(left, left_pixel, left_exists, channels, start, BLOCK)
            b = _load(right, right_pixel, right_exists, channels, start, BLOCK)
            products = tl.dot(a, tl.trans(b), products, input_precision="ieee")
    return products


@triton.jit
def _in_row(number, keys):
    """`[1, keys]`: which places of a row of stored logits are for keys, and its padding (to `ROW_MULTIPLE`).

    The padding lets whole vectors be loaded and stored; nobody uses what is there.
    """
    return (number // 16 * 16 < keys)[None, :]


@triton.jit
def _seen(y, x, key_y, key_x, radius):
    """`[queries, keys]`: which keys lie in the windows."""
    near_y = tl.abs(y[:, None] - key_y[None, :]) <= radius
    return near_y & (tl.abs(x[:, None] - key_x[None, :]) <= radius)


@triton.jit
def _store_relative(logits, references, at, reference_at, s, largest, seen, mask):
    """A block of logits as float16, relative to the `largest` that each query sees in it (see `nonlocal_forward`)."""
    reference = tl.where(largest == float("-inf"), 0.0, largest)
    relative = tl.where(seen, tl.maximum(s - reference[:, None], -65504.0), 0.0)
    tl.store(logits + at, relative.to(tl.float16), mask=mask)
    tl.store(references + reference_at, reference)


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
    stored_keys,
    row_length,
    LOAD: tl.constexpr,
    STORE: tl.constexpr,
    RELATIVE: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Value channels from `first_value` on of the output, the log of the softmax's normaliser, the summed logits.

    `LOAD` adds the stored logits to those of this step, `STORE` writes the sums back.

    `RELATIVE` logits are float16, each relative to the largest one that its query sees in its block of keys; that
    reference is float32 and lies behind the logits in the same row of memory. Float16 is precise near zero only, and
    this is where it puts the logits that matter. A reference for the whole row would have to be known before the row
    has been seen: the maximum of the step before drifts away from zero, its own costs a second pass. The maximum
    of a block is known when the block is written, and no logit is farther from it than from that of the row.
    """
    program = tl.program_id(0)
    batch, tile_y, tile_x = _tile(program, rows, width, TILE)
    y, x, pixel, exists = _pixels_of_tile(batch, tile_y, tile_x, rows, width, TILE)
    top, span_height = _span(tile_y, rows, height, row_offset, radius, TILE)
    left, span_width = _span(tile_x, width, width, 0, radius, TILE)
    keys = span_height * span_width
    row = program.to(tl.int64) * (TILE * TILE) + tl.arange(0, TILE * TILE)

    own = _load(query, pixel, exists, channels, 0, BLOCK_CHANNELS)
    largest = tl.full([TILE * TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE * TILE], tl.float32)
    sums = tl.zeros([TILE * TILE, BLOCK_VALUES], tl.float32)
    for start in range(0, keys, BLOCK_KEYS):
        number = start + tl.arange(0, BLOCK_KEYS)
        key_y, key_x = top + number // span_width, left + number % span_width
        key_pixel, key_exists = (batch * height + key_y).to(tl.int64) * width + key_x, number < keys
        # [queries, keys]
        seen = _seen(y + row_offset, x, key_y, key_x, radius) & key_exists[None, :]
        s = _products(
            own, query, pixel, exists, key, key_pixel, key_exists, channels, ONE_BLOCK, BLOCK_CHANNELS
        )
        at = row[:, None] * row_length + number[None, :]
        reference_at = row * (row_length // 2) + stored_keys // 2 + start // BLOCK_KEYS
        in_row = _in_row(number, keys)
        if LOAD:
            s += tl.load(logits + at, mask=in_row, other=0.0).to(tl.float32)
            if RELATIVE:
                s += tl.load(references + reference_at)[:, None]
        if STORE and not RELATIVE:
            tl.store(logits + at, s, mask=in_row)
        s = tl.where(seen, s, float("-inf"))
        largest_here = tl.max(s, 1)
        if STORE and RELATIVE:
            _store_relative(logits, references, at, reference_at, s, largest_here, seen, in_row)

        new_largest = tl.maximum(largest, largest_here)
        # A query that has seen no key yet has no maximum to subtract.
        shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        p = tl.exp(s - shift[:, None])
        decay = tl.exp(largest - shift)
        v = _load(value, key_pixel, key_exists, value_channels, first_value, BLOCK_VALUES)
        # Summed as rounded, so that they add up to one.
        weights = p.to(v.dtype)
        total = total * decay + tl.sum(weights.to(tl.float32), 1)
        sums = tl.dot(weights, v, sums * decay[:, None], input_precision="ieee")
        largest = new_largest

    total = tl.where(exists, total, 1.0)
    _store(output, pixel, exists, value_channels, first_value, sums / total[:, None], BLOCK_VALUES)
    tl.store(normaliser + pixel, largest + tl.log(total), mask=exists)


@triton.jit(do_not_specialize=SIZES)
def nonlocal_backward_query(
    key,
    value,
    output_grad,
    shared,
    normaliser,
    other_query,
    other_key,
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
    stored_keys,
    row_length,
    UPDATE: tl.constexpr,
    LOGITS: tl.constexpr,
    ADD: tl.constexpr,
    RELATIVE: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    ONE_VALUE_BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Brings logits and their gradient to this step, and writes channels from `first_channel` on of the query's
    gradient.

    `LOGITS` says where the logits come from: `"stored"`; `"rewound"`, stored ones less the products of the later step,
    which are `other_query` and `other_key`; `"computed"`, the products of these two alone. With `ADD` the gradient
    holds that of the later steps on entry. Without `UPDATE` both are there already. `RELATIVE` logits are as in
    `nonlocal_forward`. The stored gradient is `scale` times the gradient, which in float16 would often be too small a
    number.
    """
    program = tl.program_id(0)
    batch, tile_y, tile_x = _tile(program, rows, width, TILE)
    y, x, pixel, exists = _pixels_of_tile(batch, tile_y, tile_x, rows, width, TILE)
    top, span_height = _span(tile_y, rows, height, row_offset, radius, TILE)
    left, span_width = _span(tile_x, width, width, 0, radius, TILE)
    keys = span_height * span_width
    row = program.to(tl.int64) * (TILE * TILE) + tl.arange(0, TILE * TILE)

    if UPDATE:
        other = _load(other_query, pixel, exists, channels, 0, BLOCK_CHANNELS)
        output_grad_block = _load(output_grad, pixel, exists, value_channels, 0, BLOCK_VALUES)
        log_total = tl.load(normaliser + pixel, mask=exists, other=0.0)
        shared_part = tl.load(shared + pixel, mask=exists, other=0.0)
    sums = tl.zeros([TILE * TILE, BLOCK_CHANNELS], tl.float32)
    for start in range(0, keys, BLOCK_KEYS):
        number = start + tl.arange(0, BLOCK_KEYS)
        key_y, key_x = top + number // span_width, left + number % span_width
        key_pixel, key_exists = (batch * height + key_y).to(tl.int64) * width + key_x, number < keys
        at = row[:, None] * row_length + number[None, :]
        in_row = _in_row(number, keys)
        if UPDATE:
            reference_at = row * (row_length // 2) + stored_keys // 2 + start // BLOCK_KEYS
            seen = _seen(y + row_offset, x, key_y, key_x, radius) & exists[:, None] & key_exists[None, :]
            # [queries, keys]
            s = tl.zeros([TILE * TILE, BLOCK_KEYS], tl.float32)
            if LOGITS != "computed":
                s += tl.load(logits + at, mask=in_row, other=0.0).to(tl.float32)
                if RELATIVE:
                    s += tl.load(references + reference_at)[:, None]
            if LOGITS != "stored":
                products = _products(
                    other,
                    other_query,
                    pixel,
                    exists,
                    other_key,
                    key_pixel,
                    key_exists,
                    channels,
                    ONE_BLOCK,
                    BLOCK_CHANNELS,
                )
                s = s - products if LOGITS == "rewound" else products
                if RELATIVE:
                    largest = tl.max(tl.where(seen, s, float("-inf")), 1)
                    _store_relative(logits, references, at, reference_at, s, largest, seen, in_row)
                else:
                    tl.store(logits + at, s, mask=in_row)
            p = tl.exp(tl.where(seen, s - log_total[:, None], float("-inf")))
            p_grad = _products(
                output_grad_block,
                output_grad,
                pixel,
                exists,
                value,
                key_pixel,
                key_exists,
                value_channels,
                ONE_VALUE_BLOCK,
                BLOCK_VALUES,
            )
            s_grad = p * (p_grad - shared_part[:, None]) * tl.load(scale)
            if ADD:
                s_grad += tl.load(logits_grad + at, mask=in_row, other=0.0).to(tl.float32)
            if RELATIVE:
                s_grad = tl.minimum(tl.maximum(s_grad, -65504.0), 65504.0)
            tl.store(logits_grad + at, s_grad.to(logits_grad.dtype.element_ty), mask=in_row)
        else:
            s_grad = tl.load(logits_grad + at, mask=in_row, other=0.0).to(tl.float32)
        k = _load(key, key_pixel, key_exists, channels, first_channel, BLOCK_CHANNELS)
        sums = tl.dot(s_grad.to(k.dtype), k, sums, input_precision="ieee")
    _store(query_grad, pixel, exists, channels, first_channel, sums / tl.load(scale), BLOCK_CHANNELS)


@triton.jit(do_not_specialize=SIZES)
def nonlocal_backward_key(
    query,
    output_grad,
    normaliser,
    logits,
    references,
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
    stored_keys,
    row_length,
    RELATIVE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """Channels from `first_channel` on of the key's gradient, from `first_value` on of the value's.

    Needs logits and their gradient as `nonlocal_backward_query` left them.
    """
    batch, tile_y, tile_x = _tile(tl.program_id(0), height, width, TILE)
    key_y, key_x, key_pixel, key_exists = _pixels_of_tile(batch, tile_y, tile_x, height, width, TILE)
    # Which query tiles may see these keys: rows and columns from low to high.
    low_y = tl.maximum(tile_y * TILE - radius - row_offset, 0)
    high_y = tl.minimum(tl.minimum(tile_y * TILE + TILE, height) - 1 + radius - row_offset, rows - 1)
    low_x = tl.maximum(tile_x * TILE - radius, 0)
    high_x = tl.minimum(tl.minimum(tile_x * TILE + TILE, width) - 1 + radius, width - 1)
    # The keys of a band may reach beyond the windows of its queries.
    down = tl.where(high_y < low_y, 0, tl.maximum(high_y, 0) // TILE - low_y // TILE + 1)
    across = high_x // TILE - low_x // TILE + 1
    tiles_down, tiles_across = tl.cdiv(rows, TILE), tl.cdiv(width, TILE)

    key_sums = tl.zeros([TILE * TILE, BLOCK_CHANNELS], tl.float32)
    value_sums = tl.zeros([TILE * TILE, BLOCK_VALUES], tl.float32)
    for i in range(0, down * across):
        query_tile_y, query_tile_x = low_y // TILE + i // across, low_x // TILE + i % across
        y, x, pixel, exists = _pixels_of_tile(batch, query_tile_y, query_tile_x, rows, width, TILE)
        top, _ = _span(query_tile_y, rows, height, row_offset, radius, TILE)
        left, span_width = _span(query_tile_x, width, width, 0, radius, TILE)
        # [queries, keys]
        seen = _seen(y + row_offset, x, key_y, key_x, radius) & exists[:, None] & key_exists[None, :]
        tile = (batch * tiles_down + query_tile_y).to(tl.int64) * tiles_across + query_tile_x
        row = tile * (TILE * TILE) + tl.arange(0, TILE * TILE)
        number = (key_y - top) * span_width + key_x - left
        at = row[:, None] * row_length + number[None, :]

        log_total = tl.load(normaliser + pixel, mask=exists, other=0.0)
        s = tl.load(logits + at, mask=seen, other=float("-inf")).to(tl.float32)
        if RELATIVE:
            reference_at = (
                row[:, None] * (row_length // 2) + stored_keys // 2 + (number // BLOCK_KEYS)[None, :]
            )
            s += tl.load(references + reference_at, mask=seen, other=0.0)
        p = tl.exp(s - log_total[:, None])
        block = _load(output_grad, pixel, exists, value_channels, first_value, BLOCK_VALUES)
        value_sums = tl.dot(tl.trans(p.to(block.dtype)), block, value_sums, input_precision="ieee")
        s_grad = tl.load(logits_grad + at, mask=seen, other=0.0).to(tl.float32)
        q = _load(query, pixel, exists, channels, first_channel, BLOCK_CHANNELS)
        key_sums = tl.dot(tl.trans(s_grad.to(q.dtype)), q, key_sums, input_precision="ieee")
    _store(
        key_grad, key_pixel, key_exists, channels, first_channel, key_sums / tl.load(scale), BLOCK_CHANNELS
    )
    _store(value_grad, key_pixel, key_exists, value_channels, first_value, value_sums, BLOCK_VALUES)
