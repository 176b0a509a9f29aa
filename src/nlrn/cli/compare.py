"""`nlrn compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .errors import CliError


def compare(
    image: Annotated[Path, typer.Argument(help="Image to measure.", show_default=False)],
    reference: Annotated[Path, typer.Argument(help="Reference image of the same size.", show_default=False)],
    data_range: options.DataRange = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Print PSNR and SSIM of two images, on the scale of 8 bit."""
    from ..evaluation.metrics import SSIM_WINDOW, psnr, ssim
    from ..files.images import read_image, to_float

    white = options.parse_white(data_range)
    try:
        images = [read_image(path) for path in (image, reference)]
        pixels = [i.pixels for i in images]
        first, second = (
            255 * to_float(p.astype("float64") if p.dtype.kind == "f" else p, white) for p in pixels
        )
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except ValueError as error:
        raise CliError(options.worded(str(error))) from error
    if any(i.alpha is not None for i in images):
        typer.echo("note: transparency is not compared", err=True)
    if first.ndim != second.ndim:
        kinds = ["grey" if p.ndim == 2 else "RGB" for p in pixels]
        raise CliError(f"{image} is {kinds[0]} and {reference} is {kinds[1]}; both must be of one kind")
    if first.shape != second.shape:
        sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in pixels]
        raise CliError(f"{image} has {sizes[0]} pixels and {reference} has {sizes[1]}; sizes must agree")
    similarity = ssim(first, second) if min(first.shape[:2]) >= SSIM_WINDOW else None
    ratio = psnr(first, second)
    identical = math.isinf(ratio)
    if as_json:
        typer.echo(
            json.dumps({"psnr": None if identical else ratio, "ssim": similarity, "identical": identical})
        )
        return
    typer.echo("PSNR  infinite (the images are identical)" if identical else f"PSNR  {ratio:.2f} dB")
    typer.echo(
        f"SSIM  {similarity:.4f}" if similarity is not None else f"SSIM  needs {SSIM_WINDOW} pixels a side"
    )
