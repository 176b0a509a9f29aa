"""TIFF files through tifffile: 8 and 16 bit and float32, with EXIF and ICC profile."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from . import exif
from .image import Image, ImageError, check_size, load_package, merge_alpha
from .microscopy import is_calibrated, read_imagej

ICC_PROFILE, XMP = 34675, 700
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
ASSOCIATED = 1
# More than an image with its copies at all sizes has.
MAX_PAGES = 32
# tifffile reports oddities of readable files here; without a handler, Python would print them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_tiff(data: bytes, name: str) -> Image:
    """A picture of the type that the file stores; fewer than 8 bit become 8."""
    tifffile = load_package("tifffile", "TIFF")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_page(file, name)
        _check_layout(page, name)
        _check_complete(page, len(data), name)
        photometric, bits = int(page.photometric), int(page.bitspersample)
        icc, xmp = page.tags.valueof(ICC_PROFILE), page.tags.valueof(XMP)
        block = _read_exif(data)
        if photometric in (PALETTE, SEPARATED, YCBCR):
            from .pillow import decode_pillow

            # Pillow turns the pixels of a TIFF file as its tag asks, so the tag must not ask again.
            image = decode_pillow(data, "TIFF", name)
            turned = exif.parse(block or b"").orientation != 1
            note = ("picture turned upright",) if turned else ()
            resolution = exif.resolution(exif.parse(block or b""))
            return replace(image, exif=exif.upright(block), resolution=resolution, notes=image.notes + note)
        array = page.asarray()
        axes = page.axes
        extra = tuple(int(sample) for sample in page.extrasamples)
        imagej = read_imagej(page)
    if axes not in ("YX", "YXS", "SYX"):
        raise ImageError(f"{name} is not a flat image (axes {axes})")
    array = np.moveaxis(array, 0, -1) if axes == "SYX" else array
    notes = []
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
        exif=block,
        icc=bytes(icc) if icc else None,
        xmp=bytes(xmp) if xmp else None,
        resolution=exif.resolution(exif.parse(block or b"")),
        imagej=imagej,
        premultiplied=alpha is not None and extra[:1] == (ASSOCIATED,),
        notes=tuple(notes),
    )


def measure_tiff(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the directory has them; no pixel is decoded."""
    tifffile = load_package("tifffile", "TIFF")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_page(file, name)
        check_size(page.imagewidth, page.imagelength, name)
        return int(page.imagewidth), int(page.imagelength)


def _only_page(file: Any, name: str) -> Any:
    """The page that is not a reduced copy of another."""
    found = []
    # Not `file.pages` as a whole: a damaged file may claim pages without end.
    for index in range(MAX_PAGES + 1):
        try:
            page = file.pages[index].aspage()
        except IndexError:
            break
        if not page.is_reduced:
            found.append(page)
    else:
        raise ImageError(f"{name} has more than {MAX_PAGES} pages; only single images are supported")
    if len(found) != 1:
        raise ImageError(f"{name} has {len(found)} pages; only single images are supported")
    return found[0]


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
    elif (bits, dtype) not in ((8, "uint8"), (16, "uint16"), (32, "float32")):
        depth = f"{dtype} pixels" if bits % 8 == 0 else f"{bits}-bit pixels"
        raise ImageError(f"{name} has {depth}; uint8, uint16 and float32 are supported")


def _check_complete(page: Any, size: int, name: str) -> None:
    """Raises `ImageError` where strips or tiles are missing, which decoders would return as black."""
    expected, places = math.prod(page.chunked), list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < expected or any(count < 1 or offset + count > size for offset, count in places):
        present = sum(count > 0 and offset + count <= size for offset, count in places)
        raise ImageError(
            f"{name} is truncated: expected {expected} strips or tiles, found {present} whole ones"
        )


def _read_exif(data: bytes) -> bytes | None:
    """The descriptive tags of the first page and its EXIF and GPS directories, as an EXIF block."""
    found = exif.parse(data)
    main = dict(found.main)
    description, unit = main.get(exif.DESCRIPTION), main.get(exif.RESOLUTION_UNIT)
    if description is not None and description.data.startswith(b'{"shape"'):
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
    """A deflate-compressed TIFF."""
    tifffile = load_package("tifffile", "TIFF")
    alpha = None if image.alpha is None else ["assocalpha" if image.premultiplied else "unassalpha"]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        merge_alpha(image),
        byteorder="<",
        bigtiff=False,
        photometric="rgb" if image.pixels.ndim == 3 else "minisblack",
        planarconfig="contig" if image.pixels.ndim == 3 or alpha else None,
        extrasamples=alpha,
        compression="zlib",
        metadata=None,
        software=False,
        iccprofile=image.icc,
        extratags=tifffile.imagej_metadata_tag(image.imagej, "<") if image.imagej else (),
    )
    directories = exif.parse(image.exif or b"")
    if image.resolution:
        directories = exif.with_resolution(directories, image.resolution)
    if image.xmp:
        directories = replace(directories, main=directories.main | {XMP: exif.Tag(1, image.xmp)})
    return exif.insert(buffer.getvalue(), directories)
