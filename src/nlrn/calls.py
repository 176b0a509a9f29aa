"""The calls behind the functions of `api.py`: an image of any kind, restored as the kind that it is."""

from __future__ import annotations

import logging
import numbers
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, Unpack, cast

import numpy as np
from PIL.Image import Image as PillowImage
from torch import Tensor

from .files.image import merge_alpha
from .files.images import format_for, read_image
from .files.pages import read_pages
from .inference import Progress
from .models.contract import Model
from .restoration import (
    AnySigma,
    Report,
    RestoredPages,
    Restorer,
    Settings,
    Task,
    restore_stack,
)
from .restoration.kinds import of_pillow
from .restoration.levels import are_several
from .restoration.options import Size, check_options
from .restoration.stack import Per, check_estimate

log = logging.getLogger(__name__)

Restorable = np.ndarray | Tensor | PillowImage | list[Any] | Path


class Options(Settings, total=False):
    """The keyword arguments of `denoise`, `upscale`, `dejpeg` and `restore`."""

    model: str | Path | Model | None
    output: str | os.PathLike[str] | None
    overwrite: bool
    progress: Progress | None
    channel_axis: int | None
    axes: str | None
    estimate: Per
    nodata: Literal["nan"] | float | None


class UpscaleOptions(Options, total=False):
    """The keyword arguments of `upscale` and `restore`."""

    size: Size | None
    fit: tuple[int, int] | None


def run(
    task: Task,
    image: Any,
    sigma: AnySigma | None,
    options: Options | UpscaleOptions,
    scale: float | None = None,
) -> Any:
    """The image, or each of a list, restored; the user is told of the report."""
    if "sigma" in options:
        raise TypeError(f"sigma= is for denoise, not for {task}")
    if isinstance(image, list | tuple):
        if options.get("output") is not None:
            raise ValueError("output= takes the result of one path, not those of a list")
        if are_several(sigma) and np.ndim(sigma) < 2:
            raise ValueError(
                "sigma= of a list of images must be a number, 'auto' or of each pixel, since numbers may be those of "
                f"images or of channels; got {len(sigma)} numbers"
            )
        return [_told(*_restore(task, one, sigma, scale, **options), level=4) for one in image]
    return _told(*_restore(task, image, sigma, scale, **options), level=4)


def _restore(
    task: Task,
    image: Any,
    sigma: AnySigma | None,
    scale: float | None,
    *,
    size: Size | None = None,
    fit: tuple[int, int] | None = None,
    model: str | Path | Model | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    channel_axis: int | None = None,
    axes: str | None = None,
    estimate: Per = "stack",
    nodata: Literal["nan"] | float | None = None,
    **settings: Unpack[Settings],
) -> tuple[Any, Report]:
    """The image restored, as the kind that it is, or the file written."""
    check_options(settings)
    check_estimate(estimate)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of the fraction done, got {progress!r}")
    restorer = Restorer(model, task=task, scale=scale, size=size, fit=fit, **settings)
    if axes is not None and (not isinstance(image, np.ndarray) or channel_axis is not None):
        what = "without channel_axis" if isinstance(image, np.ndarray) else f"not for {type(image).__name__}"
        raise ValueError(f"axes= is for NumPy arrays, {what}")
    if isinstance(image, PillowImage):
        return _restore_pillow(restorer, image, sigma, progress)
    if hasattr(image, "read"):
        restored, report = restorer.image(read_image(cast(BinaryIO, image)), sigma, progress)
        return merge_alpha(restored), report
    if isinstance(image, str | os.PathLike):
        if output is not None:
            return _write_file(restorer, Path(image), sigma, Path(output), overwrite, progress, estimate)
        return _restore_file(restorer, Path(image), sigma, progress, estimate)
    if output is not None:
        raise ValueError("output= writes the result of a path; write an array or a tensor yourself")
    if isinstance(image, Tensor):
        return restorer.tensor(image, sigma, progress)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            "image must be a path, a file object, a NumPy array, a tensor, a Pillow image or a list of these, "
            f"got {type(image).__name__}"
        )

    def restore(pixels: np.ndarray) -> tuple[np.ndarray, Report]:
        if axes is None:
            return restorer.array(pixels, sigma, progress, channel_axis=channel_axis)
        planes, reports = restore_stack(restorer, pixels, axes, sigma, progress, estimate=estimate)
        return planes, reports.joined()

    if nodata is None:
        return restore(image)
    missing = _missing(image, nodata)
    result, report = restore(np.ma.MaskedArray(image, np.ma.getmaskarray(image) | missing))
    if missing.any() and result.shape != image.shape:  # else what is hidden came back as it was
        np.ma.getdata(result)[np.ma.getmaskarray(result)] = np.nan if nodata == "nan" else nodata
    return (result if isinstance(image, np.ma.MaskedArray) else np.ma.getdata(result)), report


