"""One process of a run, or one of several under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


def own_device(device: torch.device) -> torch.device:
    """This process's GPU, made the current one, to which streams and graphs belong; under torchrun one for each."""
    if device.type != "cuda":
        return device
    index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """This process's rank and their number, as torchrun started them; one process without it."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), ranks
    finally:
        dist.destroy_process_group()
