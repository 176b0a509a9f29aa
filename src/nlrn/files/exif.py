"""EXIF blocks and TIFF directories: tags with their exact bytes, whatever they mean.

An EXIF block is a small TIFF file without pixels. Values are carried as bytes, so that nothing is lost in turning them
into numbers and text and back (types, text in UTF-8, maker notes).

Source: TIFF 6.0, section 2; EXIF 2.32 (CIPA DC-008), section 4.6.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field, replace

EXIF_POINTER, GPS_POINTER, INTEROPERABILITY_POINTER = 34665, 34853, 40965
PIXEL_X_DIMENSION, PIXEL_Y_DIMENSION = 40962, 40963
DESCRIPTION, MAKE, MODEL, ORIENTATION = 270, 271, 272, 274
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
SOFTWARE, DATE_TIME, ARTIST, HOST_COMPUTER, RATING, COPYRIGHT = 305, 306, 315, 316, 18246, 33432
# Title, comment, author, keywords, subject, as Windows writes them.
WINDOWS_TEXTS = (40091, 40092, 40093, 40094, 40095)
# GeoTIFF: where each pixel lies on a map.
GEOGRAPHIC = (33550, 33922, 34264, 34735, 34736, 34737)
GDAL_METADATA, GDAL_NO_DATA = 42112, 42113
# Statements of a camera or an editor about a picture, as against how a file lays it out.
DESCRIPTIVE = frozenset(
    (
        *(DESCRIPTION, MAKE, MODEL, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT),
        *(SOFTWARE, DATE_TIME, ARTIST, HOST_COMPUTER, RATING, COPYRIGHT),
        *(*WINDOWS_TEXTS, *GEOGRAPHIC, GDAL_METADATA, GDAL_NO_DATA),
    )
)
# Bytes of a value by type; rationals are two numbers, which matters for the byte order.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBERS = _SIZES | {5: 4, 10: 4}
_LONG, LONG8 = 4, 16


@dataclass(frozen=True)
class Tag:
    """A value: its TIFF type, and its bytes in little-endian order."""

    kind: int
    data: bytes

    @property
    def count(self) -> int:
        """The number of values of the type."""
        return len(self.data) // _SIZES[self.kind]


Tags = dict[int, Tag]
# The content of a file, read or mapped into memory.
Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class Directories:
    """The directories of an EXIF block: the picture, how it was taken, and where."""

    main: Tags = field(default_factory=dict)
    camera: Tags = field(default_factory=dict)
    gps: Tags = field(default_factory=dict)

    @property
    def orientation(self) -> int:
        """1 to 8, as EXIF counts them; 1 (upright) where it is missing or nonsense."""
        tag = self.main.get(ORIENTATION)
        value = int.from_bytes(tag.data[:2], "little") if tag is not None and tag.kind == 3 else 1
        return value if 1 <= value <= 8 else 1


def parse(block: Buffer, start: int | None = None) -> Directories:
    """The directories of an EXIF block or of a TIFF or BigTIFF file; what is damaged is left out.

    Args:
        block: its content.
        start: offset of the main directory; by default of the first one.
    """
    layout = _layout(block)
    if layout is None:
        return Directories()
    order, big, first = layout
    main = _read(block, order, big, first if start is None else start)
    below = {
        pointer: _read(block, order, big, int.from_bytes(main[pointer].data, "little"))
        for pointer in (EXIF_POINTER, GPS_POINTER)
        if pointer in main
    }
    camera = below.get(EXIF_POINTER, {})
    camera.pop(INTEROPERABILITY_POINTER, None)  # it would point to nowhere in another file
    return Directories(
        {code: tag for code, tag in main.items() if code in DESCRIPTIVE}, camera, below.get(GPS_POINTER, {})
    )


def main_tags(block: Buffer) -> Tags:
    """All tags of the main directory, whatever they mean, as far as `block` has them; none for what is no TIFF file."""
    layout = _layout(block)
    return {} if layout is None else _read(block, *layout)


def _layout(block: Buffer) -> tuple[str, bool, int] | None:
    """The byte order, whether it is a BigTIFF file, and the offset of the main directory."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 16:
        return None
    big = struct.unpack_from(f"{order}H", block, 2)[0] == 43
    place, kind = (8, "Q") if big else (4, "I")
    return order, big, struct.unpack_from(f"{order}{kind}", block, place)[0]


def _read(data: Buffer, order: str, big: bool, start: int) -> Tags:
    counter, entry, inline = (f"{order}Q", f"{order}HHQ", 8) if big else (f"{order}H", f"{order}HHI", 4)
    first = start + struct.calcsize(counter)
    if first > len(data):
        return {}
    (entries,) = struct.unpack_from(counter, data, start)
    step = struct.calcsize(entry) + inline
    tags: Tags = {}
    for position in range(first, min(first + entries * step, len(data) - step + 1), step):
        code, kind, count = struct.unpack_from(entry, data, position)
        place = position + struct.calcsize(entry)
        if big and kind in (16, 18) and count == 1:  # BigTIFF's 64-bit offsets
            tags[code] = Tag(_LONG, struct.pack("<Q", *struct.unpack_from(f"{order}Q", data, place)))
            continue
        if kind not in _SIZES or kind == LONG8 or not count:
            continue
        size = count * _SIZES[kind]
        if size > inline:
            (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place)
        if place + size > len(data):
            continue
        value, unit = data[place : place + size], _NUMBERS[kind]
        if order == ">" and unit > 1:
            value = b"".join(value[i : i + unit][::-1] for i in range(0, size, unit))
        tags[code] = Tag(kind, value)
    return tags


