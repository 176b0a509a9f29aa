"""PSNR of photon counts restored with and without the Anscombe transform, beside scikit-image's methods.

    python -m benchmarks.sensor_noise --out results

Pictures of 160x160 pixels, scaled to so many photons at their brightest, with Poisson noise and no read noise; every
number is drawn from SEED. PSNR is to the brightest value of the clean picture. A second table has the mean of restored
flat fields over the mean of what was counted.

scikit-image's methods get what its documentation recommends: a noise level from `estimate_sigma`, and for total
variation the weight that `calibrate_denoiser` finds. `+ Anscombe` runs them on transformed counts, at noise 1, and
inverts exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import nlrn
from nlrn.ops.anscombe import SensorNoise, anscombe, inverse_anscombe

from .common import show, tell, write

SEED, SIDE = 24, 160
PEAKS = (1, 4, 16, 64, 255, 10_000)
FLAT = (0.5, 1, 2, 4, 10, 100, 1_000, 10_000)
COUNTS = SensorNoise(1.0)

Method = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Prints both tables, and appends them to `sensor_noise.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for sensor_noise.jsonl")
    parser.add_argument("--pictures", help="some pictures, separated by commas; by default all")
    parser.add_argument("--peaks", help="some peaks, separated by commas; by default all")
    options = parser.parse_args()
    every = pictures()
    chosen = list(every) if options.pictures is None else options.pictures.split(",")
    if unknown := set(chosen) - set(every):
        parser.error(f"no picture is named {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    peaks = PEAKS if options.peaks is None else tuple(float(peak) for peak in options.peaks.split(","))
    rows = [row(name, every[name], peak) for name in chosen for peak in peaks]
    flat = flat_fields()
    show(f"PSNR in dB, {SIDE}x{SIDE}, seed {SEED}", rows)
    show("mean of a restored flat field over that of its counts", flat)
    if options.out:
        write(options.out / "sensor_noise.jsonl", [*rows, *flat], torch.device("cpu"), f"seed {SEED}")


def pictures() -> dict[str, np.ndarray]:
    """Clean pictures, float64 `160 x 160`, whose brightest value is 1."""
    from skimage.data import camera, cell

    found = {
        "camera": camera()[100 : 100 + SIDE, 150 : 150 + SIDE] / 255,
        "cell": cell()[250 : 250 + SIDE, 200 : 200 + SIDE] / 255,
        "filaments": filaments(np.random.default_rng(SEED)),
        "beads": beads(np.random.default_rng(SEED)),
    }
    return {name: picture / picture.max() for name, picture in found.items()}


def filaments(rng: np.random.Generator) -> np.ndarray:
    """Curves three pixels wide on a background of 5%, as fluorescent fibres show."""
    from scipy.ndimage import gaussian_filter

    image = np.zeros((SIDE, SIDE))
    for _ in range(25):
        place, angle = rng.uniform(0, SIDE, 2), rng.uniform(0, 2 * np.pi)
        brightness, bend = rng.uniform(0.3, 1), rng.normal(0, 0.01)
        for _ in range(4 * SIDE):
            angle += bend / 2 + rng.normal(0, 0.01)
            place = place + 0.5 * np.array([np.sin(angle), np.cos(angle)])
            row, column = place.astype(int)
            if 0 <= row < SIDE and 0 <= column < SIDE:
                image[row, column] = max(image[row, column], brightness)
    smooth = gaussian_filter(image, 1.2)
    return 0.05 + 0.95 * smooth / smooth.max()


def beads(rng: np.random.Generator) -> np.ndarray:
    """Sixty Gaussian spots of 1.5 to 4 pixels on a background of 3%."""
    image = np.zeros((SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(60):
        row, column, width = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(1.5, 4)
        image += rng.uniform(0.2, 1) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / width**2)
    return 0.03 + 0.97 * image / image.max()


def row(name: str, picture: np.ndarray, peak: float) -> dict[str, object]:
    """The PSNR of every method on one picture at one number of photons."""
    clean = picture * peak
    counts = np.random.default_rng(SEED).poisson(clean).astype(np.float64)
    figures: dict[str, object] = {"picture": name, "peak": peak, "noisy": _psnr(counts, clean, peak)}
    for title, method in methods().items():
        try:
            figures[title] = _psnr(method(counts), clean, peak)
        except nlrn.NoiseUnknown:
            figures[title] = "unknown"
        tell(f"{name}, {peak:g} photons, {title}: {figures[title]}")
    return figures


def methods() -> dict[str, Method]:
    """Every method by the title of its column."""
    peers: dict[str, Method] = {"wavelet": _wavelet, "nl_means": _nl_means, "tv": _tv}
    return {
        "nlrn, noise given": lambda x: nlrn.denoise(x, noise="poisson-gaussian", gain=1, read_noise=0),
        "nlrn, estimated": lambda x: nlrn.denoise(x, noise="poisson-gaussian"),
        "nlrn, no transform": lambda x: nlrn.denoise(x, sigma="auto"),
        "bm3d, noise given": lambda x: nlrn.denoise(
            x, noise="poisson-gaussian", gain=1, read_noise=0, model="bm3d"
        ),
        **{f"skimage {name}": lambda x, run=run: run(x, _sigma(x)) for name, run in peers.items()},
        **{f"{name} + Anscombe": lambda x, run=run: _between(x, run) for name, run in peers.items()},
    }


def flat_fields() -> list[dict[str, object]]:
    """The bias of restored flat fields, in percent of what was counted."""
    rows: list[dict[str, object]] = []
    for photons in FLAT:
        counts = np.random.default_rng(SEED).poisson(photons, (SIDE, SIDE)).astype(np.float64)
        means = {}
        for name in (None, "bm3d"):
            restored = nlrn.denoise(counts, noise="poisson-gaussian", gain=1, read_noise=0, model=name)
            means[f"{name or 'nlrn'} bias %"] = 100 * float(restored.mean() / counts.mean() - 1)
        rows.append({"photons": photons, **means})
        tell(str(rows[-1]))
    return rows


def _psnr(image: np.ndarray, clean: np.ndarray, peak: float) -> float:
    return float(10 * np.log10(peak**2 / np.mean((image - clean) ** 2)))


def _sigma(image: np.ndarray) -> float:
    from skimage.restoration import estimate_sigma

    return float(estimate_sigma(image))


def _wavelet(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet(image, sigma, rescale_sigma=True)


def _nl_means(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(image, 5, 6, 0.8 * sigma, fast_mode=True, sigma=sigma)


def _tv(image: np.ndarray, sigma: float) -> np.ndarray:
    from skimage.restoration import calibrate_denoiser, denoise_tv_chambolle

    weights = {"weight": sigma * np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])}
    return calibrate_denoiser(image, denoise_tv_chambolle, weights)(image)


def _between(counts: np.ndarray, method: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """A method for white noise on transformed counts."""
    stabilized = anscombe(torch.from_numpy(counts), COUNTS).numpy()
    return inverse_anscombe(torch.from_numpy(method(stabilized, 1.0).astype(np.float64)), COUNTS).numpy()


if __name__ == "__main__":
    main()
