"""Descriptions of a whole stack in the first page of a TIFF file: by ImageJ, in OME-XML, and by tifffile."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod

from . import exif
from .image import Image

# ImageJ's names of axes, in the order in which planes follow one another.
IMAGEJ_AXES = ("channels", "slices", "frames")
IMAGEJ_FLATTENED = "the chosen planes have no channels and frames any more: ImageJ counts them as slices"
OME_LEFT_OUT = "the OME-XML, which describes planes that are not chosen, is left out"


def description_of(image: Image) -> bytes:
    """The description in an image's EXIF data, without the zero at its end."""
    tag = exif.parse(image.exif or b"").main.get(exif.DESCRIPTION)
    return b"" if tag is None else tag.data.rstrip(b"\0")


def is_stack(description: bytes) -> bool:
    """True for the description of a whole stack, as against that of a page."""
    return description.startswith((b"ImageJ=", b'{"shape"')) or b"<OME" in description


def described(image: Image, description: bytes | None) -> Image:
    """The image with another description, or with none."""
    found = exif.parse(image.exif or b"")
    main = {code: tag for code, tag in found.main.items() if code != exif.DESCRIPTION}
    if description:
        main[exif.DESCRIPTION] = exif.Tag(2, description + b"\0")
    return replace(image, exif=exif.build(replace(found, main=main)))


def channel_of(description: bytes, index: int, count: int) -> int:
    """The channel to which a plane of a stack belongs, 0 where there is none but one."""
    before, channels = 1, 1
    if description.startswith(b"ImageJ="):
        channels = _imagej_sizes(description)["channels"]
    elif b"<OME" in description:
        before, channels = _ome_channels(description)
    elif description.startswith(b'{"shape"'):
        before, channels = _shaped_channels(description)
    return index // before % channels if channels > 1 and count % (before * channels) == 0 else 0


def chosen(image: Image, numbers: Sequence[int], count: int) -> tuple[Image, tuple[str, ...]]:
    """The first page of a stack, as that of the chosen planes alone, and a note on what is lost.

    Args:
        image: the page, with the description of the stack.
        numbers: indices of the planes.
        count: the number of planes in the stack.
    """
    description = description_of(image)
    labels = (image.imagej or {}).get("Labels")
    if isinstance(labels, list) and len(labels) == count:
        image = replace(image, imagej=(image.imagej or {}) | {"Labels": [labels[n] for n in numbers]})
    if description.startswith(b"ImageJ="):
        several = sum(size > 1 for size in _imagej_sizes(description).values()) > 1
        changed = described(image, _chosen_imagej(description, len(numbers), count))
        return changed, (IMAGEJ_FLATTENED,) * several
    if b"<OME" in description:
        xml = _chosen_ome(description, len(numbers), count)
        return described(image, xml), () if xml else (OME_LEFT_OUT,)
    if description.startswith(b'{"shape"'):
        return described(image, None), ()
    return image, ()


def reshaped(image: Image) -> Image:
    """The first page of a stack, where tifffile's description says the shape: with that which its pages have now."""
    description = description_of(image)
    if not description.startswith(b'{"shape"'):
        return image
    page = (*image.pixels.shape[:2], *[_samples(image)] * (_samples(image) > 1))
    try:
        found = json.loads(description)
        found["shape"] = [*found["shape"][: len(found["shape"]) - len(page)], *page]
        if "axes" in found:
            found["axes"] = found["axes"][: len(found["axes"]) - len(page)] + "YXS"[: len(page)]
    except (ValueError, KeyError, TypeError):
        return described(image, None)
    found.pop("truncate", None)  # each page has a directory
    return described(image, json.dumps(found).encode())


def _samples(image: Image) -> int:
    return (3 if image.pixels.ndim == 3 else 1) + (image.alpha is not None)


def _imagej_sizes(description: bytes) -> dict[str, int]:
    found = dict(re.findall(rb"^(channels|slices|frames)=(\d+)\s*$", description, re.MULTILINE))
    return {name: max(1, int(found.get(name.encode(), 1))) for name in IMAGEJ_AXES}


def _chosen_imagej(description: bytes, kept: int, count: int) -> bytes:
    """The description with the new number of planes, along time where the stack has no other axis."""
    sizes = _imagej_sizes(description)
    axis = b"frames" if sizes["frames"] == count else b"slices"
    lines = [
        line
        for line in description.split(b"\n")
        if not re.match(rb"(images|channels|slices|frames|hyperstack|mode)=", line)
    ]
    return b"\n".join([lines[0], b"images=%d" % kept, b"%s=%d" % (axis, kept), *lines[1:]])


def _ome_sizes(xml: bytes) -> dict[str, int] | None:
    """Sizes along Z, C and T of the only picture that OME-XML describes."""
    if len(re.findall(rb"<Pixels\b", xml)) != 1:
        return None
    found = dict(re.findall(rb'\bSize([ZCT])="(\d+)"', xml))
    return {axis: int(found.get(axis.encode(), 1)) for axis in "ZCT"}


def _ome_channels(xml: bytes) -> tuple[int, int]:
    """The number of planes before the channel changes, and of channels that have planes of their own."""
    sizes, order = _ome_sizes(xml), re.search(rb'\bDimensionOrder="XY([ZCT]{3})"', xml)
    samples = re.search(rb'\bSamplesPerPixel="(\d+)"', xml)
    if sizes is None or order is None:
        return 1, 1
    axes = order[1].decode()
    before = prod(sizes[axis] for axis in axes[: axes.index("C")])
    return max(1, before), max(1, sizes["C"] // (int(samples[1]) if samples and int(samples[1]) else 1))


def _chosen_ome(xml: bytes, kept: int, count: int) -> bytes | None:
    """The XML with the new number of planes along Z or T, where the stack has no other axis."""
    sizes = _ome_sizes(xml)
    axis = None if sizes is None else next((axis for axis in "ZT" if sizes[axis] == count), None)
    if axis is None:
        return None
    xml = re.sub(rb"<(TiffData|Plane)\b[^>]*?(/>|>.*?</\1>)", b"", xml, flags=re.DOTALL)
    xml = re.sub(rb'\bSize%s="\d+"' % axis.encode(), b'Size%s="%d"' % (axis.encode(), kept), xml)
    return xml.replace(b"</Pixels>", b"<TiffData/></Pixels>")


def _shaped_channels(description: bytes) -> tuple[int, int]:
    try:
        found = json.loads(description)
        shape, axes = [int(size) for size in found["shape"]], str(found["axes"])
    except (ValueError, KeyError, TypeError):
        return 1, 1
    planes = axes.partition("Y")[0]
    if planes.count("C") != 1 or len(axes) != len(shape):
        return 1, 1
    place = planes.index("C")
    return max(1, prod(shape[place + 1 : len(planes)])), max(1, shape[place])
