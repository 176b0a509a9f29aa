"""Hot pixels of a stack: how many are found in each frame and over the frames, and PSNR after denoising.

    python -m benchmarks.hot_pixels --out results

16 frames of 128x128 pixels have the Poisson-Gaussian noise of a sensor (GAIN, READ_NOISE, OFFSET), which is given to
the restorer. Pictures of scikit-image are held still, or drift by 0.36 pixels a frame; `beads` move by 1.5 pixels a
frame. SHARE of the pixels are hot, in the same place in all frames, by so many times the noise of a pixel of median
brightness. `found` and `false` are the hot pixels that are found and the others that are taken for hot, out of a
hundred hot ones and a million others. PSNR in dB is that of two frames, of the pixels whose 3x3 neighbours have a hot
one, and of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import maximum_filter, shift
from skimage import data

from nlrn.ops.hot_pixels import hot_pixels
from nlrn.restoration import Restorer
from nlrn.restoration.hot_pixels import faults_of
from nlrn.restoration.shared import Shared

from .common import show, tell, write

SEED, SIDE, FRAMES, SHARE = 0, 128, 16, 0.001
GAIN, READ_NOISE, OFFSET = 2.0, 6.0, 100.0
STRENGTHS = (2, 4, 10, 40)
SENSOR = {"noise": "poisson-gaussian", "gain": GAIN, "read_noise": READ_NOISE, "offset": OFFSET}
# Frames of which PSNR is measured.
RESTORED = (0, FRAMES - 1)
SEEDS = 8


def main() -> None:
    """Prints the table, and appends it to `hot_pixels.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for hot_pixels.jsonl")
    options = parser.parse_args()
    restorers = {name: Restorer(hot_pixels=name, **SENSOR) for name in (False, "frame", "stack")}
    rows = [row(name, clean, times, restorers) for name, clean in scenes().items() for times in STRENGTHS]
    about = f"{FRAMES} frames of {SIDE}x{SIDE}, {100 * SHARE}% hot, seed {SEED}"
    show(f"hot pixels by frame and by stack, {about}", rows)
    if options.out:
        write(options.out / "hot_pixels.jsonl", rows, torch.device("cpu"), about)


def scenes() -> dict[str, np.ndarray]:
    """Clean frames `[16, 128, 128]` in units of the data, by their names."""
    pictures = {name: getattr(data, name)()[:256, :256] for name in ("camera", "coins", "cell")}
    found = {}
    for name, picture in pictures.items():
        part = 4.0 * picture[100 : 100 + SIDE + 8, 80 : 80 + SIDE + 8]
        moved = [shift(part, (0.3 * t, 0.2 * t), order=1)[8:, 8:] for t in range(FRAMES)]
        found[f"{name}, drifting"] = np.stack(moved)
    found["camera, still"] = found["camera, drifting"][:1].repeat(FRAMES, 0)
    found["beads"] = beads()
    return found


def beads() -> np.ndarray:
    """25 spots of a standard deviation of one pixel, each on a straight way."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = np.full((FRAMES, SIDE, SIDE), 60.0)
    for place, way in zip(
        rng.uniform(0, SIDE, (25, 2)), rng.normal(0, 1.5 / np.sqrt(2), (25, 2)), strict=True
    ):
        for time, frame in enumerate(frames):
            row_, column = (place + way * time) % SIDE
            frame += 800 * np.exp(-((y - row_) ** 2 + (x - column) ** 2) / 2)
    return frames


def spoilt(clean: np.ndarray, times: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of a sensor with hot pixels, and where these are."""
    rng = np.random.default_rng(seed)
    hot = rng.random((SIDE, SIDE)) < SHARE
    noisy = GAIN * rng.poisson(clean / GAIN) + READ_NOISE * rng.standard_normal(clean.shape) + OFFSET
    return noisy + hot * times * np.sqrt(GAIN * np.median(clean) + READ_NOISE**2), hot


def row(
    name: str, clean: np.ndarray, times: float, restorers: dict[bool | str, Restorer]
) -> dict[str, object]:
    """The figures of one scene and one strength, found and false over several seeds."""
    found: dict[str, list[tuple[float, float]]] = {"frame": [], "stack": []}
    for seed in range(SEED, SEED + SEEDS):
        counts, hot = spoilt(clean, times, seed)
        for way, list_ in found.items():
            list_ += [shares(mask, hot) for mask in masks(counts, way, restorers[way])]
    line: dict[str, object] = {"scene": name, "times the noise": times}
    for way, list_ in found.items():
        hits, falses = np.mean(list_, 0)
        line |= {
            f"{way}: found %": round(100 * float(hits), 1),
            f"{way}: false ppm": round(1e6 * float(falses), 1),
        }
    counts, hot = spoilt(clean, times, SEED)
    near = maximum_filter(hot, 3)
    faults = faults_of(((tensor(one), None) for one in counts), restorers["stack"].options)
    for way, restorer in restorers.items():
        shared = Shared(faults=faults if way == "stack" else None)
        errors = [restorer.array(counts[t], shared=shared)[0] - OFFSET - clean[t] for t in RESTORED]
        for where, mask in (("near", near), ("all", np.ones_like(near))):
            mean = np.mean([np.square(error[mask]).mean() for error in errors])
            line[f"{way or 'none'}: dB {where}"] = round(
                float(20 * np.log10(clean.max()) - 10 * np.log10(mean)), 2
            )
    tell(str(line))
    return line


def tensor(frame: np.ndarray) -> torch.Tensor:
    """`[1, 1, H, W]`."""
    return torch.from_numpy(frame)[None, None]


def masks(counts: np.ndarray, way: str, restorer: Restorer) -> list[np.ndarray]:
    """What is taken for hot in each frame, or over them."""
    if way == "stack":
        faults = faults_of(((tensor(one), None) for one in counts), restorer.options)
        assert faults.mask is not None
        return [faults.mask[0, 0].numpy()]
    noise = READ_NOISE**2 - GAIN * OFFSET
    return [hot_pixels(tensor(one), GAIN, noise)[0, 0].numpy() for one in counts]


def shares(mask: np.ndarray, hot: np.ndarray) -> tuple[float, float]:
    """The share of the hot pixels that are found, and of the others that are taken for hot."""
    return float(mask[hot].mean()), float(mask[~hot].mean())


if __name__ == "__main__":
    main()
