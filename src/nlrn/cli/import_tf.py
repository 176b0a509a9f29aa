"""`nlrn import-tf`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import CliError
from .options import check_weight_file
from .parsing import parse_window


def import_tf(
    checkpoint: Annotated[
        Path, typer.Argument(help="Prefix, file or folder of a TensorFlow V2 checkpoint.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Weight file (.safetensors) to write.", show_default=False),
    ],
    scope: Annotated[
        str | None,
        typer.Option(
            help="Scope of the variables; by default the one in the checkpoint.", show_default=False
        ),
    ] = None,
    propagation: Annotated[
        bool | None,
        typer.Option(
            "--propagation/--no-propagation",
            help="Add the logits of each step to the next; by default only for v0.",
            show_default=False,
        ),
    ] = None,
    input_range: Annotated[
        float | None,
        typer.Option(
            "--range",
            help="White of the official graph's images, 255 or 1; by default 255 for v0.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Non-local window, such as 45, instead of whole patches (approximate).", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Convert an official TensorFlow checkpoint.

    The checkpoint of the official code becomes a weight file for --model.
    """
    from ..interop.official import import_official
    from ..models.weights_file import build, save_weights

    window_size = parse_window(window)
    if input_range is not None and input_range not in (1.0, 255.0):
        raise CliError(f"--range must be 1 or 255, got {input_range:g}")
    check_weight_file(output, checkpoint)
    if output.exists() and not overwrite:
        raise CliError(f"{output} exists; pass --overwrite to replace it")
    try:
        model = import_official(
            checkpoint,
            scope=scope,
            correlation_propagation=propagation,
            input_range=input_range,
            window_size=None if window_size == "default" else window_size,
        )
        parameters = sum(p.numel() for p in build(model.config, model.tensors, str(checkpoint)).parameters())
        save_weights(output, model.config, model.tensors, {"source": f"official code, {model.generation}"})
    except OSError as error:
        raise CliError(f"cannot write {output}: {error.strerror or error}") from error
    except ValueError as error:
        raise CliError(str(error)) from error
    config = model.config
    typer.echo(f"{checkpoint}: official NLRN, {'first' if model.generation == 'v0' else 'second'} generation")
    typer.echo(f"  {parameters:,} parameters, {config.num_steps} steps, {config.channels} channel(s)")
    guesses = {
        "correlation propagation": ("yes" if config.correlation_propagation else "no", "--[no-]propagation"),
        "range of the images": (f"0..{model.input_range:g}", "--range"),
        "attention": (
            "whole patch" if config.window_size is None else f"window {config.window_size}, approximate",
            "--window",
        ),
    }
    for name, (value, option) in guesses.items():
        typer.echo(f"  {name}: {value} ({option})")
    if config.patch_protocol is not None:
        size, stride = config.patch_protocol
        typer.echo(
            f"  whole images: averaged patches {size}x{size}, stride {stride}, as the official test code"
        )
    typer.echo(f"written: {output}")
