"""A stream of images, one behind the other, as ffmpeg writes and reads the frames of a video (`-f image2pipe`)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from .image import PNG_SIGNATURE, ImageError
from .netpbm import length_of

# As long may the header of a Netpbm image be, with its comments.
HEADERS = (64, 1024, 65536)


def split_frames(stream: BinaryIO) -> Iterator[bytes]:
    """The images of a stream of binary Netpbm or PNG images, each as the content of a file.

    Memory holds one image at a time. Another content is passed on whole, and so are bytes after a first image that are
    not the beginning of a second one; decoders know what they mean.

    Raises:
        ImageError: what follows a second or later image is no image, or claims an impossible size.
    """
    source = _Stream(stream)
    count = 0
    while True:
        length = _length(source)
        if length is None and count:
            raise ImageError(
                f"frame {count + 1} of the stream is damaged or truncated: it begins with {bytes(source.held[:8])!r}"
            )
        count += 1
        content = source.rest() if length is None else source.take(length)
        if count == 1 and not _begins(source):
            content += source.rest()
        yield content
        if not source.skip_space():
            return


def _length(source: _Stream) -> int | None:
    """The length of the image with which a stream goes on; `None` where that is unknown or it is not all there."""
    length: int | None = None
    if source.has(8) and source.held.startswith(PNG_SIGNATURE):
        length = _png_length(source)
    elif source.held[:1] == b"P":
        for header in HEADERS:
            source.has(header)
            length = length_of(bytes(source.held[:header]))
            if length is not None:  # a live stream may not have more yet
                break
    return length if length is not None and source.has(length) else None


def _png_length(source: _Stream) -> int | None:
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if not source.has(position + 8):
            return None
        size, kind = struct.unpack_from(">I4s", source.held, position)
        position += 12 + size
    return position


def _begins(source: _Stream) -> bool:
    """True where a stream ends or goes on with an image."""
    if not source.skip_space():
        return True
    source.has(8)
    held = source.held
    return held.startswith(PNG_SIGNATURE) or (held[:1] == b"P" and held[1:2] in b"456")


class _Stream:
    """The bytes of a stream that were read ahead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.held = stream, bytearray()

    def has(self, count: int) -> bool:
        """Reads ahead so many bytes; false where the stream ends before."""
        while len(self.held) < count:
            part = self._stream.read(count - len(self.held))
            if not part:
                return False
            self.held += part
        return True

    def take(self, count: int) -> bytes:
        """The next bytes, which have been read ahead."""
        taken = bytes(self.held[:count])
        del self.held[:count]
        return taken

    def rest(self) -> bytes:
        """All bytes to the end."""
        self.held += self._stream.read()
        return self.take(len(self.held))

    def skip_space(self) -> bool:
        """Leaves out the white space that may stand between images; false at the end."""
        while self.has(1):
            if not self.held[:1].isspace():
                return True
            del self.held[:1]
        return False
