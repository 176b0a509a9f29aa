"""TIFF files read through tifffile, page by page: integers and floats, with EXIF and ICC profile."""

from __future__ import annotations

import io
import logging
import math
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import exif
from .image import FORMATS, SINGLE, Image, ImageError, check_size, load_package
from .microscopy import is_calibrated, read_imagej
from .tiff_writer import ICC_PROFILE, XMP, TiffWriter

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
ASSOCIATED = 1
# A file that claims more pages is damaged, or an attack.
MAX_PAGES = 1 << 20
LINK_NOTE = "the file names a second page beyond its end: it is truncated, or was written by a faulty program"
REDUCED_NOTE = "reduced copies of pages (thumbnails, pyramids) left out"
# tifffile itself writes an array [3, H, W] or [4, H, W] of bytes so, where nobody tells it otherwise.
PLANES_NOTE = (
    "the planes are taken as {}, as the file names them; tifffile.imwrite(..., photometric='minisblack') "
    "writes a stack"
)
# tifffile reports oddities of readable files here; without a handler, Python would print them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_tiff(data: bytes, name: str) -> Image:
    """The picture of a file that has one; its type is the stored one, but fewer than 8 bit become 8."""
    pages = _only_page(data, name)
    return pages[0]


def measure_tiff(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the directory has them; no pixel is decoded."""
    height, width = _only_page(data, name).size(0)
    check_size(width, height, name)
    return width, height


def _only_page(data: bytes, name: str) -> TiffPages:
    pages = TiffPages(data, name)
    if len(pages) != 1:
        raise ImageError(f"{name} has {len(pages)} pages; {SINGLE}")
    return pages


class TiffPages:
    """The pages of a TIFF file but reduced copies of others, each decoded when it is asked for.

    Args:
        source: a path, or the file's content.
        name: what errors call the file.

    Raises:
        ImageError: no pages, or directories in a circle.
    """

    format = "TIFF"
    loop: int | None = None

    def __init__(self, source: bytes | Path, name: str) -> None:
        tifffile = load_package("tifffile", "TIFF")
        self._source, self._name = source, name
        self._stream = _opened(source)
        try:
            self._data: exif.Buffer = (
                source
                if isinstance(source, bytes)
                else mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ)
            )
            offsets, last = exif.page_offsets(self._data, MAX_PAGES)
            if last in offsets:
                raise ImageError(f"{name} is damaged: its pages go in a circle")
            self._file = tifffile.TiffFile(self._stream)
            # Planes by ImageJ's description.
            self._claimed = int((self._file.imagej_metadata or {}).get("images", 0))
            self._places, copies = self._full_size(len(offsets))
            self._planes = self._planes_behind() if len(offsets) == 1 else 1
            if last and (len(offsets) > 1 or self._claimed > 1):
                raise ImageError(f"{name} is truncated: page {len(offsets) + 1} should begin beyond its end")
        except BaseException:
            self._stream.close()
            raise
        if not self._places:
            raise ImageError(f"{name} has 0 pages; expected an image")
        # One page with a wrong link is what some programs write.
        miscounted: tuple[str, ...] = (LINK_NOTE,) if last else ()
        if self._claimed not in (0, len(self)):
            miscounted = (f"ImageJ counts {self._claimed} planes, and the file has {len(self)}",)
        notes = (REDUCED_NOTE,) * copies + miscounted
        # A single page has them itself.
        self.notes: tuple[str, ...] = notes if len(self) > 1 else ()
        self._own_notes: tuple[str, ...] = () if len(self) > 1 else notes

    def __len__(self) -> int:
        return self._planes if self._planes > 1 else len(self._places)

    def __getitem__(self, index: int) -> Image:
        image = self._read(index)
        return replace(image, notes=(*image.notes, *self._own_notes))

    def _read(self, index: int) -> Image:
        name = self._name if len(self) == 1 else f"{self._name}, page {index + 1}"
        page = self._page(index)
        _check_layout(page, name)
        _check_complete(page, len(self._data), name)
        block = _read_exif(self._data, page.offset, several=len(self) > 1)
        if int(page.photometric) in (PALETTE, SEPARATED, YCBCR):
            return self._through_pillow(self._places[index], block, name)
        if self._planes == 1:
            return _decoded(page, page.asarray(), block, name)
        size = page.nbytes
        start = page.dataoffsets[0] + index * size
        plane = np.frombuffer(self._data[start : start + size], page.dtype.newbyteorder(self._file.byteorder))
        plane = plane.astype(page.dtype).reshape(page.shape)
        return _decoded(page, plane, block, name, first=index == 0)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a page, from its directory."""
        page = self._page(index)
        return int(page.imagelength), int(page.imagewidth)

    def kind(self, index: int) -> tuple[int, int, int, int, str]:
        """Size, samples, color model and type of a page."""
        page = self._page(index)
        samples, model = int(page.samplesperpixel), int(page.photometric)
        return (*self.size(index), samples, model, str(page.dtype))

    def nbytes(self, index: int) -> int:
        """Bytes of the pixels of a page as they are written: RGB for a palette, and no less than 8 bit."""
        height, width, samples, model, dtype = self.kind(index)
        samples = max(samples, 1 if model in (MIN_IS_WHITE, MIN_IS_BLACK) else 3)
        return height * width * samples * (1 if dtype == "None" else np.dtype(dtype).itemsize)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        if isinstance(self._data, mmap.mmap):
            self._data.close()
        self._stream.close()

    def _page(self, index: int) -> Any:
        return self._file.pages[0 if self._planes > 1 else self._places[index]].aspage()

    def _full_size(self, count: int) -> tuple[list[int], bool]:
        """The places of the pages that are no reduced copies of others, and whether there are such copies."""
        places, copies = [], False
        for index in range(count):
            page = self._file.pages[index].aspage()
            copies |= bool(page.is_reduced or page.subifds)
            if not page.is_reduced:
                places.append(index)
        if 1 < len(places) < count and self._file.is_ome:
            raise ImageError(
                f"{self._name} has reduced copies among the pages that its OME-XML counts, which is not supported"
            )
        return places, copies

    def _planes_behind(self) -> int:
        """The number of planes that stand one behind the other without directories, as ImageJ may write them."""
        page, series = self._file.pages[0], self._file.series[:1]
        planes, offset = 1, page.dataoffsets[0] if page.dataoffsets else None
        if series and page.size and series[0].size > page.size:
            planes, offset = int(series[0].size // page.size), series[0].dataoffset
        elif page.is_contiguous and page.nbytes and len(self._data) >= offset + 2 * page.nbytes:
            planes = max(1, self._claimed)  # more than tifffile has found
        if planes == 1:
            return 1
        if offset is None or offset + planes * page.nbytes > len(self._data):
            raise ImageError(f"{self._name} is truncated: it should have {planes} pages and has fewer")
        return planes

    def _through_pillow(self, index: int, block: bytes | None, name: str) -> Image:
        from .pillow import decode_frame

        # Pillow turns the pixels of a TIFF file as its tag asks, so the tag must not ask again.
        with _opened(self._source) as stream:
            image = decode_frame(stream, index, "TIFF", name)
        turned = exif.parse(block or b"").orientation != 1
        note = ("picture turned upright",) if turned else ()
        resolution = exif.resolution(exif.parse(block or b""))
        return replace(image, exif=exif.upright(block), resolution=resolution, notes=image.notes + note)


def _opened(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _decoded(page: Any, array: np.ndarray, block: bytes | None, name: str, first: bool = True) -> Image:
    """The picture of a page, from the array that its pixels are."""
    photometric, bits = int(page.photometric), int(page.bitspersample)
    icc, xmp = page.tags.valueof(ICC_PROFILE), page.tags.valueof(XMP)
    extra = tuple(int(sample) for sample in page.extrasamples)
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ImageError(f"{name} is not a flat image (axes {page.axes})")
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    notes = []
    if page.axes == "SYX" and str(page.description).startswith('{"shape"'):
        notes.append(
            PLANES_NOTE.format("red, green, blue and alpha" if len(extra) else "red, green and blue")
        )
    if bits < 8:
        array = array.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
        notes.append(f"{bits}-bit image restored as 8-bit grey")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError(f"{name} has NaN or infinite values")
    array = array if array.ndim == 3 else array[..., None]
    colors = 3 if photometric == RGB else 1
    alpha = np.ascontiguousarray(array[..., -1]) if array.shape[2] > colors else None
    pixels = np.ascontiguousarray(array[..., 0] if colors == 1 else array[..., :3])
    if photometric == MIN_IS_WHITE:
        pixels = (1 - pixels) if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max - pixels
        notes.append("image with 0 as white turned into one with 0 as black")
    if alpha is not None and extra[:1] == (0,):
        notes.append("extra channel of unknown meaning kept as alpha")
    return Image(
        pixels=pixels,
        alpha=alpha,
        format="TIFF",
        exif=block if first else None,
        icc=bytes(icc) if icc else None,
        xmp=bytes(xmp) if xmp and first else None,
        resolution=exif.resolution(exif.parse(block or b"")),
        imagej=read_imagej(page) if first else None,
        premultiplied=alpha is not None and extra[:1] == (ASSOCIATED,),
        notes=tuple(notes),
    )


def _check_layout(page: Any, name: str) -> None:
    """Raises `ImageError` for what is not supported, before a pixel is decoded."""
    check_size(page.imagewidth, page.imagelength, name)
    if page.imagedepth > 1:
        raise ImageError(f"{name} is a volume of depth {page.imagedepth}; only flat images are supported")
    photometric, bits, samples = int(page.photometric), int(page.bitspersample), page.samplesperpixel
    kinds = {
        MIN_IS_WHITE: ("grey", (1, 2)),
        MIN_IS_BLACK: ("grey", (1, 2)),
        RGB: ("RGB", (3, 4)),
        PALETTE: ("palette", (1,)),
        SEPARATED: ("CMYK", (4,)),
        YCBCR: ("YCbCr", (3,)),
    }
    if photometric not in kinds:
        model = getattr(page.photometric, "name", photometric)
        raise ImageError(f"{name} has a colour model that is not supported ({model})")
    kind, expected = kinds[photometric]
    if samples not in expected:
        raise ImageError(
            f"{name} has {samples} channels; expected {' or '.join(map(str, expected))} for a {kind} image"
        )
    dtype = "unknown" if page.dtype is None else np.dtype(page.dtype).name
    if photometric in (PALETTE, SEPARATED, YCBCR):
        if bits > 8:
            raise ImageError(f"{name} is a {bits}-bit {kind} image; only 8-bit ones are supported")
    elif bits in (1, 2, 4) and photometric != RGB and dtype in ("bool", "uint8"):
        pass
    elif dtype not in FORMATS["TIFF"].dtypes or bits != 8 * np.dtype(dtype).itemsize:
        depth = f"{dtype} pixels" if bits % 8 == 0 else f"{bits}-bit pixels"
        raise ImageError(f"{name} has {depth}; {', '.join(FORMATS['TIFF'].dtypes)} are supported")
    elif photometric == MIN_IS_WHITE and dtype not in ("uint8", "uint16", "float32"):
        raise ImageError(f"{name} has {dtype} pixels with 0 as white; of this type 0 as black is supported")


def _check_complete(page: Any, size: int, name: str) -> None:
    """Raises `ImageError` where strips or tiles are missing, which decoders would return as black."""
    expected, places = math.prod(page.chunked), list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < expected or any(count < 1 or offset + count > size for offset, count in places):
        present = sum(count > 0 and offset + count <= size for offset, count in places)
        raise ImageError(
            f"{name} is truncated: expected {expected} strips or tiles, found {present} whole ones"
        )


def _read_exif(data: exif.Buffer, offset: int, several: bool) -> bytes | None:
    """The descriptive tags of the page at an offset and its EXIF and GPS directories, as an EXIF block."""
    found = exif.parse(data, offset)
    main = dict(found.main)
    description, unit = main.get(exif.DESCRIPTION), main.get(exif.RESOLUTION_UNIT)
    if description is not None and description.data.startswith(b'{"shape"') and not several:
        # tifffile's note on how it laid out the array, which would be wrong for another layout.
        del main[exif.DESCRIPTION]
    if (
        unit is not None
        and unit.data[:2] == b"\1\0"
        and main.get(exif.X_RESOLUTION) == main.get(exif.Y_RESOLUTION)
        and not is_calibrated(main)
        and _is_one(main.get(exif.X_RESOLUTION))
    ):
        # The format asks for a resolution; one pixel of no unit is how programs say that there is none.
        for code in (exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT):
            main.pop(code, None)
    return exif.build(replace(found, main=main))


def _is_one(tag: exif.Tag | None) -> bool:
    return tag is None or (tag.kind == 5 and tag.data[:4] == tag.data[4:8])


def encode_tiff(image: Image) -> bytes:
    """A deflate-compressed TIFF of one page."""
    buffer = io.BytesIO()
    TiffWriter(buffer).add(image)
    return buffer.getvalue()
