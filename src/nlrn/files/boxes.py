"""Boxes of the ISO base media file format, in which HEIC, AVIF, JPEG 2000 and JPEG XL files come.

Source: ISO/IEC 14496-12, section 4.2; ISO/IEC 23008-12 (HEIF), section 9; ISO/IEC 15444-1, annex I.
"""

from __future__ import annotations

from collections.abc import Iterator

# The boxes from a HEIC or AVIF file down to the properties of its pictures, and the bytes before the first box in each.
_TO_PROPERTIES = ((b"meta", 4), (b"iprp", 0), (b"ipco", 0))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIC_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
# Code points of sRGB (ITU-T H.273): its primaries, and the transfer functions that programs take for its own.
SRGB_PRIMARIES, SRGB_TRANSFERS, UNSPECIFIED = 1, (1, 6, 13), 2


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of the content of each box; what does not fit ends the walk."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else start + size
        if stop < start + head or stop > end:
            return
        yield kind, start + head, stop
        start = stop


def box(kind: bytes, content: bytes) -> bytes:
    """A box of less than 4 GB."""
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def brands(head: bytes) -> frozenset[bytes]:
    """The brands that the first box of a file names: what the file is, and what else it may be read as."""
    for kind, start, end in boxes(head):
        if kind == b"ftyp":
            return frozenset(head[i : i + 4] for i in (start, *range(start + 8, end, 4)))
        break
    return frozenset()


def format_of(head: bytes) -> str | None:
    """`"AVIF"`, `"HEIC"`, `"RAW"` (Canon's CR3), or words for an error on another file whose first box names brands."""
    if head[4:8] != b"ftyp":
        return None
    found = brands(head)
    if found & AVIF_BRANDS:
        return "AVIF"
    if found & HEIC_BRANDS:
        return "HEIC"
    return "RAW" if b"crx " in found else "a video (or another MP4)"


def cicp_chunk(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The code points by which a HEIC or AVIF file describes its colours, as the chunk cICP of a PNG file.

    Nothing for sRGB, which is what a picture without it means.
    """
    start, end = 0, len(data)
    for wanted, skipped in _TO_PROPERTIES:
        inside = next(((a, b) for kind, a, b in boxes(data, start, end) if kind == wanted), None)
        if inside is None:
            return ()
        start, end = inside[0] + skipped, inside[1]
    for kind, begin, _ in boxes(data, start, end):
        if kind == b"colr" and data[begin : begin + 4] == b"nclx":
            primaries, transfer = (int.from_bytes(data[begin + i : begin + i + 2], "big") for i in (4, 6))
            return color_points(primaries, transfer)
    return ()


def color_points(primaries: int, transfer: int) -> tuple[tuple[bytes, bytes], ...]:
    """The chunk cICP of a PNG file for RGB of full range with these code points; nothing for sRGB."""
    if UNSPECIFIED in (primaries, transfer) or max(primaries, transfer) > 255:
        return ()
    if primaries == SRGB_PRIMARIES and transfer in SRGB_TRANSFERS:
        return ()
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)
