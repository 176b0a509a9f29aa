"""Rows on their way from stage to stage: the right ones, and seldom copied."""

from __future__ import annotations

import random

import pytest
import torch

from nlrn.inference.rows import Block, RowBuffer, room


def rows_of(a, b, batch=1):
    """Rows `a .. b-1` of an image whose pixels are the number of their row."""
    numbers = torch.arange(a, b, dtype=torch.float32)[None, None, :, None]
    return numbers.expand(batch, 3, -1, 5).contiguous(memory_format=torch.channels_last)


def test_a_block_is_finished_where_it_is_wanted():
    add = lambda rows, out: torch.add(rows, 1, out=out)  # noqa: E731
    rows, out = rows_of(0, 4), torch.zeros(1, 3, 6, 5)[:, :, 1:5]
    block = Block(rows.clone(), add)
    assert block.count == 4
    assert block.write(out) is out
    assert torch.equal(out, rows + 1)
    in_place = rows.clone()
    assert Block(in_place, add).write() is in_place
    assert torch.equal(in_place, rows + 1)
    unfinished = rows.clone()
    assert Block(unfinished).write() is unfinished
    assert torch.equal(Block(unfinished).write(out), rows)


def test_a_block_lets_go_of_its_rows():
    block = Block(rows_of(0, 4))
    block.write(torch.empty(1, 3, 4, 5))
    with pytest.raises(AssertionError):
        block.write()


def test_the_first_rows_are_not_copied():
    buffer, rows = RowBuffer(), rows_of(0, 8)
    buffer.append(Block(rows))
    assert buffer.get(0, 8).data_ptr() == rows.data_ptr()
    buffer.drop(8)
    later = rows_of(8, 16)
    buffer.append(Block(later))
    assert buffer.get(9, 16).data_ptr() == later[:, :, 1:].data_ptr()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kept", [0, 1, 2, 20, 21, 300])
def test_rows_appended_and_dropped(kept, batch):
    """Any number at a time."""
    buffer, chance = RowBuffer(), random.Random(kept)
    for _ in range(60):
        first, count = buffer.stop, chance.randint(1, 40)
        buffer.append(Block(rows_of(first, first + count, batch)))
        assert buffer.stop == first + count
        a = chance.randint(buffer.start, buffer.stop)
        assert torch.equal(buffer.get(a, buffer.stop), rows_of(a, buffer.stop, batch))
        assert torch.equal(buffer.get(buffer.start, a), rows_of(buffer.start, a, batch))
        buffer.drop(buffer.stop - chance.randint(0, kept))


@pytest.mark.parametrize("kept", [2, 20, 40, 170, 1000])
def test_rows_seldom_move(kept, monkeypatch):
    """Most of all where many are kept, of which a few are added at a time; and the memory is what `room` says."""
    buffer, band, moved = RowBuffer(), 16, 0
    real = RowBuffer._make_room

    def counted(self, count):
        nonlocal moved
        before = self._above
        real(self, count)
        moved += (self._above != before) * (self.stop - self.start)

    monkeypatch.setattr(RowBuffer, "_make_room", counted)
    bands = 40 + 4 * kept // band
    for _ in range(bands):
        buffer.append(Block(rows_of(buffer.stop, buffer.stop + band)))
        assert buffer._rows.shape[2] <= room(kept + band)
        buffer.drop(buffer.stop - kept)
    assert moved <= bands * min(kept, 5 * band)


def test_many_rows_do_not_move_by_a_few():
    """That would be as many copies of small pieces, and soon again; a larger piece of memory lasts longer."""
    buffer = RowBuffer()
    for count in (10, 10):
        buffer.append(Block(rows_of(buffer.stop, buffer.stop + count)))
    assert buffer._rows.shape[2] == 10 + room(10) == 22
    buffer.drop(1)
    buffer.append(Block(rows_of(20, 23)))
    assert buffer._rows.shape[2] == 3 + room(19)
    assert torch.equal(buffer.get(1, 23), rows_of(1, 23))
