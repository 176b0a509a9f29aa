"""The options and the work that all restoring commands have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import typer

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from ..inference.precision import Precision
    from ..restoration import Restorer, Settings, Sigma, Task
    from ..restoration.stack import Per
    from .enlargement import Enlarged

# As many of the shared options stand before a command's own in its help, and the others after them.
BEFORE = 3


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options of every restoring command, as they were typed."""

    inputs: options.Inputs = None
    output: options.Output = None
    recursive: options.Recursive = False
    steps: options.Steps = None
    ensemble: options.Ensemble = False
    window: options.Window = None
    device: options.Device = "auto"
    precision: options.PrecisionName = "auto"
    max_memory: options.MaxMemory = None
    data_range: options.DataRange = None
    quality: options.Quality = 95
    result_format: options.ResultFormat = None
    pages: options.Pages = None
    keep_time: options.KeepTime = False
    overwrite: options.Overwrite = False
    skip_existing: options.SkipExisting = False
    resume: options.Resume = False
    watch: options.Watch = False
    shard: options.Shard = None
    jobs: options.Jobs = 1
    dry_run: options.DryRun = False
    as_json: options.AsJson = False
    log: options.Log = None
    engine: options.EngineName = "local"
    address: options.Address = None
    html: options.Html = None


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the fields of `Shared` among its options, of a function whose first argument is a `Shared`."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(Shared, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(Shared)
    ]
    parameters = [*common[:BEFORE], *(one.replace(kind=keyword) for one in own), *common[BEFORE:]]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        shared = Shared(**{field.name: given.pop(field.name) for field in fields(Shared)})
        command(shared, **given)

    # Typer reads both.
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def restore_all(
    shared: Shared,
    restorer: Callable[[], Restorer],
    suffix: str,
    *,
    sigma: Sigma | None = None,
    estimate: Per = "stack",
) -> None:
    """Restores the inputs of a command; ends with its exit code.

    Args:
        shared: the options.
        restorer: makes the restorer, after the inputs were found.
        suffix: the end of the names of results.
        sigma: noise level in 8-bit grey levels, `"auto"`, or `None` where nlrn chooses.
        estimate: whether the noise is measured for a stack as a whole or for each page.

    Raises:
        CliError: options that contradict each other, or a batch that cannot start.
    """
    parsing.parse_data_range(shared.data_range)  # before anything is looked for
    ranges, kind = parsing.parse_pages(shared.pages), parsing.parse_format(shared.result_format)
    if not shared.inputs:
        raise CliError("no input; give files, folders or -")
    from .batch import run_jobs
    from .batch_plan import BatchOptions, make_work

    batch = BatchOptions(
        recursive=shared.recursive,
        overwrite=shared.overwrite,
        skip_existing=shared.skip_existing,
        resume=shared.resume,
        shard=shared.shard,
        jobs=shared.jobs,
        dry_run=shared.dry_run,
        as_json=shared.as_json,
        quality=shared.quality,
        pages=ranges,
        estimate=estimate,
        watch=shared.watch,
        format=kind,
        log=shared.log,
        engine=shared.engine,
        address=shared.address,
        html=shared.html,
        keep_time=shared.keep_time,
    )
    work = make_work(shared.inputs, shared.output, suffix, batch)
    if code := run_jobs(work, restorer(), sigma, batch):
        raise typer.Exit(code)


def make_restorer(
    shared: Shared,
    task: Task,
    model: str | None = None,
    *,
    enlarged: Enlarged | None = None,
    strength: str = "1",
    sigma: Sigma | None = None,
    own: Settings | None = None,
) -> Restorer:
    """A restorer whose models are known to load, so that a bad option stops everything before it starts.

    `own` has the settings that not every command has.

    Raises:
        CliError: an option that is none, or a model that cannot be loaded.
    """
    settings: Settings = {
        "steps": shared.steps,
        "ensemble": shared.ensemble,
        "device": shared.device,
        "precision": cast("Precision", shared.precision),  # which refuses what is none
        "max_memory": parsing.parse_memory(shared.max_memory),
        "window_size": parsing.parse_window(shared.window),
        "data_range": parsing.parse_data_range(shared.data_range),
        "strength": parsing.parse_strength(strength),
    }
    settings.update(own or {})
    from ..restoration import Restorer

    try:
        restorer = Restorer(model, task=task, **({} if enlarged is None else enlarged.options), **settings)
        restorer.load(sigma)
    except ValueError as error:
        raise CliError(options.worded(str(error))) from error
    return restorer
