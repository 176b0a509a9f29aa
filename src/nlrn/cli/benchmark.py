"""`nlrn benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import CliError
from .options import PrecisionName

if TYPE_CHECKING:
    from ..evaluation.protocol import DataSet, Task

app = typer.Typer(help="Measure PSNR and SSIM of models on image sets.", no_args_is_help=True)

PATCHES = (45, 7)

Data = Annotated[
    Path, typer.Option(help="Folder with a subfolder of images for each set.", show_default=False)
]
Sets = Annotated[str, typer.Option(help="Image sets, separated by commas.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Model name or weight file; by default chosen by task and colour."),
]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps", help="Numbers of steps to measure, such as 2,4,6; by default the last.", show_default=False
    ),
]
MaxImages = Annotated[
    int | None, typer.Option(min=1, help="Measure only this many images of each set.", show_default=False)
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory", help="Memory to use, such as 4G; by default half of what is free.", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for results.json, table.md, sheet.png and, of several models, plot.png.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]


@app.callback()
def _root() -> None:
    pass


@app.command("denoise")
def denoise(
    data: Data,
    sets: Sets = "Set12,BSD68",
    sigmas: Annotated[
        str, typer.Option(help="Noise levels in 8-bit grey levels, separated by commas.")
    ] = "15,25,50",
    model: ModelName = None,
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="Several model names or weight files in one table, separated by commas; 'all' is every method for noise.",
            show_default=False,
        ),
    ] = None,
    steps: Steps = None,
    patches: Annotated[
        bool,
        typer.Option("--official-patches", help="Average 45x45 patches at stride 7, as the official code."),
    ] = False,
    max_images: MaxImages = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    max_memory: MaxMemory = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the removal of Gaussian noise."""
    from ..evaluation.protocol import DENOISING

    if model is not None and models is not None:
        raise CliError("--model and --models exclude each other")
    levels = _levels(sigmas, "--sigmas", 0, 255)
    settings = _Settings(
        data, _heads(steps), device, precision, max_memory, max_images, out, overwrite, patches
    )
    chosen: list[str | None] = [model] if models is None else [part.strip() for part in models.split(",")]
    _run(DENOISING, settings.find(DENOISING, sets), levels, chosen, settings)


