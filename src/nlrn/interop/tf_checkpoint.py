"""Reading TensorFlow V2 checkpoints without TensorFlow.

A checkpoint is `PREFIX.index`, a sorted table in LevelDB's format whose values are protocol buffers that say
where each tensor lies, and raw data in `PREFIX.data-00000-of-0000N`. All checksums are verified.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}
CRC_LANES = 512


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not a TensorFlow V2 checkpoint."""


@dataclass(frozen=True)
class _Entry:
    """The place of a tensor in the data files."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """All variables of a checkpoint by name.

    Args:
        path: the prefix, one of the checkpoint's files, or a folder that holds a single checkpoint.

    Raises:
        CheckpointError: not a V2 checkpoint, or a damaged or incomplete one.
    """
    prefix = _prefix(Path(path))
    index_file = prefix.with_name(prefix.name + ".index")
    try:
        entries, shards = _read_index(index_file.read_bytes(), index_file)
        data = []
        for shard in range(shards):
            file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
            data.append((file, file.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from error
    return {name: _tensor(name, entry, data) for name, entry in entries.items()}


def _prefix(path: Path) -> Path:
    if path.is_dir():
        indexes = sorted(path.glob("*.index"))
        if len(indexes) != 1:
            names = ", ".join(p.stem for p in indexes) or "none"
            raise CheckpointError(f"expected a single checkpoint (*.index) in {path}, found {names}")
        return indexes[0].with_suffix("")
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    prefix = path.with_name(name)
    if not prefix.with_name(name + ".index").is_file():
        if path.is_file():
            raise CheckpointError(
                f"{path} is not part of a TensorFlow V2 checkpoint ({name}.index is not there)"
            )
        raise CheckpointError(f"there is no checkpoint {prefix} ({name}.index is not there)")
    return prefix


def _read_index(data: bytes, file: Path) -> tuple[dict[str, _Entry], int]:
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise CheckpointError(f"{file} is not the index of a TensorFlow V2 checkpoint, or it is truncated")
    try:
        position = len(data) - FOOTER
        for _ in range(2):  # the handle of the meta index comes before that of the index
            offset, position = _varint(data, position)
            size, position = _varint(data, position)
        shards, entries = 0, {}
        for _, handle in _block(data, offset, size):
            block_offset, used = _varint(handle, 0)
            block_size, _ = _varint(handle, used)
            for key, value in _block(data, block_offset, block_size):
                if key == b"":
                    shards = _header(value)
                else:
                    entries[key.decode()] = _entry(value, key.decode())
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise CheckpointError(f"{file} is damaged ({error})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if not 1 <= shards <= 1000:
        raise CheckpointError(f"{file} is damaged (it claims {shards} data files)")
    return entries, shards


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table block, whose keys leave out what they share with the one before."""
    end = offset + size
    if end + TRAILER > len(data):
        raise CheckpointError("damaged: a block lies beyond the end of the file")
    (checksum,) = struct.unpack("<I", data[end + 1 : end + TRAILER])
    if _masked(crc32c(data[offset : end + 1])) != checksum:
        raise CheckpointError("damaged: the checksum of a block does not match")
    if data[end] != 0:
        raise CheckpointError("compressed index blocks are not supported")
    (restarts,) = struct.unpack("<I", data[end - 4 : end])
    end -= 4 * (restarts + 1)
    key, position = b"", offset
    while position < end:
        shared, position = _varint(data, position)
        own, position = _varint(data, position)
        length, position = _varint(data, position)
        key = key[:shared] + data[position : position + own]
        position += own
        yield key, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise CheckpointError("damaged: a number is too long")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _varint(message, position)
        elif kind == 2:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, position = int.from_bytes(message[position : position + size], "little"), position + size
        else:
            raise CheckpointError(f"damaged: unknown field type {kind}")
        yield tag >> 3, value


def _header(message: bytes) -> int:
    fields = dict(_fields(message))
    if fields.get(2, 0) != 0:
        raise CheckpointError("big-endian checkpoints are not supported")
    return int(fields.get(1, 0))


def _entry(message: bytes, name: str) -> _Entry:
    numbers, shape = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}, []
    for field, value in _fields(message):
        if field == 2 and isinstance(value, bytes):
            for part, dimension in _fields(value):
                if part == 2 and isinstance(dimension, bytes):
                    shape.append(int(dict(_fields(dimension)).get(1, 0)))
        elif field == 7:
            raise CheckpointError(f"variable {name} is partitioned, which is not supported")
        elif isinstance(value, int):
            numbers[field] = value
    return _Entry(numbers[1], tuple(shape), numbers[3], numbers[4], numbers[5], numbers[6])


def _tensor(name: str, entry: _Entry, data: list[tuple[Path, bytes]]) -> np.ndarray:
    if entry.dtype not in DTYPES:
        raise CheckpointError(
            f"variable {name} has a type that is not supported (TensorFlow's number {entry.dtype})"
        )
    dtype = np.dtype(DTYPES[entry.dtype])
    if math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise CheckpointError(f"variable {name}: {entry.size} bytes do not fit shape {entry.shape}")
    if entry.shard >= len(data):
        raise CheckpointError(f"variable {name} lies in data file {entry.shard} of {len(data)}")
    file, content = data[entry.shard]
    raw = content[entry.offset : entry.offset + entry.size]
    if len(raw) != entry.size:
        raise CheckpointError(f"{file} is truncated: variable {name} lies beyond its end")
    if _masked(crc32c(raw)) != entry.crc:
        raise CheckpointError(f"{file} is damaged: the checksum of variable {name} does not match")
    return np.frombuffer(raw, dtype).reshape(entry.shape)


def _masked(crc: int) -> int:
    """Checksums are stored rotated and offset, so that they may be checksummed themselves."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli): long data in many lanes at once, whose remainders are then combined."""
    length = len(data) // CRC_LANES
    table = _crc_table()
    crc = 0xFFFFFFFF
    if length >= 16:
        lanes = np.frombuffer(data, np.uint8, CRC_LANES * length).reshape(CRC_LANES, length).T
        state = np.zeros(CRC_LANES, np.uint32)
        # The effect of `length` zero bytes on each bit of a remainder: shifting a lane past the next one.
        shift = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for column in np.ascontiguousarray(lanes):
            state = table[(state ^ column) & 0xFF] ^ (state >> 8)
            shift = table[shift & 0xFF] ^ (shift >> 8)
        bits = [int(x) for x in shift]
        for remainder in state:
            shifted = 0
            for bit in range(32):
                if crc >> bit & 1:
                    shifted ^= bits[bit]
            crc = shifted ^ int(remainder)
        data = data[CRC_LANES * length :]
    values = table.tolist()
    for byte in data:
        crc = values[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
