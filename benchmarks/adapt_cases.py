"""The pictures, the noise and the seeds on which `benchmarks.adapt` compares, unlike the photographs of BSD400.

Every picture is 160x160 (`microaneurysms` is 102x102), grey but for `retina_rgb`. Gaussian noise has a level in 8-bit
grey levels and is not cut off; counts have Poisson noise, so many photons at the brightest pixel, and no read noise.
`another` is a part of the same source that does not overlap with the first, with noise of its own: data of the same
kind that nothing was adapted to. `microaneurysms` is too small for one. `filaments_frames` is a stack of one scene,
each frame with noise of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .sensor_noise import beads, filaments

SEED, SIDE = 24, 160
# Processor seconds for one case.
BUDGET = 40.0


@dataclass(frozen=True)
class Case:
    """A clean picture in [0, 1] and its noise.

    Args:
        name: of the picture.
        noise: kind of the noise.
        strength: standard deviation in 8-bit grey levels, or photons at the brightest pixel.
        clean: the picture.
        another: a second one of the same kind, or `None`.
        frames: how often the scene is repeated, along a first axis T; 0 for a picture without that axis.
    """

    name: str
    noise: Literal["gaussian", "poisson"]
    strength: float
    clean: np.ndarray
    another: np.ndarray | None
    frames: int = 0

    @property
    def axes(self) -> str | None:
        """The axes of a stack."""
        return "TYX" if self.frames else None

    def noisy(self, clean: np.ndarray, seed: int) -> np.ndarray:
        """A picture with noise: values around [0, 1], or counts."""
        rng = np.random.default_rng(seed)
        if self.frames:
            clean = np.repeat(clean[None], self.frames, axis=0)
        if self.noise == "poisson":
            return rng.poisson(clean / clean.max() * self.strength).astype(np.float64)
        return clean + rng.normal(0, self.strength / 255, clean.shape)


# Name: noise, strength, and the upper left corners of the two parts.
PARTS: dict[str, tuple[Literal["gaussian", "poisson"], float, tuple[int, int], tuple[int, int] | None]] = {
    "cell": ("gaussian", 25.0, (250, 200), (60, 240)),
    "microaneurysms": ("gaussian", 25.0, (0, 0), None),
    "retina": ("gaussian", 25.0, (560, 900), (760, 900)),
    "text": ("gaussian", 25.0, (6, 20), (6, 240)),
    "brick": ("gaussian", 25.0, (100, 100), (300, 300)),
    "grass": ("gaussian", 25.0, (100, 100), (300, 300)),
}
COUNTS = {"filaments": (filaments, 64.0), "beads": (beads, 64.0)}
FRAMES = 3


def cases() -> list[Case]:
    """Every case, always the same."""
    grey = [_of_part(name) for name in PARTS] + [_drawn(name, *entry) for name, entry in COUNTS.items()]
    stack = dataclasses.replace(
        _drawn("filaments", *COUNTS["filaments"]), name="filaments_frames", frames=FRAMES
    )
    return [*grey, dataclasses.replace(_of_part("retina", in_color=True), name="retina_rgb"), stack]


def _of_part(name: str, *, in_color: bool = False) -> Case:
    """A case from a picture of scikit-image."""
    from skimage import color, data

    noise, strength, first, second = PARTS[name]
    picture = getattr(data, name)()
    whole = color.rgb2gray(picture) if picture.ndim == 3 and not in_color else picture / 255

    def part(corner: tuple[int, int]) -> np.ndarray:
        row, column = corner
        return np.ascontiguousarray(whole[row : row + SIDE, column : column + SIDE])

    return Case(name, noise, strength, part(first), None if second is None else part(second))


def _drawn(name: str, draw: Callable[[np.random.Generator], np.ndarray], photons: float) -> Case:
    """A case from a synthetic picture."""
    first, second = (draw(np.random.default_rng(SEED + i)) for i in range(2))
    return Case(name, "poisson", photons, first / first.max(), second / second.max())
