"""Thin parallel lines and a smooth wall with white noise: pictures that photographs to learn from hardly have.

    python -m benchmarks.gratings --models nlrn-gray,nlrn-small-gray,bm3d --sigmas 25,50

The model is given the noise level.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from nlrn import Restorer
from nlrn.evaluation.metrics import psnr

from .common import show, tell

SIDE = 256
LOW, HIGH = 0.2, 0.8


def lines(angle: float, period: float, width: float, side: int = SIDE) -> np.ndarray:
    """Straight lines, `side x side` in [0, 1]; the angle in degrees, the other lengths in pixels."""
    y, x = np.mgrid[:side, :side]
    turn = math.radians(angle)
    return _drawn(x * math.cos(turn) + y * math.sin(turn), period, width)


def circles(period: float, width: float, side: int = SIDE) -> np.ndarray:
    """Concentric circles around a point outside of the picture."""
    y, x = np.mgrid[:side, :side]
    return _drawn(np.hypot(x + 40, y + 60), period, width)


def wall(side: int = SIDE) -> np.ndarray:
    """A smooth wall: brightness that rises slowly across."""
    y, x = np.mgrid[:side, :side] / side
    return (0.35 + 0.2 * x + 0.1 * y + 0.05 * np.sin(3 * x + 2 * y)).astype(np.float32)


def _drawn(distance: np.ndarray, period: float, width: float) -> np.ndarray:
    off = np.abs(distance / period % 1 - 0.5) * period
    return (LOW + (HIGH - LOW) * np.clip(width / 2 + 0.5 - off, 0, 1)).astype(np.float32)


PICTURES = {
    "upright, 7 apart": lines(0, 7, 1.5),
    "17 degrees, 7 apart": lines(17, 7, 1.5),
    "33 degrees, 7 apart": lines(33, 7, 1.5),
    "71 degrees, 7 apart": lines(71, 7, 1.5),
    "22 degrees, 5 apart": lines(22, 5, 2.5),
    "40 degrees, 12 apart": lines(40, 12, 6),
    "28 degrees, 20 apart": lines(28, 20, 2),
    "circles, 9 apart": circles(9, 2),
    "wall": wall(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="nlrn-gray,nlrn-small-gray,bm3d", help="separated by commas")
    parser.add_argument("--sigmas", default="25,50", help="noise levels in grey levels")
    options = parser.parse_args()
    restorers = {name: Restorer(name, device="cpu") for name in options.models.split(",")}
    rows = []
    for level in map(float, options.sigmas.split(",")):
        for name, clean in PICTURES.items():
            noise = np.random.default_rng(1).normal(0, level / 255, clean.shape)
            noisy = (clean + noise).astype(np.float32)
            row: dict[str, object] = {"picture": name, "sigma": f"{level:g}"}
            for model, restorer in restorers.items():
                restored, _ = restorer.array(noisy, level / 255)
                row[model] = f"{psnr(restored, clean, 1.0):.1f}"
            tell(", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    show(f"PSNR in dB on pictures of {SIDE}x{SIDE}", rows)


if __name__ == "__main__":
    main()
