"""Value ranges: numbers of an image in units of [0, 1], and back.

The networks know pictures that fill [0, 1]. The range of uint8 is always that of its type. Other types are often filled
in part only (counts of 12 bit in uint16, linear floats near 0) or left (floats of 0..4095), and then it follows from
the data:

    keep         the range of the type where the data fill more than a third of it and leave it by their noise alone
    stretch      else, low..high from robust percentiles with some room; low is 0 for data without a pedestal
    outliers     beyond the range are clipped for the network and come back as they were
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .options import DataRange

Sigma = float | Literal["auto"]

WHITES = {torch.uint8: 255.0, torch.uint16: 65535.0}
# The share of the values at either end that a range from the data may leave out.
TAIL = 0.001
# The share of a type's range that data must fill for it to be theirs.
FILLED = 1 / 3
# Room beyond the data, and how far beyond the range the network still sees values, in units of the range.
ROOM, MARGIN = 0.05, 0.25
# Noise fainter than this in units of the range (two grey levels of 255) is hardly removed. Where at least the share
# BULK of the values lies within a range on which it is stronger, the others count as outliers.
FAINT, BULK = 2 / 255, 0.95
# A pedestal is more than this share of the height of what stands on it.
PEDESTAL = 0.25
# Sides of the blocks whose means show where a picture is, whatever its noise.
BLOCKS = (2, 4, 8)
# Noise beyond this share of the range leaves hardly a picture.
STRONGEST = 0.5
# As many values as percentiles are taken of.
SAMPLES = 1 << 20


@dataclass(frozen=True)
class ValueRange:
    """An affine map between the values of an image and units of [0, 1].

    Args:
        low: the value of 0.
        high: the value of 1.
        margin: how far beyond [0, 1] values go to the network; those further away are outliers. `None`: all go.
        note: a sentence for the user, where the range is not that of the type.
        limits: between which integers come back; `None` for the limits of their type.
    """

    low: float
    high: float
    margin: float | None = None
    note: str | None = None
    limits: tuple[float, float] | None = None

    @property
    def span(self) -> float:
        """The distance between the two ends."""
        return self.high - self.low

    def around(self, values: Tensor, given: bool) -> ValueRange:
        """This range, which other images share, for one of them; one that was given by hand reaches to its extremes.

        Raises:
            ValueError: NaN or infinite values.
        """
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise ValueError("the image has NaN or infinite values")
        if not given or self.limits is None:
            return self
        least, most = (x.item() for x in values.double().aminmax())
        return replace(self, limits=(min(self.low, least), max(self.high, most)))

    def _map(self, values: Tensor) -> Tensor:
        exact = (torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.uint16)
        wide = values.float() if values.dtype in exact and self.low == 0 else values.double()
        return ((wide - self.low) / self.span).float()

    def to_unit(self, values: Tensor) -> Tensor:
        """Values in units of [0, 1], float32, without outliers."""
        unit = self._map(values)
        return unit if self.margin is None else unit.clamp_(-self.margin, 1 + self.margin)

    def excess(self, values: Tensor) -> Tensor | None:
        """The part of the values that `to_unit` clips, in units of [0, 1]; `None` where nothing is clipped."""
        if self.margin is None:
            return None
        unit = self._map(values)
        excess = unit - unit.clamp(-self.margin, 1 + self.margin)
        return excess if excess.any() else None

    def from_unit(self, result: Tensor, given: Tensor) -> Tensor:
        """The inverse of `to_unit`, in the type of `given`: integers are rounded (half to even) and clipped.

        Args:
            result: in units of [0, 1].
            given: the values before the restoration. Of the same shape, outliers and what the restoration left
                unchanged come back as they were, bit by bit.
        """
        restored = torch.empty(result.shape, dtype=given.dtype, device=result.device)
        same = result.shape == given.shape
        # One plane at a time, since float64 takes eight bytes a value.
        for i in range(result.shape[0]):
            for c in range(result.shape[1]):
                restored[i, c] = self._plane(result[i, c], given[i, c] if same else None, given.dtype)
        return restored

    def _plane(self, result: Tensor, given: Tensor | None, dtype: torch.dtype) -> Tensor:
        values = result.double().mul_(self.span).add_(self.low)
        if not dtype.is_floating_point:
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"the result has NaN or infinite values, which {type_name(dtype)} cannot hold"
                )
            info = torch.iinfo(dtype)
            low, high = self.limits or (info.min, info.max)
            # Of 64 bits the largest integer is no float64, and the next one would not fit.
            high = min(high, info.max if info.bits < 64 else info.max - 1024)
            values = values.round_().clamp_(max(low, info.min), high)
        if given is not None:
            given = given.to(result.device)
            unit = self._map(given)
            same = unit == result
            if self.margin is not None:
                same |= (unit < -self.margin) | (unit > 1 + self.margin)
            values = torch.where(same, given.double(), values)
        return values.to(dtype)


def range_of(
    values: Tensor, data_range: DataRange | None, sigma: Sigma = "auto", *, from_data: bool = False
) -> ValueRange:
    """The range on which an image is restored: given, that of its type, or from its data.

    Args:
        values: `[B, C, H, W]` of any real type.
        data_range: the value of white, or those of black and white.
        sigma: noise level in the units of the values; data may leave a type's range by so much.
        from_data: whether a range that is not given follows from the data in any case, that of uint8 too.

    Raises:
        ValueError: NaN or Inf, a range that is not one, or one that the data contradict: more than 1 value in 1000 lies
            further beyond it than it is wide.
    """
    if values.is_floating_point() and not torch.isfinite(values).all():
        raise ValueError("the image has NaN or infinite values")
    if data_range is not None:
        return _given(values, data_range)
    if values.dtype is torch.uint8 and not from_data:
        return ValueRange(0.0, WHITES[torch.uint8], limits=(0.0, WHITES[torch.uint8]))
    samples = samples_of(values)
    low, bulk, high = (float(x) for x in np.quantile(samples, (TAIL, BULK, 1 - TAIL)))
    if low == high:
        low, high = float(samples.min()), float(samples.max())
    noise = _rough_noise(values) if sigma == "auto" else float(sigma)
    dim = low + noise / FAINT
    if bulk + ROOM * (bulk - low) < dim < high:
        # A few bright objects on a dark sky: on their range its noise would be too faint to be removed.
        top, filled = dim, dim - low
    else:
        top, filled = high, high - low
    kept = 1.0 if values.is_floating_point() else WHITES.get(values.dtype)
    if kept is not None and not from_data:
        slack = 0.02 * kept + 3.5 * min(noise, kept)
        inside = -slack <= low and high <= kept + slack and (noise == 0 or _means_inside(values, kept, noise))
        if inside and (filled > FILLED * kept or low == high):
            if not values.is_floating_point():
                return ValueRange(0.0, kept, limits=(0.0, kept))
            return ValueRange(0.0, kept, margin=1 + 4 * noise)
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
        return ValueRange(low, high if high > low else low + 1.0)
    return _from_data(values, low, top, noise, signed=float(samples.min()) < -6 * noise)


def _means_inside(values: Tensor, kept: float, noise: float) -> bool:
    """True where the means of blocks, whose noise is weaker, lie within the range 0 to `kept` of a type.

    A picture that leaves the range by less than its noise would otherwise lose its highlights to the network.
    """
    for side in BLOCKS:
        if min(values.shape[-2:]) < 2 * side:
            break
        means = torch.nn.functional.avg_pool2d(values.float(), side).double().cpu().numpy()
        low, high = (float(x) for x in np.quantile(means, (TAIL, 1 - TAIL)))
        slack = 0.02 * kept + 3.5 * min(noise, kept) / side
        if low < -slack or high > kept + slack:
            return False
    return True


def _from_data(values: Tensor, low: float, high: float, noise: float, signed: bool) -> ValueRange:
    """The range of data from `low` to `high`, with room: from 0 where they are not signed and have no pedestal."""
    kept = 1.0 if values.is_floating_point() else WHITES.get(values.dtype)
    room = ROOM * (high - low)
    flat = -3.5 * noise <= low <= PEDESTAL * (high - low) and not signed
    bottom, top = (0.0 if flat else low - room), high + room
    if not values.is_floating_point():
        # Ends that can be read; the sign of the data stays.
        bottom, top = math.floor(bottom), math.ceil(top)
        bottom = max(bottom, 0.0) if low >= 0 else bottom
    of_type = "" if kept is None else f" of 0..{kept:g}"
    note = f"working range {bottom:.6g}..{top:.6g}{of_type}, from the data; data_range= sets another"
    return ValueRange(bottom, top, MARGIN + 4 * noise / (top - bottom), note)


def _given(values: Tensor, data_range: DataRange) -> ValueRange:
    """The range that was given by hand, if it can be that of the values."""
    pair = data_range if isinstance(data_range, tuple | list) else (0.0, data_range)
    if len(pair) != 2 or not all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in pair):
        raise ValueError(f"data_range must be a number or (low, high), got {data_range!r}")
    low, high = (float(x) for x in pair)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        if isinstance(data_range, tuple | list):
            raise ValueError(f"data_range must be two finite numbers that rise, got ({low:g}, {high:g})")
        raise ValueError(f"data_range must be positive, got {high:g}")
    samples = samples_of(values)
    bottom, top = (float(x) for x in np.quantile(samples, (TAIL, 1 - TAIL)))
    span = high - low
    if bottom < low - span or top > high + span:
        raise ValueError(
            f"the image reaches from {samples.min():g} to {samples.max():g}, far beyond its range, "
            f"data_range={f'{high:g}' if low == 0 else f'{low:g},{high:g}'}"
        )
    if values.is_floating_point():
        return ValueRange(low, high, margin=1.0)
    least, most = (x.item() for x in values.double().aminmax())
    return ValueRange(low, high, margin=MARGIN, limits=(min(low, least), max(high, most)))


def samples_of(values: Tensor) -> np.ndarray:
    """At most about a million of the values in float64, evenly spread."""
    step = max(1, math.isqrt(max(1, values.numel() // SAMPLES)))
    part = values[..., ::step, ::step] if min(values.shape[-2:]) > step else values
    return part.double().cpu().numpy().ravel()


def _rough_noise(values: Tensor) -> float:
    """A noise level from second differences along rows, in the units of the values; texture counts as noise."""
    if values.shape[-1] < 3:
        return 0.0
    step = max(1, values.numel() // SAMPLES)
    rows = (
        values[..., ::step, :].double().cpu().numpy()
        if values.shape[-2] > step
        else values.double().cpu().numpy()
    )
    second = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    return float(np.median(np.abs(second))) / (0.6745 * math.sqrt(6))


def widest(ranges: list[ValueRange]) -> ValueRange:
    """The range of a batch whose images have the same one, with the largest of their margins."""
    margins = [values.margin for values in ranges if values.margin is not None]
    return replace(ranges[0], margin=max(margins)) if margins else ranges[0]


def type_white(dtype: torch.dtype) -> float | None:
    """The white that a type has by itself, 255 or 65535; `None` for all others."""
    return WHITES.get(dtype)


def type_name(dtype: torch.dtype) -> str:
    """The name of a type without its module, such as `int16`."""
    return str(dtype).removeprefix("torch.")


def check_sigma(sigma: Any) -> Sigma:
    """A noise level as a float; `"auto"` stays.

    Raises:
        ValueError: no number, negative, NaN or infinite.
    """
    if isinstance(sigma, str) and sigma == "auto":
        return "auto"
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim == 0:
        sigma = sigma.item()
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool):
        got = (
            f"an array of shape {tuple(sigma.shape)}"
            if isinstance(sigma, np.ndarray | Tensor)
            else repr(sigma)
        )
        raise ValueError(f"sigma must be a number or 'auto', got {got}")
    given = float(sigma)
    if not (math.isfinite(given) and given >= 0):
        raise ValueError(f"sigma must be finite and >= 0, got {given:g}")
    return given


def unit_sigma(sigma: Sigma, values: ValueRange | None = None) -> Sigma:
    """A noise level in units of [0, 1], by default given in them; `"auto"` stays.

    Args:
        sigma: in the units of an image, as `check_sigma` returns it.
        values: the range of the image.

    Raises:
        ValueError: beyond the range.
    """
    if sigma == "auto":
        return sigma
    low, span = (0.0, 1.0) if values is None else (values.low, values.span)
    if sigma > span:
        hint = f"; did you mean {sigma:g}/255?" if span == 1 and sigma <= 255 else ""
        kind = "in [0, 1]" if span == 1 and low == 0 else f"whose working range is {low:g}..{low + span:g}"
        if low == 0 and span != 1 and (values is None or values.note is None):
            kind = f"whose white is {span:g}"
        raise ValueError(f"sigma is {sigma:g} for an image {kind}{hint}")
    return sigma / span


def level_of(
    dtype: torch.dtype, sigma: Sigma | None, data_range: DataRange | None, grey_levels: bool
) -> Sigma:
    """A noise level as `range_of` takes it, `"auto"` for none.

    Args:
        dtype: of the values.
        sigma: in the units of the values, or in 8-bit grey levels.
        data_range: as it was given.
        grey_levels: whether sigma is in these. Of a type that has a white of its own they do not follow the range.
    """
    if sigma is None or sigma == "auto":
        return "auto"
    if not grey_levels:
        return sigma
    white = type_white(dtype) if data_range is None else None
    level = unit_sigma(sigma, ValueRange(0.0, 255.0))
    assert level != "auto"
    return level * (white or 1.0)


def too_strong(level: float, values: ValueRange, white: float) -> tuple[str, ...]:
    """A caution where noise is hardly weaker than a picture that fills a part of a type's range; both in its units.

    Such as `sigma` in grey levels of a file of 16 bit whose values are those of 12.
    """
    if level <= STRONGEST * values.span:
        return ()
    return (
        f"sigma= of a file counts 1/255 of its type's white, {white:g}: {255 * level / white:g} is {level:.4g} in units of "
        f"the data, which fill {values.low:.4g}..{values.high:.4g}; data_range= counts it on a range of their own",
    )
