"""Value ranges: numbers of an image in units of [0, 1], and back."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..files.images import check_unit_range, value_range
from .options import DataRange

Sigma = float | Literal["auto"]


@dataclass(frozen=True)
class ValueRange:
    """An affine map between the values of an image and units of [0, 1].

    Args:
        low: the value of 0.
        high: the value of 1.
    """

    low: float
    high: float

    @property
    def span(self) -> float:
        """The distance between the two ends."""
        return self.high - self.low

    def to_unit(self, values: Tensor) -> Tensor:
        """Values in units of [0, 1], float32."""
        wide = values.double() if values.dtype is torch.float64 else values.float()
        return ((wide - self.low) / self.span).float()

    def from_unit(self, result: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of `to_unit`: integers are rounded (half to even) and clipped, floats are neither."""
        values = result.double() * self.span + self.low
        if dtype.is_floating_point:
            return values.to(dtype)
        if not torch.isfinite(values).all():
            raise ValueError(f"the result has NaN or infinite values, which {type_name(dtype)} cannot hold")
        high = min(self.high, torch.iinfo(dtype).max)
        return values.round_().clamp_(self.low, high).to(dtype)


def range_of(values: Tensor, data_range: DataRange | None) -> ValueRange:
    """The range of an image: 0 to its white, which is `data_range` or follows from the type.

    Raises:
        ValueError: a type that is not supported, NaN or Inf, integers above white, or floats that are not in units of
            [0, 1] without a range.
    """
    low, data_range = data_range if isinstance(data_range, tuple) else (0.0, data_range)
    floats = values.is_floating_point()
    # NumPy has no bfloat16; all floats have the same white.
    white = value_range(np.dtype("float32" if floats else type_name(values.dtype)), data_range)
    if floats and not torch.isfinite(values).all():
        raise ValueError("the image has NaN or infinite values")
    if floats and data_range is None:
        check_unit_range(*(extreme.item() for extreme in values.aminmax()))
    if not floats and data_range is not None and (top := values.double().max().item()) > white:
        raise ValueError(f"the image reaches {top:g}, which is more than its white, data_range={white:g}")
    return ValueRange(low, white)


def type_name(dtype: torch.dtype) -> str:
    """The name of a type without its module, such as `int16`."""
    return str(dtype).removeprefix("torch.")


def unit_sigma(sigma: Sigma, white: float = 1.0) -> Sigma:
    """A noise level in units of [0, 1], given one for images whose white is `white`; `"auto"` stays.

    Raises:
        ValueError: no number, negative, NaN, infinite, or beyond the range.
    """
    if isinstance(sigma, str) and sigma == "auto":
        return sigma
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim == 0:
        sigma = sigma.item()
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool):
        raise ValueError(f"sigma must be a number or 'auto', got {sigma!r}")
    given = float(sigma)
    if not (math.isfinite(given) and given >= 0):
        raise ValueError(f"sigma must be finite and >= 0, got {given:g}")
    if given > white:
        hint = f"; did you mean {given:g}/255?" if white == 1 and given <= 255 else ""
        kind = " for an image in [0, 1]" if white == 1 else f" for an image whose white is {white:g}"
        raise ValueError(f"sigma is {given:g}{kind}{hint}")
    return given / white
