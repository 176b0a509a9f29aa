"""Which pixels are compared with which: image sets, tasks with their levels, rounding."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from ..degradations import gaussian_noise
from ..degradations.resize import low_resolution
from ..files.images import ImageError, find_images, from_float, from_planes, read_image, to_float, to_planes
from ..files.planes import read_planes
from ..ops.color import rgb_to_y


@dataclass(frozen=True)
class DataSet:
    """A folder of clean images, in the order of their names.

    Args:
        name: name of the folder.
        files: the images.
    """

    name: str
    files: tuple[Path, ...]

    @classmethod
    def find(cls, data: Path, name: str, pattern: str = "*") -> DataSet:
        """The set in the folder `data / name`: the images whose names fit the pattern.

        Raises:
            FileNotFoundError: no such folder.
            ImageError: no images in it.
        """
        folder = data / name
        if not folder.is_dir():
            present = ", ".join(sorted(p.name for p in data.iterdir() if p.is_dir())) if data.is_dir() else ""
            raise FileNotFoundError(f"no image set {name} in {data} (there is: {present or 'nothing'})")
        files = tuple(path for path in find_images([folder]) if path.match(pattern))
        if not files:
            raise ImageError(f"no image in {folder} has a name like {pattern}")
        return cls(name, files)


@dataclass(frozen=True)
class Trial:
    """A degraded image and what it should become.

    Args:
        reference: uint8 `H x W` or `H x W x 3`.
        degraded: float32 `C x H x W` in units of [0, 1].
        sigma: noise level in 8-bit grey levels, where it is known to the model.
        border: pixels at each side that are not measured.
        exact: the reference before it was rounded, in units of [0, 1], where there is one.
    """

    reference: np.ndarray
    degraded: np.ndarray
    sigma: float | None = None
    border: int = 0
    exact: np.ndarray | None = None

    def inside(self, image: np.ndarray) -> np.ndarray:
        """`image` (`H x W` or `H x W x C`) without the border."""
        rows, columns = (slice(self.border, length - self.border) for length in image.shape[:2])
        return image[rows, columns]


@dataclass(frozen=True)
class Task:
    """A kind of restoration that is measured.

    Args:
        name: name in models (`NLRNConfig.task`) and on the command line.
        level: name of its levels in tables; empty for a task that has none (its level is `None`).
        degraded: name of its degraded images in tables.
        trial: file, channels of the model, level and place of the image in its set -> the trial.
        files: pattern of the names of a set's clean images.
    """

    name: str
    level: str
    degraded: str
    trial: Callable[[Path, int, float | None, int], Trial]
    files: str = "*"


def denoising(path: Path, channels: int, sigma: float | None, index: int) -> Trial:
    """White Gaussian noise, see `noisy_version`."""
    assert sigma is not None
    clean = read_planes(path, channels)
    return Trial(clean, noisy_version(clean, sigma, index), sigma)


def super_resolution(path: Path, channels: int, scale: float | None, index: int) -> Trial:
    """Y of the image, cropped to a multiple of the scale, shrunk and rounded to 8 bit, enlarged (bicubic, as MATLAB).

    Y is MATLAB's `rgb2ycbcr` in double; grey images are taken as they are. The border of `scale` pixels is not
    measured.
    """
    assert scale is not None
    pixels, factor = read_image(path).pixels, int(scale)
    if channels != 1 or pixels.dtype != np.uint8:
        raise ImageError(
            f"{path}: super-resolution is measured on Y of 8-bit images, got {pixels.dtype}, {channels} channels"
        )
    height, width = (length - length % factor for length in pixels.shape[:2])
    if min(height, width) <= 2 * factor:
        raise ImageError(f"{path}: too small for scale {factor}")
    pixels = pixels[:height, :width] / 255
    luma = rgb_to_y(pixels) if pixels.ndim == 3 else pixels
    degraded = low_resolution(torch.from_numpy(luma)[None], factor).float().numpy()
    return Trial(to_bytes(luma[None]), degraded, None, factor, luma)


def jpeg_removal(path: Path, channels: int, quality: float | None, index: int) -> Trial:
    """JPEG by libjpeg with its default chroma subsampling (4:2:0)."""
    assert quality is not None
    clean = read_planes(path, channels)
    buffer = io.BytesIO()
    PillowImage.fromarray(clean).save(buffer, "JPEG", quality=int(quality))
    return Trial(clean, to_planes(to_float(read_image(buffer.getvalue()).pixels)))


def real_noise(path: Path, channels: int, level: float | None, index: int) -> Trial:
    """A pair of files as PolyU has them: `*_real.*` is one shot, `*_mean.*` the mean of many of the same scene."""
    noisy = path.with_name(path.name.replace("_mean", "_real"))
    clean, shot = read_planes(path, channels), read_planes(noisy, channels)
    if clean.shape != shot.shape:
        raise ImageError(f"{path} and {noisy} must have the same size, got {clean.shape} and {shot.shape}")
    return Trial(clean, to_planes(to_float(shot)))


DENOISING = Task("denoise", "sigma", "noisy", denoising)
SUPER_RESOLUTION = Task("upscale", "scale", "bicubic", super_resolution)
JPEG_REMOVAL = Task("dejpeg", "quality", "JPEG", jpeg_removal)
REAL_NOISE = Task("photo", "", "noisy", real_noise, "*_mean.*")


def noisy_version(clean: np.ndarray, sigma: float, index: int) -> np.ndarray:
    """The noisy input for image number `index` of a set: float32 `C x H x W` in units of [0, 1].

    The noise is `numpy.random.default_rng(1000 * sigma + index).standard_normal((C, H, W))` as float32 times
    sigma, added in float32 and not clipped.

    Args:
        clean: uint8 `H x W` or `H x W x C`.
        sigma: noise level in 8-bit grey levels.
        index: place of the image in its sorted set.
    """
    rng = np.random.default_rng(round(1000 * sigma) + index)
    values = to_planes(to_float(clean))
    values += gaussian_noise(values.shape, sigma / 255, rng)
    return values


def to_bytes(planes: np.ndarray) -> np.ndarray:
    """Float `C x H x W` in units of [0, 1], clipped and rounded to uint8 `H x W` or `H x W x C`."""
    pixels = from_planes(planes.astype(np.float64), 2 if len(planes) == 1 else 3)
    return from_float(pixels, np.uint8)
