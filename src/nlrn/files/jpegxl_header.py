"""The header of a JPEG XL codestream: what its pixels are, before one is decoded.

Source: ISO/IEC 18181-1, sections C (fields) and D (image headers).
"""

from __future__ import annotations

from dataclasses import dataclass

from .boxes import color_points

ALPHA, SPOT, FILTER_ARRAY = 0, 2, 5
GREY, XYB = 1, 2
D65, CUSTOM, P3, LINEAR, SRGB = 1, 2, 11, 8, 13
# The code points (H.273) of primaries with D65 as white; those of P3 are 12 with it.
_PRIMARIES = {1: 1, 9: 9, P3: 12}
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
# Distributions of numbers: pairs of bits and an offset, one of which two bits choose.
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_COORDINATE = ((19, 0), (19, 1 << 19), (20, 1 << 20), (21, 1 << 21))


@dataclass(frozen=True)
class Header:
    """The header of a codestream, which describes its picture.

    Args:
        width, height: as they are stored; viewers turn by `orientation`.
        bits: a channel; of floats 16 or 32.
        floats: whether values are floats.
        orientation: 1 to 8, as EXIF counts them.
        animated: whether it has frames.
        extra: kinds of channels beside colors; 0 is alpha.
        premultiplied: whether colors are multiplied with alpha.
        lossy_colors: whether colors went through the model of the eye, in which lossy pictures are stored.
        profile: whether colors are described by an ICC profile, which is stored compressed.
        color_chunks: the colors as the chunk cICP of a PNG file, where they are no sRGB and have code points.
        described: whether code points or sRGB describe the colors.
        transfer: place of the number of the transfer function in the codestream, in bits.
    """

    width: int
    height: int
    bits: int = 8
    floats: bool = False
    orientation: int = 1
    animated: bool = False
    extra: tuple[int, ...] = ()
    premultiplied: bool = False
    lossy_colors: bool = True
    profile: bool = False
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    described: bool = True
    transfer: int | None = None


def read_header(codestream: bytes) -> Header:
    """The header of a codestream, whose first bytes are enough.

    Raises:
        EOFError: it ends before.
    """
    bits = _Bits(codestream[2:])
    height, width = bits.size()
    if bits.flag():  # all is as usual
        return Header(width, height)
    orientation, animated = 1, False
    if bits.flag():
        orientation = 1 + bits.number(3)
        if bits.flag():
            bits.size()
        if bits.flag():
            bits.preview()
        animated = bits.flag()
        if animated:
            bits.animation()
    floats, depth = bits.depth()
    bits.flag()  # whether 16 bits are enough while decoding
    count = bits.choice((0, 0), (0, 1), (4, 2), (12, 1))
    channels = [bits.extra_channel() for _ in range(count)]
    lossy = bits.flag()
    profile, chunks, described = bits.colors()
    return Header(
        width,
        height,
        depth,
        floats,
        orientation,
        animated,
        tuple(kind for kind, _ in channels),
        any(multiplied for _, multiplied in channels),
        lossy,
        profile,
        chunks,
        described,
        bits.transfer,
    )


def as_srgb(codestream: bytes) -> bytes:
    """A lossless codestream whose values are named as sRGB, where the encoder has named them linear.

    Raises:
        ValueError: a header without a transfer function that is named.
    """
    place = read_header(codestream).transfer
    if place is None:
        raise ValueError("the header of the codestream names no transfer function")
    # Both numbers are written as 2 and four more bits.
    value = int.from_bytes(codestream[:64], "little")
    value = value & ~(15 << place) | (SRGB - 2) << place
    return value.to_bytes(len(codestream[:64]), "little") + codestream[64:]


class _Bits:
    """A stream of bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:4096], "little"), 8 * min(len(data), 4096)
        self._end = 16 + self._left
        self.transfer: int | None = None

    def number(self, count: int) -> int:
        """The next bits as a number."""
        if count > self._left:
            raise EOFError("its header is cut off")
        found = self._value & ((1 << count) - 1)
        self._value, self._left = self._value >> count, self._left - count
        return found

    def flag(self) -> bool:
        """The next bit."""
        return bool(self.number(1))

    def choice(self, *ways: tuple[int, int]) -> int:
        """A number in one of four ways, each with its bits and its offset."""
        count, offset = ways[self.number(2)]
        return offset + self.number(count)

    def size(self) -> tuple[int, int]:
        """Height and width of a picture."""
        small = self.flag()
        height = 8 * (1 + self.number(5)) if small else self.choice(*_SIZE)
        ratio = self.number(3)
        if ratio:
            across, down = _RATIOS[ratio - 1]
            return height, height * across // down
        return height, 8 * (1 + self.number(5)) if small else self.choice(*_SIZE)

    def preview(self) -> None:
        """Passes over the size of a preview."""
        ways = (
            ((0, 16), (0, 32), (5, 1), (9, 33)) if self.flag() else ((6, 1), (8, 65), (10, 321), (12, 1345))
        )
        self.choice(*ways)
        if not self.number(3):
            self.choice(*ways)

    def animation(self) -> None:
        """Passes over the timing of frames."""
        self.choice((0, 100), (0, 1000), (10, 1), (30, 1))
        self.choice((0, 1), (0, 1001), (8, 1), (10, 1))
        self.choice((0, 0), (3, 0), (16, 0), (32, 0))
        self.flag()

    def depth(self) -> tuple[bool, int]:
        """Reads whether values are floats, and their bits."""
        if not self.flag():
            return False, self.choice((0, 8), (0, 10), (0, 12), (6, 1))
        count = self.choice((0, 32), (0, 16), (0, 24), (6, 1))
        self.number(4)
        return True, count

    def extra_channel(self) -> tuple[int, bool]:
        """Reads the kind of a channel beside colors, and whether colors are multiplied with it."""
        if self.flag():
            return ALPHA, False
        kind = self.choice(*_ENUM)
        self.depth()
        self.choice((0, 0), (0, 3), (0, 4), (3, 1))
        for _ in range(self.choice((0, 0), (4, 0), (5, 16), (10, 48))):
            self.number(8)
        multiplied = self.flag() if kind == ALPHA else False
        if kind == SPOT:
            self.number(64)
        if kind == FILTER_ARRAY:
            self.choice((0, 1), (2, 0), (4, 3), (8, 19))
        return kind, multiplied

    def colors(self) -> tuple[bool, tuple[tuple[bytes, bytes], ...], bool]:
        """Reads whether a profile follows, the code points as a chunk, and whether these or sRGB give the colors."""
        if self.flag():
            return False, (), True
        profile, space = self.flag(), self.choice(*_ENUM)
        if profile or space == XYB:
            return profile, (), False
        white = self.choice(*_ENUM)
        if white == CUSTOM:
            self._place()
        primaries = 1 if space == GREY else self.choice(*_ENUM)
        if primaries == CUSTOM:
            for _ in range(3):
                self._place()
        if self.flag():  # a power
            self.number(24)
            return False, (), False
        self.transfer = self._end - self._left + 2
        transfer = self.choice(*_ENUM)
        if white != D65 or primaries not in _PRIMARIES or transfer == 2:
            return False, (), False
        return False, color_points(_PRIMARIES[primaries], transfer), True

    def _place(self) -> None:
        for _ in range(2):
            self.choice(*_COORDINATE)
