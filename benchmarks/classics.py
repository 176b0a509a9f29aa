"""Seconds and PSNR of the methods without weights, beside public implementations that are installed.

    python -m benchmarks.classics --out results

One grey image of 256x256 pixels with noise of sigma 25, in one process and on torch's threads. Peers are scikit-image
and, where they can be imported, OpenCV and the `bm3d` package. A time counts only once a result is plausible: a
method must gain what its kind gains, and the non-local means must agree with scikit-image's at equal parameters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nlrn.evaluation.metrics import psnr
from nlrn.evaluation.protocol import noisy_version, to_bytes
from nlrn.models.classical.nlm import NLM, NLMConfig
from nlrn.models.zoo import CLASSICAL

from .common import seconds, show, tell, write

SIDE, SIGMA = 256, 25
LEVEL = SIGMA / 255
# Of non-local means at equal parameters: a patch of 7x7, a window of 21x21, and scikit-image's weights of a patch. Its
# fast version and OpenCV weigh all pixels of a patch alike, which costs less.
H, PATCH_SIGMA = 0.8 * LEVEL, 1.5
# The least gain in dB over the noisy image by which a result is plausible.
LEAST_GAIN = {"gaussian": 4.0, "nonlocal": 4.0, "wavelet": 5.0, "nlm 7/21": 5.0}
LEAST = 6.0


@dataclass(frozen=True)
class Entry:
    """An implementation.

    Args:
        method: what it computes; times are compared within a method.
        source: whose it is.
        run: the restored `H x W` in units of [0, 1] of a noisy one.
    """

    method: str
    source: str
    run: Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Prints the table, and appends it to `classics.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for classics.jsonl")
    parser.add_argument("--methods", help="some methods, separated by commas; by default all")
    options = parser.parse_args()
    chosen = None if options.methods is None else options.methods.split(",")
    entries = [entry for entry in implementations() if chosen is None or entry.method in chosen]
    if not entries:
        parser.error(
            f"no method is named like that; there are {sorted({e.method for e in implementations()})}"
        )
    rows, device = compare(entries), torch.device("cpu")
    show(f"{SIDE}x{SIDE}, sigma {SIGMA}, {torch.get_num_threads()} threads", rows)
    if options.out:
        write(options.out / "classics.jsonl", rows, device, f"grey, sigma {SIGMA}, {SIDE}x{SIDE}")


def compare(entries: list[Entry]) -> list[dict[str, object]]:
    """A row for each implementation, those of a method together.

    Raises:
        ValueError: a result that is not plausible.
    """
    clean, noisy = picture()
    check_nlm(noisy)
    rows: list[dict[str, object]] = []
    for entry in entries:
        gained = check_gain(entry, clean, noisy)
        took = seconds(lambda entry=entry: entry.run(noisy), torch.device("cpu"), repeats=1)
        rows.append(
            {"method": entry.method, "by": entry.source, "PSNR": gained, "seconds": took, "ratio": 1.0}
        )
        tell(f"{entry.method} by {entry.source}: {gained:.2f} dB, {took:.3f} s")
    own = {row["method"]: row["seconds"] for row in rows if row["by"] == "nlrn"}
    for row in rows:
        # How many times as long as nlrn.
        row["ratio"] = row["seconds"] / own.get(row["method"], math.nan)
    return rows


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A photograph, uint8 `H x W`, and its noisy version, float32 in units of [0, 1]."""
    from skimage.data import camera

    clean = camera()[100 : 100 + SIDE, 150 : 150 + SIDE]
    return clean, noisy_version(clean, SIGMA, 0)[0]


def check_gain(entry: Entry, clean: np.ndarray, noisy: np.ndarray) -> float:
    """The PSNR of an implementation.

    Raises:
        ValueError: it gains less than its method does.
    """
    restored = psnr(to_bytes(entry.run(noisy).astype(np.float32)[None]), clean)
    gain, least = restored - psnr(to_bytes(noisy[None]), clean), LEAST_GAIN.get(entry.method, LEAST)
    if not gain >= least:
        raise ValueError(
            f"{entry.method} by {entry.source} gains {gain:.2f} dB, expected at least {least} dB"
        )
    return restored


def check_nlm(noisy: np.ndarray) -> None:
    """Raises `ValueError` unless our non-local means are scikit-image's, inside of the image."""
    from skimage.restoration import denoise_nl_means

    # So far that none of scikit-image's weights is below exp(-5), where it cuts them off.
    h, piece = 4 * H, noisy[100:160, 100:160]
    theirs = denoise_nl_means(piece, 7, 10, h, fast_mode=False)
    difference = np.abs(_own(NLM(NLMConfig(7, 21, h, PATCH_SIGMA)))(piece) - theirs)[13:-13, 13:-13].max()
    # Its exponential is an approximation, too.
    if not difference < 1e-2:
        raise ValueError(f"non-local means differ from scikit-image's by {difference:.4f}")


def implementations() -> list[Entry]:
    """Ours, and those of the packages that are installed."""
    from scipy.ndimage import gaussian_filter
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    found = [Entry(name, "nlrn", _own(entry.builder())) for name, entry in CLASSICAL.items()]
    found += [
        Entry("nlm 7/21", "nlrn", _own(NLM(NLMConfig(7, 21, H, PATCH_SIGMA)))),
        Entry("nlm 7/21", "scikit-image, fast", lambda x: denoise_nl_means(x, 7, 10, H, fast_mode=True)),
        Entry("nlm 7/21", "scikit-image, slow", lambda x: denoise_nl_means(x, 7, 10, H, fast_mode=False)),
        Entry("gaussian", "SciPy", lambda x: gaussian_filter(x, 1.0)),
        Entry("tv", "scikit-image", lambda x: denoise_tv_chambolle(x, 0.08)),
        Entry("wavelet", "scikit-image", lambda x: denoise_wavelet(x, LEVEL, rescale_sigma=True)),
    ]
    return sorted([*found, *_optional()], key=lambda entry: entry.method)


def _optional() -> list[Entry]:
    found = []
    try:
        import cv2
    except ImportError:
        tell("OpenCV is not installed")
    else:

        def opencv(x: np.ndarray) -> np.ndarray:
            return cv2.fastNlMeansDenoising(to_bytes(x[None]), None, 255 * H, 7, 21) / np.float32(255)

        found.append(Entry("nlm 7/21", "OpenCV", opencv))
    try:
        import bm3d
    except ImportError:
        tell("the package bm3d is not installed")
    else:
        found.append(Entry("bm3d", "the package bm3d", lambda x: bm3d.bm3d(x, LEVEL)))
    return found


def _own(model: Callable[..., torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: model(torch.from_numpy(x)[None, None], LEVEL)[0, 0].numpy()


if __name__ == "__main__":
    main()
