"""Noise whose level differs between pixels or channels: a level for each, one for all, and the estimate.

    python -m benchmarks.noise_levels --data DIR --out results

`DIR` holds Set12 and CBSD68, of whose middle SIDE x SIDE pixels every second and every twelfth picture get noise that
rises from left to right. Parts of three pictures of scikit-image get noise of unlike channels.

    map             the level of each pixel
    mean            their mean
    estimate        of white noise
    levels          that of each channel
    by itself       each channel as a grey picture at its level
    divided         channels divided by their levels, restored in colour at the strongest, and multiplied again
    one level       the root mean square, in colour
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from nlrn import Restorer
from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import DataSet
from nlrn.files.images import read_image

from .common import show, tell, write

SIDE, PART = 160, 128
SETS = {"grey": ("Set12", 2), "colour": ("CBSD68", 12)}
RISES = ((5, 40), (5, 20), (10, 50), (20, 30))
UNLIKE = ((10, 20, 40), (5, 25, 50), (25, 10, 25), (40, 10, 10), (20, 20, 22))
# Pictures of scikit-image, and the first row and column of a part.
PARTS = (
    ("astronaut", 40, 170),
    ("coffee", 60, 200),
    ("chelsea", 60, 120),
    ("astronaut", 300, 60),
    ("coffee", 220, 330),
)


def pictures(data: Path, kind: str) -> Iterator[np.ndarray]:
    """The middles of the pictures of a kind, in units of [0, 1]."""
    name, every = SETS[kind]
    for file in DataSet.find(data, name).files[::every]:
        pixels = read_image(file).pixels
        top, left = ((length - SIDE) // 2 for length in pixels.shape[:2])
        yield pixels[top : top + SIDE, left : left + SIDE].astype(np.float32) / 255


def parts() -> Iterator[np.ndarray]:
    """Parts of pictures of scikit-image, in units of [0, 1]."""
    from skimage import data

    for name, top, left in PARTS:
        yield getattr(data, name)()[top : top + PART, left : left + PART].astype(np.float32) / 255


def noisy(clean: np.ndarray, levels: np.ndarray, seed: int) -> np.ndarray:
    """A picture with noise of these levels, not clipped."""
    noise = np.random.default_rng(seed).standard_normal(clean.shape, np.float32)
    return clean + levels.astype(np.float32) * noise


def on_maps(data: Path, kind: str, ends: tuple[int, int]) -> dict[str, object]:
    """PSNR of the whole, and of the left and the right half, of noise that rises."""
    restorer, figures = Restorer(data_range=1.0), dict[str, list[list[float]]]()
    for index, clean in enumerate(pictures(data, kind)):
        level = np.linspace(*ends, SIDE) / 255 * np.ones((SIDE, 1))
        given = noisy(clean, level if kind == "grey" else level[..., None], index)
        ways = {"map": level, "mean": float(level.mean()), "estimate": "auto"}
        for name, result in [("noisy", given), *((n, restorer.array(given, s)[0]) for n, s in ways.items())]:
            halves = slice(0, SIDE), slice(0, SIDE // 2), slice(SIDE // 2, SIDE)
            figures.setdefault(name, []).append([psnr(result[:, x], clean[:, x], 1.0) for x in halves])
    row: dict[str, object] = {"kind": kind, "noise": f"{ends[0]} to {ends[1]}"}
    for name, values in figures.items():
        row[name] = " / ".join(f"{value:.2f}" for value in np.mean(values, 0))
    return row


def on_channels(levels: tuple[int, int, int]) -> dict[str, object]:
    """PSNR of the whole, and of each channel."""
    restorer, figures = Restorer(data_range=1.0), dict[str, list[list[float]]]()
    unit = np.array(levels) / 255
    for index, clean in enumerate(parts()):
        given = noisy(clean, unit, index)
        scale = (unit.max() / unit).astype(np.float32)
        apart = np.dstack([restorer.array(given[..., c], unit[c])[0] for c in range(3)])
        stretched = torch.from_numpy(((given - 0.5) * scale + 0.5).transpose(2, 0, 1)[None])
        restored = restorer(stretched, float(unit.max()))[0][0].numpy().transpose(1, 2, 0)
        results = {
            "noisy": given,
            "levels": restorer.array(given, unit)[0],
            "by itself": apart,
            "divided": (restored - 0.5) / scale + 0.5,
            "one level": restorer.array(given, float((unit**2).mean() ** 0.5))[0],
        }
        for name, result in results.items():
            each = (psnr(result[..., c], clean[..., c], 1.0) for c in range(3))
            figures.setdefault(name, []).append([psnr(result, clean, 1.0), *each])
    row: dict[str, object] = {"noise": ", ".join(map(str, levels))}
    for name, values in figures.items():
        row[name] = " / ".join(f"{value:.2f}" for value in np.mean(values, 0))
    return row


def main() -> None:
    """Prints the tables, and appends them to `noise_levels.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds Set12 and CBSD68")
    parser.add_argument("--out", type=Path, help="folder for noise_levels.jsonl")
    options = parser.parse_args()
    maps, channels = list[dict[str, object]](), list[dict[str, object]]()
    for kind, ends in itertools.product(SETS, RISES):
        maps.append(on_maps(options.data, kind, ends))
        tell(str(maps[-1]))
    for levels in UNLIKE:
        channels.append(on_channels(levels))
        tell(str(channels[-1]))
    if options.out:
        cpu = torch.device("cpu")
        write(options.out / "noise_levels.jsonl", maps, cpu, f"{SIDE}x{SIDE}")
        write(options.out / "noise_levels.jsonl", channels, cpu, f"{PART}x{PART}")
    show(f"PSNR in dB, {SIDE}x{SIDE}: whole / left half / right half", maps)
    show(f"PSNR in dB, {PART}x{PART}: whole / red / green / blue", channels)


if __name__ == "__main__":
    main()
