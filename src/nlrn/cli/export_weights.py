"""`nlrn export-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .errors import CliError


def export_weights(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint of a run (checkpoint.safetensors).", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Weight file (.safetensors) to write; the card is beside it.",
            show_default=False,
        ),
    ],
    half: Annotated[
        bool, typer.Option("--float16", help="Write the weights in float16: a file of half the size.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing weight file and card.")
    ] = False,
) -> None:
    """Write a checkpoint's weights and a model card.

    The weights are the averaged ones of the run.
    """
    import torch

    from ..training.checkpoint import export

    options.check_weight_file(output, checkpoint)
    card = output.with_suffix(".md")
    for path in (output, card):
        if path.exists() and not overwrite:
            raise CliError(f"{path} exists; pass --overwrite to replace it")
    try:
        export(checkpoint, output, card, torch.float16 if half else None)
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except ValueError as error:
        raise CliError(str(error)) from error
    typer.echo(f"written: {output}\nwritten: {card}")
