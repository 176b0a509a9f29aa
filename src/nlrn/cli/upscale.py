"""`nlrn upscale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from ..restoration.options import Size


def upscale(
    inputs: options.Inputs = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Enlargement of each side, such as 1.5, up to 16; by default 2.",
            show_default=False,
            rich_help_panel=options.RESTORATION,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Size of the result in place of a scale: 4096x2160, 4096x or x2160.",
            show_default=False,
            rich_help_panel=options.RESTORATION,
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Largest size within a box, such as 3840x2160, in place of a scale.",
            show_default=False,
            rich_help_panel=options.RESTORATION,
        ),
    ] = None,
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
    wanted, suffix = _wanted(scale, size, fit)
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
    )
    work = make_work(inputs, output, suffix, batch)
    restorer = options.make_restorer(
        model,
        task="upscale",
        **wanted,
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


class _Wanted(TypedDict, total=False):
    scale: float
    size: Size
    fit: tuple[int, int]


def _wanted(scale: float | None, size: str | None, fit: str | None) -> tuple[_Wanted, str]:
    """The enlargement as an argument of `Restorer`, and the end of the results' names.

    Raises:
        CliError: several of the three, or one that no result can have.
    """
    given = {"--scale": scale, "--size": size, "--fit": fit}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise CliError(f"{' and '.join(names)} contradict each other")
    from ..restoration.enlargement import Enlargement

    wanted: _Wanted
    if size is not None:
        height, width = parsing.parse_size("--size", size)
        wanted = {"size": (height, width)}
        suffix = f"-{width}w" if height is None else f"-{height}h" if width is None else f"-{width}x{height}"
    elif fit is not None:
        height, width = parsing.parse_size("--fit", fit)
        if height is None or width is None:
            raise CliError(f"--fit must be WIDTHxHEIGHT, such as 3840x2160, got {fit!r}")
        wanted, suffix = {"fit": (height, width)}, f"-fit{width}x{height}"
    else:
        factor = 2 if scale is None else int(scale) if scale.is_integer() else scale
        wanted, suffix = {"scale": factor}, f"-x{factor}"
    try:
        Enlargement(**wanted)
    except ValueError as error:
        raise CliError(f"--{error}") from error
    return wanted, suffix
