"""`nlrn dejpeg`."""

from __future__ import annotations

import typer

from .errors import CliError
from .options import (
    DataRange,
    Device,
    Ensemble,
    Inputs,
    MaxMemory,
    ModelName,
    Output,
    Overwrite,
    PrecisionName,
    Quality,
    Steps,
    Window,
    check_data_range,
    make_restorer,
)


def dejpeg(
    inputs: Inputs = None,
    output: Output = None,
    model: ModelName = None,
    steps: Steps = None,
    ensemble: Ensemble = False,
    window: Window = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    max_memory: MaxMemory = None,
    data_range: DataRange = None,
    quality: Quality = 95,
    overwrite: Overwrite = False,
) -> None:
    """Remove the artifacts of JPEG compression, as STEM-dejpeg.EXT.

    The quality need not be known. EXIF and colour profile stay; originals are never modified.
    """
    check_data_range(data_range)
    if not inputs:
        raise CliError("no input; give files, folders or -")
    from .batch import Options, plan_jobs, run_jobs

    jobs = plan_jobs(inputs, output, "-dejpeg", overwrite)
    restorer = make_restorer(
        model,
        task="dejpeg",
        steps=steps,
        ensemble=ensemble,
        device=device,
        precision=precision,
        max_memory=max_memory,
        window=window,
    )
    code = run_jobs(jobs, restorer, Options("auto", data_range, quality, overwrite))
    if code:
        raise typer.Exit(code)
