"""Noise that grows with brightness, removed by models for white noise.

    values ── Anscombe transform ── range [0, 1], sigma = 1 / width ── model ── back, unbiased inverse ── values

Where electrons are few the transform is not enough: their noise is not normal, and it hides nearly everything. There
the picture goes through the model several times: first as sums of neighbouring pixels, which have more electrons, and
then mixed with the estimate so far, which has as well (`PASSES`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..inference import Progress, part_of
from ..inference.sensor_noise import Known, estimate_sensor_noise
from ..ops.anscombe import SensorNoise, anscombe, inverse_anscombe
from .hot_pixels import Faults, repaired
from .local_mean import with_local_mean
from .options import DataRange, Options
from .report import Report, joined
from .strength import check_strength, partly
from .value_range import BULK, ROOM, TAIL, Sigma, ValueRange, range_of, samples_of

# (bin, share) of each pass where a mean pixel's squared ratio of signal to noise is below this; without read noise that
# is its number of electrons. With bin b the model sees sums of b x b pixels; share is that of the noisy picture in its
# mixture with the estimate.
PASSES: tuple[tuple[float, tuple[tuple[int, float], ...]], ...] = (
    (1.0, ((3, 1.0), (2, 0.7), (1, 0.4))),
    (3.0, ((2, 1.0), (1, 0.5))),
    (math.inf, ((1, 1.0),)),
)
# Smaller pictures go through the model once: their sums would be of too few pixels.
SMALLEST_SIDE = 24
# The most noise in units of the range, to which what lies closer together is spread, and the least. Values up to NEAR
# times the noise beyond the range still go through the model.
NOISIEST, FAINTEST, NEAR = 0.2, 1 / 255, 4.0

# The share of values below the offset, and the ratio of stated to found variance, that noise does not explain.
BELOW, TOO_MUCH = 0.01, 2.0

# Restores `[1, C, H, W]` in units of [0, 1] at a known noise level.
Restore = Callable[[Tensor, float, Progress], tuple[Tensor, Report]]


def known_sensor(options: Options) -> Known | None:
    """The numbers of a sensor in the options; `None` for options without its noise.

    Raises:
        ValueError: another kind of noise, a number without it or that is impossible, or another task.
    """
    given = {name: getattr(options, name) for name in ("gain", "read_noise", "offset")}
    named = [name for name, value in given.items() if value is not None]
    if options.noise is None:
        if named:
            raise ValueError(f"{named[0]}= describes noise='poisson-gaussian'; give noise= too")
        return None
    if options.noise != "poisson-gaussian":
        raise ValueError(f"noise must be 'poisson-gaussian', got {options.noise!r}")
    if options.task != "denoise":
        raise ValueError(f"noise= is for denoise, not for {options.task}")
    for name in named:
        if isinstance(given[name], bool) or not isinstance(given[name], int | float | np.number):
            raise ValueError(f"{name} must be a number in the units of the data, got {given[name]!r}")
    known = Known(**{name: None if value is None else float(value) for name, value in given.items()})
    # Refuses impossible numbers at once, with a gain that is possible where none is given.
    SensorNoise(1.0 if known.gain is None else known.gain, known.read_noise or 0.0, known.offset or 0.0)
    return known


def denoise_sensor(
    color: Tensor,
    hidden: Tensor | None,
    sigma: Sigma | None,
    known: Known,
    options: Options,
    restore: Restore,
    progress: Progress,
    faults: Faults | None = None,
) -> tuple[Tensor, Report]:
    """A batch without the noise of its sensor, in its own units and type, each image from the noise that it has.

    Args:
        color: `[B, C, H, W]` of any real type.
        hidden: `[B, 1, H, W]`, the pixels that are not part of the picture.
        sigma: `None`; white noise is not removed here.
        known: what need not be estimated.
        options: of the restorer.
        restore: a method for white noise.
        progress: called with the fraction done.
        faults: those of the stack of which this is a page.

    Raises:
        NoiseUnknown: the noise is not known, and an image does not tell.
        ValueError: a sigma, NaN or Inf, or a `data_range` that is not one.
    """
    if sigma is not None:
        raise ValueError(
            "sigma= is for white noise, and noise='poisson-gaussian' for a sensor's; give one of them"
        )
    results, reports = [], []
    for index in range(len(color)):
        part, mask = color[index : index + 1], None if hidden is None else hidden[index : index + 1]
        share = part_of(progress, index, len(color))
        result, report = _image(part, mask, known, options, restore, share, faults)
        results.append(result)
        reports.append(report)
    return torch.cat(results), joined(reports)


def _image(
    values: Tensor,
    hidden: Tensor | None,
    known: Known,
    options: Options,
    restore: Restore,
    progress: Progress,
    faults: Faults | None,
) -> tuple[Tensor, Report]:
    """One image of a batch."""
    exact = values.double()
    if not torch.isfinite(exact).all():
        raise ValueError("the image has NaN or infinite values")
    visible = exact if hidden is None else exact[~hidden.expand_as(exact)]
    if not visible.numel() or visible.amin() == visible.amax():
        _, report = restore(torch.full(values.shape, 0.5), 0.0, progress)
        note = "the picture is constant and has no noise to remove: it stays as it was"
        return values, dataclasses.replace(report, sigma=None, notes=(note,))
    noise, notes, cautions = _noise_of(values, hidden, known)
    if options.hot_pixels:
        values, found = repaired(values, hidden, options, faults, noise)
        notes += found
    strength = check_strength(options.strength, options.task)
    result, report = restore_counts(
        values, noise, restore, progress, data_range=options.data_range, strength=strength
    )
    return result, dataclasses.replace(
        report, notes=(*notes, *report.notes), warnings=(*cautions, *report.warnings)
    )


def _noise_of(
    values: Tensor, hidden: Tensor | None, known: Known
) -> tuple[SensorNoise, tuple[str, ...], tuple[str, ...]]:
    """The noise, known or estimated, with notes and cautions."""
    if known.complete is not None:
        return known.complete, (), doubts(values.double(), known.complete)
    estimate = estimate_sensor_noise(values, hidden, known)
    noise = estimate.noise
    sign = "-" if noise.intercept < 0 else "+"
    line = f"{noise.gain:.4g} x {sign} {abs(noise.intercept):.4g}"
    note = f"estimated variance of the noise: {line}, in the units of the data; gain= and read_noise= set another"
    return noise, (note,), estimate.warnings


def doubts(values: Tensor, noise: SensorNoise) -> tuple[str, ...]:
    """Cautions where values cannot have the noise that was given, as with the gain of another unit."""
    lowest = noise.offset - 4 * noise.read_noise - noise.gain
    below = float((values < lowest).double().mean())
    if below > BELOW:
        return (
            f"{100 * below:.0f}% of the values lie below offset={noise.offset:g} by more than noise does",
        )
    if min(values.shape[-2:]) < SMALLEST_SIDE:
        return ()
    second = values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2]
    found = float(second.square().mean()) / 6  # texture adds to it
    stated = float(noise.gain * (values.mean() - noise.offset)) + noise.read_noise**2
    if stated <= TOO_MUCH * found:
        return ()
    return (
        f"the picture has less noise (variance {found:.3g}) than gain={noise.gain:g}, read_noise={noise.read_noise:g} "
        f"and offset={noise.offset:g} state ({stated:.3g}); data sheets often give the inverse of the gain",
    )


def restore_counts(
    values: Tensor,
    noise: SensorNoise,
    restore: Restore,
    progress: Progress,
    *,
    data_range: DataRange | None = None,
    strength: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, Report]:
    """An image without its noise, in its own units and type.

    Args:
        values: `[1, C, H, W]` of any real type.
        noise: of the values.
        restore: a method for white noise.
        progress: called with the fraction done.
        data_range: the values between which the model works; by default from the data. Those far beyond it come back
            as they were, and so do integers beyond the limits of their type.
        strength: the share of the noise that goes, of luma and color, in the units of the data: a mixture of values
            that are right on average is right on average.

    Raises:
        ValueError: a range that is not one.
    """
    given = None if data_range is None else range_of(values, data_range)
    exact = values.double()
    passes = _passes(exact, noise)
    estimate, reports = exact, []
    for index, (bin_, share) in enumerate(passes):
        mixed = exact if index == 0 else share * exact + (1 - share) * estimate
        small, small_noise = binned(mixed, noise, bin_)
        ends = None if given is None or bin_ > 1 else (given.low, given.high)
        restored, report = _once(
            small, small_noise, share, restore, part_of(progress, index, len(passes)), ends
        )
        estimate = unbinned(restored, bin_, exact.shape)
        reports.append(report)
    estimate = with_local_mean(estimate, exact, noise)
    result = partly(exact, estimate, strength)
    limits = None if given is None else given.limits
    return ValueRange(0.0, 1.0, limits=limits).from_unit(result, values), joined(reports)


def _passes(values: Tensor, noise: SensorNoise) -> tuple[tuple[int, float], ...]:
    """The passes for an image, by the signal of its mean pixel."""
    if min(values.shape[2:]) < SMALLEST_SIDE:
        return PASSES[-1][1]
    electrons = max(0.0, float(values.mean() - noise.offset) / noise.gain)
    variance = electrons + (noise.read_noise / noise.gain) ** 2
    ratio = electrons**2 / variance if variance else 0.0
    return next(passes for most, passes in PASSES if ratio < most)


def _once(
    values: Tensor,
    noise: SensorNoise,
    share: float,
    restore: Restore,
    progress: Progress,
    ends: tuple[float, float] | None,
) -> tuple[Tensor, Report]:
    """One pass: values that are right on average, of values mixed with an estimate."""
    stabilized = anscombe(values, noise, share)
    if ends is None:
        span = working_range(stabilized)
    else:
        low, high = anscombe(torch.tensor(ends, dtype=torch.float64), noise, share).tolist()
        span = _span(low, high)
    unit = span.to_unit(stabilized)
    result, report = restore(unit, 1 / span.span, progress)
    restored = inverse_anscombe(result.double() * span.span + span.low, noise, share)
    if (beyond := span.excess(stabilized)) is not None:
        restored = torch.where(beyond != 0, values, restored)
    return restored, dataclasses.replace(report, sigma=None, estimated=False)


def working_range(stabilized: Tensor) -> ValueRange:
    """The range on which a model sees stabilized values, whose noise is 1.

    All of them where their noise is not too faint on it to be removed; else without the brightest 5% if that helps, and
    without the brightest 0.1%. Those come back as they were: values beyond 1 mislead the networks.
    """
    low, bulk, high = (float(x) for x in np.quantile(samples_of(stabilized), (TAIL, BULK, 1 - TAIL)))
    widest, most = 1 / FAINTEST, float(stabilized.max())
    return _span(low, most if most - low <= widest else min(high, max(bulk, low + widest)))


def _span(low: float, high: float) -> ValueRange:
    """A range with room for noise, and wide enough for it."""
    room = ROOM * (high - low)
    low, high = low - room, high + room
    widen = max(0.0, 1 / NOISIEST - (high - low)) / 2
    low, high = low - widen, high + widen
    return ValueRange(low, high, NEAR / (high - low))


def binned(values: Tensor, noise: SensorNoise, size: int) -> tuple[Tensor, SensorNoise]:
    """Sums over `size x size` pixels, mirrored beyond the border, and their noise."""
    if size == 1:
        return values, noise
    padding = [-length % size for length in values.shape[2:]]
    padded = F.pad(values, [0, padding[1], 0, padding[0]], mode="reflect")
    sums = F.avg_pool2d(padded, size) * size**2
    return sums, SensorNoise(noise.gain, noise.read_noise * size, noise.offset * size**2)


def unbinned(sums: Tensor, size: int, shape: torch.Size) -> Tensor:
    """Values of pixels from their sums, by bicubic interpolation."""
    if size == 1:
        return sums
    full = F.interpolate(sums / size**2, scale_factor=size, mode="bicubic", align_corners=False)
    return full[:, :, : shape[2], : shape[3]]
