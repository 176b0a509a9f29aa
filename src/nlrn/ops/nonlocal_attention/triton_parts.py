"""The parts of the Triton kernels: tiles, the keys that they see, pixels in memory, the order of stored logits.

**Keys.** Those of a tile of queries are a rectangle of the image, its span, and are counted row by row: key n of a
span that is `span_width` wide lies in row `n // span_width` of it. Division costs a GPU some twenty instructions, for
every key and every thread that holds one; here it is a product with the reciprocal. Spans whose logits a tape keeps
begin and end at columns that are multiples of `CHUNK`: then the keys of a chunk lie side by side in the image, for
every tile, and the kernel for the keys' gradients finds them in one piece.

**Logits.** A block of keys is stored in one piece for all queries of a tile, chunk by chunk, `CHUNK` keys at a time.
Half-precision images are computed on tensor cores, and the order within their chunks is that in which the threads of
four warps hold a product of matrices: then logits go between registers and memory without changing hands, 16 bytes at
a time. (Any other arrangement is correct too, only slower.)
"""

import triton
import triton.language as tl

from .triton_layout import CHUNK, CHUNKS_DOWN, TILE

QUERIES = tl.constexpr(TILE * TILE)
CHUNK_KEYS = tl.constexpr(CHUNK)
DOWN = tl.constexpr(CHUNKS_DOWN)
SIDE = tl.constexpr(TILE)
# Tiles across of a strip.
STRIP = tl.constexpr(32)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_of(program, rows, width):
    """Image, row and column of the tile of queries that a program serves, and its number in stored logits.

    Programs go down strips of columns: those that run at the same time share most of their keys, which then stay in the
    second-level cache.
    """
    down, across = tl.cdiv(rows, SIDE), tl.cdiv(width, SIDE)
    batch, rest = program // (down * across), program % (down * across)
    first = rest // (STRIP * down) * STRIP
    breadth, rest = tl.minimum(across - first, STRIP), rest - first * down
    tile_y, tile_x = rest // breadth, first + rest % breadth
    return batch, tile_y, tile_x, (batch * down + tile_y).to(tl.int64) * across + tile_x


@triton.jit
def pixels_of_tile(batch, tile_y, tile_x, rows, width):
    """Row, column and number of the pixels of a tile of queries, and which of them exist."""
    number = tl.arange(0, QUERIES)
    y, x = tile_y * SIDE + number // SIDE, tile_x * SIDE + number % SIDE
    return y, x, (batch * rows + y).to(tl.int64) * width + x, (y < rows) & (x < width)


@triton.jit
def span(tile, queries, keys, offset, radius):
    """Along one axis: the first key that the windows of a tile cover, and how many they cover."""
    first = tl.maximum(tile * SIDE + offset - radius, 0)
    last = tl.minimum(tl.minimum(tile * SIDE + SIDE, queries) - 1 + offset + radius, keys - 1)
    return first, last - first + 1


@triton.jit
def span_across(tile_x, width, radius, ALIGNED: tl.constexpr):
    """The columns of a span: the first one, and how many; `ALIGNED` ones may end beyond the image."""
    left, span_width = span(tile_x, width, width, 0, radius)
    if ALIGNED:
        end = tl.cdiv(left + span_width, CHUNK_KEYS) * CHUNK_KEYS
        left = left // CHUNK_KEYS * CHUNK_KEYS
        span_width = end - left
    return left, span_width


