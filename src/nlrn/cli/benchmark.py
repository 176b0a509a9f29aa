"""`nlrn benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .errors import CliError

if TYPE_CHECKING:
    import torch

    from ..evaluation.benchmark import Result
    from ..evaluation.protocol import DataSet
    from ..inference import Model

app = typer.Typer(help="Measure models on image sets.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command("denoise")
def denoise(
    data: Annotated[Path, typer.Option(help="Folder with a subfolder for each set.", show_default=False)],
    sets: Annotated[str, typer.Option(help="Image sets, separated by commas.")] = "Set12,BSD68",
    sigmas: Annotated[str, typer.Option(help="Noise levels in 8-bit grey levels.")] = "15,25,50",
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or weight file; by default the grey model, for CBSD68 the colour one.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="Heads to measure, such as 2,4,6; by default the last.", show_default=False),
    ] = None,
    patches: Annotated[
        bool,
        typer.Option("--official-patches", help="The official protocol: 45x45 patches, stride 7, averaged."),
    ] = False,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Only the first images of each set.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    max_memory: Annotated[
        str | None, typer.Option(help="Memory to use, such as 4G.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.json, table.md and sheet.png.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
) -> None:
    """Gaussian denoising: PSNR and SSIM on image sets, beside the figures of the literature."""
    from ..data.images import ImageError
    from ..evaluation import benchmark, tables
    from ..evaluation.protocol import DataSet
    from ..restoration import pick_device
    from .denoise import parse_memory, parse_sigma

    console, progress_console = Console(highlight=False), Console(stderr=True)
    levels = [_level(parse_sigma(text)) for text in sigmas.split(",")]
    heads: list[int | None] = [None] if steps is None else [_integer(text) for text in steps.split(",")]
    memory = parse_memory(max_memory)
    targets = _targets(out, overwrite)
    try:
        chosen = pick_device(device)
        found = [DataSet.find(data, name.strip()) for name in sets.split(",")]
        models = {dataset.name: _load(model, dataset, chosen, heads) for dataset in found}
    except (ValueError, OSError, ImageError) as error:
        raise CliError(str(error)) from error
    if max_images is not None:
        found = [DataSet(f"{d.name}[:{max_images}]", d.files[:max_images]) for d in found]
        models = dict(zip((d.name for d in found), models.values(), strict=True))

    results: list[Result] = []
    count = sum(len(d.files) for d in found) * len(levels) * len(heads)
    with _progress(progress_console) as bar:
        task = bar.add_task("", total=count)
        for dataset in found:
            loaded, name, channels = models[dataset.name]
            for sigma in levels:
                for head in heads:
                    bar.update(task, description=f"{dataset.name}, sigma {sigma:g}")
                    try:
                        result = benchmark.measure(
                            loaded,
                            name,
                            dataset,
                            sigma,
                            channels=channels,
                            device=chosen,
                            steps=head,
                            patches=(45, 7) if patches else None,
                            max_memory=memory,
                            on_image=lambda *_: bar.advance(task),
                        )
                    except (ValueError, OSError, MemoryError) as error:
                        raise CliError(str(error), exit_code=4) from error
                    results.append(result)
    console.print(tables.as_rich(results))
    protocol = "official patches 45x45, stride 7" if patches else "whole images"
    about = benchmark.provenance(chosen, protocol)
    console.print(
        "PSNR in dB and the difference to the literature's BM3D (CBM3D) and NLRN; seconds an image;"
    )
    console.print(f"{protocol}; {about['device']}, torch {about['torch']}")
    if out is not None:
        # The JSON and the table first: they are the result, the pictures take a second run.
        _write(targets[0], benchmark.as_json(results, about).encode(), overwrite)
        _write(targets[1], tables.as_markdown(results).encode(), overwrite)
        sheet = _sheet(results, {d.name: d for d in found}, models, chosen, patches, memory)
        _write(targets[2], sheet, overwrite)
        for path in targets:
            console.print(f"written: {path}", soft_wrap=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )


def _level(sigma: float | str) -> float:
    if isinstance(sigma, str):
        raise CliError("--sigmas must be numbers; a benchmark knows its noise level")
    return sigma


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise CliError(f"--steps must be numbers separated by commas, got {text!r}") from None


def _targets(out: Path | None, overwrite: bool) -> list[Path]:
    if out is None:
        return []
    targets = [out / name for name in ("results.json", "table.md", "sheet.png")]
    existing = [path for path in targets if path.exists()]
    if existing and not overwrite:
        raise CliError(f"{existing[0]} exists; pass --overwrite to replace it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make the folder {out}: {error.strerror or error}") from error
    return targets


def _load(
    model: str | None, dataset: DataSet, device: torch.device, heads: list[int | None]
) -> tuple[Model, str, int]:
    """The model for a set, its name, and the channels of its images."""
    from ..data.images import read_image
    from ..models.zoo import default_model, load_model

    colour = read_image(dataset.files[0]).pixels.ndim == 3
    name = model or default_model("denoise", 3 if colour else 1)
    loaded = load_model(name, device=device)
    for head in heads:
        loaded.check_steps(head)
    return loaded, Path(name).stem, loaded.config.channels


def _sheet(
    results: list[Result],
    sets: dict[str, DataSet],
    models: dict[str, tuple[Model, str, int]],
    device: torch.device,
    patches: bool,
    max_memory: int | None,
) -> bytes:
    """For each result the images with the largest and the smallest gain: clean, noisy, restored."""
    from ..data.datasets import read_planes
    from ..data.images import Image, encode_image
    from ..evaluation import benchmark
    from ..evaluation.contact_sheet import contact_sheet
    from ..evaluation.protocol import noisy_version, to_bytes

    rows = []
    for result in results:
        loaded, _, channels = models[result.dataset]
        gains = [image.psnr - image.noisy_psnr for image in result.images]
        for kind, index in {"best": gains.index(max(gains)), "worst": gains.index(min(gains))}.items():
            clean = read_planes(sets[result.dataset].files[index], channels)
            noisy = noisy_version(clean, result.sigma, index)
            restored, _ = benchmark.run(
                loaded, noisy, result.sigma, device, result.steps, (45, 7) if patches else None, max_memory
            )
            image = result.images[index]
            rows.append(
                [
                    (f"{kind}: {result.dataset}/{image.name}", clean),
                    (f"sigma {result.sigma:g}: {image.noisy_psnr:.2f} dB", to_bytes(noisy)),
                    (f"{result.model}: {image.psnr:.2f} dB", to_bytes(restored)),
                ]
            )
    return encode_image(Image(contact_sheet(rows)), "PNG")


def _write(path: Path, content: bytes, overwrite: bool) -> None:
    from ..files import write_atomically

    try:
        write_atomically(path, content, overwrite=overwrite)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from error
