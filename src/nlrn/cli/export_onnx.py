"""`nlrn export-onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .errors import CliError


def export_onnx(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A network of `nlrn models` or a weight file.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File (.onnx) to write.", show_default=False)
    ],
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Stop after this many recurrent steps.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a network as an ONNX file.

    Its inputs are an image of any size in [0, 1] and, where the model takes one, sigma in the same units. The file
    is compared with PyTorch in onnxruntime, where that is installed.
    """
    from ..interop import onnx

    if output.exists() and not overwrite:
        raise CliError(f"{output} exists; pass --overwrite to replace it")
    try:
        exported = onnx.export_onnx(model, output, steps=steps, overwrite=overwrite)
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except (ImportError, RuntimeError, ValueError) as error:
        raise CliError(options.worded(str(error))) from error
    typer.echo(f"written: {output} ({exported.steps} steps, opset {onnx.OPSET})")
    if exported.difference is None:
        typer.echo("not compared with PyTorch: onnxruntime is not installed")
    else:
        typer.echo(f"largest difference to PyTorch in onnxruntime: {exported.difference:.1e}")
