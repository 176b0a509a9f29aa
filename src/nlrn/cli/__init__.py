"""The `nlrn` command. Each verb has a file of its own and imports the libraries it needs when it runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from .adapt import adapt
from .add_noise import add_noise
from .benchmark import app as benchmark
from .compare import compare
from .dejpeg import dejpeg
from .denoise import denoise
from .errors import CANNOT_START, CliError, printable
from .export_onnx import export_onnx
from .export_weights import export_weights
from .grouped import GroupedCommand
from .import_tf import import_tf
from .models import models
from .noise import noise
from .push import push
from .restore import restore
from .serve import serve
from .train import train
from .upscale import upscale

INTERRUPTED = 130
# Typer brings its own copy of click in newer versions and does not export this class.
CLICK_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="nlrn",
    help="Restore images with the Non-Local Recurrent Network.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from ..version import __version__

        typer.echo(f"nlrn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("-V", "--version", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    try:
        os.getcwd()
    except OSError as error:
        # Intel MKL, which PyTorch loads, ends the process where there is none.
        raise CliError("the working folder does not exist any more; change to another one") from error


app.command(cls=GroupedCommand)(restore)
app.command(cls=GroupedCommand)(denoise)
app.command(cls=GroupedCommand)(upscale)
app.command(cls=GroupedCommand)(dejpeg)
app.command(cls=GroupedCommand)(serve)
app.command()(compare)
app.command("add-noise")(add_noise)
app.command()(noise)
app.command()(models)
app.command("import-tf")(import_tf)
app.command()(train)
app.command()(adapt)
app.command("export-weights")(export_weights)
app.command("export-onnx")(export_onnx)
app.command()(push)
app.add_typer(benchmark, name="benchmark")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits: 0 done, 2 cannot start, 3 some files failed, 4 all failed, 130 Ctrl-C."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except CliError as error:
        print(f"nlrn: {printable(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except CLICK_ERROR as error:  # a bad option
        print(f"nlrn: {error.format_message()}", file=sys.stderr)
        sys.exit(CANNOT_START)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # of a path that a command only looked at
        from .options import os_error

        print(f"nlrn: {printable(os_error(error))}", file=sys.stderr)
        sys.exit(CANNOT_START)
    if code == INTERRUPTED:  # typer returns it for Ctrl-C, and says nothing
        print("nlrn: interrupted", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
