"""`nlrn push`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .errors import CliError


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A network of `nlrn models` or a weight file.", show_default=False
        ),
    ],
    repository: Annotated[str, typer.Option("--repo", help="The repository, user/name.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a network on the Hugging Face Hub.

    Weights, configuration and the model's card with its terms go there in one commit. The token is that of
    huggingface_hub: `hf auth login`, or HF_TOKEN.
    """
    from ..interop import hub

    try:
        name = hub.push(model, repository, private=private)
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except (ImportError, ValueError) as error:
        raise CliError(options.worded(str(error))) from error
    typer.echo(f"published: {name}")
