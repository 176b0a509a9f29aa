"""`nlrn denoise --demo`: a photograph that comes with scikit-image, made noisy and restored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from ..degradations import gaussian_noise
from ..evaluation.contact_sheet import contact_sheet
from ..evaluation.metrics import psnr
from ..files.images import Image, from_float, to_float, write_image
from .errors import CliError

if TYPE_CHECKING:
    from ..restoration import Restorer


def run_demo(restorer: Restorer, folder: Path, sigma: float, overwrite: bool) -> None:
    """Writes `noisy.png`, `restored.png` and a labelled `side-by-side.png` into `folder`.

    Args:
        restorer: does the work.
        folder: made if it is not there.
        sigma: noise level in 8-bit grey levels.
        overwrite: replace existing files.

    Raises:
        CliError: the folder or its files cannot be written.
    """
    from skimage.data import chelsea

    files = {name: folder / f"{name}.png" for name in ("noisy", "restored", "side-by-side")}
    existing = [str(path) for path in files.values() if path.exists()]
    if existing and not overwrite:
        raise CliError(f"{existing[0]} exists; pass --overwrite to replace it")
    clean = chelsea()  # type: ignore[no-untyped-call]
    noisy = to_float(clean) + gaussian_noise(clean.shape, sigma / 255, np.random.default_rng(0))
    restored, report = restorer.array(noisy, sigma / 255)

    pictures = {"noisy": from_float(noisy, np.uint8), "restored": from_float(restored, np.uint8)}
    scores = {name: psnr(picture, clean) for name, picture in pictures.items()}
    row = [
        ("clean", clean),
        (f"noisy, sigma {sigma:g}: {scores['noisy']:.2f} dB", pictures["noisy"]),
        (f"{report.model}: {scores['restored']:.2f} dB", pictures["restored"]),
    ]
    pictures["side-by-side"] = contact_sheet([row])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            write_image(Image(pictures[name], format="PNG"), path, overwrite=overwrite)
    except OSError as error:
        raise CliError(f"cannot write to {folder}: {error.strerror or error}") from error
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.print(f"A photograph (scikit-image's chelsea, 451x300) with white noise of sigma {sigma:g}:")
    console.print(f"  noisy     {scores['noisy']:.2f} dB")
    console.print(f"  restored  {scores['restored']:.2f} dB   ({report.model}, {report.seconds:.1f} s)")
    for path in files.values():
        console.print(f"written: {path}")
