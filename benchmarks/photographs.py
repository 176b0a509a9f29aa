"""Models for photographs on noise whose truth is known: white, correlated as grain is, before JPEG, and none.

    python -m benchmarks.photographs --data DIR --models nlrn-photo,nlrn-small-photo

`DIR` holds CBSD68, of which the middle 192x192 pixels of every seventh picture are taken. No model is given a noise
level. OpenCV's non-local means, where it is installed, has the best of six strengths for each picture.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from scipy.ndimage import gaussian_filter

from nlrn import Restorer
from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import DataSet
from nlrn.files.images import read_image

from .common import show, tell

SIDE, EVERY = 192, 7
STRENGTHS = (3, 5, 7, 10, 15, 20)

Method = Callable[[np.ndarray], np.ndarray]


def white(sigma: float, quality: int | None = None) -> Callable[..., np.ndarray]:
    """White noise in grey levels, before JPEG where a quality is given."""

    def degraded(clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noisy = to_bytes(clean + random.normal(0, sigma, clean.shape))
        if quality is None:
            return noisy
        file = io.BytesIO()
        PillowImage.fromarray(noisy).save(file, "JPEG", quality=quality)
        return np.asarray(PillowImage.open(file))

    return degraded


def grain(sigma: float, blur: float, gray: bool = False) -> Callable[..., np.ndarray]:
    """Noise in grey levels that is shared by neighbours, and by the channels where it is grey."""

    def degraded(clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
        shape = (*clean.shape[:2], 1 if gray else 3)
        noise = gaussian_filter(random.normal(0, 1, shape), (blur, blur, 0))
        return to_bytes(clean + sigma * noise / noise.std())

    return degraded


CASES = {
    "clean": white(0),
    "white, 5": white(5),
    "white, 20": white(20),
    "white, 40": white(40),
    "white, 5, JPEG 90": white(5, 90),
    "white, 20, JPEG 90": white(20, 90),
    "grain, 5, blur 0.7": grain(5, 0.7),
    "grain, 10, blur 0.9": grain(10, 0.9),
    "grain, 20, blur 0.7": grain(20, 0.7),
    "grey grain, 15, blur 0.7": grain(15, 0.7, gray=True),
}


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def opencv() -> Method | None:
    """OpenCV's non-local means in colour at the six strengths, `[6, H, W, 3]`; `None` where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    return lambda x: np.stack([cv2.fastNlMeansDenoisingColored(x, None, h, h, 7, 21) for h in STRENGTHS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CBSD68")
    parser.add_argument("--models", default="nlrn-photo,nlrn-small-photo", help="separated by commas")
    options = parser.parse_args()
    methods: dict[str, Method] = {}
    for name in options.models.split(","):
        restorer = Restorer(name)
        methods[name] = lambda x, restorer=restorer: restorer.array(x)[0][None]
    if (peer := opencv()) is not None:
        methods["OpenCV"] = peer
    files = DataSet.find(options.data, "CBSD68").files[::EVERY]
    rows = []
    for name, degrade in CASES.items():
        row: dict[str, object] = {"noise": name}
        figures: dict[str, list[float]] = {method: [] for method in ("noisy", *methods)}
        for index, file in enumerate(files):
            pixels = read_image(file).pixels
            top, left = ((length - SIDE) // 2 for length in pixels.shape[:2])
            clean = pixels[top : top + SIDE, left : left + SIDE]
            noisy = degrade(clean, np.random.default_rng(index))
            figures["noisy"].append(psnr(noisy, clean) if (noisy != clean).any() else np.inf)
            for method, run in methods.items():
                figures[method].append(max(psnr(result, clean) for result in run(noisy)))
        row |= {method: f"{np.mean(values):.2f}" for method, values in figures.items()}
        tell(", ".join(f"{key} {value}" for key, value in row.items()))
        rows.append(row)
    show(f"PSNR in dB on {len(files)} crops of CBSD68 of {SIDE}x{SIDE}", rows)


if __name__ == "__main__":
    main()
