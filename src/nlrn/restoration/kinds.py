"""Kinds of images: an array, a tensor or a file's `Image` becomes planes, and planes become the same kind again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL.Image import Image as PillowImage
from torch import Tensor

from ..files.images import Image, from_planes, to_planes

Kind = TypeVar("Kind", np.ndarray, Tensor, Image)

TYPES = (
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "bfloat16"),
)

STACK_HINT = "; a stack of images has axes=, such as axes='ZYX' for planes along the first axis"


@dataclass(frozen=True, eq=False)
class Planes:
    """The numbers of an image, in the type that they were given in.

    Args:
        color: `[B, C, H, W]`, C = 1 (grey) or 3 (RGB).
        alpha: `[B, 1, H, W]`, or `None`.
        masked: `[B, 1, H, W]`, where a masked array masks one of the colours of a pixel, or a FITS file has NaN; or
            `None`.
    """

    color: Tensor
    alpha: Tensor | None
    masked: Tensor | None = None


def planes_of(image: np.ndarray | Tensor | Image) -> Planes:
    """The planes of an array (`H x W` or `H x W x C`), a tensor (`CHW` or `BCHW`) or an `Image`.

    Of two or four channels the last is alpha. What a masked array masks is as hidden as what lies under alpha 0.

    Raises:
        ValueError: another shape or a type that is not supported.
    """
    if isinstance(image, Image):
        color = _tensor(image.pixels)
        empty = color.isnan().any(1, keepdim=True) if image.format == "FITS" else None
        return Planes(color, None if image.alpha is None else _tensor(image.alpha), empty)
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if not isinstance(image, np.ma.MaskedArray):
        image = np.asarray(image)  # a matrix never loses an axis
    if image.ndim not in (2, 3) or 0 in image.shape:
        hint = STACK_HINT if image.ndim > 3 and 0 not in image.shape else ""
        raise ValueError(f"an image array must be HxW or HxWxC and not empty, got shape {image.shape}{hint}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels > 4:
        raise ValueError(
            f"an image array must have 1 to 4 channels (grey, grey and alpha, RGB, RGBA), got {channels}{STACK_HINT}"
        )
    if not isinstance(image, np.ma.MaskedArray):
        return _split(_tensor(image))
    planes = _split(_tensor(image.data))
    mask = torch.from_numpy(to_planes(np.ma.getmaskarray(image)).copy())[None]
    return dataclasses.replace(planes, masked=mask[:, : planes.color.shape[1]].any(1, keepdim=True))


def of_pillow(image: PillowImage) -> Image:
    """A Pillow image as one of a file, without metadata; palettes become RGB, and 1-bit images grey.

    Raises:
        ValueError: a mode other than grey and RGB.
    """
    mode = {"1": "L", "P": "RGBA" if "transparency" in image.info else "RGB", "PA": "RGBA"}.get(
        image.mode, image.mode
    )
    if mode not in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F"):
        raise ValueError(f"a Pillow image must be grey or RGB, got mode {image.mode}; convert it first")
    pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    alpha = pixels[..., -1].copy() if mode in ("LA", "RGBA") else None
    color = pixels if alpha is None else pixels[..., 0] if mode == "LA" else pixels[..., :3]
    return Image(np.ascontiguousarray(color), alpha)


def like(image: Kind, color: Tensor, alpha: Tensor | None) -> Kind:
    """Planes as the kind of image that `image` is; their type is its own."""
    if isinstance(image, Image):
        opacity = None if image.alpha is None or alpha is None else _array(alpha, image.alpha)
        pixels = _array(color, image.pixels)
        if image.format == "FITS" and np.isnan(image.pixels).any():
            pixels[_enlarged(np.isnan(image.pixels), pixels)] = np.nan
        return dataclasses.replace(image, pixels=pixels, alpha=opacity)
    joined = color if alpha is None else torch.cat([color, alpha.to(color.device)], 1)
    if isinstance(image, Tensor):
        moved = joined.to(image.device)
        return moved if image.ndim == 4 else moved[0]
    if not isinstance(image, np.ma.MaskedArray):
        return _array(joined, image)
    values = _array(joined, image.data)
    mask = _enlarged(np.ma.getmaskarray(image), values)
    return np.ma.MaskedArray(values, mask, fill_value=image.fill_value)


def _enlarged(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A mask `H x W` or `H x W x C` in the size of the values, by the nearest pixel."""
    rows, columns = (_nearest(*lengths) for lengths in zip(mask.shape[:2], values.shape[:2], strict=True))
    return np.asarray(mask[rows][:, columns])


def _nearest(length: int, out: int) -> np.ndarray:
    """The pixel of a row in which the middle of each pixel of a resized one lies."""
    return (2 * np.arange(out) + 1) * length // (2 * out)


def _of_tensor(image: Tensor) -> Planes:
    if image.layout is not torch.strided or image.is_meta:
        kind = "one without values (meta)" if image.is_meta else str(image.layout).removeprefix("torch.")
        raise ValueError(f"an image tensor must have all its values (strided), got {kind}")
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise ValueError(f"an image tensor must be CHW or BCHW and not empty, got shape {tuple(image.shape)}")
    batch = image.detach() if image.ndim == 4 else image.detach()[None]
    if batch.shape[1] > 4:
        raise ValueError(f"an image tensor must have 1 to 4 channels, got {batch.shape[1]} (is it HxWxC?)")
    _check_type(str(batch.dtype).removeprefix("torch."))
    # Few operations are there for integers on a GPU.
    return _split(batch if batch.is_floating_point() else batch.cpu())


def _split(planes: Tensor) -> Planes:
    if planes.shape[1] in (1, 3):
        return Planes(planes, None)
    return Planes(planes[:, :-1], planes[:, -1:])


def _tensor(pixels: np.ndarray) -> Tensor:
    """`[1, C, H, W]` of an array, without a copy where PyTorch takes it as it is."""
    _check_type(pixels.dtype.name)
    planes = np.require(to_planes(pixels), pixels.dtype.newbyteorder("="), ["C", "W"])
    return torch.from_numpy(planes)[None]


def _array(planes: Tensor, model: np.ndarray) -> np.ndarray:
    """The array of `[1, C, H, W]`, with the axes and the type of another one."""
    return from_planes(planes[0].cpu().numpy(), model.ndim).astype(model.dtype, copy=False)


def _check_type(name: str) -> None:
    if name not in TYPES:
        sizes = " of 16, 32 or 64 bits" if name.startswith("float") else ""
        raise ValueError(f"image values must be integers or floats{sizes}, got {name}")
