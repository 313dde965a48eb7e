"""What a measurement was made on, from the standard library and torch alone: it must be told on a bare GPU machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import holdfast

COMMIT = "HOLDFAST_COMMIT"
"""Environment variable that names the commit where the code is a copy without its repository."""

PACKAGES = ("torch", "triton", "numpy", "scipy", "transformers")


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB and GPUs. GPU and threads are known only once torch is loaded."""
    document: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": platform.platform(),
        "gpu": [],
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        document["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            document["gpu"] = [
                {
                    "name": device.name,
                    "memory_gib": round(device.total_memory / 2**30, 1),
                    "capability": f"{device.major}.{device.minor}",
                    "multiprocessors": device.multi_processor_count,
                }
                for device in devices
            ]
    return document


def versions() -> dict[str, str]:
    """Versions of Python, of holdfast and of the packages that numbers depend on, where they are installed."""
    document = {"python": platform.python_version(), "holdfast": holdfast.__version__}
    for name in PACKAGES:
        try:
            document[name] = version(name)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        document["cuda"] = torch.version.cuda
    return document


def commit() -> str:
    """The commit, with `-dirty` where tracked files differ; from `HOLDFAST_COMMIT`, else from git, else `unknown`."""
    named = os.environ.get(COMMIT)
    if named:
        return named
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (answer.stdout.strip() if answer.returncode == 0 else "") or "unknown"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        return None
