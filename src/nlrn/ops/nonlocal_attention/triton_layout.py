"""The layout that the Triton kernels and their operators share: tiles, blocks of keys, stored logits.

Nothing here needs Triton.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Side of a tile of queries.
TILE = 8
# Neighbouring keys whose logits are stored in one piece.
CHUNK = 16
# Chunks of a tile of keys, which lie one below the other.
CHUNKS_DOWN = 4
# Keys that are computed at a time, and in float16 share a reference (see the kernel), by the bytes of a channel.
KEY_BLOCK = {2: 64, 4: 32}


@dataclass(frozen=True)
class Geometry:
    """The numbers of tiles, and of the keys that their windows cover.

    The spans of an `aligned` geometry begin and end at multiples of `CHUNK` columns.
    """

    batch: int
    rows: int
    height: int
    width: int
    radius: int
    aligned: bool = False

    @classmethod
    def of(cls, query: Tensor, key: Tensor, window_size: int | None, *, aligned: bool = False) -> Geometry:
        # No larger than it takes to see the whole image.
        largest = max(key.shape[2:])
        radius = largest if window_size is None else min(window_size // 2, largest)
        return cls.with_radius(query, key, radius, aligned=aligned)

    @classmethod
    def with_radius(cls, query: Tensor, key: Tensor, radius: int, *, aligned: bool = False) -> Geometry:
        return cls(query.shape[0], query.shape[2], key.shape[2], key.shape[3], radius, aligned)

    @property
    def query_tiles(self) -> int:
        return self.batch * tiles(self.rows) * tiles(self.width)

    @property
    def key_tiles(self) -> int:
        return self.batch * -(-self.height // CHUNKS_DOWN) * -(-self.width // CHUNK)

    def state_shape(self, dtype: torch.dtype) -> tuple[int, int, int]:
        """`[tiles, blocks, logits]`; float16 logits have their float32 references behind them (see the kernel)."""
        reach = TILE + 2 * self.radius
        across = min(reach, self.width)
        if self.aligned:
            # Tiles begin at multiples of eight, so that there are two ways for a span to lie among the chunks.
            firsts = ((TILE * tile - self.radius) % CHUNK for tile in range(CHUNK // TILE))
            across = min(max(_up(first + reach, CHUNK) for first in firsts), _up(self.width, CHUNK))
        block = KEY_BLOCK[dtype.itemsize]
        blocks = -(-min(reach, self.height) * across // block)
        references = 2 * TILE * TILE if dtype == torch.float16 else 0
        return self.query_tiles, blocks, TILE * TILE * block + references


def tiles(length: int) -> int:
    """The number of tiles along an axis."""
    return -(-length // TILE)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def stored_dtype(image: Tensor) -> torch.dtype:
    """The dtype of the logits that are kept from step to step."""
    return torch.float32 if image.dtype == torch.float32 else torch.float16


def no_logits(image: Tensor) -> Tensor:
    """The logits of a call that reads and writes none."""
    return image.new_empty(0, dtype=torch.float32)
