"""Specks and hairs of dust on the grain of a scan: how much of them each command removes.

    python -m benchmarks.dust CBSD68 --pictures 6 --out results

Grey crops of 128x128 pixels with grain of sigma 8 (blurred by 0.7 pixels) have specks of one size each, and hairs of
one width, white or black, drawn from SEED. `left` is the share of the error on them that is still there afterwards:
the root mean square of the difference from the clean picture on the pixels of the dust, after to before. `elsewhere` is
PSNR in dB on the other pixels; it shows what is done to the picture and its grain.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from nlrn.files.images import find_images, read_image
from nlrn.restoration import Restorer

from .common import show, tell, write

SEED, SIDE, GRAIN, COUNT = 20, 128, 8.0, 12
# Shapes of dust: diameters of specks and widths of hairs, in pixels.
DUST = {**{f"specks of {size}": ("speck", size) for size in (1, 2, 3, 4, 6)}, "hairs of 2": ("hair", 2)}
COMMANDS = {
    "denoise": {},
    "denoise --hot-pixels": {"hot_pixels": True},
    "denoise --for scan": {"purpose": "scan"},
    "denoise --for scan --hot-pixels": {"purpose": "scan", "hot_pixels": True},
    "restore": {"task": "restore"},
}


def main() -> None:
    """Prints the table, and appends it to `dust.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="pictures of 128 pixels a side and more")
    parser.add_argument("--pictures", type=int, default=6, help="how many, evenly spread; by default 6")
    parser.add_argument("--out", type=Path, help="folder for dust.jsonl")
    options = parser.parse_args()
    found = find_images([options.folder])
    chosen = found[:: max(1, len(found) // options.pictures)][: options.pictures]
    pictures = [read_image(path).pixels[:SIDE, :SIDE] for path in chosen]
    pictures = [one.mean(-1) if one.ndim == 3 else one for one in pictures]
    restorers = {name: Restorer(**settings) for name, settings in COMMANDS.items()}
    rows = [row(name, pictures, restorers) for name in DUST]
    about = f"{options.folder.name}, {len(pictures)} crops of {SIDE}x{SIDE}, seed {SEED}"
    show(f"dust that is left, and PSNR in dB elsewhere, {about}", rows)
    if options.out:
        write(options.out / "dust.jsonl", rows, torch.device("cpu"), about)


def row(name: str, pictures: list[np.ndarray], restorers: dict[str, Restorer]) -> dict[str, object]:
    """The share of one kind of dust that each command leaves, and PSNR elsewhere; means over the pictures."""
    shape, size = DUST[name]
    line: dict[str, list[float]] = {}
    for index, clean in enumerate(pictures):
        rng = np.random.default_rng(SEED + index)
        given, mask = dusty(clean, rng, shape, size)
        line.setdefault("elsewhere, as it is", []).append(psnr(given, clean, ~mask))
        for title, restorer in restorers.items():
            result = restorer.array(given)[0]
            line.setdefault(f"{title}: left", []).append(
                error(result, clean, mask) / error(given, clean, mask)
            )
            line.setdefault(f"{title}: elsewhere", []).append(psnr(result, clean, ~mask))
    figures: dict[str, object] = {
        "dust": name,
        **{key: float(np.mean(values)) for key, values in line.items()},
    }
    tell(str(figures))
    return figures


def dusty(
    clean: np.ndarray, rng: np.random.Generator, shape: str, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with grain and dust, uint8, and the pixels of the dust."""
    grain = gaussian_filter(rng.normal(0, 1, clean.shape), 0.7)
    values = clean + GRAIN * grain / grain.std()
    mask = np.zeros(clean.shape, bool)
    rows, columns = np.mgrid[: clean.shape[0], : clean.shape[1]]
    for number in range(COUNT):
        y, x = rng.uniform(8, SIDE - 8, 2)
        if shape == "speck":
            part = np.maximum(abs(rows - int(y)), abs(columns - int(x))) == 0 if size == 1 else None
            part = np.hypot(rows - y, columns - x) <= size / 2 if part is None else part
        else:  # a bent hair of 20 pixels
            along = np.linspace(0, 20, 80)
            turn = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.06, 0.06) * along
            path = y + np.cumsum(np.sin(turn)) / 4, x + np.cumsum(np.cos(turn)) / 4
            part = (np.hypot(rows[..., None] - path[0], columns[..., None] - path[1]) <= size / 2).any(-1)
        values[part] = 250 if number % 2 else 8
        mask |= part
    return values.round().clip(0, 255).astype(np.uint8), mask


def error(image: np.ndarray, clean: np.ndarray, mask: np.ndarray) -> float:
    """The root mean square of a difference on some pixels."""
    return float(np.sqrt(np.square(image.astype(np.float64) - clean)[mask].mean()))


def psnr(image: np.ndarray, clean: np.ndarray, mask: np.ndarray) -> float:
    """PSNR in dB on some pixels, of a range of 255."""
    return float(20 * np.log10(255 / error(image, clean, mask)))


if __name__ == "__main__":
    main()
