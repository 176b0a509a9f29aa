"""Windows centred on pixels and cut off at the image border: masks, and walks over an image tile by tile.

An `Axis` cuts one axis of an image into tiles of queries, each with the span of keys that its windows cover. A `Tiling`
walks over two of them in bounded memory, a `Layout` gathers and scatters its tiles, and a `WindowBias` says which keys
a query sees. `window_mask` says the same for a whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


class DoesNotFit(ValueError):
    """No tiling has a workspace that fits the memory given."""


@dataclass(frozen=True)
class Axis:
    """Query tiles along one axis of an image, in the coordinates of the keys.

    Tile `i` holds the queries `offset + i * tile + (0 .. tile-1)` and sees the keys
    `first + i * stride + (0 .. span-1)`; some of both may lie outside the image, which `bias` sorts out.
    """

    queries: int
    keys: int
    offset: int
    radius: int | None
    tile: int

    @property
    def count(self) -> int:
        """Number of tiles."""
        return -(-self.queries // self.tile)

    @property
    def _windowed(self) -> bool:
        # When a tile would see (almost) the whole axis anyway, all tiles share the keys 0 .. keys-1.
        return self.radius is not None and self.tile + 2 * self.radius < self.keys

    @property
    def span(self) -> int:
        """Number of keys that one tile sees."""
        if not self._windowed:
            return self.keys
        assert self.radius is not None
        return self.tile + 2 * self.radius

    @property
    def stride(self) -> int:
        """Distance between the first keys of neighbouring tiles."""
        return self.tile if self._windowed else 0

    @property
    def first(self) -> int:
        """First key of the first tile; negative where the window reaches beyond the image."""
        if not self._windowed:
            return 0
        assert self.radius is not None
        return self.offset - self.radius

    def extent(self, tiles: int) -> int:
        """Number of consecutive keys that `tiles` neighbouring tiles see together."""
        return self.span + (tiles - 1) * self.stride

    def query_range(self, start: int, tiles: int) -> tuple[int, int]:
        """The queries of `tiles` tiles from tile `start` on, clipped to the image, relative to `offset`."""
        return start * self.tile, min(self.queries, (start + tiles) * self.tile)

    def key_range(self, start: int, tiles: int) -> tuple[int, int, int]:
        """`(a, b, shift)`: the existing keys `a .. b-1` seen by those tiles, `shift` places into their extent."""
        first = self.first + start * self.stride
        a = min(max(first, 0), self.keys)
        return a, max(a, min(first + self.extent(tiles), self.keys)), a - first

    def bias(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """`[count, tile, span]`: 0 where a query sees a key, -inf where not.

        Queries beyond the image (the last tile may be larger than what is left) see everything, so that no
        row of logits is all -inf; nobody reads them.
        """
        tiles = torch.arange(self.count, device=device)[:, None, None]
        # [count, tile, 1] and [count, 1, span]
        query = tiles * self.tile + torch.arange(self.tile, device=device)[:, None]
        key = self.first + tiles * self.stride + torch.arange(self.span, device=device)
        seen = (key >= 0) & (key < self.keys)
        if self.radius is not None:
            seen = seen & ((query + self.offset - key).abs() <= self.radius)
        seen = seen | (query >= self.queries)
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


@dataclass(frozen=True)
class Tiling:
    """A walk over an image: `outer` tiles one by one, `inner` tiles in segments and chunks.

    Keys are gathered once for a segment of inner tiles (laid out so that each tile's keys are one contiguous
    block) and logits are computed for a chunk of tiles at a time.
    """

    outer: Axis
    inner: Axis
    segment: int
    chunk: int

    @property
    def queries(self) -> int:
        """Queries in one tile."""
        return self.outer.tile * self.inner.tile

    @property
    def keys(self) -> int:
        """Keys that one tile sees."""
        return self.outer.span * self.inner.span

    def state_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of a stored logits state: `[B, outer, inner tiles, queries (2 axes), keys (2 axes)]`."""
        outer, inner = self.outer, self.inner
        return (batch, outer.count, inner.count, inner.tile, outer.tile, inner.span, outer.span)

    def state_elements(self, batch: int) -> int:
        """Size of a stored logits state."""
        return math.prod(self.state_shape(batch))

    def workspace_elements(self, logit_channels: int, value_channels: int, logit_buffers: int) -> int:
        """Size of everything a call allocates besides its result and its state."""
        channels = logit_channels + value_channels
        keys = self.inner.extent(self.segment) * self.outer.span * channels
        queries = self.segment * self.queries * channels
        biases = sum(axis.count * axis.tile * axis.span for axis in (self.outer, self.inner))
        return keys + queries + biases + logit_buffers * self.chunk * self.queries * self.keys

    def segments(self, batch: int) -> Iterator[tuple[int, int, int, int]]:
        """All `(image, outer tile, first inner tile, number of inner tiles)`."""
        for image in range(batch):
            for outer in range(self.outer.count):
                for start in range(0, self.inner.count, self.segment):
                    yield image, outer, start, min(self.segment, self.inner.count - start)

    def chunks(self, tiles: int) -> Iterator[tuple[int, int]]:
        """All `(first, last + 1)` within a segment of `tiles` tiles."""
        for a in range(0, tiles, self.chunk):
            yield a, min(a + self.chunk, tiles)


