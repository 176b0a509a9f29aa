"""Animations: frames of PNG, WebP and GIF files, read through Pillow one by one."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from . import exif
from .image import PNG_SIGNATURE, Image, ImageError
from .pillow import frame_of, open_picture, webp_is_lossless
from .png16 import color_chunks, read_profile, read_xmp

# Chunks of an animated PNG that hold pixels.
PIXELS = (b"IDAT", b"fdAT")
STILL_NOTE = "the still picture for programs without animation, which is no frame, is left out"


def count_frames(source: bytes | Path, format_: str, name: str) -> int:
    """The number of frames in a file of a format that may be animated; pixels are not decoded."""
    with _opened(source) as stream:
        if format_ == "PNG" and not _is_animated_png(stream):
            return 1
        picture = open_picture(stream, format_, name)
        count = int(getattr(picture, "n_frames", 1))
        return count - 1 if picture.info.get("default_image") else count


class Frames:
    """The frames of an animation as they are shown, each decoded when it is asked for.

    Args:
        source: a path, or the file's content.
        format_: PNG, WEBP or GIF.
        name: what errors call the file.
    """

    def __init__(self, source: bytes | Path, format_: str, name: str) -> None:
        self.format, self._name = format_, name
        self._stream = _opened(source)
        try:
            self._chunks = _png_chunks(self._stream, name) if format_ == "PNG" else {}
            if format_ == "PNG" and self._chunks[b"IHDR"][8] == 16:
                raise ImageError(
                    f"{name} is an animated PNG of 16 bit; only animations of 8 bit are supported"
                )
            self._lossless = format_ != "WEBP" or webp_is_lossless(self._read())
            self._picture = open_picture(self._stream, format_, name)
            self._first = int(bool(self._picture.info.get("default_image")))
            self._count = int(getattr(self._picture, "n_frames", 1)) - self._first
        except BaseException:
            self._stream.close()
            raise
        # One mode for all frames, of which a GIF may have several.
        mode = self._picture.mode
        alpha = format_ == "GIF" or "transparency" in self._picture.info or mode in ("PA", "LA", "RGBA")
        self._mode = ("L" if format_ == "PNG" and mode in ("1", "L", "LA") else "RGB") + "A" * alpha
        # How often it is shown, 0 for ever; GIF counts the repetitions.
        repeated = self._picture.info.get("loop")
        again = 1 if format_ == "GIF" and repeated else 0
        self.loop: int | None = int(format_ == "GIF") if repeated is None else repeated + again
        self.notes: tuple[str, ...] = (STILL_NOTE,) if self._first else ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Image:
        self._picture.seek(self._first + index)
        self._picture.load()
        duration = self._picture.info.get("duration")
        image = replace(
            frame_of(self._picture, self._mode, self.format),
            lossless=self._lossless,
            milliseconds=None if duration is None else float(duration),
        )
        return self._described(image) if index == 0 else image

    def kind(self, index: int) -> str:
        """The same for all frames."""
        return self._mode

    def nbytes(self, index: int) -> int:
        """Bytes of the pixels of a frame."""
        width, height = self._picture.size
        return width * height * len(self._mode)

    def close(self) -> None:
        """Closes the file."""
        self._picture.close()
        self._stream.close()

    def _described(self, image: Image) -> Image:
        """The first frame with the metadata of the file."""
        info = self._picture.info
        block, profile, xmp, notes = info.get("exif"), info.get("icc_profile"), info.get("xmp"), image.notes
        if self.format == "PNG":
            profile, damaged = read_profile(self._chunks.get(b"iCCP"))
            xmp, notes = read_xmp(self._chunks.get(b"iTXt")), (*notes, *damaged)
        block = block.removeprefix(b"Exif\0\0") if block else None
        resolution = info.get("dpi") or exif.resolution(exif.parse(block or b""))
        return replace(
            image,
            exif=block,
            icc=profile or None,
            xmp=xmp or None,
            resolution=resolution,
            color_chunks=color_chunks(self._chunks),
            notes=notes,
        )

    def _read(self) -> bytes:
        self._stream.seek(0)
        return self._stream.read()


def _opened(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _is_animated_png(stream: BinaryIO) -> bool:
    return b"acTL" in _png_chunks(stream, "", until=b"IDAT")


def _png_chunks(stream: BinaryIO, name: str, until: bytes = b"IEND") -> dict[bytes, bytes]:
    """The chunks of a PNG file beside pixels, by their type; of texts only XMP.

    Raises:
        ImageError: the end is missing.
    """
    found = dict[bytes, bytes]()
    stream.seek(len(PNG_SIGNATURE))
    while len(head := stream.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == until:
            return found
        content = b"" if kind in PIXELS else stream.read(size)
        stream.seek(4 + (size if kind in PIXELS else 0), io.SEEK_CUR)
        if kind != b"iTXt" or content.startswith(b"XML:com.adobe.xmp\0"):
            found[kind] = content
    if until == b"IEND":
        raise ImageError(f"{name} is truncated: expected an IEND chunk at its end")
    return found
