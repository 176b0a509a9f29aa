"""Noise that rows or neighbours share: what nlrn does by itself, sub-sampling, and `decorrelate`.

    python -m benchmarks.correlated_noise --data DIR --out results

`DIR` holds CBSD68 and PolyU. Of CBSD68 the middle SIDE x SIDE pixels of every EVERY-th picture get noise from the seed
of their index, in colour and in grey; of PolyU the same part of every tenth pair is real noise. No method is given a
level.

    nlrn            the model that nlrn chooses
    white           the model for white noise, with an estimated level
    sub-sampling    pixel-shuffle down-sampling by 2: each of four pictures through the model for white noise, and back
    decorrelate     the spectrum of the noise
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom

from nlrn import Restorer
from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import DataSet
from nlrn.files.images import read_image
from nlrn.ops.color import GRAY

from .common import show, tell, write

SIDE, EVERY, EVERY_REAL = 160, 12, 10

Noise = Callable[[tuple[int, int, int], np.random.Generator], np.ndarray]
Method = Callable[[np.ndarray], np.ndarray]


def lines(offsets: float, white: float, axis: int) -> Noise:
    """Offsets of rows (axis 0) or columns, the same in all channels, and white noise, in grey levels."""

    def noise(shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
        shared = [1, 1, 1]
        shared[axis] = shape[axis]
        return random.normal(0, offsets, shared) + random.normal(0, white, shape)

    return noise


def low_pass(sigma: float, blur: float) -> Noise:
    """White noise after a Gaussian filter, scaled to `sigma` grey levels."""

    def noise(shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
        smooth = gaussian_filter(random.normal(0, 1, shape), (blur, blur, 0))
        return sigma * smooth / smooth.std()

    return noise


def enlarged(sigma: float) -> Noise:
    """White noise of half the size, made larger bilinearly, scaled to `sigma` grey levels."""

    def noise(shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
        small = random.normal(0, 1, (shape[0] // 2, shape[1] // 2, shape[2]))
        large = zoom(small, (2, 2, 1), order=1)
        return sigma * large / large.std()

    return noise


CASES: dict[str, Noise] = {
    "rows 10, white 5": lines(10, 5, 0),
    "rows 20, white 5": lines(20, 5, 0),
    "columns 5, white 15": lines(5, 15, 1),
    "low-pass 15, blur 0.7": low_pass(15, 0.7),
    "low-pass 15, blur 1.0": low_pass(15, 1.0),
    "low-pass 15, blur 2.0": low_pass(15, 2.0),
    "enlarged 15": enlarged(15),
    "white 15": lines(0, 15, 0),
}


def sub_sampled(image: np.ndarray, method: Method) -> np.ndarray:
    """The four pictures of every second pixel through a method, and back."""
    result = np.empty_like(image)
    for row in range(2):
        for column in range(2):
            result[row::2, column::2] = method(np.ascontiguousarray(image[row::2, column::2]))
    return result


def methods() -> dict[str, Method]:
    """Every method by the title of its column."""
    plain, spectral = Restorer(), Restorer(decorrelate=True)

    def white(image: np.ndarray) -> np.ndarray:
        return plain.array(image, "auto")[0]

    return {
        "nlrn": lambda image: plain.array(image)[0],
        "white": white,
        "sub-sampling": lambda image: sub_sampled(image, white),
        "decorrelate": lambda image: spectral.array(image)[0],
    }


def middle(pixels: np.ndarray) -> np.ndarray:
    """The middle part of a picture."""
    top, left = ((length - SIDE) // 2 for length in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def gray(pixels: np.ndarray) -> np.ndarray:
    """Luma of RGB."""
    return to_bytes(pixels @ (GRAY / GRAY.sum()))


def pairs(data: Path, case: str, in_color: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Noisy and clean pictures of a case."""
    if case == "cameras (PolyU)":
        for file in sorted((data / "PolyU").glob("*_real.JPG"))[::EVERY_REAL]:
            both = (read_image(one).pixels for one in (file, Path(str(file).replace("_real", "_mean"))))
            noisy, clean = (middle(one if in_color else gray(one)) for one in both)
            yield noisy, clean
        return
    for index, file in enumerate(DataSet.find(data, "CBSD68").files[::EVERY]):
        clean = middle(read_image(file).pixels)
        clean = clean if in_color else gray(clean)
        shape = (SIDE, SIDE, 3 if in_color else 1)
        noise = CASES[case](shape, np.random.default_rng(index))
        yield to_bytes(clean + (noise if in_color else noise[..., 0])), clean


def main() -> None:
    """Prints the table, and appends it to `correlated_noise.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CBSD68 and PolyU")
    parser.add_argument("--out", type=Path, help="folder for correlated_noise.jsonl")
    parser.add_argument("--kinds", default="grey,colour", help="grey, colour or both, separated by a comma")
    options = parser.parse_args()
    every, rows = methods(), []
    for kind in options.kinds.split(","):
        for case in (*CASES, "cameras (PolyU)"):
            figures: dict[str, list[float]] = {name: [] for name in ("noisy", *every)}
            for noisy, clean in pairs(options.data, case, kind == "colour"):
                figures["noisy"].append(psnr(noisy, clean))
                for name, method in every.items():
                    figures[name].append(psnr(method(noisy), clean))
            row: dict[str, object] = {"kind": kind, "noise": case, "pictures": len(figures["noisy"])}
            row |= {name: f"{np.mean(values):.2f}" for name, values in figures.items()}
            tell(str(row))
            rows.append(row)
            if options.out:
                write(options.out / "correlated_noise.jsonl", [row], torch.device("cpu"), f"{SIDE}x{SIDE}")
    show(f"PSNR in dB, {SIDE}x{SIDE}", rows)


if __name__ == "__main__":
    main()
