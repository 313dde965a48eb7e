"""How much memory is left, for probes that would fill it."""

from __future__ import annotations

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free; `None`: the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            amounts = dict(line.split(":", 1) for line in lines)
        return int(amounts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
