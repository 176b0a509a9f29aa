"""`nlrn adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from ..restoration.options import Noise

FAILED = 4


def adapt(
    images: Annotated[
        list[Path], typer.Argument(metavar="NOISY...", help="Noisy images or folders.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Weight file (.safetensors) to write.", show_default=False),
    ],
    minutes: Annotated[float, typer.Option(help="Time to learn.")] = 10.0,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model or weight file to start from; by default nlrn-color for RGB and nlrn-gray for others.",
            show_default=False,
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(help="Noise level in 8-bit grey levels; by default estimated.", show_default=False),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="poisson-gaussian: counts of a sensor; in place of --sigma.", show_default=False),
    ] = None,
    gain: options.Gain = None,
    read_noise: options.ReadNoise = None,
    offset: options.Offset = None,
    hot_pixels: Annotated[
        bool, typer.Option("--hot-pixels", help="Replace isolated hot and dead pixels first.")
    ] = False,
    pairs: Annotated[
        bool,
        typer.Option("--pairs", help="The images, or the pages of each, are repeated frames of one scene."),
    ] = False,
    data_range: options.DataRange = None,
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing weight file.")] = False,
) -> None:
    """Adapt a model to noisy images, without clean ones.

    The result is for nlrn denoise --model. Where nothing was gained, it is the model as it was.
    """
    level = None if sigma is None else parsing.parse_sigma(sigma)
    if noise is not None and level is not None:
        raise CliError("--sigma is for white noise and --noise for a sensor's; give one of them")
    options.check_weight_file(output, Path(model or ""))
    if output.exists() and not overwrite:
        raise CliError(f"{output} exists; pass --overwrite to replace it")
    if not output.parent.is_dir():
        raise CliError(f"the folder of the output {output} does not exist")
    from ..files.images import find_images
    from ..training.adapt import adapt as adapt_model
    from ..training.step import TrainingError

    bar = _Bar(Console(stderr=True, highlight=False))
    try:
        with bar:
            result = adapt_model(
                list(find_images(images)),
                level,
                minutes=minutes,
                model=model,
                pairs=pairs,
                noise=cast("Noise | None", noise),  # which refuses what is none
                gain=gain,
                read_noise=read_noise,
                offset=offset,
                hot_pixels=hot_pixels,
                data_range=parsing.parse_data_range(data_range),
                device=device,
                seed=seed,
                progress=bar.report,
            )
        result.save(output)
    except TrainingError as error:
        raise CliError(str(error), exit_code=FAILED) from error
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except ValueError as error:
        raise CliError(options.worded(str(error))) from error
    for caution in result.cautions:
        bar.console.print(f"warning: {options.worded(caution)}", soft_wrap=True)
    typer.echo(f"{result.summary}\nwritten: {output}")


class _Bar:
    """Progress: a bar on a terminal, a line for each quarter elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console, self._quarters = console, 0
        columns = (TextColumn("adapting"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("adapting", total=1.0)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, done: float) -> None:
        """Shows the fraction done."""
        self._bar.update(self._task, completed=done)
        if not self.console.is_terminal and int(4 * done) > self._quarters:
            self._quarters = int(4 * done)
            self.console.print(f"adapting: {min(done, 1):.0%}")
