"""`nlrn restore`."""

from __future__ import annotations

import typer

from . import options, parsing
from .errors import CliError


def restore(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    scale: options.Scale = None,
    size: options.SizeText = None,
    fit: options.FitText = None,
    strength: options.StrengthText = "1",
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
    estimate: options.Estimate = "stack",
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
    """Measure what pictures need, then denoise or dejpeg them.

    Noise and compression are measured, and a note on each result says what was found and done. Pictures without either
    stay as they are. --scale, --size or --fit enlarge them last. Results are named STEM-restored.EXT. Originals are
    never modified.
    """
    parsing.parse_data_range(data_range)  # before anything is looked for
    ranges, kind = parsing.parse_pages(pages), parsing.parse_format(result_format)
    per = parsing.parse_estimate(estimate)
    if not inputs:
        raise CliError("no input; give files, folders or -")
    wanted = options.parse_enlargement(scale, size, fit)
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
        estimate=per,
        watch=watch,
        format=kind,
        log=log,
        engine=engine,
        address=address,
        html=html,
    )
    work = make_work(inputs, output, "-restored" + ("" if wanted is None else wanted.suffix), batch)
    restorer = options.make_restorer(
        None,
        task="restore",
        **({} if wanted is None else wanted.options),
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
