"""`nlrn compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, parsing
from .batch_page import check_page
from .errors import CliError

if TYPE_CHECKING:
    from ..evaluation.score import Score
    from ..files.image import Image


def compare(
    before: Annotated[Path, typer.Argument(help="Image before.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="Image after, or the clean one.", show_default=False)],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Clean image, to measure both against.", show_default=False),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page of one file with both under a slider.", show_default=False),
    ] = None,
    data_range: options.DataRange = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
) -> None:
    """Print PSNR and SSIM, or show two images under a slider.

    The figures are on the scale of 8 bit.
    """
    from ..files.images import read_image
    from ..files.orientation import upright

    white = parsing.parse_white(data_range)
    named = {"before": before, "after": after} | ({} if reference is None else {"reference": reference})
    if page is not None:
        check_page(page, list(named.values()), overwrite)
    try:
        images = {name: upright(read_image(path)) for name, path in named.items()}
        scores = _scores(named, images, white) if page is None or reference is not None else {}
        found: dict[str, Any] = {name: score and score.as_json() for name, score in scores.items()}
        if page is not None:
            found |= {"html": str(page), "bytes": _write_page(page, named, images, scores, white, overwrite)}
    except FileExistsError as error:
        raise CliError(f"{error}; pass --overwrite to replace it") from error
    except OSError as error:
        raise CliError(options.os_error(error)) from error
    except ValueError as error:
        raise CliError(options.worded(str(error))) from error
    if scores and any(image.alpha is not None for image in images.values()):
        typer.echo("note: transparency is not measured", err=True)
    if as_json:
        typer.echo(json.dumps(found.get("", found)))
    else:
        _print(scores, found)


def _scores(named: dict[str, Path], images: dict[str, Image], white: float | None) -> dict[str, Score | None]:
    """The figures of both images against the reference, or under an empty name of one against the other.

    An image before that is smaller, as before an enlargement, has none.
    """
    from ..evaluation.score import score

    if "reference" not in named:
        _check_pair(named, images, "before", "after")
        return {"": score(images["before"].pixels, images["after"].pixels, white)}
    scores: dict[str, Score | None] = {"before": None}
    sizes = {name: image.pixels.shape[:2] for name, image in images.items()}
    for name in ("before", "after") if sizes["before"] == sizes["after"] else ("after",):
        _check_pair(named, images, name, "reference")
        scores[name] = score(images[name].pixels, images["reference"].pixels, white)
    return scores


def _check_pair(named: dict[str, Path], images: dict[str, Image], one: str, other: str) -> None:
    first, second = images[one].pixels, images[other].pixels
    if first.ndim != second.ndim:
        kinds = ["grey" if p.ndim == 2 else "RGB" for p in (first, second)]
        raise CliError(
            f"{named[one]} is {kinds[0]} and {named[other]} is {kinds[1]}; both must be of one kind"
        )
    if first.shape != second.shape:
        sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (first, second)]
        raise CliError(
            f"{named[one]} has {sizes[0]} pixels and {named[other]} has {sizes[1]}; sizes must agree"
        )


def _write_page(
    page: Path,
    named: dict[str, Path],
    images: dict[str, Image],
    scores: dict[str, Score | None],
    white: float | None,
    overwrite: bool,
) -> int:
    """Writes the page; its length in bytes."""
    from ..viewer import Comparison

    comparison = Comparison(
        images["before"],
        images["after"],
        title=" and ".join(named[name].name for name in ("before", "after")),
        scores=(scores["before"], scores["after"]) if scores else None,
        data_range=white,
    )
    comparison.save(page, overwrite=overwrite)
    return len(comparison.html)


def _print(scores: dict[str, Score | None], found: dict[str, Any]) -> None:
    if (score := scores.get("")) is not None:
        identical = math.isinf(score.psnr)
        typer.echo("PSNR  infinite (the images are identical)" if identical else f"PSNR  {score.psnr:.2f} dB")
        from ..evaluation.metrics import SSIM_WINDOW

        small = f"needs {SSIM_WINDOW} pixels a side"
        typer.echo(f"SSIM  {small if score.ssim is None else format(score.ssim, '.4f')}")
    else:
        for name, score in scores.items():
            typer.echo(f"{name:6}  {'is of another size' if score is None else score.text()}")
    if "html" in found:
        typer.echo(f"{found['html']}  {found['bytes'] / 1e6:.1f} MB")