@triton.jit
def reciprocal_of(span_width):
    """The reciprocal that `rows_below` multiplies by."""
    return (4294967295 // span_width.to(tl.uint32)).to(tl.uint32)


@triton.jit
def rows_below(along, reciprocal):
    """`along // span_width`, exact while `(along + 1) * span_width` is no more than 2**32."""
    return tl.umulhi((along + 1).to(tl.uint32), reciprocal).to(tl.int32)


@triton.jit
def next_block(row, column, span_width, reciprocal, BLOCK: tl.constexpr):
    """Row and column in the span of the first key of a block, from those of the block before."""
    column += BLOCK
    down = rows_below(column, reciprocal)
    return row + down, column - down * span_width


@triton.jit
def keys_of_block(
    row, column, number, keys, left, width, span_width, reciprocal, ALIGNED: tl.constexpr, BLOCK: tl.constexpr
):
    """Rows in the span and columns in the image of a block's keys, their pixels counted from the row of the first one,
    and which of them exist; the first one is `number` of all `keys`, in `row` and `column` of the span."""
    n = tl.arange(0, BLOCK)
    down = rows_below(column + n, reciprocal)
    x = left + column + n - down * span_width
    exists = number + n < keys
    if ALIGNED:
        exists &= x < width
    return row + down, x, down * width + x, exists


@triton.jit
def seen_keys(y, x, key_y, key_x, key_exists, radius):
    """`[queries, keys]`: which keys lie in the windows."""
    near_y = tl.abs(y[:, None] - key_y[None, :]) <= radius
    near_x = tl.abs(x[:, None] - key_x[None, :]) <= radius
    return near_y & near_x & key_exists[None, :]


@triton.jit
def load_pixels(image, stride, pixel, exists, channels, start, BLOCK: tl.constexpr):
    """`[pixels, BLOCK]`: channels from `start` on, zero where there is nothing; pixels are `stride` numbers apart."""
    channel = start + tl.arange(0, BLOCK)
    at = image + (pixel[:, None] * stride + channel[None, :])
    return tl.load(at, mask=exists[:, None] & (channel < channels)[None, :], other=0.0)


@triton.jit
def store_pixels(image, pixel, exists, channels, start, block, BLOCK: tl.constexpr):
    channel = start + tl.arange(0, BLOCK)
    at = image + (pixel[:, None] * channels + channel[None, :])
    mask = exists[:, None] & (channel < channels)[None, :]
    tl.store(at, block.to(image.dtype.element_ty), mask=mask)


@triton.jit
def products(
    first,
    sums,
    left,
    left_stride,
    left_pixel,
    left_exists,
    right,
    right_stride,
    right_pixel,
    right_exists,
    channels,
    ONE_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`[left, right]`: products of pixels, summed over the channels, plus `sums`; `first` is the left's first block."""
    if ONE_BLOCK:
        block = load_pixels(right, right_stride, right_pixel, right_exists, channels, 0, BLOCK)
        sums = tl.dot(first, tl.trans(block), sums, input_precision="ieee")
    else:
        for start in range(0, channels, BLOCK):
            a = load_pixels(left, left_stride, left_pixel, left_exists, channels, start, BLOCK)
            b = load_pixels(right, right_stride, right_pixel, right_exists, channels, start, BLOCK)
            sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee")
    return sums


@triton.jit
def chunks_in_tile(batch, tile_y, tile_x, first_y, first_x, sizes, CHUNKS: tl.constexpr):
    """The places of a tile of keys' chunks in the logits of a query tile, and a mask of those that lie there."""
    rows, height, width, radius, row_offset, stored_blocks, block_length = sizes
    CHUNK_LOGITS: tl.constexpr = QUERIES * CHUNK_KEYS
    top, span_height = span(tile_y, rows, height, row_offset, radius)
    left, span_width = span_across(tile_x, width, radius, True)
    stored = tl.arange(0, DOWN * CHUNK_LOGITS)
    row = first_y - top + stored // CHUNK_LOGITS
    chunk = row * (span_width // CHUNK_KEYS) + (first_x - left) // CHUNK_KEYS
    at = chunk // CHUNKS * block_length + chunk % CHUNKS * CHUNK_LOGITS + stored % CHUNK_LOGITS
    tile = (batch * tl.cdiv(rows, SIDE) + tile_y).to(tl.int64) * tl.cdiv(width, SIDE) + tile_x
    return tile * stored_blocks * block_length + at, (row >= 0) & (row < span_height)


@triton.jit
def exp_of_difference(s, shift, HALF: tl.constexpr):
    """`exp(s - shift)` for rows and their shifts; in half precision by one fused multiplication and addition."""
    if HALF:
        return tl.exp2(s * LOG2E - (shift * LOG2E)[:, None])
    return tl.exp(s - shift[:, None])


@triton.jit
def in_rows(stored, HALF: tl.constexpr, CHUNKS: tl.constexpr):
    """`[queries, keys]` of logits as they are stored, `[1024 * CHUNKS]`."""
    if HALF:
        # chunk, warp, row of eight, column of four, pair of columns, half of the warp's rows, column of the pair
        parts = tl.reshape(stored, [CHUNKS, 4, 8, 4, 2, 2, 2])
        rows = tl.permute(parts, [1, 5, 2, 0, 4, 3, 6])
    else:
        rows = tl.permute(tl.reshape(stored, [CHUNKS, QUERIES, CHUNK_KEYS]), [1, 0, 2])
    return tl.reshape(rows, [QUERIES, CHUNKS * CHUNK_KEYS])


@triton.jit
def as_stored(rows, HALF: tl.constexpr, CHUNKS: tl.constexpr):
    """The inverse of `in_rows`."""
    if HALF:
        parts = tl.permute(tl.reshape(rows, [4, 2, 8, CHUNKS, 2, 4, 2]), [3, 0, 2, 5, 4, 1, 6])
    else:
        parts = tl.permute(tl.reshape(rows, [QUERIES, CHUNKS, CHUNK_KEYS]), [1, 0, 2])
    return tl.reshape(parts, [QUERIES * CHUNKS * CHUNK_KEYS])


@triton.jit
def store_logits(logits, references, at, s, largest, HALF: tl.constexpr, CHUNKS: tl.constexpr):
    """A block of logits; in half precision relative to the `largest` that each query sees in it.

    See `nonlocal_forward`. What lies 65,520 below that becomes -inf.
    """
    if HALF:
        reference = tl.where(largest == float("-inf"), 0.0, largest)
        s -= reference[:, None]
        # Each twice, one for every thread of four warps: 64 numbers would go through shared memory in between products
        # of matrices, which ptxas then runs one after the other (seen in the machine code for an H100).
        twice = tl.reshape(tl.broadcast_to(reference[:, None], [QUERIES, 2]), [2 * QUERIES])
        tl.store(references + tl.arange(0, 2 * QUERIES) // 2, twice)
    tl.store(logits + at, as_stored(s.to(logits.dtype.element_ty), HALF, CHUNKS))
