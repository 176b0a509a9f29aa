"""How much memory there is."""

from __future__ import annotations

from pathlib import Path

import torch

# (usage, limit) of the control group this process runs in, as containers see them.
CGROUPS = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def available_memory(device: torch.device) -> int:
    """Bytes that this process could still allocate on `device`, limits of its control group respected."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    return min([_system_memory(), *_cgroup_memory()])


def default_budget(device: torch.device) -> int:
    """What a restoration may use unless told otherwise: half of what is available."""
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
    """What is left in each control group with a limit."""
    left = []
    for usage, limit in CGROUPS:
        try:
            bound = Path(limit).read_text().strip()
            used = int(Path(usage).read_text())
        except (OSError, ValueError):
            continue
        if bound != "max":
            left.append(max(0, int(bound) - used))
    return left