def _restore_file(
    restorer: Restorer, path: Path, sigma: AnySigma | None, progress: Progress | None, estimate: Per
) -> tuple[np.ndarray, Report]:
    """The picture in a file as an array, or its pages as one."""
    with read_pages(path) as pages:
        if len(pages) == 1:
            restored, report = restorer.image(pages[0], sigma, progress)
            return merge_alpha(restored), report
        if not pages.are_alike():
            raise ValueError(
                f"the pages of {path} differ in size or type and are no array; output= writes a file"
            )
        planes = RestoredPages(restorer, pages, sigma, progress, estimate=estimate)
        return np.stack([merge_alpha(page) for page in planes]), planes.report()


def _write_file(
    restorer: Restorer,
    path: Path,
    sigma: AnySigma | None,
    output: Path,
    overwrite: bool,
    progress: Progress | None,
    estimate: Per,
) -> tuple[Path, Report]:
    """The file that is written from another one, as the commands do it."""
    from .batch.file_options import FileOptions
    from .batch.job import Job
    from .batch.one_file import restore_file

    _check_output(path, output, overwrite)
    options = FileOptions(sigma, quality=95, overwrite=overwrite, estimate=estimate)
    return output, restore_file(Job(path, output), restorer, options, progress=progress).report


def _missing(image: np.ndarray, nodata: Literal["nan"] | float) -> np.ndarray:
    """True where an array has no data."""
    if isinstance(nodata, bool) or not (nodata == "nan" or isinstance(nodata, numbers.Real)):
        raise ValueError(f"nodata must be 'nan' or a number, got {nodata!r}")
    values = np.ma.getdata(image)
    missing: np.ndarray = np.isnan(values) if nodata == "nan" or nodata != nodata else values == nodata
    return missing


def _restore_pillow(
    restorer: Restorer, image: PillowImage, sigma: AnySigma | None, progress: Progress | None
) -> tuple[PillowImage, Report]:
    """A Pillow image as one of the same mode; palettes become RGB, and 1-bit images grey."""
    from PIL import Image as Pillow

    # As an image of a file: sigma is in grey levels, and alpha is what the mode says.
    restored, report = restorer.image(of_pillow(image), sigma, progress)
    result = Pillow.fromarray(merge_alpha(restored))
    result.info = dict(image.info)
    return result, report


def _check_output(source: Path, target: Path, overwrite: bool) -> None:
    """Refuses a place where no result can go; better to know before the work than after."""
    format_for(target, "PNG")
    if os.path.isdir(target):
        raise ValueError(f"output {target} is a folder, and must be a file")
    if not os.path.isdir(target.parent):
        raise FileNotFoundError(f"the folder of the output {target} does not exist")
    if os.path.exists(target) and target.samefile(source):
        raise ValueError(f"output is the input itself, {source}; the original is never modified")
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")


Restored = TypeVar("Restored")


def _told(result: Restored, report: Report, level: int) -> Restored:
    """The result, after the user was told of the report, `level` calls further up."""
    for note in report.notes:
        log.info(note)
    if report.estimated and report.sigma is not None:
        log.info("estimated noise level: %.1f (8-bit grey levels)", 255 * report.sigma)
    for caution in report.warnings:
        warnings.warn(caution, stacklevel=level)
    return result
