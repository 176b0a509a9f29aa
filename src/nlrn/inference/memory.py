"""The memory that is available."""

from __future__ import annotations

from pathlib import Path

import torch

# Folder, limit, usage, and the part of the usage that the kernel gives back when asked (cached files), of the control
# group of this process as a container sees it: version 2, version 1.
CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(device: torch.device) -> int:
    """The bytes that this process can still allocate on `device`, within the limits of its container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    return min([_system_memory(), *_cgroup_memory()])


def default_budget(device: torch.device) -> int:
    """The memory of a restoration by default: half of what is available."""
    return available_memory(device) // 2


def _system_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        import psutil

        return int(psutil.virtual_memory().available)
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cgroup_memory() -> list[int]:
    """The bytes left in each control group with a limit."""
    left = []
    for folder, limit, usage, cached in CGROUPS:
        try:
            bound = (Path(folder) / limit).read_text().strip()
            used = int((Path(folder) / usage).read_text())
        except (OSError, ValueError):
            continue
        if bound != "max":
            left.append(max(0, int(bound) - used + _field(Path(folder) / "memory.stat", cached)))
    return left


def _field(path: Path, name: str) -> int:
    """A number of a file of names and numbers, or 0."""
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0
