"""Which pixels are compared with which: image sets, noise, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.images import find_images
from ..degradations import gaussian_noise


@dataclass(frozen=True)
class DataSet:
    """A folder of clean images, in the order of their names.

    Args:
        name: of the folder.
        files: the images.
    """

    name: str
    files: tuple[Path, ...]

    @classmethod
    def find(cls, data: Path, name: str) -> DataSet:
        """The set in the folder `data / name`.

        Raises:
            FileNotFoundError: no such folder.
            ImageError: no images in it.
        """
        folder = data / name
        if not folder.is_dir():
            present = ", ".join(sorted(p.name for p in data.iterdir() if p.is_dir())) if data.is_dir() else ""
            raise FileNotFoundError(f"no image set {name} in {data} (there is: {present or 'nothing'})")
        return cls(name, tuple(find_images([folder])))


def noisy_version(clean: np.ndarray, sigma: float, index: int) -> np.ndarray:
    """The noisy input for image number `index` of a set: float32 `C x H x W` in units of [0, 1].

    The noise is `numpy.random.default_rng(1000 * sigma + index).standard_normal((C, H, W))` as float32 times
    sigma, added in float32 and not clipped.

    Args:
        clean: uint8 `H x W` or `H x W x C`.
        sigma: in 8-bit grey levels.
        index: place of the image in its sorted set.
    """
    planes = clean[None] if clean.ndim == 2 else np.moveaxis(clean, -1, 0)
    rng = np.random.default_rng(round(1000 * sigma) + index)
    values: np.ndarray = planes.astype(np.float32) / np.float32(255)
    values += gaussian_noise(planes.shape, sigma / 255, rng)
    return values


def to_bytes(planes: np.ndarray) -> np.ndarray:
    """Float `C x H x W` in units of [0, 1], clipped and rounded to uint8 `H x W` or `H x W x C`."""
    values = np.clip(np.rint(planes.astype(np.float64) * 255), 0, 255).astype(np.uint8)
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