def build(directories: Directories) -> bytes | None:
    """An EXIF block, or `None` if there is nothing to say."""
    if not (directories.main or directories.camera or directories.gps):
        return None
    return b"II*\0\x08\0\0\0" + pack(directories, 8)[0]


def upright(block: bytes | None) -> bytes | None:
    """The block of a picture that has been turned as its orientation asked: without it."""
    found = parse(block or b"")
    return build(replace(found, main={code: tag for code, tag in found.main.items() if code != ORIENTATION}))


def resized(block: bytes | None, width: int, height: int) -> bytes | None:
    """The block of a picture that has now this size; what placed its pixels on a map is left out."""
    found = parse(block or b"")
    sizes = {PIXEL_X_DIMENSION: width, PIXEL_Y_DIMENSION: height}
    camera = {
        code: Tag(_LONG, struct.pack("<I", sizes[code])) if code in sizes else tag
        for code, tag in found.camera.items()
    }
    main = {code: tag for code, tag in found.main.items() if code not in GEOGRAPHIC}
    return build(replace(found, main=main, camera=camera))


def resolution(directories: Directories) -> tuple[float, float] | None:
    """Pixels an inch, across and down."""
    unit = directories.main.get(RESOLUTION_UNIT)
    inches = {2: 1.0, 3: 2.54}.get(2 if unit is None else int.from_bytes(unit.data[:2], "little"))
    found = []
    for code in (X_RESOLUTION, Y_RESOLUTION):
        tag = directories.main.get(code)
        if inches is None or tag is None or tag.kind != 5:
            return None
        numerator, denominator = struct.unpack_from("<II", tag.data)
        if not (numerator and denominator):
            return None
        found.append(inches * numerator / denominator)
    return found[0], found[1]


def with_resolution(directories: Directories, pixels_an_inch: tuple[float, float]) -> Directories:
    """The directories with a resolution, if they have none."""
    if X_RESOLUTION in directories.main:
        return directories
    across, down = (Tag(5, struct.pack("<II", round(1000 * number), 1000)) for number in pixels_an_inch)
    tags = {X_RESOLUTION: across, Y_RESOLUTION: down, RESOLUTION_UNIT: Tag(3, struct.pack("<H", 2))}
    return replace(directories, main=directories.main | tags)


def pack(directories: Directories, start: int, big: bool = False) -> tuple[bytes, int]:
    """The main directory at offset `start` of a TIFF or BigTIFF file, and the others behind it.

    Returns:
        The bytes, and the offset in the file of the main directory's pointer to the next page, which is 0.
    """
    pointer = (LONG8, 8) if big else (_LONG, 4)
    below = {EXIF_POINTER: directories.camera, GPS_POINTER: directories.gps}
    below = {code: tags for code, tags in below.items() if tags}
    main = directories.main | dict.fromkeys(below, Tag(pointer[0], bytes(pointer[1])))
    end = start + len(_pack_directory(main, start, big))
    parts = b""
    for code, tags in below.items():
        main[code] = Tag(pointer[0], (end + len(parts)).to_bytes(pointer[1], "little"))
        parts += _pack_directory(tags, end + len(parts), big)
    link = start + (8 + 20 * len(main) if big else 2 + 12 * len(main))
    return _pack_directory(main, start, big) + parts, link


def _pack_directory(tags: Tags, start: int, big: bool) -> bytes:
    counter, entry, offset, inline = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    entries, values = struct.pack(counter, len(tags)), b""
    end = start + len(entries) + (struct.calcsize(entry) + inline) * len(tags) + inline
    for code, tag in sorted(tags.items()):
        value = tag.data.ljust(inline, b"\0")
        if len(tag.data) > inline:
            value = struct.pack(offset, end + len(values))
            values += tag.data + b"\0" * (len(tag.data) % 2)
        entries += struct.pack(entry, code, tag.kind, tag.count) + value
    return entries + bytes(inline) + values


def page_offsets(data: Buffer, limit: int) -> tuple[list[int], int]:
    """Offsets of the directories of a TIFF or BigTIFF file, one a page, at most `limit`.

    Returns:
        The offsets; and that which the last one names: 0, as it should, or one before it, or one beyond the file.
    """
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    counter, entry, pointer = (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
    found = dict[int, None]()
    place = 8 if big else 4
    while len(found) < limit and place + struct.calcsize(pointer) <= len(data):
        (start,) = struct.unpack_from(pointer, data, place)
        if not start or start in found or start + struct.calcsize(counter) > len(data):
            return list(found), start
        found[start] = None
        place = start + struct.calcsize(counter) + entry * struct.unpack_from(counter, data, start)[0]
    return list(found), 0