# (tile side, tiles per segment, tiles per chunk), fastest first. Eight by eight queries is the best trade
# between keys that a tile sees in vain (34% at window 45) and the efficiency of the matrix products; the
# rest are for small memory.
PLANS = ((8, 64, 8), (8, 8, 4), (8, 2, 1), (4, 8, 4), (4, 1, 1), (2, 1, 1), (1, 1, 1))


def plan_tiling(
    query_size: tuple[int, int],
    key_rows: int,
    row_offset: int,
    window_size: int | None,
    *,
    logit_channels: int,
    value_channels: int,
    logit_buffers: int,
    element_size: int,
    max_memory: int,
    tile: tuple[int, int] | None = None,
    state_batch: int = 0,
) -> Tiling:
    """The fastest tiling whose workspace fits `max_memory` bytes.

    Args:
        query_size: rows and width of the queries.
        key_rows: rows of the keys; the width is that of the queries.
        row_offset: row of the keys at which the queries begin.
        window_size: side of the window, `None` for the whole image.
        logit_channels: channels of all gathered queries together (and of their gradients).
        value_channels: channels of the values.
        logit_buffers: chunks of logits that the call holds.
        element_size: bytes of a number.
        max_memory: bytes for the workspace, and for a new state if there is one.
        tile: (outer, inner) tile sides where an existing state fixes them.
        state_batch: images whose logits are to be stored in a new state.

    Raises:
        DoesNotFit: with the smallest possible figure.
        ValueError: tiles that are none of these.
    """
    radius = None if window_size is None else window_size // 2
    rows, width = query_size
    needs = []
    for side, segment, chunk in PLANS:
        if state_batch and side < PLANS[0][0]:
            break  # slower than a history

        vertical = Axis(rows, key_rows, row_offset, radius, min(side, rows))
        horizontal = Axis(width, width, 0, radius, min(side, width))
        # The longer axis is walked in batches.
        outer, inner = (horizontal, vertical) if rows >= width else (vertical, horizontal)
        if tile is not None and (outer.tile, inner.tile) != tile:
            continue
        tiling = Tiling(outer, inner, min(segment, inner.count), min(chunk, inner.count))
        elements = tiling.workspace_elements(logit_channels, value_channels, logit_buffers)
        needs.append(element_size * (elements + tiling.state_elements(state_batch)))
        if needs[-1] <= max_memory:
            return tiling
    if not needs:
        raise ValueError(
            f"the attention state belongs to other shapes: no image of {rows}x{width} has tiles {tile}"
        )
    raise DoesNotFit(
        f"non-local attention needs at least {min(needs)} bytes of working memory here, max_memory is {max_memory}"
    )


