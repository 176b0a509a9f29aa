"""`nlrn denoise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import options, parsing
from .errors import CliError
from .shared import Shared, make_restorer, restore_all, with_shared

if TYPE_CHECKING:
    from ..restoration import Restorer, Settings
    from ..restoration.options import Noise
    from ..restoration.purpose import Purpose


@with_shared
def denoise(
    shared: Shared,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Noise level in 8-bit grey levels (0..255), or auto for white noise of unknown level.",
            show_default=False,
            rich_help_panel=options.RESTORATION,
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            help="poisson-gaussian: counts of a sensor, whose noise grows with brightness; in place of --sigma.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    gain: options.Gain = None,
    read_noise: options.ReadNoise = None,
    offset: options.Offset = None,
    hot_pixels: Annotated[
        str | None,
        typer.Option(
            "--hot-pixels",
            metavar="[frame|stack]",
            help="Replace isolated hot and dead pixels, also in the result: faults, not stars, which stay. "
            "stack: those that 8 or more pages have in the same place, also weaker ones.",
            show_default=False,
            rich_help_panel=options.SENSOR,
        ),
    ] = None,
    purpose: options.PurposeName = None,
    decorrelate: options.Decorrelate = False,
    estimate: options.Estimate = "stack",
    strength: options.StrengthText = "1",
    model: options.ModelName = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Restore a noisy sample photograph into the folder -o.")
    ] = False,
) -> None:
    """Remove noise from images.

    Depth, alpha, EXIF and colour profile are kept. Originals are never modified.
    """
    level, per = None if sigma is None else parsing.parse_sigma(sigma), parsing.parse_estimate(estimate)
    if noise is not None and level is not None:
        raise CliError("--sigma is for white noise and --noise for a sensor's; give one of them")
    if demo and (noise is not None or purpose is not None):
        raise CliError(f"--demo has white noise; give files for {'--for' if noise is None else '--noise'}")
    if demo and shared.html is not None:
        raise CliError("--demo writes its own files; give files for --html")
    if demo and shared.inputs:
        raise CliError("--demo takes no input files")
    if not demo and not shared.inputs:
        raise CliError("no input; give files, folders or - (or --demo)")

    def restorer() -> Restorer:
        own: Settings = {
            "noise": cast("Noise | None", noise),  # which refuses what is none
            "gain": gain,
            "read_noise": read_noise,
            "offset": offset,
            "hot_pixels": parsing.parse_hot_pixels(hot_pixels),
            "purpose": cast("Purpose | None", purpose),  # the same
            "decorrelate": decorrelate,
        }
        return make_restorer(shared, "denoise", model, strength=strength, sigma=level, own=own)

    if demo:
        from .demo import run_demo

        # The demonstration's own folder holds nothing but what it wrote there before.
        folder, own = Path(shared.output or "nlrn-demo"), shared.output is None
        run_demo(restorer(), folder, level if isinstance(level, float) else 25.0, shared.overwrite or own)
        return
    restore_all(shared, restorer, "-denoised", sigma=level, estimate=per)
