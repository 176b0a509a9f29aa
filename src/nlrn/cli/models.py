"""`nlrn models`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .errors import CliError

# The backends that have run in an interpreter only.
EXPERIMENTAL = ("triton",)


def models(
    backends: Annotated[
        bool,
        typer.Option(
            "--backends",
            help="List the implementations of the non-local operation, and which of them run here.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each model, on standard output.")
    ] = False,
) -> None:
    """List the models that come with nlrn."""
    console = Console(highlight=False)
    if backends and as_json:
        raise CliError("--backends and --json contradict each other: --json is of models")
    if backends:
        _backends(console)
        return
    if as_json:
        _json()
        return
    from ..models.zoo import CLASSICAL, MODELS, WEIGHTS

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("name", "task", "image", "sigma", "steps", "size", "PSNR"):
        table.add_column(heading, no_wrap=True)
    for name, entry in MODELS.items():
        table.add_row(
            name,
            entry.task,
            "grey" if entry.channels == 1 else "RGB",
            entry.sigma,
            ",".join(str(step) for step in entry.steps),
            f"{entry.parameters / 1000:.0f}k",
            entry.psnr,
        )
    for name, method in CLASSICAL.items():
        table.add_row(name, method.task, "any", method.sigma, "", "", method.psnr)
    console.print(table)
    console.print("\nSize in parameters, PSNR in dB. The model cards have all figures.")
    console.print("Methods without weights:")
    for name, method in CLASSICAL.items():
        console.print(f"{name:8}  {method.about}", soft_wrap=True)
    for terms in dict.fromkeys(entry.licence for entry in MODELS.values()):
        console.print(f"Use of the weights: {terms}.", soft_wrap=True)
    console.print(f"Model cards and terms: {WEIGHTS}", soft_wrap=True)


def _json() -> None:
    """Prints the models for programs; what a method has no value for is null."""
    from ..models.zoo import CLASSICAL, MODELS

    for name, entry in MODELS.items():
        fields = {
            "channels": entry.channels,
            "parameters": entry.parameters,
            "steps": list(entry.steps),
            "licence": entry.licence,
            "sha256": entry.sha256,
        }
        print(_line(name, entry.task, entry.sigma, entry.psnr, fields))
    for name, method in CLASSICAL.items():
        none = dict.fromkeys(("channels", "parameters", "steps", "licence", "sha256"))
        print(_line(name, method.task, method.sigma, method.psnr, none))


def _line(name: str, task: str, sigma: str, psnr: str, others: dict[str, Any]) -> str:
    return json.dumps({"name": name, "task": task, "sigma": sigma or None, "psnr": psnr, **others})


def _backends(console: Console) -> None:
    import torch

    from ..ops.nonlocal_attention import BACKENDS, choose_backend, native_kernels, refusals, serves_on_request

    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        sample = torch.zeros(1, 1, 1, 1, device=device)
        reasons, chosen = refusals(sample, sample, sample, 45), choose_backend(sample, sample, sample, 45)
        for name in BACKENDS:
            ready = (
                "ready when asked for by name"
                if serves_on_request(name, sample)
                else "ready where those above cannot"
            )
            state = "in use" if name == chosen else reasons[name] or ready
            trust = " (experimental: no GPU has run it yet)" if name in EXPERIMENTAL else ""
            console.print(f"{device:5} {name:10} {state}{trust}", soft_wrap=True)
    for dtype, in_use in native_kernels().items():
        console.print(f"native kernel, {str(dtype).removeprefix('torch.')}: {in_use}", soft_wrap=True)
    console.print("CUDA graphs: experimental (no GPU has run them yet)")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, {gpu}")
