"""`nlrn upscale`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .errors import CliError


def upscale(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    scale: Annotated[
        int, typer.Option(help="Enlargement of each side: 2, 3 or 4.", rich_help_panel=options.RESTORATION)
    ] = 2,
    model: options.ModelName = None,
    steps: options.Steps = None,
    ensemble: options.Ensemble = False,
    window: options.Window = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    max_memory: options.MaxMemory = None,
    data_range: options.DataRange = None,
    quality: options.Quality = 95,
    pages: options.Pages = None,
    overwrite: options.Overwrite = False,
    skip_existing: options.SkipExisting = False,
    resume: options.Resume = False,
    shard: options.Shard = None,
    jobs: options.Jobs = 1,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Make images larger (super-resolution).

    Results are named STEM-x2.EXT and so on. The network restores the luma of a bicubic enlargement; colours and alpha
    are bicubic. Depth, EXIF and colour profile are kept. Originals are never modified.
    """
    options.parse_data_range(data_range)  # before anything is looked for
    ranges = options.parse_pages(pages)
    if not inputs:
        raise CliError("no input; give files, folders or -")
    from ..restoration.luma import SCALES
    from .batch import BatchOptions, make_work, run_jobs

    if scale not in SCALES:
        raise CliError(f"--scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
    batch = BatchOptions(
        recursive, overwrite, skip_existing, resume, shard, jobs, dry_run, as_json, quality, ranges
    )
    work = make_work(inputs, output, f"-x{scale}", batch)
    restorer = options.make_restorer(
        model,
        task="upscale",
        scale=scale,
        steps=steps,
        ensemble=ensemble,
        device=device,
        precision=precision,
        max_memory=max_memory,
        window=window,
        data_range=data_range,
    )
    code = run_jobs(work, restorer, None, batch)
    if code:
        raise typer.Exit(code)
