"""`nlrn upscale`."""

from __future__ import annotations

import typer

from . import options, parsing
from .errors import CliError


def upscale(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    scale: options.Scale = None,
    size: options.SizeText = None,
    fit: options.FitText = None,
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
    """Make images larger (super-resolution).

    Results are named STEM-x2.EXT and so on. The network restores the luma of a bicubic enlargement; colours and alpha
    are bicubic. Above 4 times it is applied twice. Depth, EXIF and colour profile are kept. Originals are never
    modified.
    """
    parsing.parse_data_range(data_range)  # before anything is looked for
    ranges, kind = parsing.parse_pages(pages), parsing.parse_format(result_format)
    if not inputs:
        raise CliError("no input; give files, folders or -")
    wanted = options.parse_enlargement(2 if (scale, size, fit) == (None, None, None) else scale, size, fit)
    assert wanted is not None
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
    work = make_work(inputs, output, wanted.suffix, batch)
    restorer = options.make_restorer(
        model,
        task="upscale",
        **wanted.options,
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
