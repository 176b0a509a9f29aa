"""Rows of features on their way from stage to stage, each written once: where the next stage reads them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Finish = Callable[[Tensor, Tensor], Tensor]


class Block:
    """Rows that are computed but for a last elementwise operation.

    Whoever takes a block calls `write`, which does that operation, in place or to where the rows are to be. A copy of
    the rows would cost as much as the operation itself.

    Args:
        rows: `[B, C, rows, W]`; the block's own, and written over.
        finish: `finish(rows, out)` writes the finished rows to `out`, which may be `rows`, and returns `out`.
    """

    def __init__(self, rows: Tensor, finish: Finish | None = None) -> None:
        self.count = rows.shape[2]
        self._unfinished: tuple[Tensor, Finish | None] | None = (rows, finish)

    def row_of_zeros(self) -> Block:
        """A block of one row."""
        assert self._unfinished is not None
        return Block(torch.zeros_like(self._unfinished[0][:, :, :1]))

    def write(self, out: Tensor | None = None) -> Tensor:
        """The finished rows, in `out` or else in place; once, since the block forgets them."""
        assert self._unfinished is not None
        (rows, finish), self._unfinished = self._unfinished, None
        out = rows if out is None else out
        if finish is not None:
            return finish(rows, out)
        return out if out is rows else out.copy_(rows)


class RowBuffer:
    """Consecutive rows of an image `[B, C, rows, W]` in one piece, appended below and dropped above.

    Rows that are kept stay where they are until there is no room below them; they then move up, by at least a quarter
    of their number, or into a larger piece of memory that leaves as much room.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._above = 0  # the row of the image with which the memory begins
        self.start = self.stop = 0

    def append(self, block: Block) -> None:
        """Adds rows; the first ones are taken without a copy."""
        if self._rows is None:
            self._rows, self._above = block.write(), self.stop
        else:
            self._make_room(block.count)
            end = self.stop - self._above
            block.write(self._rows[:, :, end : end + block.count])
        self.stop += block.count

    def get(self, a: int, b: int) -> Tensor:
        """Rows `a .. b-1`, without a copy; valid until the next `append`."""
        assert self._rows is not None
        assert self.start <= a <= b <= self.stop
        return self._rows[:, :, a - self._above : b - self._above]

    def drop(self, before: int) -> None:
        """Forgets rows above row `before`."""
        self.start = max(self.start, min(before, self.stop))
        if self.start == self.stop:
            self._rows = None

    def _make_room(self, count: int) -> None:
        """Below the rows that are kept, for `count` more."""
        assert self._rows is not None
        batch, channels, capacity, width = self._rows.shape
        if self.stop - self._above + count <= capacity:
            return
        kept, free = self.stop - self.start, self.start - self._above
        old, into = self.get(self.start, self.stop), self._rows
        if kept + count > capacity or 4 * free < kept:
            shape = (batch, channels, count + room(kept), width)
            into = torch.empty(shape, dtype=old.dtype, device=old.device, memory_format=torch.channels_last)
            free = kept
        for y in range(0, kept, free):  # pieces that do not overlap with where they go
            into[:, :, y : min(kept, y + free)] = old[:, :, y : y + free]
        self._rows, self._above = into, self.start


def room(kept: int) -> int:
    """The rows of a buffer that keeps so many: a quarter more, below them."""
    return kept + kept // 4
