"""`nlrn dejpeg`."""

from __future__ import annotations

import typer

from . import options, parsing
from .errors import CliError


def dejpeg(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    strength: options.StrengthText = "1",
    model: options.ModelName = None,
    steps: options.Steps = None,
    ensemble: options.Ensemble = False,
    window: options.Window = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    max_memory: options.MaxMemory = None,
    data_range: options.DataRange = None,
    quality: options.Quality = 95,
    result_format: options.ResultFormat = None,
    pages: options.Pages = None,
    overwrite: options.Overwrite = False,
    skip_existing: options.SkipExisting = False,
    resume: options.Resume = False,
    watch: options.Watch = False,
    shard: options.Shard = None,
    jobs: options.Jobs = 1,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    log: options.Log = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    html: options.Html = None,
) -> None:
    """Remove JPEG artifacts from images.

    Results are named STEM-dejpeg.EXT. The quality need not be known. EXIF and colour profile are kept. Originals are
    never modified.
    """
    parsing.parse_data_range(data_range)  # before anything is looked for
    ranges, kind = parsing.parse_pages(pages), parsing.parse_format(result_format)
    if not inputs:
        raise CliError("no input; give files, folders or -")
    from .batch import run_jobs
    from .batch_plan import BatchOptions, make_work

    batch = BatchOptions(
        recursive=recursive,
        overwrite=overwrite,
        skip_existing=skip_existing,
        resume=resume,
        shard=shard,
        jobs=jobs,
        dry_run=dry_run,
        as_json=as_json,
        quality=quality,
        pages=ranges,
        watch=watch,
        format=kind,
        log=log,
        engine=engine,
        address=address,
        html=html,
    )
    work = make_work(inputs, output, "-dejpeg", batch)
    restorer = options.make_restorer(
        model,
        task="dejpeg",
        steps=steps,
        ensemble=ensemble,
        device=device,
        precision=precision,
        max_memory=max_memory,
        window=window,
        data_range=data_range,
        strength=strength,
    )
    code = run_jobs(work, restorer, None, batch)
    if code:
        raise typer.Exit(code)
