"""`nlrn noise`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, parsing
from .errors import CliError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..files.image import Image
    from ..files.pages import Ranges
    from ..inference.sensor_noise import SensorNoiseEstimate

# The version of the JSON objects; names are added without a new one.
VERSION = 1
SOME_FAILED, ALL_FAILED = 3, 4


def noise(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Images to measure.", show_default=False)
    ],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw variance against mean of one image.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing plot.")] = False,
    pages: options.Pages = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print what noise images have.

    sigma and whiteness are for white noise, and a and b for a sensor's, whose variance is a x + b. Of a file of several
    pages up to 16 are measured together, each channel and size by itself.
    """
    ranges = parsing.parse_pages(pages)
    if plot is not None and len(images) > 1:
        raise CliError(f"--plot draws one image, got {len(images)}")
    if plot is not None and plot.suffix.lower() != ".png":
        raise CliError(f"the plot must be named *.png, got {plot}")
    if plot is not None and plot.exists() and not overwrite:
        raise CliError(f"{plot} exists; pass --overwrite to replace it")
    failed = 0
    for path in images:
        try:
            _file(path, ranges, plot, overwrite, as_json)
        except OSError as error:
            failed += 1
            print(f"nlrn: {options.os_error(error)}", file=sys.stderr)
        except ValueError as error:
            failed += 1
            text = options.worded(str(error))
            print(f"nlrn: {text if str(path) in text else f'{path}: {text}'}", file=sys.stderr)
    if failed:
        raise typer.Exit(ALL_FAILED if failed == len(images) else SOME_FAILED)


def _file(path: Path, ranges: Ranges | None, plot: Path | None, overwrite: bool, as_json: bool) -> None:
    """Measures the pages of a file that belong together, and prints what it finds.

    Raises:
        OSError, ValueError: a file that cannot be read or measured, or a plot that cannot be drawn or written.
    """
    from ..files.pages import read_pages
    from ..restoration.shared import ESTIMATES, spread

    with read_pages(path, ranges) as pages:
        groups: dict[Hashable, list[int]] = {}
        for index in range(len(pages)):
            groups.setdefault(pages.group(index), []).append(index)
        if plot is not None and len(groups) > 1:
            raise ValueError(f"--plot draws one image, and the pages of {path} are of {len(groups)} kinds")
        for number, indices in enumerate(groups.values(), 1):
            measured = [pages[index] for index in spread(indices, ESTIMATES)]
            kind = f", channel or size {number} of {len(groups)}" if len(groups) > 1 else ""
            several = f" ({len(measured)} of {len(indices)} pages{kind})" if len(pages) > 1 else ""
            _measure(path, several, measured, plot, overwrite, as_json)


def _measure(
    path: Path, several: str, pages: list[Image], plot: Path | None, overwrite: bool, as_json: bool
) -> None:
    """Measures pages of one kind; `several` says which they are."""
    from ..inference.sensor_noise import NoiseUnknown
    from ..restoration import measure_lines, measure_noise_of_pages, measure_sensor_noise

    image = pages[0]
    white = measure_noise_of_pages(pages)
    sensor, reason = None, ""
    try:
        sensor = measure_sensor_noise(pages)
    except NoiseUnknown as error:
        reason = options.worded(str(error))
    cautions = [*white.warnings, *(() if sensor is None else sensor.warnings)]
    found: dict[str, Any] = {
        "source": str(path),
        "pages": several.strip(" ()") or None,
        "sigma": white.sigma,
        "whiteness": white.whiteness,
        "lines": measure_lines(image),
        **_numbers(sensor),
        "unknown": reason or None,
        "warnings": [options.worded(caution) for caution in cautions],
    }
    print(json.dumps({"version": VERSION, **found}) if as_json else _lines(found, image))
    if plot is not None:
        if sensor is None:
            raise ValueError(f"no plot of {path}: {reason}")
        _draw(sensor, plot, overwrite)


def _numbers(sensor: SensorNoiseEstimate | None) -> dict[str, float | None]:
    """The numbers of a sensor for JSON."""
    if sensor is None:
        return dict.fromkeys(("a", "a_error", "b", "b_error"))
    return {
        "a": sensor.noise.gain,
        "a_error": sensor.gain_error,
        "b": sensor.noise.intercept,
        "b_error": sensor.intercept_error,
    }


def _lines(found: dict[str, Any], image: Image) -> str:
    """The numbers for people, each with its meaning."""
    kind = (
        "floats"
        if image.pixels.dtype.kind == "f"
        else "0..255"
        if image.pixels.dtype.itemsize == 1
        else "0..65535"
    )
    units = f" ({found['sigma'] * 257:.3g} units of the data)" if kind == "0..65535" else ""
    whiteness = "unknown" if found["whiteness"] is None else f"{found['whiteness']:.2f}"
    rows = [
        (
            f"{found['sigma']:.3g}",
            "sigma",
            f"white noise of this level, in 8-bit grey levels, for --sigma{units}",
        ),
        (whiteness, "whiteness", "1: each pixel has noise of its own; below 0.6: neighbours share it"),
    ]
    if found["lines"]:
        shared = " and ".join(found["lines"])
        rows.append((shared, "lines", "whole ones share noise, which --decorrelate removes"))
    if found["unknown"] is None:
        rows += [
            (
                _with_error(found["a"], found["a_error"]),
                "a",
                f"units per electron (values are {kind}), for --gain",
            ),
            (
                _with_error(found["b"], found["b_error"]),
                "b",
                "squared units; the variance of the noise is a x + b",
            ),
        ]
    else:
        rows.append(("unknown", "a, b", found["unknown"]))
    lines = [f"  {name:<10} {value:<18} {meaning}" for value, name, meaning in rows]
    head = found["source"] + (f" ({found['pages']})" if found["pages"] else "")
    return "\n".join([head, *lines, *(f"  warning: {caution}" for caution in found["warnings"])])


def _with_error(value: float, error: float) -> str:
    return f"{value:.4g} +- {error:.2g}"


def _draw(sensor: SensorNoiseEstimate, plot: Path, overwrite: bool) -> None:
    from ..evaluation.variance_plot import variance_plot
    from ..files.images import Image, write_image

    try:
        write_image(Image(variance_plot(sensor)), plot, overwrite=overwrite)
    except FileExistsError as error:
        raise FileExistsError(f"{error}; pass --overwrite to replace it") from error
