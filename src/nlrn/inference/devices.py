"""On which device networks are computed."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device) -> torch.device:
    """The device for a name; `"auto"` is CUDA if there is one, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but PyTorch sees no CUDA GPU here")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for, but PyTorch sees none here")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {str(device)!r}")
    return chosen
