"""`nlrn denoise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from ..restoration.options import Noise


def denoise(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Noise level in 8-bit grey levels (0..255), or auto for white noise of unknown level.",
            show_default=False,
            rich_help_panel=options.RESTORATION,
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            help="poisson-gaussian: counts of a sensor, whose noise grows with brightness; in place of --sigma.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(
            help="Units of the data per electron; by default estimated.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    read_noise: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation without light, in units of the data; by default estimated.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    offset: Annotated[
        float | None,
        typer.Option(
            help="Value without light, in units of the data; by default 0.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    hot_pixels: Annotated[
        bool,
        typer.Option(
            "--hot-pixels",
            help="Replace isolated hot and dead pixels, also in the result: faults, not stars, which stay.",
            rich_help_panel=options.SENSOR,
        ),
    ] = False,
    estimate: options.Estimate = "stack",
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
    demo: Annotated[
        bool, typer.Option("--demo", help="Restore a noisy sample photograph into the folder -o.")
    ] = False,
) -> None:
    """Remove noise from images.

    Depth, alpha, EXIF and colour profile are kept. Originals are never modified.
    """
    level = None if sigma is None else parsing.parse_sigma(sigma)
    parsing.parse_data_range(data_range)  # before anything is looked for
    ranges, per = parsing.parse_pages(pages), parsing.parse_estimate(estimate)
    kind = parsing.parse_format(result_format)
    if noise is not None and level is not None:
        raise CliError("--sigma is for white noise and --noise for a sensor's; give one of them")
    if demo and noise is not None:
        raise CliError("--demo has white noise; give files for --noise")
    if demo and html is not None:
        raise CliError("--demo writes its own files; give files for --html")
    if demo and inputs:
        raise CliError("--demo takes no input files")
    if not demo and not inputs:
        raise CliError("no input; give files, folders or - (or --demo)")
    from ..batch.job import Work
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
    work = Work(())
    if inputs:
        work = make_work(inputs, output, "-denoised", batch)
    restorer = options.make_restorer(
        model,
        steps=steps,
        ensemble=ensemble,
        device=device,
        precision=precision,
        max_memory=max_memory,
        window=window,
        data_range=data_range,
        strength=strength,
        sigma=level,
        sensor={
            "noise": cast("Noise | None", noise),  # which refuses what is none
            "gain": gain,
            "read_noise": read_noise,
            "offset": offset,
            "hot_pixels": hot_pixels,
        },
    )
    if demo:
        from .demo import run_demo

        # The demonstration's own folder holds nothing but what it wrote there before.
        folder, own = Path(output or "nlrn-demo"), output is None
        run_demo(restorer, folder, level if isinstance(level, float) else 25.0, overwrite or own)
        return
    code = run_jobs(work, restorer, level, batch)
    if code:
        raise typer.Exit(code)
