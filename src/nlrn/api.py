"""The functions of `import nlrn`: an array, a tensor or a file in, the same kind of thing out."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, Unpack, cast, overload

import numpy as np
from PIL.Image import Image as PillowImage
from torch import Tensor

from .files.image import merge_alpha
from .files.images import format_for, read_image
from .files.pages import read_pages
from .inference import Progress
from .inference.noise_level import NoiseEstimate
from .inference.sensor_noise import SensorNoiseEstimate
from .models.contract import Model
from .restoration import (
    DataRange,
    Report,
    RestoredPages,
    Restorer,
    Settings,
    Sigma,
    Task,
    measure_noise,
    measure_sensor_noise,
    restore_stack,
)
from .restoration.kinds import of_pillow
from .restoration.options import Noise, Size, check_options
from .restoration.stack import Per, check_estimate

log = logging.getLogger(__name__)


Restorable = np.ndarray | Tensor | PillowImage | list[Any] | Path


class Options(Settings, total=False):
    """The keyword arguments of `denoise`, `upscale` and `dejpeg`."""

    model: str | Path | Model | None
    output: str | os.PathLike[str] | None
    overwrite: bool
    progress: Progress | None
    channel_axis: int | None
    axes: str | None
    estimate: Per
    nodata: Literal["nan"] | float | None


class UpscaleOptions(Options, total=False):
    """The keyword arguments of `upscale` alone."""

    size: Size | None
    fit: tuple[int, int] | None


@overload
def denoise(image: np.ndarray, sigma: Sigma | None = None, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def denoise(image: Tensor, sigma: Sigma | None = None, **options: Unpack[Options]) -> Tensor: ...
@overload
def denoise(image: PillowImage, sigma: Sigma | None = None, **options: Unpack[Options]) -> PillowImage: ...
@overload
def denoise(image: list[Any], sigma: Sigma | None = None, **options: Unpack[Options]) -> list[Any]: ...
@overload
def denoise(image: BinaryIO, sigma: Sigma | None = None, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def denoise(
    image: str | os.PathLike[str], sigma: Sigma | None = None, **options: Unpack[Options]
) -> np.ndarray | Path: ...
def denoise(
    image: np.ndarray | Tensor | PillowImage | BinaryIO | list[Any] | str | os.PathLike[str],
    sigma: Sigma | None = None,
    **options: Unpack[Options],
) -> Restorable:
    """Removes noise from an image.

    Args:
        image: an array (`H x W` or `H x W x C`), a tensor (`C x H x W` or `B x C x H x W`), a Pillow image, or a file:
            its path or an open one, whose pixels are taken as stored: EXIF orientation is not applied. A list of
            images, of any sizes and kinds, gives a list. Channels: grey or RGB, with or without
            alpha, which stays as it is. Types: all integers and floats.
        sigma: standard deviation of the noise, in the units of the array or tensor; for a path in 8-bit grey
            levels (0..255), whatever the file's depth. By default nlrn chooses by the noise that it finds; `"auto"`
            is white noise whose level is estimated.
        **options: any of these:
            model: a name of `nlrn models`, a weight file, or any `model(image, sigma) -> restored`.
            steps: stop after this many recurrent steps (one of the model's heads): faster, less accurate.
            ensemble: average over the eight flips and rotations of the image: slower, a little more accurate.
            strength: how much of the noise is really removed, from 0 to 1, by default 1; two numbers are for luma and
                for color. Not for `upscale`.
            data_range: the value of white, or `(black, white)`; by default 0..255 for uint8, and 0..65535 for uint16
                and 0..1 for floats unless the data fill a small part of it or leave it. Then, and for other types,
                the range follows from the data, and a note says so. Values far beyond it come back as they were.
            device: `"auto"` (CUDA if there is one, else the CPU), or a PyTorch device.
            precision: `"float32"`, `"bfloat16"` or `"float16"` for the network's arithmetic; `"auto"` is float16 on
                CUDA and float32 elsewhere. `"bfloat16"` is two to three times faster on CPUs with AMX, 1.4 to 1.9
                times on AMD Zen 5.
            max_memory: bytes that may be used; by default half of what is available.
            channel_axis: the axis of an array's channels none of which is alpha (scikit-image's convention): three are
                RGB, other numbers are restored one by one. By default the last of 2 or 4 channels is alpha.
            noise: `"poisson-gaussian"` for raw counts of a sensor, whose variance is `gain (x - offset) +
                read_noise^2`, in place of sigma. What is not given is estimated from the image. Not for other tasks.
            gain: units of the data per electron. Also for a path these three are in the units of the values stored.
            read_noise: standard deviation without light, in the units of the data.
            offset: value without light, in the units of the data; by default 0, if gain and read noise are given.
            hot_pixels: replace isolated pixels far beyond the noise by the median of their neighbours, also in the
                result: they are taken for faults of the sensor. Stars, which span several pixels, stay.
            axes: a letter for each axis of an array, as tifffile has them, such as `"ZYX"` or `"TCYX"`: every plane of
                Y and X is restored. S, or C as the last axis, are the colors of a plane; C elsewhere are channels, each
                of which is a stack of its own. The planes of a stack have one range of values in common.
            estimate: `"stack"` for one estimate of the noise of a stack or of the pages of a file, `"page"` for one of
                each plane or page.
            nodata: `"nan"` or a number that an array has where it has no data; such pixels come back as they are.
            output: write the result to this file (of a path's image, with its depth and metadata).
            overwrite: replace an existing `output`.
            progress: called with the fraction done, from 0 to 1.

    Returns:
        The same kind, shape and dtype; for a path an array (for a file of several pages with these as its first axis),
        or with `output` the path written.

    Raises:
        ValueError: bad shapes, types or values; a `data_range` that the image exceeds by far; a sigma beyond the
            range; an unknown model.
        FileExistsError: `output` exists and `overwrite` is false.
        OSError: a file that cannot be read or written.

    Source: Liu et al., Non-Local Recurrent Network for Image Restoration, NeurIPS 2018.

    Example:
        >>> import numpy as np, nlrn
        >>> noisy = np.random.default_rng(0).normal(128, 25, (32, 48)).clip(0, 255).astype(np.uint8)
        >>> clean = nlrn.denoise(noisy, sigma=25)
        >>> clean.shape, clean.dtype
        ((32, 48), dtype('uint8'))
    """
    return cast(Restorable, _run("denoise", image, sigma, options))


@overload
def upscale(
    image: np.ndarray, scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> np.ndarray: ...
@overload
def upscale(image: Tensor, scale: float | None = None, **options: Unpack[UpscaleOptions]) -> Tensor: ...
@overload
def upscale(
    image: PillowImage, scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> PillowImage: ...
@overload
def upscale(image: list[Any], scale: float | None = None, **options: Unpack[UpscaleOptions]) -> list[Any]: ...
@overload
def upscale(image: BinaryIO, scale: float | None = None, **options: Unpack[UpscaleOptions]) -> np.ndarray: ...
@overload
def upscale(
    image: str | os.PathLike[str], scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> np.ndarray | Path: ...
def upscale(
    image: np.ndarray | Tensor | PillowImage | BinaryIO | list[Any] | str | os.PathLike[str],
    scale: float | None = None,
    **options: Unpack[UpscaleOptions],
) -> Restorable:
    """Makes an image up to 16 times larger (super-resolution).

    The network restores the luma of a bicubic enlargement by 2, 3 or 4; chroma and alpha are bicubic. Another factor is
    the next larger one of these and bicubic down from there, as MATLAB's `imresize` does it; above 4 the network is
    applied twice, and a note says so. It was trained on images made smaller by the same `imresize`; an image that is
    noisy or compressed stays so.

    Args:
        image: as for `denoise`.
        scale: how many times larger each side is, above 1 and up to 16. Sides are rounded up, as `imresize` does.
        **options: as for `denoise`, and in place of `scale` one of these:
            size: height and width of the result, which must have the proportions of the image to less than a pixel; or
                one of them and `None` for the other, which follows, to the nearest pixel.
            fit: height and width of a box, in which the largest result with the image's proportions lies.
            Of a file both are as viewers show it: an EXIF orientation that turns the picture turns them too.

    Returns:
        The same kind and dtype.

    Raises:
        ValueError: none or several of `scale`, `size` and `fit`, a result that is not larger than the image or more
            than 16 times as large, other proportions, and as `denoise`.
        FileExistsError: `output` exists and `overwrite` is false.

    Example:
        >>> import numpy as np, nlrn
        >>> image = np.zeros((20, 24, 3), np.uint8)
        >>> nlrn.upscale(image, 1.5).shape, nlrn.upscale(image, fit=(100, 60)).shape
        ((30, 36, 3), (50, 60, 3))
    """
    return cast(Restorable, _run("upscale", image, None, options, scale))


@overload
def dejpeg(image: np.ndarray, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def dejpeg(image: Tensor, **options: Unpack[Options]) -> Tensor: ...
@overload
def dejpeg(image: PillowImage, **options: Unpack[Options]) -> PillowImage: ...
@overload
def dejpeg(image: list[Any], **options: Unpack[Options]) -> list[Any]: ...
@overload
def dejpeg(image: BinaryIO, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def dejpeg(image: str | os.PathLike[str], **options: Unpack[Options]) -> np.ndarray | Path: ...
def dejpeg(
    image: np.ndarray | Tensor | PillowImage | BinaryIO | list[Any] | str | os.PathLike[str],
    **options: Unpack[Options],
) -> Restorable:
    """Removes the artifacts of JPEG compression: blocks, ringing, banding. The quality need not be known.

    Args:
        image: as for `denoise`; not necessarily a JPEG file, but one that was compressed.
        **options: as for `denoise`.

    Returns:
        The same kind, shape and dtype.

    Raises:
        ValueError: as `denoise`.
        FileExistsError: `output` exists and `overwrite` is false.

    Example:
        >>> import numpy as np, nlrn
        >>> nlrn.dejpeg(np.zeros((20, 24), np.uint8)).shape
        (20, 24)
    """
    return cast(Restorable, _run("dejpeg", image, None, options))


@overload
def estimate_noise(
    image: np.ndarray | Tensor | str | os.PathLike[str],
    *,
    data_range: DataRange | None = None,
    noise: None = None,
) -> NoiseEstimate: ...
@overload
def estimate_noise(
    image: np.ndarray | Tensor | str | os.PathLike[str], *, noise: Noise
) -> SensorNoiseEstimate: ...
def estimate_noise(
    image: np.ndarray | Tensor | str | os.PathLike[str],
    *,
    data_range: DataRange | None = None,
    noise: Noise | None = None,
) -> NoiseEstimate | SensorNoiseEstimate:
    """Estimates the noise of an image: its level, as `denoise` takes it for sigma, and how white it is.

    With `noise="poisson-gaussian"`, gain and read noise of the sensor that took it, from local variances and means.
    Constant, hidden and masked areas do not count.

    Args:
        image: as for `denoise`. All images of a tensor `B x C x H x W` count as of one sensor.
        data_range: as for `denoise`.
        noise: as for `denoise`.

    Returns:
        An estimate with `sigma` (in the units of an array or tensor; for a path in 8-bit grey levels), `whiteness` (1
        for white noise, below 0.5 after a camera's processing) and the share of the picture `used`. For a sensor's
        noise one with `noise.gain`, `noise.read_noise` and `noise.offset`, in the units of the values, and errors.

    Raises:
        NoiseUnknown: a `ValueError`; the gain does not follow from the image, for the reason that it states.
        ValueError: fewer than 16 pixels a side, a `data_range` with a sensor's noise, and as `denoise`.

    Source: for a sensor after Foi et al., doi:10.1109/TIP.2008.2001399.

    Example:
        >>> import numpy as np, nlrn
        >>> noisy = np.random.default_rng(0).normal(128, 25, (64, 64)).clip(0, 255).astype(np.uint8)
        >>> estimate = nlrn.estimate_noise(noisy)
        >>> round(estimate.sigma), round(estimate.whiteness)
        (25, 1)
        >>> light = np.linspace(10, 200, 256) * np.ones((256, 1))
        >>> counts = 100 + 2 * np.random.default_rng(0).poisson(light)
        >>> estimate = nlrn.estimate_noise(counts, noise="poisson-gaussian")
        >>> round(estimate.noise.gain, 1)
        2.0
    """
    source = read_image(image) if isinstance(image, str | os.PathLike) else image
    if noise is None:
        return measure_noise(source, data_range)
    if noise != "poisson-gaussian":
        raise ValueError(f"noise must be 'poisson-gaussian' or None, got {noise!r}")
    if data_range is not None:
        raise ValueError(
            "data_range= is of no use with noise='poisson-gaussian', which has the units of the data"
        )
    return measure_sensor_noise(source)


def _run(
    task: Task, image: Any, sigma: Sigma | None, options: Options | UpscaleOptions, scale: float | None = None
) -> Any:
    """The image, or each of a list, restored; the user is told of the report."""
    if isinstance(image, list | tuple):
        if options.get("output") is not None:
            raise ValueError("output= takes the result of one path, not those of a list")
        return [_told(*_restore(task, one, sigma, scale, **options), level=4) for one in image]
    return _told(*_restore(task, image, sigma, scale, **options), level=4)


def _restore(
    task: Task,
    image: Any,
    sigma: Sigma | None,
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
    result, report = restore(_masked(image, nodata))
    np.ma.getdata(result)[np.ma.getmaskarray(result)] = np.nan if nodata == "nan" else nodata
    return (result if isinstance(image, np.ma.MaskedArray) else np.ma.getdata(result)), report


def _restore_file(
    restorer: Restorer, path: Path, sigma: Sigma | None, progress: Progress | None, estimate: Per
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
    sigma: Sigma | None,
    output: Path,
    overwrite: bool,
    progress: Progress | None,
    estimate: Per,
) -> tuple[Path, Report]:
    """The file that is written from another one, as the commands do it."""
    from .batch.plan import Job
    from .batch.run import FileOptions, restore_file

    _check_output(path, output, overwrite)
    options = FileOptions(sigma, quality=95, overwrite=overwrite, estimate=estimate)
    return output, restore_file(Job(path, output), restorer, options, progress=progress).report


def _masked(image: np.ndarray, nodata: Literal["nan"] | float) -> np.ndarray:
    """The array with a mask over the pixels without data."""
    if isinstance(nodata, bool) or not (nodata == "nan" or isinstance(nodata, int | float)):
        raise ValueError(f"nodata must be 'nan' or a number, got {nodata!r}")
    missing = np.isnan(image) if nodata == "nan" or nodata != nodata else image == nodata
    return np.ma.MaskedArray(image, np.ma.getmaskarray(image) | missing)


def _restore_pillow(
    restorer: Restorer, image: PillowImage, sigma: Sigma | None, progress: Progress | None
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