@app.command("sr")
def super_resolution(
    data: Data,
    sets: Sets = "Set5,Set14",
    scales: Annotated[str, typer.Option(help="Scales, separated by commas.")] = "2,3,4",
    model: ModelName = None,
    steps: Steps = None,
    max_images: MaxImages = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    max_memory: MaxMemory = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure super-resolution of Y.

    Images are made smaller by MATLAB's bicubic; a border of `scale` pixels is left out.
    """
    from ..evaluation.protocol import SUPER_RESOLUTION

    levels = _levels(scales, "--scales", 2, 16, whole=True)
    settings = _Settings(data, _heads(steps), device, precision, max_memory, max_images, out, overwrite)
    _run(SUPER_RESOLUTION, settings.find(SUPER_RESOLUTION, sets), levels, [model], settings)


@app.command("jpeg")
def jpeg(
    data: Data,
    sets: Sets = "classic5",
    qualities: Annotated[str, typer.Option(help="JPEG qualities, separated by commas.")] = "10,20,30,40",
    model: ModelName = None,
    steps: Steps = None,
    max_images: MaxImages = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    max_memory: MaxMemory = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the removal of JPEG artifacts.

    Models are grey or colour, as the images of a set.
    """
    from ..evaluation.protocol import JPEG_REMOVAL

    levels = _levels(qualities, "--qualities", 1, 100, whole=True)
    settings = _Settings(data, _heads(steps), device, precision, max_memory, max_images, out, overwrite)
    _run(JPEG_REMOVAL, settings.find(JPEG_REMOVAL, sets), levels, [model], settings)


@app.command("real")
def real(
    data: Data,
    name: Annotated[
        str, typer.Option("--set", help="Folder of pairs of files *_real.* and *_mean.*.")
    ] = "PolyU",
    cameras: Annotated[
        str, typer.Option(help="Beginnings of the file names of each camera, separated by commas.")
    ] = "Canon5D2,Canon600D,Canon80D",
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="Model names or weight files, separated by commas; by default the models for photographs and Gaussian noise, and bm3d.",
            show_default=False,
        ),
    ] = None,
    steps: Steps = None,
    max_images: MaxImages = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    max_memory: MaxMemory = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure photographs with the noise of real cameras.

    Models that need a noise level get an estimate.
    """
    from ..evaluation.protocol import REAL_NOISE
    from ..models.zoo import default_model

    settings = _Settings(data, _heads(steps), device, precision, max_memory, max_images, out, overwrite)
    found = [
        dataset
        for camera in cameras.split(",")
        for dataset in settings.find(REAL_NOISE, name, camera.strip())
    ]
    # A classical method has no steps to stop after.
    classical = [] if steps else ["bm3d"]
    usual = dict.fromkeys([default_model("photo", 3), default_model("denoise", 3), *classical])
    chosen: list[str | None] = list(usual) if models is None else [part.strip() for part in models.split(",")]
    _run(REAL_NOISE, found, [None], chosen, settings)


@dataclass(frozen=True)
class _Settings:
    """The options that all benchmarks share."""

    data: Path
    heads: list[int | None]
    device: str
    precision: str
    max_memory: str | None
    max_images: int | None
    out: Path | None
    overwrite: bool
    patches: bool = False

    def find(self, task: Task, names: str, prefix: str = "") -> list[DataSet]:
        """The sets, cut to `max_images`; a part of a set does not carry its name."""
        from ..evaluation.protocol import DataSet
        from ..files.images import ImageError

        try:
            found = [DataSet.find(self.data, n.strip(), prefix + task.files) for n in names.split(",")]
        except (OSError, ImageError) as error:
            raise CliError(str(error)) from error
        if prefix:
            found = [DataSet(f"{d.name} {prefix}", d.files) for d in found]
        if self.max_images is not None:
            found = [DataSet(f"{d.name}[:{self.max_images}]", d.files[: self.max_images]) for d in found]
        return found


def _run(
    task: Task,
    sets: list[DataSet],
    levels: Sequence[float | None],
    models: Sequence[str | None],
    settings: _Settings,
) -> None:
    """Measures every model on every set at every level: a table on the terminal, and files with `--out`."""
    import torch

    from ..evaluation import benchmark, suite, tables
    from ..evaluation.tradeoff_plot import tradeoff_plot
    from ..files.images import Image, ImageError, encode_image
    from ..inference.devices import pick_device
    from ..inference.precision import pick_precision
    from .parsing import parse_memory

    console = Console(highlight=False)
    memory = parse_memory(settings.max_memory)
    targets = _targets(settings.out, settings.overwrite)
    try:
        device = pick_device(settings.device)
        patches = PATCHES if settings.patches else None
        precision = pick_precision(settings.precision, device)
        conditions = suite.Conditions(device, precision, patches, memory)
        chosen = suite.candidates(task, sets, models, settings.heads, device)
    except (ValueError, OSError, ImageError) as error:
        raise CliError(str(error)) from error
    with _progress(Console(stderr=True)) as bar:
        images = sum(len(candidate.dataset.files) for candidate in chosen)
        row = bar.add_task("", total=images * len(levels) * len(settings.heads))
        measured = suite.measure_all(
            task,
            chosen,
            levels,
            settings.heads,
            conditions,
            on_cell=lambda place: bar.update(row, description=place),
            on_image=lambda: bar.advance(row),
        )
        try:
            cells = list(measured)
        except (ValueError, OSError, MemoryError) as error:
            raise CliError(str(error), exit_code=4) from error
    results = [cell.result for cell in cells]
    console.print(tables.as_rich(results))
    protocol = "official patches 45x45, stride 7" if settings.patches else "whole images"
    if conditions.precision is not torch.float32:
        protocol += f", {settings.precision}"
    about = benchmark.provenance(device, protocol)
    beside = " and ".join(tables.BESIDE[task.name])
    console.print(f"PSNR in dB{f', and the difference to the literature ({beside})' if beside else ''};")
    console.print(f"seconds an image; {protocol}; {about['device']}, torch {about['torch']}")
    if settings.out is not None:
        # The JSON and the table first: they are the result, the pictures take a second run.
        _write(targets[0], benchmark.as_json(results, about).encode(), settings.overwrite)
        _write(targets[1], tables.as_markdown(results).encode(), settings.overwrite)
        plot = tradeoff_plot(results)
        if plot is None:
            targets = targets[:-1]
        else:
            _write(targets[3], encode_image(Image(plot), "PNG"), settings.overwrite)
        sheet = Image(suite.best_and_worst(task, cells, conditions))
        _write(targets[2], encode_image(sheet, "PNG"), settings.overwrite)
        for path in targets:
            console.print(f"written: {path}", soft_wrap=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )


def _levels(text: str, option: str, low: float, high: float, *, whole: bool = False) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        raise CliError(f"{option} must be numbers separated by commas, got {text!r}") from None
    if not all(low <= level <= high for level in levels):
        raise CliError(f"{option} must lie between {low:g} and {high:g}, got {text!r}")
    if whole and any(level != int(level) for level in levels):
        raise CliError(f"{option} must be whole numbers, got {text!r}")
    return levels


def _heads(text: str | None) -> list[int | None]:
    try:
        return [None] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise CliError(f"--steps must be numbers separated by commas, got {text!r}") from None


def _targets(out: Path | None, overwrite: bool) -> list[Path]:
    if out is None:
        return []
    targets = [out / name for name in ("results.json", "table.md", "sheet.png", "plot.png")]
    existing = [path for path in targets if path.exists()]
    if existing and not overwrite:
        raise CliError(f"{existing[0]} exists; pass --overwrite to replace it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make the folder {out}: {error.strerror or error}") from error
    return targets


def _write(path: Path, content: bytes, overwrite: bool) -> None:
    from ..files.atomic import write_atomically

    try:
        write_atomically(path, content, overwrite=overwrite)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from error
