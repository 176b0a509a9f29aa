"""The non-local operation in standard ONNX operators, in memory that does not grow with the window's share of an image.

The queries are cut into tiles of 16x16 positions. A loop (`Scan`) goes down the bands of tiles; in a band, the windows
of each tile cover one square of keys, so that logits and averages are two batched matrix products, as in
`nlrn.ops.nonlocal_attention.chunked`. Correlation propagation goes by the identity

    S_t = S_{t-1} + query_t key_t^T = [query_1 .. query_t] [key_1 .. key_t]^T

with the history of queries and keys: logits of the whole image are never in memory.

A neighbour outside the image does not exist. Queries have one more channel of ones, and keys one that is zero inside
and `OUTSIDE` beyond, so that a logit of such a neighbour has a weight of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Body, Graph, Typed, Value

TILE = 16
# Finite, because a padded query may see nothing else, and the mean of equal logits is not NaN.
OUTSIDE = -1e30


def ints(*values: int) -> np.ndarray:
    """Sizes and indices."""
    return np.array(values, np.int64)


def concat(graph: Graph, *parts: Value, axis: int = 0) -> str:
    """One value of several."""
    return graph.op("Concat", *parts, axis=axis)


def size(graph: Graph, value: str, axis: int) -> str:
    """The length of an axis, `[1]`."""
    return graph.op("Gather", graph.op("Shape", value), ints(axis))


def whole(graph: Graph, length: str, part: int) -> str:
    """The number of parts that cover a length."""
    return graph.op("Div", graph.op("Add", length, ints(part - 1)), ints(part))


def crop(graph: Graph, image: str, height: str, width: str) -> str:
    """The upper left of an image."""
    return graph.op("Slice", image, ints(0, 0), concat(graph, height, width), ints(2, 3))


@dataclass(frozen=True)
class Tiles:
    """The tiles of an image `[B, C, H, W]`, and what every step of a recurrence shares.

    Args:
        graph: the graph of the network.
        window_size: odd side of the window in positions.
        height, width: of the image.
        across: tiles of a band.
        bands: the numbers of the bands, `[bands, 1]`.
        columns: the columns of the padded keys that the tiles of a band see, `[across, span]`.
        pad_queries, pad_keys: the padding that completes the tiles, and of their windows.
        mask: 0 within the window and -inf beyond, `[TILE^2, span^2]`.
        query, key: the channel that keeps neighbours outside the image away, padded.
    """

    graph: Graph
    window_size: int
    height: str
    width: str
    across: str
    bands: str
    columns: str
    pad_queries: str
    pad_keys: str
    mask: str
    query: str
    key: str

    @classmethod
    def of(cls, graph: Graph, image: str, window_size: int) -> Tiles:
        """The tiles of an image."""
        op, radius = graph.op, window_size // 2
        span = TILE + 2 * radius
        height, width = size(graph, image, 2), size(graph, image, 3)
        down, across = whole(graph, height, TILE), whole(graph, width, TILE)
        below, right = (
            op("Sub", op("Mul", count, ints(TILE)), length)
            for count, length in ((down, height), (across, width))
        )
        pad_queries = concat(graph, ints(0, 0, 0, 0, 0, 0), below, right)
        reach = ints(radius)
        pad_keys = concat(
            graph, ints(0, 0, radius, radius, 0, 0), op("Add", below, reach), op("Add", right, reach)
        )
        inside = op(
            "ConstantOfShape", concat(graph, size(graph, image, 0), ints(1), height, width)
        )  # of zeros
        near = np.abs(np.arange(span) - radius - np.arange(TILE)[:, None]) <= radius
        bias = np.where(near, 0, -np.inf).astype(np.float32)
        mask = op("Add", bias[:, None, :, None], bias[None, :, None, :])
        first = op("Mul", _count(graph, across), ints(TILE))
        return cls(
            graph,
            window_size,
            height,
            width,
            across,
            bands=op("Unsqueeze", _count(graph, down), ints(1)),
            columns=op("Add", op("Unsqueeze", first, ints(1)), np.arange(span)[None]),
            pad_queries=pad_queries,
            pad_keys=pad_keys,
            mask=op("Reshape", mask, ints(TILE**2, span**2)),
            query=op("Pad", op("Add", inside, np.ones(1, np.float32)), pad_queries),
            key=op("Pad", inside, pad_keys, np.float32(OUTSIDE)),
        )

    def pad_query(self, query: str) -> str:
        """A query whose tiles are complete."""
        return self.graph.op("Pad", query, self.pad_queries)

    def pad_key(self, key: str) -> str:
        """A key or a value with what the windows of all tiles cover."""
        return self.graph.op("Pad", key, self.pad_keys)

    def average(self, query: str, key: str, value: str, channels: int, values: int) -> str:
        """`softmax(query^T key) value` within the windows.

        Args:
            query, key: padded, with the channel that keeps neighbours outside away; `channels` in all.
            value: padded, of so many `values` a position.

        Returns:
            `[B, values, H, W]`.
        """
        graph, body = self.graph, self.graph.body()
        band, op, span = graph.name("band"), body.op, TILE + self.window_size - 1
        top = op("Mul", band, ints(TILE))

        def rows(image: str, count: int) -> str:
            return op("Slice", image, top, op("Add", top, ints(count)), ints(2))

        # [B, C, TILE, across * TILE] -> [B, across, TILE^2, C]
        tiles = op("Reshape", rows(query, TILE), ints(0, 0, 0, -1, TILE))
        queries = op("Reshape", op("Transpose", tiles, perm=[0, 3, 2, 4, 1]), ints(0, 0, TILE**2, channels))
        # [B, C, span, across, span] -> [B, across, C, span^2] and [B, across, span^2, values]
        squares = op("Gather", rows(key, span), self.columns, axis=3)
        keys = op("Reshape", op("Transpose", squares, perm=[0, 3, 1, 2, 4]), ints(0, 0, channels, span**2))
        squares = op("Gather", rows(value, span), self.columns, axis=3)
        seen = op("Reshape", op("Transpose", squares, perm=[0, 3, 2, 4, 1]), ints(0, 0, span**2, values))
        logits = op("Add", op("MatMul", queries, keys), self.mask)
        averages = op("MatMul", op("Softmax", logits, axis=-1), seen)
        # [B, across, TILE^2, values] -> [B, values, TILE, across * TILE]
        tiles = op("Reshape", averages, ints(0, 0, TILE, TILE, values))
        result = op("Reshape", op("Transpose", tiles, perm=[0, 4, 2, 1, 3]), ints(0, 0, 0, -1))
        loop = Body(body, [Typed(band, np.int64, [1])], [Typed(result, np.float32)])
        # [B, values, bands, TILE, across * TILE]
        stacked = graph.op("Scan", self.bands, body=loop, num_scan_inputs=1, scan_output_axes=[2])
        padded = concat(graph, ints(0, 0, -1), graph.op("Mul", self.across, ints(TILE)))
        return crop(graph, graph.op("Reshape", stacked, padded), self.height, self.width)


def _count(graph: Graph, length: str) -> str:
    """0, 1, .. up to a length `[1]`."""
    end = graph.op("Squeeze", length, ints(0))
    return graph.op("Range", np.int64(0), end, np.int64(1))
