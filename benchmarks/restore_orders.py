"""PSNR of pictures that are noisy, compressed or small, after each order of steps and after `nlrn restore`.

    python -m benchmarks.restore_orders CBSD68 --pictures 8 --out results

Crops of 96x96 pixels, a fixed one of each picture, its corner off the grid of 8 pixels in which the data set itself was
compressed. Every degradation is drawn from SEED, rounded to 8 bit, and where it is compressed written by Pillow with
chroma at half the resolution. Smaller pictures are reduced by bicubic interpolation first and enlarged by 2 at last;
`bicubic` is their enlargement alone. PSNR leaves out a border of 4 pixels. A clean picture that comes back as it is has
an infinite PSNR, and the mean takes CAP for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from nlrn.files.images import Image, find_images, read_image, to_planes
from nlrn.models.zoo import default_model
from nlrn.ops.resize import bicubic_resize
from nlrn.restoration import Restorer

from .common import show, tell, write

SEED, SIDE, BORDER, CAP = 20, 96, 4, 60.0
# White noise, grain (grey, blurred by 0.7 pixels) and JPEG quality, of a picture reduced by a factor.
DEGRADATIONS = {
    "clean": {},
    "noise 5": {"noise": 5},
    "noise 15": {"noise": 15},
    "noise 30": {"noise": 30},
    "grain 12": {"grain": 12},
    "q 10": {"quality": 10},
    "q 30": {"quality": 30},
    "q 60": {"quality": 60},
    "q 90": {"quality": 90},
    "q 98": {"quality": 98},
    "noise 15, q 10": {"noise": 15, "quality": 10},
    "noise 15, q 30": {"noise": 15, "quality": 30},
    "noise 15, q 60": {"noise": 15, "quality": 60},
    "noise 15, q 90": {"noise": 15, "quality": 90},
    "noise 30, q 30": {"noise": 30, "quality": 30},
    "grain 12, q 60": {"grain": 12, "quality": 60},
    "small": {"reduced": 2},
    "small, noise 10": {"reduced": 2, "noise": 10},
    "small, q 60": {"reduced": 2, "quality": 60},
    "small, noise 10, q 60": {"reduced": 2, "noise": 10, "quality": 60},
}
ORDERS = (
    (),
    ("dejpeg",),
    ("denoise",),
    ("photo",),
    ("dejpeg", "denoise"),
    ("dejpeg", "photo"),
    ("denoise", "dejpeg"),
    ("photo", "dejpeg"),
)


def main() -> None:
    """Prints the table, and appends it to `restore_orders.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="colour pictures of 97 pixels a side and more")
    parser.add_argument("--pictures", type=int, default=8, help="how many, evenly spread; by default 8")
    parser.add_argument("--degradations", help="some of them, separated by semicolons; by default all")
    parser.add_argument("--out", type=Path, help="folder for restore_orders.jsonl")
    options = parser.parse_args()
    names = list(DEGRADATIONS) if options.degradations is None else options.degradations.split(";")
    if unknown := set(names) - set(DEGRADATIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {'; '.join(DEGRADATIONS)}")
    found = find_images([options.folder])
    step = max(1, len(found) // options.pictures)
    pictures = [crop(read_image(path)) for path in found[::step][: options.pictures]]
    rows = [row(name, pictures) for name in names]
    about = f"{options.folder.name}, {len(pictures)} crops of {SIDE}x{SIDE}, seed {SEED}"
    show(f"PSNR in dB, {about}", rows)
    if options.out:
        write(options.out / "restore_orders.jsonl", rows, torch.device("cpu"), about)


def crop(image: Image) -> np.ndarray:
    """The middle of a picture, uint8 `SIDE x SIDE x 3`, off the grid of its own compression."""
    height, width = image.pixels.shape[:2]
    top, left = ((length - SIDE) // 2 // 8 * 8 + 3 for length in (height, width))
    return image.pixels[top : top + SIDE, left : left + SIDE]


def row(name: str, pictures: list[np.ndarray]) -> dict[str, object]:
    """The mean PSNR of a degradation after each order and after `nlrn restore`, and the steps that this chose."""
    about = DEGRADATIONS[name]
    means: dict[str, list[float]] = {}
    chosen: list[str] = []
    for index, clean in enumerate(pictures):
        given = degraded(clean, np.random.default_rng(SEED + index), **about)
        for title, restored in results(given, about.get("reduced", 1), chosen):
            means.setdefault(title, []).append(psnr(restored, clean))
    most = max(set(chosen), key=chosen.count)
    figures: dict[str, object] = {title: float(np.mean(values)) for title, values in means.items()}
    line = {"degradation": name, **figures, "chosen": f"{most} ({chosen.count(most)} of {len(chosen)})"}
    tell(str(line))
    return line


def degraded(
    clean: np.ndarray,
    rng: np.random.Generator,
    *,
    reduced: int = 1,
    noise: float = 0,
    grain: float = 0,
    quality: int | None = None,
) -> Image:
    """A picture as its file is read."""
    values = clean.astype(np.float64)
    if reduced > 1:
        planes = torch.from_numpy(to_planes(values).copy())
        values = np.moveaxis(bicubic_resize(planes, SIDE // reduced, SIDE // reduced).numpy(), 0, -1)
    values = values + rng.normal(0, 1, values.shape) * noise
    blurred = gaussian_filter(rng.normal(0, 1, values.shape[:2]), 0.7)
    values = values + (grain * blurred / blurred.std())[..., None]
    pixels = values.round().clip(0, 255).astype(np.uint8)
    if quality is None:
        return Image(pixels)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    return read_image(file.getvalue())


def results(given: Image, reduced: int, chosen: list[str]) -> list[tuple[str, np.ndarray]]:
    """The picture after each order, and after `nlrn restore`, whose steps are appended to `chosen`."""
    large = restorer("upscale", reduced)
    plain = dataclasses.replace(given, jpeg_quality=None)
    after: dict[tuple[str, ...], Image] = {(): plain}
    found = []
    for order in ORDERS:
        if order not in after:
            after[order] = restorer(order[-1], 1)(after[order[:-1]])
        found.append((", ".join(order) or "nothing", large(after[order]).pixels))
    if reduced > 1:
        size = [reduced * length for length in given.pixels.shape[:2]]
        bicubic = bicubic_resize(torch.from_numpy(to_planes(given.pixels.astype(np.float64)).copy()), *size)
        found.insert(0, ("bicubic", np.moveaxis(bicubic.numpy(), 0, -1).round().clip(0, 255)))
    else:
        found.insert(0, ("bicubic", given.pixels))
    whole = Restorer(task="restore", **({"scale": reduced} if reduced > 1 else {}))
    restored, report = whole.image(given)
    chosen.append(report.model.replace("nlrn-", ""))
    return [*found, ("restore", restored.pixels)]


def restorer(step: str, scale: int) -> Callable[[Image], Image]:
    """The function of a step; enlarging by 1 changes nothing."""
    if step == "upscale" and scale == 1:
        return lambda image: image
    if step == "upscale":
        made = Restorer(task="upscale", scale=scale)
    elif step == "photo":
        made = Restorer(default_model("photo", 1))
    else:
        made = Restorer(task="dejpeg" if step == "dejpeg" else "denoise")
    return lambda image: made.image(image)[0]


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """PSNR without the border, at most CAP."""
    inner = slice(BORDER, -BORDER)
    error = np.mean((image[inner, inner].astype(np.float64) - clean[inner, inner]) ** 2)
    return CAP if error == 0 else min(CAP, float(10 * np.log10(255**2 / error)))


if __name__ == "__main__":
    main()
