"""`nlrn train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import CliError
from .options import os_error

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

FAILED = 4


def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the run; not with --resume.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of clean 8-bit images to train on.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for checkpoint, log, pictures and weights.")
    ] = Path("run"),
    steps: Annotated[int | None, typer.Option(help="Train for this many steps.", show_default=False)] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train for this many minutes.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its checkpoint.")
    ] = False,
    init: Annotated[
        str | None, typer.Option(help="Model name or weight file to start from.", show_default=False)
    ] = None,
    frozen_norms: Annotated[
        bool,
        typer.Option("--frozen-norms", help="Keep the batch-norm statistics of --init throughout the run."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of crops, noise and initial weights; by default that of the configuration.",
            show_default=False,
        ),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of images kept for validation; by default that of the configuration.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda or cuda:N.")] = "auto",
    graph: Annotated[
        bool,
        typer.Option(
            "--graph/--no-graph", help="Launch each step as one CUDA graph on a GPU (experimental)."
        ),
    ] = True,
    fuse: Annotated[
        bool,
        typer.Option(
            "--fuse", help="Compile each norm with its addition and ReLU into one kernel (torch.compile)."
        ),
    ] = False,
    every: Annotated[
        float, typer.Option(min=0, help="Seconds between checkpoints, and the least between validations.")
    ] = 300.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Train a model on a folder of images.

    Several processes: torchrun --nproc-per-node N -m nlrn train ...
    """
    if (config is None) != resume:
        raise CliError("give a configuration, or --resume to go on with the run in --out")
    if data is None:
        raise CliError("--data must name the folder of clean images")
    from ..inference.devices import pick_device
    from ..training.loop import Intervals, Run
    from ..training.loop import train as run_training
    from ..training.schedule import Length
    from ..training.step import TrainingError

    begins = {"seed": seed, "hold_out": hold_out, "init": init, "frozen_norms": frozen_norms or None}
    begins = {name: value for name, value in begins.items() if value is not None}
    try:
        length = Length(steps, minutes)
        settings = _resumed(out, begins) if config is None else _begun(config, out, begins, overwrite)
        bar = _Bar(Console(stderr=True, highlight=False))
        options = Run(
            data,
            out,
            length,
            pick_device(device),
            init,
            graph,
            fuse,
            intervals=Intervals(50, every, every),
            report=bar.report,
        )
        with bar:
            weights = run_training(settings, options, resume)
    except TrainingError as error:
        raise CliError(str(error), exit_code=FAILED) from error
    except OSError as error:
        raise CliError(os_error(error)) from error
    except ValueError as error:
        raise CliError(str(error)) from error
    if bar.first:
        typer.echo(f"written: {weights}")


def _resumed(out: Path, begins: dict[str, Any]) -> TrainingConfig:
    """The configuration of the run in `out`; `begins` are options that only a new run takes."""
    from ..training.checkpoint import read_header
    from ..training.logs import CHECKPOINT

    if begins:
        raise CliError(
            "--seed, --hold-out, --init and --frozen-norms belong to the beginning of a run, not to --resume"
        )
    return read_header(out / CHECKPOINT)[0]


def _begun(config: Path, out: Path, begins: dict[str, Any], overwrite: bool) -> TrainingConfig:
    """The configuration of a new run, with the options that replace its entries."""
    from ..training.config import load_config
    from ..training.logs import CHECKPOINT

    if (out / CHECKPOINT).exists() and not overwrite:
        raise CliError(f"{out / CHECKPOINT} exists; --resume goes on with it, --overwrite replaces it")
    changes = {name: value for name, value in begins.items() if name in ("seed", "hold_out")}
    settings = load_config(config, changes)
    if "frozen_norms" not in begins:
        return settings
    if "init" not in begins:
        raise CliError("--frozen-norms needs trained weights to start from: --init")
    phases = [dataclasses.replace(phase, frozen_norms=True) for phase in settings.phases]
    return dataclasses.replace(settings, phases=tuple(phases))


class _Bar:
    """Progress: a bar on a terminal, a line for each entry of the log elsewhere; only the first process prints."""

    def __init__(self, console: Console) -> None:
        import os

        self.first = os.environ.get("RANK", "0") == "0"
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        shown = console.is_terminal and self.first
        self._bar = Progress(*columns, console=console, transient=True, disable=not shown)
        self._task = self._bar.add_task("training", total=1.0)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, entry: dict[str, Any]) -> None:
        if not self.first:
            return
        if entry.get("psnr"):
            from ..training.validation import as_text

            self._console.print(f"step {entry['step']}: validation: {as_text(entry['psnr'])}")
        if "validation_failed" in entry:
            self._console.print(f"step {entry['step']}: validation failed: {entry['validation_failed']}")
        if "backend" in entry:
            refused = f" ({entry['refused']})" if "refused" in entry else ""
            self._console.print(
                f"step {entry['step']}: {entry['precision']}; non-local operation: {entry['backend']}{refused}",
                soft_wrap=True,
            )
        if "loss" not in entry:
            return
        line = (
            f"step {entry['step']}, loss {entry['loss']:.1f}, {entry['megapixels_per_second']:.3g} Mpixel/s, "
            f"learning rate {entry['learning_rate']:.1e}"
        )
        if entry["skipped"]:
            line += f", {entry['skipped']} steps skipped"
        self._bar.update(self._task, completed=entry["progress"], description=line)
        if not self._console.is_terminal:
            self._console.print(line, soft_wrap=True)
