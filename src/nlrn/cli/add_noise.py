"""`nlrn add-noise`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options, parsing
from .errors import CliError


def add_noise(
    image: Annotated[Path, typer.Argument(help="Image to add noise to.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Noisy image to write.", show_default=False)],
    sigma: Annotated[
        float, typer.Option(help="Standard deviation of the noise in 8-bit grey levels (0..255).")
    ] = 25.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
    data_range: options.DataRange = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Add white Gaussian noise to an image.

    Integer images are clipped to their range.
    """
    import numpy as np

    from ..degradations import gaussian_noise
    from ..files.images import from_float, read_image, to_float, write_image

    white = parsing.parse_white(data_range)
    if output.exists() and image.exists() and output.samefile(image):
        raise CliError(f"the output {output} is the input itself; the original is never modified")
    if not 0 <= sigma <= 255:
        raise CliError(f"--sigma must lie between 0 and 255 grey levels, got {sigma:g}")
    try:
        source = read_image(image)
        values = to_float(source.pixels, white)
        noise = gaussian_noise(values.shape, sigma / 255, np.random.default_rng(seed))
        noisy = from_float(values + noise, source.pixels.dtype, white)
        notes = write_image(dataclasses.replace(source, pixels=noisy), output, overwrite=overwrite)
    except FileExistsError as error:
        raise CliError(f"{error}; pass --overwrite to replace it") from error
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except ValueError as error:
        raise CliError(options.worded(str(error))) from error
    for note in (*source.notes, *notes):
        print(f"note: {note}", file=sys.stderr)
