"""The functions of `import nlrn`: an array, a tensor or a file in, the same kind of thing out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, Unpack, cast, overload

import numpy as np
from PIL.Image import Image as PillowImage
from torch import Tensor

from .calls import Options, Restorable, UpscaleOptions, run
from .files.images import read_image
from .inference.noise_level import NoiseEstimate
from .inference.sensor_noise import SensorNoiseEstimate
from .restoration import (
    AnySigma,
    DataRange,
    measure_noise,
    measure_sensor_noise,
)
from .restoration.options import Noise


@overload
def denoise(image: np.ndarray, sigma: AnySigma | None = None, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def denoise(image: Tensor, sigma: AnySigma | None = None, **options: Unpack[Options]) -> Tensor: ...
@overload
def denoise(image: PillowImage, sigma: AnySigma | None = None, **options: Unpack[Options]) -> PillowImage: ...
@overload
def denoise(image: list[Any], sigma: AnySigma | None = None, **options: Unpack[Options]) -> list[Any]: ...
@overload
def denoise(image: BinaryIO, sigma: AnySigma | None = None, **options: Unpack[Options]) -> np.ndarray: ...
@overload
def denoise(
    image: str | os.PathLike[str], sigma: AnySigma | None = None, **options: Unpack[Options]
) -> np.ndarray | Path: ...
def denoise(
    image: np.ndarray | Tensor | PillowImage | BinaryIO | list[Any] | str | os.PathLike[str],
    sigma: AnySigma | None = None,
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
            Levels that differ are a number for each colour channel, or an array (or tensor) of height and width with
            that of each pixel, for networks with a noise level; also with the axes of the image, each as long as there
            or 1, such as `[B, 1, H, W]` of a batch or `[Z, 1, 1]` of a stack with `axes`.
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
                result: they are taken for faults of the sensor. Stars, which span several pixels, stay. True or
                `"frame"` finds those of each image; `"stack"` those that 8 or more pages of a file or planes of `axes=`
                have in the same place, also weaker ones.
            purpose: the kind of picture, in place of what is measured: `"photo"`, `"scan"`, `"screenshot"` or
                `"measurement"`. For `denoise` and `restore`; chooses the model.
            decorrelate: remove noise that rows, columns or neighbours share by its spectrum, which is estimated from
                each image or plane; sigma is then its standard deviation. The model takes a noise level, and runs four
                times. White noise is removed as without.
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
            range or of another size than the image; levels of pixels for a model that takes one; an unknown model.
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
    return cast(Restorable, run("denoise", image, sigma, options))


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

    The network restores the luma of a bicubic enlargement by 2, 3 or 4; chroma is bicubic, and so is alpha but for its
    edges. Another factor is the next larger one of these and bicubic down from there, as MATLAB's `imresize` does it;
    above 4 the network is applied twice, and a note says so. It was trained on images made smaller by the same
    `imresize`; an image that is noisy or compressed stays so.

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
    return cast(Restorable, run("upscale", image, None, options, scale))


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
    return cast(Restorable, run("dejpeg", image, None, options))


@overload
def restore(
    image: np.ndarray, scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> np.ndarray: ...
@overload
def restore(image: Tensor, scale: float | None = None, **options: Unpack[UpscaleOptions]) -> Tensor: ...
@overload
def restore(
    image: PillowImage, scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> PillowImage: ...
@overload
def restore(image: list[Any], scale: float | None = None, **options: Unpack[UpscaleOptions]) -> list[Any]: ...
@overload
def restore(image: BinaryIO, scale: float | None = None, **options: Unpack[UpscaleOptions]) -> np.ndarray: ...
@overload
def restore(
    image: str | os.PathLike[str], scale: float | None = None, **options: Unpack[UpscaleOptions]
) -> np.ndarray | Path: ...
def restore(
    image: np.ndarray | Tensor | PillowImage | BinaryIO | list[Any] | str | os.PathLike[str],
    scale: float | None = None,
    **options: Unpack[UpscaleOptions],
) -> Restorable:
    """Gives an old picture what it needs: `denoise`, `dejpeg` and `upscale`, as far as they make it better.

    Noise and JPEG compression are measured. A picture without either comes back as it is, or enlarged if asked for.
    What was found and done is logged to `nlrn` at the level INFO.

    Args:
        image: as for `denoise`. A JPEG file also says its quality.
        scale: how many times larger each side is, above 1 and up to 16; by default the size stays.
        **options: as for `upscale`, without `model`. `strength` is for noise and artifacts.

    Returns:
        The same kind and dtype.

    Raises:
        ValueError: several of `scale`, `size` and `fit`, a `model`, and as `denoise`.
        FileExistsError: `output` exists and `overwrite` is false.

    Example:
        >>> import numpy as np, nlrn
        >>> nlrn.restore(np.zeros((20, 24), np.uint8), 2).shape
        (40, 48)
    """
    return cast(Restorable, run("restore", image, None, options, scale))


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
        >>> noisy = np.random.default_rng(0).normal(128, 25, (128, 128)).clip(0, 255).astype(np.uint8)
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
        raise ValueError(f"noise must be 'poisson-gaussian', got {noise!r}")
    if data_range is not None:
        raise ValueError(
            "data_range= is of no use with noise='poisson-gaussian', which has the units of the data"
        )
    return measure_sensor_noise(source)