@dataclass(frozen=True)
class Layout:
    """Gathers and scatters tiles of `[B, C, H, W]` images, seen along the axes of a tiling as `[B, outer, inner, C]`.

    `where` is an image, an outer tile, the first of a segment of inner tiles, and the number of inner tiles.
    """

    tiling: Tiling
    transposed: bool

    def view(self, image: Tensor) -> Tensor:
        """`[B, outer, inner, C]` of an image."""
        return image.permute(0, 3, 2, 1) if self.transposed else image.permute(0, 2, 3, 1)

    def gather_queries(self, out: Tensor, images: list[Tensor], where: tuple[int, int, int, int]) -> Tensor:
        """Fills `out` with `[tiles * inner tile, outer tile, channels of all images]`."""
        image, outer, start, tiles = where
        a0, a1 = self.tiling.outer.query_range(outer, 1)
        b0, b1 = self.tiling.inner.query_range(start, tiles)
        return self._gather(out[: tiles * self.tiling.inner.tile], images, image, (a0, a1, 0), (b0, b1, 0))

    def gather_keys(self, out: Tensor, images: list[Tensor], where: tuple[int, int, int, int]) -> Tensor:
        """Fills `out` with `[inner extent, outer span, channels of all images]`, zero outside the image."""
        image, outer, start, tiles = where
        outer_range = self.tiling.outer.key_range(outer, 1)
        inner_range = self.tiling.inner.key_range(start, tiles)
        return self._gather(out[: self.tiling.inner.extent(tiles)], images, image, outer_range, inner_range)

    def _gather(
        self,
        out: Tensor,
        images: list[Tensor],
        image: int,
        outer: tuple[int, int, int],
        inner: tuple[int, int, int],
    ) -> Tensor:
        (a0, a1, a_shift), (b0, b1, b_shift) = outer, inner
        if (b1 - b0, a1 - a0) != out.shape[:2]:
            out.zero_()
        channel = 0
        for view in images:
            channels = view.shape[-1]
            target = out[
                b_shift : b_shift + b1 - b0, a_shift : a_shift + a1 - a0, channel : channel + channels
            ]
            target.copy_(view[image, a0:a1, b0:b1].transpose(0, 1))
            channel += channels
        return out

    def scatter_queries(self, column: Tensor, view: Tensor, where: tuple[int, int, int, int]) -> None:
        """Writes `[tiles * inner tile, outer tile, C]` back to an image view."""
        image, outer, start, tiles = where
        a0, a1 = self.tiling.outer.query_range(outer, 1)
        b0, b1 = self.tiling.inner.query_range(start, tiles)
        view[image, a0:a1, b0:b1].copy_(column[: b1 - b0, : a1 - a0].transpose(0, 1))

    def add_keys(self, column: Tensor, view: Tensor, where: tuple[int, int, int, int]) -> None:
        """Adds `[inner extent, outer span, C]` to an image view, dropping what lies outside the image."""
        image, outer, start, tiles = where
        a0, a1, a_shift = self.tiling.outer.key_range(outer, 1)
        b0, b1, b_shift = self.tiling.inner.key_range(start, tiles)
        part = column[b_shift : b_shift + b1 - b0, a_shift : a_shift + a1 - a0]
        view[image, a0:a1, b0:b1].add_(part.transpose(0, 1))

    def tile_keys(self, column: Tensor, a: int, b: int) -> Tensor:
        """The keys of the tiles `a .. b-1` of a gathered segment: an overlapping view `[tiles, keys, C]`."""
        span, channels = self.tiling.outer.span, column.shape[-1]
        row = span * channels
        stride = self.tiling.inner.stride * row
        size = (b - a, self.tiling.keys, channels)
        return column.as_strided(size, (stride, channels, 1), column.storage_offset() + a * stride)


@dataclass(frozen=True)
class WindowBias:
    """The window as logits: 0 inside, -inf outside, kept per axis.

    A bias of -inf survives every addition, so logits that start with it need no mask afterwards.
    """

    outer: Tensor
    inner: Tensor

    @classmethod
    def of(cls, tiling: Tiling, dtype: torch.dtype, device: torch.device) -> WindowBias:
        """The bias of both axes of a tiling."""

        def along(axis: Axis) -> Tensor:
            return axis.bias(dtype, device)

        return cls(along(tiling.outer), along(tiling.inner))

    def write(self, logits: Tensor, outer: int, start: int) -> None:
        """Fills `[tiles, queries, keys]` for the inner tiles from `start` on."""
        tiles = logits.shape[0]
        inner = self.inner[start : start + tiles]
        tile_i, span_i = inner.shape[1:]
        tile_o, span_o = self.outer.shape[1:]
        # [tiles, inner tile, outer tile, inner span, outer span]
        full = logits.view(tiles, tile_i, tile_o, span_i, span_o)
        torch.add(inner[:, :, None, :, None], self.outer[outer][:, None, :], out=full)


def window_mask(
    query_rows: int, key_rows: int, width: int, window_size: int | None, row_offset: int, device: torch.device
) -> Tensor:
    """The keys that each query sees: bool `[query_rows * width, key_rows * width]`."""
    if window_size is None:
        return torch.ones(query_rows * width, key_rows * width, dtype=torch.bool, device=device)
    radius = window_size // 2
    query_y = torch.arange(query_rows, device=device) + row_offset
    near_y = (query_y[:, None] - torch.arange(key_rows, device=device)).abs() <= radius
    x = torch.arange(width, device=device)
    near_x = (x[:, None] - x).abs() <= radius
    # [query y, query x, key y, key x]
    near = near_y[:, None, :, None] & near_x[None, :, None, :]
    return near.reshape(query_rows * width, key_rows * width)
