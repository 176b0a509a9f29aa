"""`nlrn denoise`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .errors import CliError

if TYPE_CHECKING:
    from ..restoration import Restorer

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def denoise(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IN...", help="Files, folders, globs, or - for standard input.", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="File or folder of the results; - is standard output. Default: STEM-denoised.EXT.",
            show_default=False,
        ),
    ] = None,
    sigma: Annotated[
        str, typer.Option(help="Noise level in 8-bit grey levels (0..255), or auto to estimate it.")
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            help="A name of `nlrn models` or a weight file; by default by colour.", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Stop after this many recurrent steps: faster, less accurate.", show_default=False),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average over 8 flips and rotations: 8 times slower, a little better."
        ),
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(help="Another non-local window: odd, or none for the whole image.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    max_memory: Annotated[
        str | None,
        typer.Option(help="Memory to use, such as 4G; by default half of what is free.", show_default=False),
    ] = None,
    data_range: Annotated[
        float | None, typer.Option(help="Value of white; by default 255, 65535 or 1.", show_default=False)
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Restore a noisy photograph that comes with scikit-image, into -o.")
    ] = False,
) -> None:
    """Remove noise from images.

    Depth, alpha, EXIF and colour profile stay; originals are never modified.
    """
    level = parse_sigma(sigma)
    memory = parse_memory(max_memory)
    if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
        raise CliError(f"--data-range must be positive, got {data_range:g}")
    if demo:
        if inputs:
            raise CliError("--demo takes no input files")
    elif not inputs:
        raise CliError("no input; give files, folders or - (or --demo)")
    window_size = parse_window(window)

    if demo:
        from .demo import run_demo

        run_demo(
            _restorer(model, steps, ensemble, device, memory, window_size),
            Path(output or "nlrn-demo"),
            25.0 if level == "auto" else level,
            overwrite,
        )
        return
    from .batch import Options, plan_jobs, run_jobs

    assert inputs is not None
    jobs = plan_jobs(inputs, output, "-denoised", overwrite)
    restorer = _restorer(model, steps, ensemble, device, memory, window_size)
    code = run_jobs(jobs, restorer, Options(level, data_range, quality, overwrite))
    if code:
        raise typer.Exit(code)


def _restorer(
    model: str | None,
    steps: int | None,
    ensemble: bool,
    device: str,
    max_memory: int | None,
    window_size: int | Literal["default"] | None,
) -> Restorer:
    """A restorer whose models are known to load, so that a bad option stops everything before it starts."""
    from ..restoration import Restorer

    try:
        restorer = Restorer(
            model,
            steps=steps,
            ensemble=ensemble,
            device=device,
            max_memory=max_memory,
            window_size=window_size,
        )
        for channels in (1, 3):
            restorer.model_for(channels)
    except ValueError as error:
        raise CliError(str(error)) from error
    return restorer


def parse_sigma(text: str) -> float | Literal["auto"]:
    """`auto`, or a noise level in 8-bit grey levels.

    Raises:
        CliError: no number, negative, NaN or beyond 255.
    """
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        raise CliError(f"--sigma must be a number of grey levels or auto, got {text!r}") from None
    if not 0 <= value <= 255:
        raise CliError(f"--sigma must lie between 0 and 255 grey levels, got {text}")
    return value


def parse_memory(text: str | None) -> int | None:
    """Bytes from `4G`, `512M`, `1.5GiB`, `100000000`.

    Raises:
        CliError: anything else, or nothing.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise CliError(f"--max-memory must be a size such as 4G or 512M, got {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parse_window(text: str | None) -> int | Literal["default"] | None:
    """The `window_size` of `load_model` from `45`, `none` or nothing.

    Raises:
        CliError: an even or impossible number.
    """
    if text is None:
        return "default"
    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdigit() or int(text) % 2 == 0:
        raise CliError(f"--window must be odd and positive, or none, got {text!r}")
    return int(text)
