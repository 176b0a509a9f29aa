"""Constant tensors, once for each device: a copy from the host would stop a training step, and cannot be captured."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor of a number or of nested tuples of numbers; shared, so not to be written to."""
    return torch.tensor(values, dtype=torch.float64).to(device, dtype)
